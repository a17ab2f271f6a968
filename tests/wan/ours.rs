//! A pair of engines and the wire between them.

use dma::data::{OneTape, restore};
use tests::{Expected, Operator, Pair, Scratch};

/// Bytes of a record on the tape.
const RECORD: u32 = 65_536;
const TAPE: &str = "VTA001L8";

/// What one generation cost.
pub(crate) struct Moved {
    /// Between the engines, both ways, TLS and all.
    pub(crate) bytes: u64,
    /// What the containers at the backup site grew by.
    pub(crate) stored: u64,
}

/// Our engines.
pub(crate) struct Ours {
    pair: Pair,
    operator: Operator,
}

impl Ours {
    /// Both running, with empty stores.
    pub(crate) fn new(scratch: &Scratch) -> Self {
        let mut pair = Pair::new(scratch, |_, _| {});
        let operator = pair.operated();
        Self { pair, operator }
    }

    /// Writes a generation from the beginning of the tape and lets it be replicated.
    pub(crate) fn send(&mut self, stream: &[u8]) -> Moved {
        let stored = self.stored();
        self.operator.load("vtl0", TAPE, 0);
        self.operator.backup("vtl0/drive0", RECORD, stream);
        let before = self.pair.relay.total();
        self.operator.unload("vtl0", 0);
        self.pair.wait_replicated(TAPE);
        let bytes = self.pair.relay.total() - before;
        Moved { bytes, stored: self.stored() - stored }
    }

    /// Bytes of all containers at the backup site.
    fn stored(&self) -> u64 {
        let containers = self.pair.directory().join("hq/store/containers");
        let files = std::fs::read_dir(containers).expect("the containers").flatten();
        files.map(|file| file.metadata().map_or(0, |it| it.len())).sum()
    }

    /// The tape holds this and nothing else.
    pub(crate) fn check(&mut self, stream: &[u8]) {
        self.operator.load("vtl0", TAPE, 0);
        let mut tape = self.operator.tape("vtl0/drive0");
        tape.rewind().expect("the tape rewinds");
        let mut expected = Expected::new(stream);
        restore(&mut tape, RECORD, None, &mut expected, &mut OneTape).expect("it is read");
        assert_eq!(expected.missing(), 0, "bytes are missing");
        tape.close_tape().expect("the drive closes");
    }
}
