//! Jobs as a client follows them: lists, suspensions, progress, and what a lost link shows.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use model::JobId;
use svs::{EventFilter, JobState};
use tests::wait::{self, PATIENCE};
use tests::{Content, Role, Texture, seed, twinreel};

use crate::copying::{Stage, stage};
use crate::wire::{ask, call, call_of, class, get, job, number, pair, reference, references, tape};

/// A property of an instance with one value.
fn property<'a>(reply: &'a crate::wire::Reply, name: &str) -> Option<&'a str> {
    reply.value(&format!("NAME=\"{name}\""))
}

fn state(address: SocketAddr, id: JobId) -> String {
    let reply = get(address, &job(id));
    property(&reply, "JobState").expect("every job has one").to_owned()
}

impl Stage {
    /// ModifyReplicaSynchronization of VTA001L8 and a tape of the ghost library.
    fn modify(&self, operation: u64, target: &str) -> String {
        let pair = pair(&tape("vtl0", "VTA001L8"), &tape("dr-ptl0", target));
        let parameters = [number("Operation", operation), reference("Synchronization", &pair)];
        let reply = call(self.smis, "ModifyReplicaSynchronization", &parameters.concat());
        reply.value("<RETURNVALUE").unwrap_or_else(|| panic!("{}", reply.text)).to_owned()
    }

    /// Waits until a copy of the newest row is in a state.
    fn wait_state(&self, id: JobId, wanted: &str) {
        wait::until_within(PATIENCE * 2, &format!("JobState {wanted}"), || {
            (state(self.smis, id) == wanted).then_some(())
        });
    }
}

#[test]
fn a_list_is_one_job_over_copies_that_have_their_own() {
    let stage = stage("smis_list", 2_000_000, None);
    stage.operator.load("vtl0", "VTA002L8", 0);
    let content = Content::new(Texture::Compressible, seed("smis_list") + 1, 3_000_000);
    stage.operator.backup("vtl0/drive0", 32 << 10, content.reader());
    stage.operator.unload("vtl0", 0);
    let list = |targets: [&str; 2]| {
        let sources = ["VTA001L8", "VTA002L8"].map(|tag| tape("vtl0", tag));
        let targets = targets.map(|tag| tape("dr-ptl0", tag));
        let parameters = [
            number("SyncType", 8),
            references("SourceElements", &sources),
            references("TargetElements", &targets),
        ];
        call(stage.smis, "CreateListReplica", &parameters.concat())
    };
    // The second pair can not be, so there is no copy at all.
    let refused = list(["PTA001L8", "PTA001L8"]);
    assert_eq!(refused.value("<RETURNVALUE"), Some("6"), "{}", refused.text);
    let reply = list(["PTA001L8", "PTA002L8"]);
    assert_eq!(reply.value("<RETURNVALUE"), Some("4096"), "{}", reply.text);
    let (_, rest) = reply.text.split_once("twinreel:job:").expect("a job");
    let id: JobId = rest[..26].parse().expect("an id");
    stage.wait_state(id, "7");
    let row = stage.pair.catalogue(Role::Local).job_status(id).unwrap().expect("a row");
    let parts = stage.pair.copies(Role::Local);
    let done: Vec<_> = parts.iter().filter(|it| it.state == JobState::Done).collect();
    assert_eq!((done.len(), row.percent), (3, Some(100.0)), "{parts:?}");
    let bytes: u64 = done.iter().filter(|it| it.id != id).map(|it| it.bytes).sum();
    assert_eq!(row.bytes, bytes);
    // It affects both targets.
    let about = format!("<IPARAMVALUE NAME=\"ObjectName\">{}</IPARAMVALUE>", job(id));
    let class = "<IPARAMVALUE NAME=\"AssocClass\"><CLASSNAME NAME=\"CIM_AffectedJobElement\"/>\
                 </IPARAMVALUE>";
    let affected = ask(stage.smis, "AssociatorNames", &(about + class));
    assert!(["tape:PTA001L8", "tape:PTA002L8"].iter().all(|tag| affected.text.contains(tag)));
    stage.assert_same("PTA001L8");
}

#[test]
fn a_suspended_copy_waits_over_a_restart_until_it_is_resumed() {
    let mut stage = stage("smis_suspend", 2_000_000, None);
    // Nothing moves before the suspension: both ghost drives are taken by somebody else.
    let held = [stage.operator.tape("dr-ptl0/drive0"), stage.operator.tape("dr-ptl0/drive1")];
    assert_eq!(stage.create("PTA001L8"), "4096");
    let id = stage.pair.copies(Role::Local).last().expect("a row").id;
    assert_eq!(stage.modify(16, "PTA001L8"), "4", "it is not suspended");
    assert_eq!(stage.modify(22, "PTA001L8"), "4096");
    drop(held);
    stage.wait_state(id, "5");
    let pairs = ask(stage.smis, "EnumerateInstances", &class("CIM_StorageSynchronized"));
    assert_eq!(property(&pairs, "CopyState"), Some("9"), "{}", pairs.text);
    stage.pair.local.kill_and_run();
    stage.operator.wait_for("dr-ptl0");
    stage.wait_state(id, "5");
    assert_eq!(stage.create("PTA001L8"), "6", "the tapes are still its own");
    let start = number("RequestedState", 2);
    let resumed = call_of(stage.smis, &job(id), "RequestStateChange", &start);
    assert_eq!(resumed.value("<RETURNVALUE"), Some("4096"), "{}", resumed.text);
    assert_eq!(stage.ended().state, JobState::Done);
    // It has detached itself, and says that it began.
    assert_eq!(stage.modify(8, "PTA001L8"), "0");
    let events = stage.pair.catalogue(Role::Local).events(&EventFilter::default()).unwrap();
    assert!(events.iter().any(|event| event.message_id == "TWR-4001-I"));
    stage.assert_same("PTA001L8");
}

