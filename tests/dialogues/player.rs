//! The application: plays a plan against the engines and holds every answer against it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dma::{Client, DmaError, MoverNews, TapeObject, TapeOpenMode, Version};
use ndmp::wire::{
    Addr, AddrType, ErrorCode, HaltReason, MoverMode, MoverReport, MoverState, MtioOp, PauseReason,
    TapeState,
};
use svs::{CopyPath, JobFilter, JobKind, JobState, JobStatus};
use tests::wait::{self, PATIENCE};
use tests::{Item, RECORD_MAX, Role};

use crate::case::{Case, Change, Leg, Place};
use crate::model::{
    Job, LegPlan, Library, Plan, SOURCES, SourceAct, Tape, TargetAct, Turn, Wrote, source_library,
};
use crate::stage::Dock;
use crate::tapes;

/// How long one side is listened to before the other.
const TURN: Duration = Duration::from_millis(1);

/// One of the two ends as the application holds it.
struct End {
    client: Client,
    library: Library,
    drive: u16,
}

/// A foreign end of a data connection.
enum Foreign {
    None,
    /// Sends the stream.
    Sends(JoinHandle<()>),
    /// Receives it.
    Takes(JoinHandle<Vec<u8>>),
}

pub(crate) struct Player<'a, 'b> {
    case: &'a Case,
    dock: &'a mut Dock<'b>,
    source: End,
    target: End,
}

/// How far a connection has come.
struct Course<'p> {
    leg: &'p LegPlan,
    reads: usize,
    source_turn: usize,
    target_turn: usize,
    source_over: bool,
    target_over: bool,
    /// The target's pause that is in force was at this byte, and it may have accepted up to that.
    accepted: Option<u64>,
}

pub(crate) fn play(case: &Case, plan: &Plan, dock: &mut Dock<'_>) {
    let operator = dock.stage.operator.clone().speaking(case.version);
    let target = plan.first_target.library;
    let mut player = Player {
        case,
        source: End { client: operator.dial(), library: source_library(case.source), drive: 0 },
        target: End { client: operator.dial(), library: target, drive: 2 },
        dock,
    };
    player.prepare(plan);
    for (i, (leg, plan)) in case.legs.iter().zip(&plan.legs).enumerate() {
        println!("connection {i}: {} bytes", plan.stream.len());
        player.play(leg, plan);
    }
    player.close();
    player.judge(plan);
}

impl Player<'_, '_> {
    fn has_source(&self) -> bool {
        self.case.source != Place::Foreign
    }

    fn has_target(&self) -> bool {
        self.case.target != Place::Foreign
    }

    fn device(&self, end: &End) -> String {
        self.dock.device(end.library, end.drive)
    }

    /// Everything is on the tapes and in the drives as the case says.
    fn prepare(&mut self, plan: &Plan) {
        for index in 0..self.case.reels.len() {
            let tape = Tape { library: self.source.library, index };
            self.dock.bring(tape, index as u16, false);
            let device = self.dock.device(self.source.library, index as u16);
            write(&mut self.source.client, &device, &self.case.reels[index]);
        }
        if self.has_source() {
            self.source.drive = plan.first_reel as u16;
            let device = self.device(&self.source);
            let mode = match self.case.legs.len() % 2 {
                0 => TapeOpenMode::Raw,
                _ => TapeOpenMode::Read,
            };
            self.source.client.open_tape(&device, mode).expect("the source opens");
        }
        if self.has_target() {
            self.dock.bring(plan.first_target, self.target.drive, false);
            let device = self.device(&self.target);
            if !self.case.before.is_empty() {
                write(&mut self.target.client, &device, &self.case.before);
            }
            let opened = self.target.client.open_tape(&device, TapeOpenMode::Raw);
            opened.expect("the target opens");
        }
    }

    fn play(&mut self, leg: &Leg, plan: &LegPlan) {
        let before = plan.job.as_ref().map(|job| self.jobs(job.targets[0]).len());
        for act in &plan.source_begins {
            self.source_act(act);
        }
        for act in &plan.target_begins {
            self.target_act(act);
        }
        let foreign = self.meet(leg, plan);
        let mut course = Course {
            leg: plan,
            reads: 0,
            source_turn: 0,
            target_turn: 0,
            source_over: !self.has_source(),
            target_over: !self.has_target(),
            accepted: None,
        };
        if self.has_source() {
            let (offset, length) = plan.reads[0];
            self.source.client.mover_read(offset, length).expect("the source reads");
        }
        self.converse(leg, &mut course);
        self.part(plan);
        match foreign {
            Foreign::None => {}
            Foreign::Sends(thread) => thread.join().expect("the stream is sent"),
            Foreign::Takes(thread) => {
                let taken = thread.join().expect("the stream is received");
                assert!(taken == plan.stream, "the foreign mover received something else");
            }
        }
        if let (Some(job), Some(before)) = (&plan.job, before) {
            self.judge_job(job, before, plan.stream.len() as u64);
        }
    }

