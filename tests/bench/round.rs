//! One round: new data, a new pair, every step once.

use std::fs::{self, File};
use std::process::Command;
use std::time::Instant;

use dma::data::{OneTape, restore};
use sha2::{Digest as _, Sha256};
use tests::{Content, Expected, Object, Operator, Pair, Scratch, Texture, read_tape};

use crate::copying::{Joined, RECORD, copy};
use crate::figures::{Figure, Figures, PeerFigure};
use crate::machine::cpu_seconds;
use crate::ndmjob::Peer;

/// The virtual tape that everything begins with, its duplicate, and two tapes at the other site.
const TAPE: &str = "VTA001L8";
const OTHER: &str = "VTA002L8";
const FAR: [&str; 2] = ["PTA001L8", "PTA002L8"];
/// The tapes of the other server.
const PEER: [&str; 2] = ["tape0", "tape1"];

/// A round in progress.
pub(crate) struct Round<'a> {
    number: u64,
    data: Vec<u8>,
    /// The next generation of it.
    edited: Vec<u8>,
    pair: Pair,
    operator: Operator,
    /// The other server, if it is installed.
    peer: Option<Peer>,
    figures: &'a mut Figures,
    scratch: Scratch,
}

impl<'a> Round<'a> {
    /// Makes data that no other round has, and starts a pair with empty stores.
    pub(crate) fn new(size: u64, seed: u64, number: u64, figures: &'a mut Figures) -> Self {
        let scratch = Scratch::new("bench");
        let seed = seed.wrapping_add(number);
        let content = Content::new(Texture::Incompressible, seed, size);
        let data = content.to_vec();
        let mut edited = content.edited(64, 8, seed).to_vec();
        // Whole records, so that no pad stands between what is written and what is read.
        edited.resize(edited.len().next_multiple_of(RECORD as usize), 0);
        fs::write(scratch.join("data"), &data).expect("the data is written");

        let mut pair = Pair::new(&scratch, |_, _| {});
        let operator = pair.operated();
        let peer = Peer::start(scratch.join("ndmjob"));
        Self { number, data, edited, pair, operator, peer, figures, scratch }
    }

    /// Every step.
    pub(crate) fn run(&mut self) {
        self.measure("SHA-256 of it, one core", |round| {
            assert_eq!(Sha256::digest(&round.data).len(), 32);
        });
        self.ingest();
        // Before the copies, which seal what they read and so have it replicated.
        self.measure("replicate, all new", |round| {
            round.operator.unload("vtl0", 0);
            round.pair.wait_replicated(TAPE);
        });
        self.operator.load("vtl0", TAPE, 0);
        self.copies([
            ("copy to a virtual drive", "vtl0/drive1", Joined::Directly),
            ("copy to a virtual drive, over TCP", "vtl0/drive1", Joined::ByForwarder),
        ]);
        self.check(&self.operator, "vtl0/drive1");

        for (drive, barcode) in FAR.iter().enumerate() {
            self.operator.load("dr-ptl0", barcode, drive as u16);
        }
        self.copies([
            ("copy to a ghost drive", "dr-ptl0/drive0", Joined::Directly),
            ("copy to a ghost drive, over TCP", "dr-ptl0/drive1", Joined::ByForwarder),
        ]);
        for (drive, barcode) in FAR.iter().enumerate() {
            self.operator.unload("dr-ptl0", drive as u16);
            self.check_far(barcode);
        }

        self.measure("ingest, second generation", |round| {
            round.operator.backup("vtl0/drive0", RECORD, &*round.edited);
        });
        self.measure("replicate, second generation", |round| {
            round.operator.unload("vtl0", 0);
            round.pair.wait_replicated(TAPE);
        });
    }

    /// Measures a step and the `cp` before it, with nothing waiting to be written to the disk when
    /// either begins. A `cp` before both is not measured: on a virtual machine the first use of a
    /// page of memory can cost more than anything that is measured here, and so both find pages
    /// that were used a moment ago.
    fn measure(&mut self, step: &'static str, act: impl FnOnce(&mut Self)) {
        self.cp();
        let (copied, written) = self.cp();
        for (step, seconds) in [("`cp` alone", copied), ("`cp`, then `fsync`", written)] {
            let times = seconds / written;
            self.figures.add(step, Figure { seconds, times, cpu: None, wire: None });
        }
        let pids = (self.pair.local.pid(), self.pair.remote.pid());
        let used = || (cpu_seconds(pids.0), cpu_seconds(pids.1));
        let (before, wire) = (used(), self.pair.relay.total());
        let begin = Instant::now();
        act(self);
        let seconds = begin.elapsed().as_secs_f64();
        let after = used();
        let figure = Figure {
            seconds,
            times: seconds / written,
            cpu: Some((after.0 - before.0, after.1 - before.1)),
            wire: Some(self.pair.relay.total() - wire),
        };
        self.figures.add(step, figure);
    }

