//! How drives of the far site are, as a management application sees it.

use tests::{twinreel, wait};

use crate::copying::stage;
use crate::wire::{ask, class};

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
