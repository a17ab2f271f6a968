//! Two engines with four libraries, and who moves cartridges about in them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dma::{Client, TapeOpenMode, Version};
use ndmp::wire::MtioOp;
use tests::{Operator, Pair, Scratch};
use toml::{Table, Value};

use crate::case::{SMALL, ZONE};
use crate::model::{Library, SOURCES, TARGETS, Tape};

/// Drives of one worker in each library: two for sources, two for targets.
const DRIVES: u16 = 4;
const TAPES: usize = SOURCES + TARGETS;
const LIBRARIES: [Library; 4] = [
    Library { ghost: false, small: false },
    Library { ghost: false, small: true },
    Library { ghost: true, small: false },
    Library { ghost: true, small: true },
];

impl Library {
    pub(crate) fn name(self) -> &'static str {
        match (self.ghost, self.small) {
            (false, false) => "vtl0",
            (false, true) => "vts0",
            (true, false) => "dr-ptl0",
            (true, true) => "dr-pts0",
        }
    }

    fn prefix(self) -> &'static str {
        match (self.ghost, self.small) {
            (false, false) => "VTA",
            (false, true) => "VTS",
            (true, false) => "PTA",
            (true, true) => "PTS",
        }
    }

    fn index(self) -> usize {
        usize::from(self.ghost) * 2 + usize::from(self.small)
    }
}

/// A running pair for so many workers.
pub(crate) struct Stage {
    pub(crate) pair: Pair,
    pub(crate) operator: Operator,
    robots: Vec<Mutex<Client>>,
    /// Where each cartridge belongs.
    homes: HashMap<String, u16>,
    /// One mover at a time may listen at the local address.
    local: Mutex<()>,
    _scratch: Scratch,
}

impl Stage {
    pub(crate) fn new(name: &str, workers: u16) -> Self {
        let scratch = Scratch::new(name);
        let mut pair = Pair::new(&scratch, |local, remote| {
            libraries(local, "virtual_library", workers, false);
            libraries(remote, "physical_library", workers, true);
            let peer = remote["peer"].as_array_mut().and_then(|list| list.first_mut());
            let peer = peer.and_then(Value::as_table_mut).expect("init writes one");
            peer.insert("libraries".into(), vec!["ptl0", "pts0"].into());
        });
        // Each open drive tells of the tape that was put into it.
        pair.local.allow("sense 06/28/00");
        pair.local.allow("sense 06/29/00");
        pair.run();
        let operator = Operator::of(&pair);
        let (mut robots, mut homes) = (Vec::new(), HashMap::new());
        for library in LIBRARIES {
            operator.wait_for(library.name());
            let mut robot = operator.dial();
            robot.open_scsi(&format!("{}/changer", library.name())).expect("the changer opens");
            for element in robot.inventory().expect("an inventory") {
                homes.extend(element.tag.map(|tag| (tag, element.address)));
            }
            robots.push(Mutex::new(robot));
        }
        Self { pair, operator, robots, homes, local: Mutex::default(), _scratch: scratch }
    }