    /// Measures a step and the same by the other server, in turns. `tape` is what that writes.
    fn beside(
        &mut self,
        step: &'static str,
        ours: impl FnOnce(&mut Self),
        theirs: impl FnOnce(&Self, &Peer),
        tape: Option<&str>,
    ) {
        match self.number % 2 {
            0 => {
                self.measure(step, ours);
                self.measure_peer(step, theirs, tape);
            }
            _ => {
                self.measure_peer(step, theirs, tape);
                self.measure(step, ours);
            }
        }
    }

    /// Measures a step of the other server, until it is answered and until its tape is on the
    /// disk. Before it goes what goes before a step of ours.
    fn measure_peer(
        &mut self,
        step: &'static str,
        act: impl FnOnce(&Self, &Peer),
        tape: Option<&str>,
    ) {
        let Some(peer) = &self.peer else { return };
        self.cp();
        self.cp();
        if let Some(tape) = tape {
            peer.blank(tape);
        }
        let begin = Instant::now();
        act(self, peer);
        let answered = begin.elapsed().as_secs_f64();
        if let Some(tape) = tape {
            let file = File::open(peer.tape(tape));
            file.and_then(|file| file.sync_all()).expect("the tape is written back");
        }
        let on_disk = begin.elapsed().as_secs_f64();
        self.figures.add_peer(step, PeerFigure { answered, on_disk });
    }

    /// Copies the data to another file and takes that away: seconds until `cp` had ended, and
    /// until all was on the disk.
    fn cp(&self) -> (f64, f64) {
        let (from, to) = (self.scratch.join("data"), self.scratch.join("copy"));
        rustix::fs::sync();
        let begin = Instant::now();
        let status = Command::new("cp").arg(&from).arg(&to).status().expect("cp runs");
        assert!(status.success(), "cp: {status}");
        let copied = begin.elapsed().as_secs_f64();
        File::open(&to).and_then(|file| file.sync_all()).expect("the copy is written back");
        let written = begin.elapsed().as_secs_f64();
        fs::remove_file(&to).expect("the copy goes");
        rustix::fs::sync();
        (copied, written)
    }

    /// New data, the same again, and back.
    fn ingest(&mut self) {
        self.operator.load("vtl0", TAPE, 0);
        self.operator.load("vtl0", OTHER, 1);
        let ways = [("ingest, all new", "vtl0/drive0"), ("ingest, all duplicate", "vtl0/drive1")];
        for ((step, drive), tape) in ways.into_iter().zip(PEER) {
            self.beside(
                step,
                |round| round.backup(&round.operator, drive),
                |round, peer| round.backup(&peer.operator, &peer.tape(tape)),
                Some(tape),
            );
        }
        self.beside(
            "read back",
            |round| round.check(&round.operator, "vtl0/drive0"),
            |round, peer| round.check(&peer.operator, &peer.tape(PEER[0])),
            None,
        );
    }

    /// The data to a tape.
    fn backup(&self, operator: &Operator, drive: &str) {
        let sent = operator.backup(drive, RECORD, &*self.data);
        assert_eq!(sent, self.data.len() as u64, "{drive}");
    }

    /// Both ways to copy, which of them goes first depending on the round.
    fn copies(&mut self, mut ways: [(&'static str, &'static str, Joined); 2]) {
        if self.number % 2 == 1 {
            ways.reverse();
        }
        for (step, target, joined) in ways {
            let bytes = self.data.len() as u64;
            let ours = |round: &mut Self| {
                copy(&round.operator, "vtl0/drive0", target, joined, bytes);
            };
            if joined == Joined::ByForwarder {
                self.measure(step, ours);
                continue;
            }
            let theirs = |_: &Self, peer: &Peer| {
                let [from, to] = PEER.map(|tape| peer.tape(tape));
                copy(&peer.operator, &from, &to, joined, bytes);
            };
            self.beside(step, ours, theirs, Some(PEER[1]));
            if let Some(peer) = &self.peer {
                self.check(&peer.operator, &peer.tape(PEER[1]));
            }
        }
    }

    /// The first file of a tape is the data.
    fn check(&self, operator: &Operator, drive: &str) {
        let mut tape = operator.tape(drive);
        tape.rewind().expect("the tape rewinds");
        let mut expected = Expected::new(&self.data);
        restore(&mut tape, RECORD, None, &mut expected, &mut OneTape).expect("it is read");
        assert_eq!(expected.missing(), 0, "bytes are missing");
        tape.close_tape().expect("the drive closes");
    }

    /// A tape at the other site holds the data record for record, by the account of other code.
    fn check_far(&self, barcode: &str) {
        let objects = read_tape(&self.pair.ghost_files(), barcode);
        let records = self.data.chunks(RECORD as usize).map(Object::record);
        assert!(records.chain([Object::Filemark]).eq(objects), "{barcode} differs");
    }
}