    /// Makes the data connection.
    fn meet(&mut self, leg: &Leg, plan: &LegPlan) -> Foreign {
        let _alone = leg.local.then(|| self.dock.stage.local());
        let kind = if leg.local { AddrType::Local } else { AddrType::Tcp };
        if self.has_source() {
            let source = &mut self.source.client;
            source.mover_set_record_size(leg.source_record).expect("a record size");
            let (offset, length) = plan.source_window;
            source.mover_set_window(offset, length).expect("a window of the source");
        }
        let (offset, length) = plan.target_window;
        if self.has_target() {
            let target = &mut self.target.client;
            target.mover_set_record_size(leg.target_record).expect("a record size");
            if !leg.late_window {
                target.mover_set_window(offset, length).expect("a window of the target");
            }
        }
        let (source, target) = (self.has_source(), self.has_target());
        let (source, target) =
            (source.then_some(&mut self.source.client), target.then_some(&mut self.target.client));
        match (source, target, leg.target_listens) {
            (Some(source), Some(target), true) => {
                let addr = target.mover_listen(MoverMode::Read, kind).expect("the target listens");
                if leg.late_window {
                    target.mover_set_window(offset, length).expect("a window of the target");
                }
                source.mover_connect(MoverMode::Write, addr).expect("the source connects");
            }
            (Some(source), Some(target), false) => {
                let addr = source.mover_listen(MoverMode::Write, kind).expect("the source listens");
                target.mover_connect(MoverMode::Read, addr).expect("the target connects");
            }
            (None, Some(target), listens) => {
                let late = leg.late_window.then_some((offset, length));
                let stream = join(target, MoverMode::Read, listens, late);
                let bytes = plan.stream.clone();
                return Foreign::Sends(thread::spawn(move || send(stream, &bytes)));
            }
            (Some(source), None, listens) => {
                let stream = join(source, MoverMode::Write, listens, None);
                return Foreign::Takes(thread::spawn(move || take(stream)));
            }
            (None, None, _) => panic!("nobody is here"),
        }
        Foreign::None
    }

    /// Until both ends have halted.
    fn converse(&mut self, leg: &Leg, course: &mut Course<'_>) {
        let mut moved = Instant::now();
        while !(course.source_over && course.target_over) {
            if !course.target_over
                && let Some(news) = self.target.client.wait_mover(TURN).expect("the target lives")
            {
                self.target_news(leg, course, &news);
                moved = Instant::now();
            }
            if !course.source_over
                && let Some(news) = self.source.client.wait_mover(TURN).expect("the source lives")
            {
                self.source_news(course, &news);
                moved = Instant::now();
            }
            if course.reads + 1 < course.leg.reads.len() && course.source_turn == 0 {
                self.next_read(course);
            }
            if moved.elapsed() > PATIENCE {
                let source = self.source.client.mover_state();
                let target = self.target.client.mover_state();
                panic!("nothing moves any more: source {source:?}, target {target:?}");
            }
        }
    }

    /// Another MOVER_READ, once the last one is satisfied.
    fn next_read(&mut self, course: &mut Course<'_>) {
        let state = self.source.client.mover_state().expect("a state");
        assert_eq!(state.state, MoverState::Active, "{state:?}");
        let (offset, _) = course.leg.reads[course.reads];
        assert_eq!(state.seek_position, offset, "{state:?}");
        if state.bytes_left_to_read == 0 {
            course.reads += 1;
            let (offset, length) = course.leg.reads[course.reads];
            self.source.client.mover_read(offset, length).expect("the source reads on");
        }
    }