    fn robot(&self, library: Library) -> MutexGuard<'_, Client> {
        self.robots[library.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a mover listens at the local address, so that nobody has to guess.
    pub(crate) fn local(&self) -> MutexGuard<'_, ()> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a ghost cartridge's library.
    pub(crate) fn files(&self, library: Library) -> PathBuf {
        let name = library.name().trim_start_matches("dr-");
        self.pair.directory().join(name)
    }
}

/// Makes the only library of a configuration two, with room for all workers: one without an end,
/// one with an end that comes soon.
fn libraries(config: &mut Table, list: &str, workers: u16, ghost: bool) {
    let all = config.get_mut(list).and_then(Value::as_array_mut).expect("init writes one");
    let Some(Value::Table(only)) = all.pop() else { panic!("not a library") };
    for small in [false, true] {
        let library = Library { ghost, small };
        let mut table = only.clone();
        let name = library.name().trim_start_matches("dr-");
        let tapes = i64::from(workers) * TAPES as i64;
        table.insert("name".into(), name.into());
        if ghost {
            table.insert("path".into(), name.into());
        }
        table.insert("drives".into(), i64::from(workers * DRIVES).into());
        table.insert("slots".into(), (tapes + 2).into());
        table["cartridges"]["prefix"] = library.prefix().into();
        table["cartridges"]["count"] = tapes.into();
        if small {
            table.insert("capacity".into(), (SMALL as i64).into());
            table.insert("early_warning".into(), (ZONE as i64).into());
        }
        all.push(Value::Table(table));
    }
}

/// The drives and cartridges of one worker.
pub(crate) struct Dock<'a> {
    pub(crate) stage: &'a Stage,
    worker: u16,
    loaded: HashMap<(Library, u16), Tape>,
    /// For looking at tapes and letting go of them.
    helper: Client,
}

impl<'a> Dock<'a> {
    pub(crate) fn new(stage: &'a Stage, worker: u16) -> Self {
        let helper = stage.operator.clone().speaking(Version::V4).dial();
        Self { stage, worker, loaded: HashMap::new(), helper }
    }

    pub(crate) fn barcode(&self, tape: Tape) -> String {
        let number = usize::from(self.worker) * TAPES + tape.index + 1;
        format!("{}{number:03}L8", tape.library.prefix())
    }

    /// `LIBRARY/BARCODE`, as job rows name it.
    pub(crate) fn medium(&self, tape: Tape) -> String {
        format!("{}/{}", tape.library.name(), self.barcode(tape))
    }

    /// The NDMP name of one of the worker's drives.
    pub(crate) fn device(&self, library: Library, drive: u16) -> String {
        format!("{}/drive{}", library.name(), self.worker * DRIVES + drive)
    }

    /// Brings a tape into a drive. `let_go` says that what is in that drive was unloaded already.
    pub(crate) fn bring(&mut self, tape: Tape, drive: u16, let_go: bool) {
        let place = (tape.library, drive);
        let element = |drive: u16| 128 + self.worker * DRIVES + drive;
        let (here, home) = (element(drive), self.stage.homes[&self.barcode(tape)]);
        match self.loaded.get(&place).copied() {
            Some(loaded) if loaded == tape => return,
            Some(loaded) => {
                if !let_go {
                    self.unload(tape.library, drive);
                }
                let slot = self.stage.homes[&self.barcode(loaded)];
                self.moves(tape.library, here, slot);
                self.loaded.remove(&place);
            }
            None => {}
        }
        let elsewhere = self.loaded.iter().find(|(_, loaded)| **loaded == tape);
        match elsewhere.map(|(place, _)| *place) {
            Some((library, other)) => {
                self.unload(library, other);
                self.loaded.remove(&(library, other));
                self.moves(library, 128 + self.worker * DRIVES + other, here);
            }
            None => self.moves(tape.library, home, here),
        }
        self.loaded.insert(place, tape);
    }

    fn moves(&self, library: Library, from: u16, to: u16) {
        let mut robot = self.stage.robot(library);
        robot.move_medium(from, to).expect("the cartridge is moved");
    }

    fn unload(&mut self, library: Library, drive: u16) {
        let device = self.device(library, drive);
        self.helper.open_tape(&device, TapeOpenMode::Raw).expect("the drive opens");
        self.helper.mtio(MtioOp::Off, 1).expect("the drive lets go");
        self.helper.close_tape().expect("the drive closes");
    }

    /// A tape of a drive that is not open, read over NDMP.
    pub(crate) fn helper(&mut self) -> &mut Client {
        &mut self.helper
    }

    /// The drive that a tape is in.
    pub(crate) fn drive_of(&self, tape: Tape) -> Option<u16> {
        let found = self.loaded.iter().find(|(_, loaded)| **loaded == tape);
        found.map(|((_, drive), _)| *drive)
    }
}
