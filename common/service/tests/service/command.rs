//! The command line of an engine and its exit codes.

use std::ffi::OsString;
use std::sync::atomic::{AtomicU32, Ordering};

use service::cli;
use service::config::{EngineConfig, LocalConfig};

use crate::pair;

fn arguments(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn run(words: &[&str]) -> u8 {
    cli::run::<LocalConfig, _>(arguments(words), |_, _| async { Ok(()) })
}

#[test]
fn exit_codes_mean_something() {
    let (dir, made) = pair();
    let file = made.local.to_str().unwrap();
    assert_eq!(run(&["x", "example-config"]), cli::EXIT_OK);
    assert_eq!(run(&["x", "--help"]), cli::EXIT_OK);
    assert_eq!(run(&["x", "check-config", "--config", file]), cli::EXIT_OK);
    assert_eq!(run(&["x", "serve", "--config", file]), cli::EXIT_OK);
    assert_eq!(run(&["x"]), cli::EXIT_USAGE);
    assert_eq!(run(&["x", "serve"]), cli::EXIT_USAGE);
    let missing = dir.path().join("missing.toml");
    assert_eq!(run(&["x", "serve", "--config", missing.to_str().unwrap()]), cli::EXIT_USAGE);
    let failed =
        cli::run::<LocalConfig, _>(arguments(&["x", "serve", "--config", file]), |_, _| async {
            Err("the port is in use".into())
        });
    assert_eq!(failed, cli::EXIT_FAILED);
}

#[test]
fn an_engine_gets_its_configuration_and_stops_on_a_signal() {
    let (_dir, made) = pair();
    let file = made.local.to_str().unwrap();
    let served = AtomicU32::new(0);
    let code = cli::run(arguments(&["x", "serve", "--config", file]), |config, shutdown| {
        let config: LocalConfig = config;
        let served = &served;
        async move {
            assert_eq!(config.site().name.as_str(), "hq");
            assert!(!shutdown.is_requested());
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::TERM)?;
            shutdown.requested().await;
            served.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    });
    assert_eq!((code, served.load(Ordering::Relaxed)), (cli::EXIT_OK, 1));
}