    fn target_news(&mut self, leg: &Leg, course: &mut Course<'_>, news: &MoverNews) {
        let Some(turn) = course.leg.target.get(course.target_turn) else {
            self.target_halts(course, news);
            return;
        };
        let place = format!("target pause {}", course.target_turn);
        let expected = MoverNews::Paused { reason: turn.reason, position: turn.position };
        assert_eq!(*news, expected, "{place}");
        course.target_turn += 1;
        let state = self.target.client.mover_state().expect("a state");
        check_state(&state, turn, &place);
        assert_eq!(state.seek_position, turn.position, "{place}: {state:?}");
        let total = course.leg.stream.len() as u64;
        let more = match turn.reason {
            PauseReason::Eow => 1,
            _ => u64::from(leg.target_record),
        };
        course.accepted = Some(total.min(turn.position + more));
        if self.has_source() && !course.source_over {
            self.source_follows(course, turn.position);
        }
        for act in &turn.acts {
            if matches!(act, TargetAct::Continue) {
                course.accepted = None;
            }
            self.target_act(act);
        }
    }

    /// While the target is paused the source is seen to have sent what the target accepted, rounded
    /// up to a record, and nothing beyond.
    fn source_follows(&mut self, course: &Course<'_>, position: u64) {
        let edge = edge(course);
        let client = &mut self.source.client;
        wait::until("the source has counted what the target wrote", || {
            let state = client.mover_state().expect("a state");
            assert!(state.bytes_moved <= edge, "the source is ahead of byte {edge}: {state:?}");
            (state.bytes_moved >= position).then_some(())
        });
    }

    fn target_halts(&mut self, course: &mut Course<'_>, news: &MoverNews) {
        let MoverNews::Halted { reason: HaltReason::ConnectClosed, .. } = news else {
            panic!("the target was to come to its end, and says {news:?}");
        };
        let all = course.source_turn == course.leg.source.len();
        assert!(all, "the source has not come to its end");
        course.target_over = true;
        let state = self.target.client.mover_state().expect("a state");
        let total = course.leg.stream.len() as u64;
        assert_eq!(
            (state.state, state.halt_reason, state.bytes_moved, u64::from(state.record_num)),
            (MoverState::Halted, HaltReason::ConnectClosed, total, course.leg.records),
            "{state:?}"
        );
    }

    fn source_news(&mut self, course: &mut Course<'_>, news: &MoverNews) {
        let Some(turn) = course.leg.source.get(course.source_turn) else {
            let MoverNews::Halted { reason: HaltReason::ConnectClosed, .. } = news else {
                panic!("the source was closed, and says {news:?}");
            };
            course.source_over = true;
            return;
        };
        let place = format!("source pause {}", course.source_turn);
        let expected = MoverNews::Paused { reason: turn.reason, position: turn.position };
        assert_eq!(*news, expected, "{place}");
        if let Some(accepted) = course.accepted {
            assert!(turn.moved <= accepted, "{place}: the target accepted only {accepted}");
        }
        assert_eq!(course.reads + 1, course.leg.reads.len(), "{place}: reads are left");
        course.source_turn += 1;
        let state = self.source.client.mover_state().expect("a state");
        check_state(&state, turn, &place);
        for act in &turn.acts {
            self.source_act(act);
        }
    }

    /// The end of the connection: both movers are idle again, and the marks are written.
    fn part(&mut self, plan: &LegPlan) {
        if self.has_source() {
            self.source.client.mover_stop().expect("the source stops");
        }
        if self.has_target() {
            for act in &plan.target_ends {
                self.target_act(act);
            }
            self.target.client.mover_stop().expect("the target stops");
        }
    }

    fn close(&mut self) {
        if self.has_source() {
            self.source.client.close_tape().expect("the source closes");
        }
        if self.has_target() {
            self.target.client.close_tape().expect("the target closes");
        }
    }

