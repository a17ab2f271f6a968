//! How drives of the far site are, as a management application sees it.

use dma::TapeOpenMode;
use tests::{Operator, Pair, Scratch, twinreel, wait};
use toml::Value;

use crate::copying::stage;
use crate::wire::{ask, class, configure};

#[test]
fn a_drive_that_is_out_of_use_is_stopped_for_a_reason() {
    let mut stage = stage("smis-health", 1 << 20, None);
    stage.pair.remote.allow("TWR-6021-E");
    let config = stage.pair.directory().join("remote.toml");
    let config = config.to_str().expect("a scratch path is text").to_owned();
    let remotely = |words: &[&str]| {
        let words = words.iter().copied().chain(["--config", &config]);
        let (code, _, errors) = twinreel(words);
        assert_eq!(code, 0, "{errors}");
    };
    let drives = || ask(stage.smis, "EnumerateInstances", &class("CIM_TapeDrive")).text;
    let stopped = "<VALUE>Stopped: ptl0/drive0 was taken out of use: it makes a noise</VALUE>";
    assert!(!drives().contains("Stopped"));
    remotely(&["drive", "down", "ptl0/drive0", "--reason", "it makes a noise"]);
    wait::until("it is stopped", || drives().contains(stopped).then_some(()));
    // 10: Stopped. The others are well.
    let all = drives();
    assert_eq!(all.matches("Stopped: ").count(), 1, "{all}");
    assert!(all.contains("<VALUE.ARRAY><VALUE>10</VALUE></VALUE.ARRAY>"), "{all}");
    remotely(&["drive", "up", "ptl0/drive0"]);
    wait::until("it is well", || (!drives().contains("Stopped")).then_some(()));
}

#[test]
fn what_a_drive_beside_this_engine_says_of_itself_and_of_its_tape_is_shown() {
    let scratch = Scratch::new("smis-here");
    let mut smis = None;
    let mut pair = Pair::new(&scratch, |local, remote| {
        smis = Some(configure(local));
        let mut library = remote["physical_library"].as_array().expect("libraries")[0].clone();
        let table = library.as_table_mut().expect("a library");
        table.insert("name".into(), "here".into());
        table.insert("path".into(), "here".into());
        local.insert("physical_library".into(), Value::Array(vec![library]));
    });
    for text in [" WARN ", "TWR-6021-E", "TWR-6022-E"] {
        pair.local.allow(text);
    }
    pair.run();
    let (smis, operator) = (smis.expect("configured"), Operator::of(&pair));
    let of = |name: &str| ask(smis, "EnumerateInstances", &class(name)).text;
    assert!(
        !of("CIM_TapeDrive").contains("Stopped") && !of("CIM_PhysicalTape").contains("Degraded")
    );
    operator.load("here", "PTA001L8", 0);
    let faults = pair.directory().join("here/faults");
    std::fs::write(faults, "drive0 write 1 alert 31\ndrive0 write 2 alert 7\n").expect("written");
    let mut tape = operator.dial();
    tape.open_tape("here/drive0", TapeOpenMode::Raw).expect("it opens");
    wait::until("it rewinds", || tape.rewind().ok());
    for record in [&b"one"[..], b"two"] {
        tape.write_block(bytes::Bytes::from_static(record)).expect("a record");
    }
    tape.close_tape().expect("it closes");
    let stopped = "Stopped: here/drive0 was taken out of use: TapeAlert 31: the drive has a";
    let drives = of("CIM_TapeDrive");
    assert!(drives.contains(stopped), "{drives}");
    let tapes = of("CIM_PhysicalTape");
    assert_eq!(tapes.matches("<VALUE>Degraded</VALUE>").count(), 1, "{tapes}");
}
