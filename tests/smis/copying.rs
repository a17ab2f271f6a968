//! Copies by CreateElementReplica: what is on the tape, what a crash and a small tape do.

use std::net::SocketAddr;

use svs::{JobState, JobStatus};
use tests::wait::{self, PATIENCE};
use tests::{Content, Operator, Pair, Role, Scratch, Texture, read_tape, seed, twinreel};
use toml::Value;

use crate::wire::{call, configure, number, reference, tape};

/// Bytes of a record.
const RECORD: u32 = 32 << 10;

pub(crate) struct Stage {
    pub(crate) pair: Pair,
    pub(crate) operator: Operator,
    pub(crate) smis: SocketAddr,
    _scratch: Scratch,
}

/// A pair with a backup on a virtual tape that lies in its slot again.
pub(crate) fn stage(name: &str, bytes: u64, target: Option<&str>) -> Stage {
    let scratch = Scratch::new(name);
    let mut smis = None;
    let mut pair = Pair::new(&scratch, |local, remote| {
        smis = Some(configure(local));
        let library = remote["physical_library"].as_array_mut().expect("a library").first_mut();
        let library = library.and_then(Value::as_table_mut).expect("a table");
        if let Some(capacity) = target {
            library.insert("capacity".into(), Value::String(capacity.into()));
            library.remove("early_warning");
        }
    });
    for engine in [&mut pair.local, &mut pair.remote] {
        engine.allow(" WARN ");
        engine.allow("TWR-4003-E");
    }
    pair.run();
    let operator = Operator::of(&pair);
    operator.wait_for("dr-ptl0");
    operator.load("vtl0", "VTA001L8", 0);
    let content = Content::new(Texture::Compressible, seed(name), bytes);
    operator.backup("vtl0/drive0", RECORD, content.reader());
    operator.unload("vtl0", 0);
    Stage { pair, operator, smis: smis.expect("configured"), _scratch: scratch }
}

impl Stage {
    /// CreateElementReplica of VTA001L8 to a tape of the ghost library; the return code.
    pub(crate) fn create(&self, target: &str) -> String {
        let parameters = [
            number("SyncType", 8),
            reference("SourceElement", &tape("vtl0", "VTA001L8")),
            reference("TargetElement", &tape("dr-ptl0", target)),
        ];
        let reply = call(self.smis, "CreateElementReplica", &parameters.concat());
        assert_eq!((reply.status, reply.error()), (200, None), "{}", reply.text);
        reply.value("<RETURNVALUE").expect("a return value").to_owned()
    }

    /// The newest copy once it has ended.
    pub(crate) fn ended(&self) -> JobStatus {
        wait::until_within(PATIENCE * 5, "the copy has ended", || {
            let last = self.pair.copies(Role::Local).into_iter().last()?;
            last.state.is_final().then_some(last)
        })
    }

    /// What is on the virtual tape, by reading it, and on the ghost one, by its file.
    pub(crate) fn assert_same(&self, target: &str) {
        self.operator.load("vtl0", "VTA001L8", 0);
        let source = self.operator.read("vtl0/drive0");
        assert!(source.len() > 2);
        assert_eq!(read_tape(&self.pair.ghost_files(), target), source);
    }
}

#[test]
fn a_copy_puts_the_same_objects_on_the_tape_and_puts_it_back() {
    let stage = stage("smis_copy", 5_000_000, None);
    assert_eq!(stage.create("PTA001L8"), "4096");
    let job = stage.ended();
    assert_eq!((job.state, job.source.as_str()), (JobState::Done, "vtl0/VTA001L8"), "{job:?}");
    assert_eq!(job.path.map(|path| path.as_str()), Some("offloaded"));
    stage.assert_same("PTA001L8");
    let config = stage.pair.local.config().to_str().expect("text").to_owned();
    let (code, out, errors) = twinreel(["doctor", "smis", "--config", &config]);
    assert_eq!(code, 0, "{out}{errors}");
    assert!(out.contains("logging in works") && out.contains("dr-ptl0: 2 drives"), "{out}");
    // No drive of the ghost library holds a tape.
    let inventory = stage.operator.inventory("dr-ptl0");
    assert!(inventory.iter().all(|(address, _)| !(128..256).contains(address)), "{inventory:?}");
}

#[test]
fn a_copy_goes_on_after_the_engine_was_killed() {
    let mut stage = stage("smis_killed", 5_000_000, None);
    // Nothing moves before the kill: both ghost drives are taken by somebody else.
    let held = [stage.operator.tape("dr-ptl0/drive0"), stage.operator.tape("dr-ptl0/drive1")];
    assert_eq!(stage.create("PTA002L8"), "4096");
    stage.pair.local.kill_and_run();
    drop(held);
    let job = stage.ended();
    assert_eq!(job.state, JobState::Done, "{job:?}");
    stage.assert_same("PTA002L8");
}

#[test]
fn a_tape_that_is_too_small_is_refused_or_fails_the_job() {
    let stage = stage("smis_small", 3_000_000, Some("2MB"));
    // All of it does not fit, and that is known before.
    assert_eq!(stage.create("PTA001L8"), "5");
    assert!(stage.pair.copies(Role::Local).is_empty());
    // A section fits once, and behind itself it does not.
    let section = |count, position| {
        let parameters = [
            reference("SourceElement", &tape("vtl0", "VTA001L8")),
            reference("TargetElement", &tape("dr-ptl0", "PTA001L8")),
            number("SourceStartObject", 0),
            number("SourceObjectCount", count),
            number("TargetPosition", position),
        ];
        let reply = call(stage.smis, "CopyTapeSection", &parameters.concat());
        reply.value("<RETURNVALUE").map(str::to_owned)
    };
    assert_eq!(section(40, 2).as_deref(), Some("4096"));
    assert_eq!(stage.ended().state, JobState::Done);
    assert_eq!(section(40, 3).as_deref(), Some("4096"));
    let job = wait::until_within(PATIENCE * 5, "the second has ended", || {
        let all = stage.pair.copies(Role::Local);
        (all.len() == 2).then_some(())?;
        all.into_iter().last().filter(|job| job.state.is_final())
    });
    assert_eq!(job.state, JobState::Failed, "{job:?}");
    let message = job.message.unwrap_or_default();
    assert!(message.contains("too small"), "{message}");
}