#[test]
fn a_suspended_copy_can_be_ended() {
    let stage = stage("smis_suspend_end", 1_000_000, None);
    let held = [stage.operator.tape("dr-ptl0/drive0"), stage.operator.tape("dr-ptl0/drive1")];
    assert_eq!(stage.create("PTA001L8"), "4096");
    let id = stage.pair.copies(Role::Local).last().expect("a row").id;
    assert_eq!(stage.modify(22, "PTA001L8"), "4096");
    stage.wait_state(id, "5");
    assert_eq!(stage.modify(2, "PTA001L8"), "4096");
    stage.wait_state(id, "8");
    assert_eq!(stage.modify(2, "PTA001L8"), "4");
    // A job that has ended can be taken off the list.
    let delete = || {
        let name = format!("<IPARAMVALUE NAME=\"InstanceName\">{}</IPARAMVALUE>", job(id));
        ask(stage.smis, "DeleteInstance", &name).error()
    };
    assert_eq!((delete(), delete()), (None, Some(6)));
    drop(held);
    assert_eq!(stage.create("PTA001L8"), "4096", "the tapes are free again");
    assert_eq!(stage.ended().state, JobState::Done);
}

#[test]
fn a_copy_by_ndmp_is_a_job_whose_percentage_moves() {
    let stage = stage("smis_percent", 16_000_000, None);
    stage.pair.wait_replicated("VTA001L8");
    // Slow enough to be seen on its way, until it was.
    stage.pair.ghost_faults("drive0 write 1.. delay 20\ndrive1 write 1.. delay 20");
    let config = stage.pair.local.config().to_str().expect("text").to_owned();
    let copying = std::thread::spawn(move || {
        let (source, target) = ("vtl0:VTA001L8", "dr-ptl0:PTA001L8");
        let words = ["dma", "copy", "--config", &config, "--source", source, "--target", target];
        twinreel(words)
    });
    let id = wait::until_within(PATIENCE * 2, "the copy has begun", || {
        stage.pair.copies(Role::Local).last().map(|job| job.id)
    });
    // The row is written before a byte moves.
    let mut seen = BTreeSet::new();
    let last = wait::until_within(PATIENCE * 5, "the copy has ended", || {
        let reply = get(stage.smis, &job(id));
        let percent = property(&reply, "PercentComplete").and_then(|text| text.parse::<u16>().ok());
        let percent = percent.expect("a percentage");
        assert!(seen.iter().all(|before| *before <= percent), "{percent} after {seen:?}");
        if seen.insert(percent) {
            println!("{percent} %");
            if seen.range(1..100).count() == 2 {
                stage.pair.ghost_faults("");
            }
        }
        (property(&reply, "JobState") == Some("7")).then_some(percent)
    });
    let (code, out, errors) = copying.join().expect("it ends");
    assert_eq!((code, last), (0, 100), "{out}{errors}");
    assert!(seen.range(1..100).count() >= 2, "{seen:?}");
}

#[test]
fn a_lost_site_is_lost_communication_and_not_silence() {
    let stage = stage("smis_lost", 100_000, None);
    let statuses = |class_name: &str| {
        let reply = ask(stage.smis, "EnumerateInstances", &class(class_name));
        let of = |text: &str| {
            let (_, rest) = text.split_once("NAME=\"OperationalStatus\"")?;
            rest.split_once("<VALUE>")?.1.split("</VALUE>").next().map(str::to_owned)
        };
        let (ghost, own): (Vec<&str>, Vec<&str>) = reply
            .text
            .split("<VALUE.NAMEDINSTANCE>")
            .skip(1)
            .filter(|text| text.contains("dr-ptl0") || text.contains("vtl0"))
            .partition(|text| text.contains("dr-ptl0"));
        let all = |texts: Vec<&str>| texts.into_iter().filter_map(of).collect::<BTreeSet<_>>();
        (all(ghost), all(own))
    };
    let only = |status: &str| BTreeSet::from([status.to_owned()]);
    let classes = ["CIM_ComputerSystem", "CIM_TapeDrive", "CIM_ChangerDevice", "CIM_PhysicalTape"];
    let wait_for = |status: &str| {
        wait::until_within(PATIENCE * 2, "the ghost library shows its state", || {
            let all = classes.map(statuses);
            assert!(all.iter().all(|(_, own)| *own == only("2")), "{all:?}");
            all.iter().all(|(ghost, _)| *ghost == only(status)).then_some(())
        });
    };
    wait_for("2");
    stage.pair.relay.part();
    wait_for("13");
    // A copy to it is begun all the same, and waits.
    assert_eq!(stage.create("PTA001L8"), "4096");
    stage.pair.relay.join();
    wait_for("2");
    assert_eq!(stage.ended().state, JobState::Done);
}
