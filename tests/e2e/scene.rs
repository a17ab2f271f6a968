//! A backup on a virtual tape, a ghost tape to copy it to, and a DMA that copies while the test
//! does its worst.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use dma::copy::{CopyObserver, CopyPlan, CopyReport, What, copy};
use dma::{Client, DmaError};
use ndmp::wire::{ErrorCode, MtioOp};
use svs::{Job, JobFilter, JobKind, JobState, JobStatus, ReplicationState};
use tests::wait::{self, PATIENCE};
use tests::{Content, Object, Operator, Pair, Rng, Role, Scratch, Texture, read_tape};
use toml::{Table, Value};

/// Bytes of a record on every tape here.
pub(crate) const RECORD: usize = 64 << 10;
/// The drives that a copy goes from and to.
pub(crate) const SOURCE: &str = "vtl0/drive0";
pub(crate) const TARGET: &str = "dr-ptl0/drive0";
/// The virtual cartridge, and the ghost cartridges in the order in which they are used.
pub(crate) const VIRTUAL: &str = "VTA001L8";
pub(crate) const TAPES: [&str; 2] = ["PTA001L8", "PTA002L8"];
/// Nothing that a DMA asks may take longer than this, whatever dies meanwhile.
const HANG: std::time::Duration = PATIENCE.saturating_mul(3);

/// A running pair with a backup on a virtual tape.
pub(crate) struct Scene {
    pub(crate) pair: Pair,
    pub(crate) operator: Operator,
    /// What the backup application wrote and had flushed.
    pub(crate) objects: Vec<Object>,
    _scratch: Scratch,
}

impl Scene {
    /// A pair whose configurations went through `change`; nothing is on a tape yet.
    pub(crate) fn new(name: &str, change: impl FnOnce(&mut Table, &mut Table)) -> Self {
        let scratch = Scratch::new(name);
        let mut pair = Pair::new(&scratch, change);
        for engine in [&mut pair.local, &mut pair.remote] {
            engine.environment(
                "TWINREEL_LOG",
                "info,tape=debug,remote_engine=debug,local_engine::link=debug",
            );
            // Every fault here has to be complained of; errors and panics are still failures.
            engine.allow(" WARN ");
            engine.allow("TWR-4003-E");
        }
        pair.run();
        let operator = Operator::of(&pair);
        operator.wait_for("dr-ptl0");
        Self { pair, operator, objects: Vec::new(), _scratch: scratch }
    }

    /// A pair with `records` records and a filemark on the virtual tape in drive 0, and the first
    /// ghost tape in ghost drive 0. With `replicated` the remote has it all already.
    pub(crate) fn with_backup(name: &str, rng: &mut Rng, records: usize, replicated: bool) -> Self {
        Self::new(name, |_, _| {}).backed_up(rng, records, replicated)
    }

    /// See [`Scene::with_backup`].
    pub(crate) fn backed_up(mut self, rng: &mut Rng, records: usize, replicated: bool) -> Self {
        let length = (records * RECORD) as u64;
        let content = Content::new(Texture::Incompressible, rng.next_u64(), length);
        self.operator.load("vtl0", VIRTUAL, 0);
        self.operator.backup(SOURCE, RECORD as u32, content.reader());
        if replicated {
            self.operator.unload("vtl0", 0);
            self.pair.wait_replicated(VIRTUAL);
            self.operator.load("vtl0", VIRTUAL, 0);
        }
        self.operator.load("dr-ptl0", TAPES[0], 0);
        let bytes = content.to_vec();
        let records = bytes.chunks(RECORD).map(Object::record);
        self.objects = records.chain([Object::Filemark]).collect();
        self
    }

    /// See [`Pair::ghost_faults`].
    pub(crate) fn faults(&self, rules: &str) {
        self.pair.ghost_faults(rules);
    }

    /// Starts the copy of the virtual tape to the ghost tape.
    pub(crate) fn begin_copy(&self) -> Copying {
        Copying::begin(&self.operator, TARGET)
    }

    /// A copy of what is on the virtual tape is made at the other site, and is right.
    pub(crate) fn check_copy(&self, content: &Content) {
        self.operator.load("vtl0", VIRTUAL, 0);
        self.operator.load("dr-ptl0", TAPES[0], 0);
        self.begin_copy().outcome().expect("the copy is done");
        self.unload_ghost();
        self.operator.unload("vtl0", 0);
        let bytes = content.to_vec();
        let expected = bytes.chunks(RECORD).map(Object::record).chain([Object::Filemark]);
        let found = read_tape(&self.pair.ghost_files(), TAPES[0]);
        assert!(expected.eq(found), "the tape differs");
    }

    /// The newest copy that an engine knows of.
    pub(crate) fn copy_job(&self, role: Role) -> JobStatus {
        self.pair.copies(role).pop().expect("a copy was begun")
    }