    fn target_act(&mut self, act: &TargetAct) {
        let client = &mut self.target.client;
        match act {
            TargetAct::Write(bytes, expected) => {
                let wrote = match client.write_block(Bytes::copy_from_slice(bytes)) {
                    Ok(dma::Wrote::Done) => Wrote::Done,
                    Ok(dma::Wrote::EndOfMedium) => Wrote::EndOfMedium,
                    Err(DmaError::Refused { error: ErrorCode::Io, .. }) => Wrote::Full,
                    Err(error) => panic!("a literal is not written: {error}"),
                };
                assert_eq!(wrote, *expected, "a literal of {} bytes", bytes.len());
            }
            TargetAct::Marks(count) => {
                client.write_filemarks(*count).expect("the marks are written");
            }
            TargetAct::Rewind => client.rewind().expect("the target rewinds"),
            TargetAct::SkipMarks(count) => {
                client.skip_filemarks(*count).expect("the marks are there");
            }
            TargetAct::Stands(file, block) => stands(client, "target", *file, *block),
            TargetAct::Window(offset, length) => {
                client.mover_set_window(*offset, *length).expect("a window");
            }
            TargetAct::Continue => client.mover_continue().expect("the target continues"),
            TargetAct::Change(tape, Change::Swap) => {
                client.mtio(MtioOp::Off, 1).expect("the target lets go");
                self.dock.bring(*tape, self.target.drive, true);
            }
            TargetAct::Change(tape, _) => {
                client.close_tape().expect("the target closes");
                self.target.drive = if self.target.drive == 2 { 3 } else { 2 };
                self.target.library = tape.library;
                self.dock.bring(*tape, self.target.drive, false);
                let device = self.device(&self.target);
                let opened = self.target.client.open_tape(&device, TapeOpenMode::Raw);
                opened.expect("the other drive opens");
            }
        }
    }

    fn source_act(&mut self, act: &SourceAct) {
        let client = &mut self.source.client;
        match act {
            SourceAct::Rewind => client.rewind().expect("the source rewinds"),
            SourceAct::SkipMarks(count) => {
                client.skip_filemarks(*count).expect("the marks are there");
            }
            SourceAct::SkipRecords(count) => {
                let left = client.mtio(MtioOp::Fsr, *count).expect("records are passed");
                assert_eq!(left, 0);
            }
            SourceAct::Read(bytes) => {
                let object = client.read_object(RECORD_MAX).expect("the source is read");
                assert!(object == TapeObject::Block(bytes.clone().into()), "another record");
            }
            SourceAct::Stands(file, block) => stands(client, "source", *file, *block),
            SourceAct::Window(offset, length) => {
                client.mover_set_window(*offset, *length).expect("a window");
            }
            SourceAct::Continue => client.mover_continue().expect("the source continues"),
            SourceAct::Close => client.mover_close().expect("the source closes its connection"),
            SourceAct::Load(tape, Change::Swap) => {
                client.mtio(MtioOp::Off, 1).expect("the source lets go");
                self.dock.bring(*tape, self.source.drive, true);
            }
            SourceAct::Load(tape, _) => {
                client.close_tape().expect("the source closes");
                self.source.drive = 1 - self.source.drive;
                self.dock.bring(*tape, self.source.drive, false);
                let device = self.device(&self.source);
                let opened = self.source.client.open_tape(&device, TapeOpenMode::Read);
                opened.expect("the other drive opens");
            }
        }
    }

    fn jobs(&self, target: Tape) -> Vec<JobStatus> {
        let about = Some(self.dock.medium(target));
        let filter = JobFilter { kinds: vec![JobKind::Copy], about, ..JobFilter::default() };
        let catalogue = self.dock.stage.pair.catalogue(Role::Local);
        catalogue.jobs(&filter).expect("the jobs are listed")
    }

    /// The row of the connection that has just ended, and what the application was told of it.
    fn judge_job(&mut self, job: &Job, before: usize, bytes: u64) {
        let mut rows = self.jobs(job.targets[0]);
        assert_eq!(rows.len(), before + 1, "one row for a connection");
        let row = rows.pop().expect("a row");
        let targets: Vec<_> = job.targets.iter().map(|tape| self.dock.medium(*tape)).collect();
        let path = if job.offloaded { CopyPath::Offloaded } else { CopyPath::Moved };
        let source = job.source.map(|tape| self.dock.medium(tape));
        assert_eq!(
            (row.state, row.bytes, row.path, row.path_reason.as_deref(), row.target.as_str()),
            (JobState::Done, bytes, Some(path), Some(job.reason), targets.join(", ").as_str()),
            "{row:#?}"
        );
        assert_eq!(row.source, source.unwrap_or_else(|| "a mover elsewhere".into()), "{row:#?}");
        let said = format!("copy {}: {} ({})", row.id, path.as_str(), job.reason);
        let mut logs = std::iter::from_fn(|| self.target.client.next_log());
        assert!(logs.any(|line| line == said), "the application was not told: {said}");
        while self.target.client.next_log().is_some() {}
    }