    /// Waits until the newest copy at the local engine is in a state.
    pub(crate) fn wait_copy(&self, state: JobState) -> JobStatus {
        wait::until(&format!("the copy is {state}"), || {
            self.pair.copies(Role::Local).pop().filter(|job| job.state == state)
        })
    }

    /// Puts something else on the virtual tape in drive 0, from its beginning, and leaves it there.
    pub(crate) fn overwrite(&mut self, rng: &mut Rng, records: usize) {
        let length = (records * RECORD) as u64;
        let content = Content::new(Texture::Incompressible, rng.next_u64(), length);
        self.operator.backup(SOURCE, RECORD as u32, content.reader());
        let bytes = content.to_vec();
        let records = bytes.chunks(RECORD).map(Object::record);
        self.objects = records.chain([Object::Filemark]).collect();
    }

    /// Waits until the remote's drive is about to do an operation that a fault rule slows.
    pub(crate) fn wait_fault(&self, mark: usize, operation: &str) {
        self.pair.remote.wait_line_from(mark, &format!("fault: {operation} "));
    }

    /// The row of the newest copy at an engine, with what was flushed.
    pub(crate) fn copy_row(&self, role: Role) -> Job {
        let id = self.copy_job(role).id;
        self.pair.catalogue(role).job(id).expect("the catalogue is read").expect("its row")
    }

    /// Both engines have come to rest: every job has ended and says why if it failed, every
    /// replication is done, and both catalogues are sound.
    pub(crate) fn at_rest(&self) {
        self.pair.wait_idle();
        for role in [Role::Local, Role::Remote] {
            let catalogue = self.pair.catalogue(role);
            catalogue.check().expect("the catalogue is consistent");
            for job in catalogue.jobs(&JobFilter::default()).expect("the jobs are listed") {
                let cause = job.message.as_deref().is_some_and(|text| !text.is_empty());
                assert!(job.state == JobState::Done || cause, "without a cause: {job:#?}");
                assert!(job.ended.is_some(), "{job:#?}");
            }
        }
        let rows = self.pair.catalogue(Role::Local).replications(&[]).expect("the rows");
        assert!(rows.iter().all(|row| row.state == ReplicationState::Done), "{rows:#?}");
    }

    /// The replications that an engine was told to do, as they stand.
    pub(crate) fn replications(&self, role: Role) -> Vec<JobStatus> {
        let filter = JobFilter { kinds: vec![JobKind::Replication], ..JobFilter::default() };
        self.pair.catalogue(role).jobs(&filter).expect("the jobs are listed")
    }

    /// What is on a ghost tape that nobody writes any more is a first part of what was written,
    /// but for the filemark that closing a drive after a write puts behind it; how many objects
    /// that is.
    pub(crate) fn is_prefix(&self, barcode: &str) -> usize {
        let mut found = read_tape(&self.pair.ghost_files(), barcode);
        let whole = found.len() >= self.objects.len();
        found.pop_if(|last| *last == Object::Filemark && !whole);
        let expected = &self.objects[..found.len().min(self.objects.len())];
        assert!(found == expected, "{barcode} holds something else: {} objects", found.len());
        found.len()
    }

    /// Takes the ghost tape out of its drive, as soon as the drive is free.
    pub(crate) fn unload_ghost(&self) {
        wait::until("the ghost drive is free", || {
            let mut tape = self.operator.dial();
            match tape.open_tape(TARGET, dma::TapeOpenMode::Read) {
                Err(error) if error.code() == Some(ErrorCode::NoTapeLoaded) => return Some(()),
                opened => opened.ok()?,
            }
            persist(|| tape.mtio(MtioOp::Off, 1).map(drop)).expect("the session lives");
            tape.close_tape().ok()
        });
        let mut robot = self.operator.dial();
        robot.open_scsi("dr-ptl0/changer").expect("the changer opens");
        put_away(&mut robot).expect("the session lives");
        robot.close_scsi().expect("the changer closes");
    }

    /// The virtual tape is what was written to it, and the whole line works: the copy again, to
    /// the same ghost tapes, is done and equal.
    pub(crate) fn works_again(&self) {
        self.faults("");
        assert!(self.operator.read(SOURCE) == self.objects, "the virtual tape differs");
        self.operator.load("dr-ptl0", TAPES[0], 0);
        let report = self.begin_copy().outcome().expect("the copy succeeds");
        assert_eq!(report.bytes(), ((self.objects.len() - 1) * RECORD) as u64);
        self.unload_ghost();
        let mut found = read_tape(&self.pair.ghost_files(), TAPES[0]);
        if report.tape_changes == 1 {
            // The filemark that a full tape is closed with.
            found.pop_if(|last| *last == Object::Filemark);
            found.extend(read_tape(&self.pair.ghost_files(), TAPES[1]));
        }
        assert!(found == self.objects, "the copy differs");
        assert_eq!(self.copy_job(Role::Local).state, JobState::Done);
    }

    /// Where the files of the ghost tape with this barcode are.
    pub(crate) fn tape_file(&self, barcode: &str) -> PathBuf {
        self.pair.ghost_files().join("cartridges").join(format!("{barcode}.tape"))
    }
}

/// Puts a table of a `[[list]]` of the configuration to use.
pub(crate) fn first<'a>(config: &'a mut Table, list: &str) -> &'a mut Table {
    let first = config.get_mut(list).and_then(Value::as_array_mut).and_then(|l| l.first_mut());
    first.and_then(Value::as_table_mut).expect("init writes one")
}

/// Does it until it works: a unit attention, a link that is not back yet. An error says that the
/// session is gone.
pub(crate) fn persist(mut step: impl FnMut() -> Result<(), DmaError>) -> Result<(), DmaError> {
    wait::until("the device does it", || match step() {
        Err(error @ (DmaError::Closed(_) | DmaError::Io(_) | DmaError::TimedOut(_))) => {
            Some(Err(error))
        }
        other => other.ok().map(Ok),
    })
}

/// Takes what lies in ghost drive 0 to a free slot.
fn put_away(robot: &mut Client) -> Result<(), DmaError> {
    persist(|| {
        let elements = robot.inventory()?;
        let Some(held) = elements.iter().find(|e| e.address == 128 && e.full) else {
            return Ok(());
        };
        let free = |e: &&scsi::ElementDescriptor| e.address >= 1024 && !e.full;
        let free = elements.iter().find(free).expect("a free slot").address;
        robot.move_medium(held.address, free)
    })
}

/// A DMA that copies on a thread of its own.
pub(crate) struct Copying {
    outcome: Receiver<Result<CopyReport, DmaError>>,
    paused: Receiver<u64>,
    go: Sender<()>,
}

impl Copying {
    /// Both tapes from their beginning, to the end of the data; the tape is changed for the second
    /// when the first is full and [`Copying::go`] was called.
    pub(crate) fn begin(operator: &Operator, target: &str) -> Self {
        let (told, outcome) = channel();
        let (full, paused) = channel();
        let (go, gone) = channel();
        let (operator, target) = (operator.clone(), target.to_owned());
        thread::spawn(move || {
            let changer = Changer { robot: operator.dial(), paused: full, go: gone };
            // The test has failed if nobody listens.
            let _ = told.send(copy_all(&operator, &target, changer));
        });
        Self { outcome, paused, go }
    }

    /// Waits for the end of the first tape; at which byte it came.
    pub(crate) fn paused(&self) -> u64 {
        self.paused.recv_timeout(HANG).expect("the mover pauses at the end of the medium")
    }

    /// Lets the DMA change the tape.
    pub(crate) fn go(&self) {
        self.go.send(()).expect("the DMA waits");
    }

    /// How it ended. An answer that did not come in time is none.
    pub(crate) fn outcome(self) -> Result<CopyReport, DmaError> {
        // One who waits at the end of a tape need not wait longer.
        let _ = self.go.send(());
        let outcome = self.outcome.recv_timeout(HANG).expect("the DMA hangs");
        if let Err(error) = &outcome {
            println!("the DMA was told: {error}");
            assert!(!matches!(error, DmaError::TimedOut(_)), "the DMA was left waiting: {error}");
        }
        outcome
    }
}

fn copy_all(
    operator: &Operator,
    target: &str,
    mut changer: Changer,
) -> Result<CopyReport, DmaError> {
    let plan = CopyPlan {
        what: What::Everything { headers: 0 },
        record_size: Some(RECORD as u32),
        patience: PATIENCE,
        ..CopyPlan::default()
    };
    let mut from = operator.dial();
    from.open_tape(SOURCE, dma::TapeOpenMode::Read)?;
    from.rewind()?;
    let mut to = operator.dial();
    to.open_tape(target, dma::TapeOpenMode::Raw)?;
    to.rewind()?;
    let report = copy(&mut from, &mut to, &plan, &mut changer)?;
    to.close_tape()?;
    from.close_tape()?;
    Ok(report)
}

struct Changer {
    /// A session of its own, since it may have to be there when a new one can not be made.
    robot: Client,
    paused: Sender<u64>,
    go: Receiver<()>,
}

impl CopyObserver for Changer {
    fn change_tape(&mut self, target: &mut Client, position: u64) -> Result<(), DmaError> {
        let _ = self.paused.send(position);
        self.go.recv_timeout(HANG).expect("the test says when");
        // Its session may have died while it waited.
        target.mover_state()?;
        persist(|| target.mtio(MtioOp::Off, 1).map(drop))?;
        let robot = &mut self.robot;
        persist(|| robot.open_scsi("dr-ptl0/changer"))?;
        put_away(robot)?;
        persist(|| {
            let elements = robot.inventory()?;
            if elements.iter().any(|e| e.address == 128 && e.full) {
                return Ok(());
            }
            let next = elements.iter().find(|e| e.tag.as_deref() == Some(TAPES[1]));
            robot.move_medium(next.expect("the second tape").address, 128)
        })?;
        robot.close_scsi()?;
        persist(|| target.rewind())
    }
}