    /// Every tape is what it has to be.
    fn judge(&mut self, plan: &Plan) {
        for (tape, expected) in &plan.tapes {
            let barcode = self.dock.barcode(*tape);
            let found = if tape.library.ghost {
                let files = self.dock.stage.files(tape.library);
                let found = tapes::read_file(&files, &barcode);
                if expected.len() % 16 == 1 && expected.len() < 64 {
                    tapes::read_twice(&files, &barcode, &found);
                }
                found
            } else {
                let drive = self.where_is(*tape);
                let device = self.dock.device(tape.library, drive);
                tapes::read_drive(self.dock.helper(), &device)
            };
            tapes::compare(&barcode, &found, expected);
        }
    }

    /// The drive that a tape is in, or is put into to be read.
    fn where_is(&mut self, tape: Tape) -> u16 {
        assert!(tape.index >= SOURCES);
        self.dock.drive_of(tape).unwrap_or_else(|| {
            self.dock.bring(tape, 2, false);
            2
        })
    }
}

/// The end of the source record up to which the target may have taken.
fn edge(course: &Course<'_>) -> u64 {
    let accepted = course.accepted.unwrap_or(u64::MAX);
    let edges = &course.leg.edges;
    let at = edges.partition_point(|edge| *edge < accepted);
    edges.get(at).copied().unwrap_or(course.leg.stream.len() as u64)
}

fn check_state<Act>(state: &MoverReport, turn: &Turn<Act>, place: &str) {
    assert_eq!(
        (state.state, state.pause_reason, state.bytes_moved),
        (MoverState::Paused, turn.reason, turn.moved),
        "{place}: {state:?}"
    );
    let window = (state.window_offset, state.window_length);
    assert_eq!(window, turn.window, "{place}: {state:?}");
    assert_eq!(u64::from(state.record_num), turn.record, "{place}: {state:?}");
}

/// The tape is said to stand there.
fn stands(client: &mut Client, side: &str, file: u32, block: u32) {
    let state = client.tape_state().expect("a state");
    assert_eq!(state.file_num, file, "{side}, of {block} records: {state:?}");
    let known = state.blockno == block || state.blockno == TapeState::UNKNOWN;
    assert!(known, "{side} stands behind {block} records: {state:?}");
}

/// Writes a tape from its beginning.
fn write(client: &mut Client, device: &str, items: &[Item]) {
    client.open_tape(device, TapeOpenMode::Raw).expect("the drive opens");
    client.rewind().expect("the tape rewinds");
    for item in items {
        match item {
            Item::Record(bytes) => {
                let block = Bytes::copy_from_slice(bytes);
                let wrote = client.write_block(block.clone()).expect("the record is written");
                if wrote == dma::Wrote::EndOfMedium {
                    // Beyond early warning, which is told once.
                    let again = client.write_block(block).expect("the record is written");
                    assert_eq!(again, dma::Wrote::Done);
                }
            }
            Item::Filemark => client.write_filemarks(1).expect("the mark is written"),
        }
    }
    // No mark is due but those that were written.
    if items.last().is_some_and(|last| *last != Item::Filemark) {
        client.write_filemarks(0).expect("it is flushed");
        client.mtio(MtioOp::Bsr, 1).expect("the end is left");
    }
    client.close_tape().expect("the drive closes");
}

/// A socket of ours at the other end of a mover, which gets its window while it listens.
fn join(
    client: &mut Client,
    mode: MoverMode,
    listens: bool,
    window: Option<(u64, u64)>,
) -> TcpStream {
    if listens {
        let addr = client.mover_listen(mode, AddrType::Tcp).expect("the mover listens");
        if let Some((offset, length)) = window {
            client.mover_set_window(offset, length).expect("a window of the target");
        }
        return dma::data::connect(&addr).expect("the mover can be reached");
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let Ok(SocketAddr::V4(at)) = listener.local_addr() else { panic!("an address") };
    let addr = Addr::tcp(SocketAddrV4::new(*at.ip(), at.port()));
    client.mover_connect(mode, addr).expect("the mover connects");
    listener.accept().expect("it has").0
}

/// Sends in pieces of odd lengths.
fn send(mut stream: TcpStream, bytes: &[u8]) {
    for piece in bytes.chunks(77_777) {
        stream.write_all(piece).expect("the mover takes it");
    }
    stream.shutdown(Shutdown::Write).expect("the stream ends");
}

fn take(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the mover sends");
    bytes
}

/// The versions that can copy.
pub(crate) fn version_name(version: Version) -> &'static str {
    match version {
        Version::V2 => "v2",
        Version::V3 => "v3",
        Version::V4 => "v4",
    }
}
