//! Both sides against each other, and strangers against the server.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::shutdown::{self, ShutdownTrigger};

struct Echo;

impl AdminHandler for Echo {
    async fn call(&self, method: &str, params: Value) -> Result<Value, AdminFault> {
        match method {
            "echo" => Ok(params),
            _ => Err(AdminFault::new(FaultCode::BadRequest, format!("no method {method}"))),
        }
    }
}

fn serve(dir: &tempfile::TempDir) -> (PathBuf, ShutdownTrigger, tokio::task::JoinHandle<()>) {
    let path = dir.path().join(SOCKET);
    let server = AdminServer::bind(&path).unwrap();
    let (trigger, shutdown) = shutdown::channel();
    (path, trigger, tokio::spawn(server.serve(Arc::new(Echo), shutdown)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn results_faults_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (path, trigger, task) = serve(&dir);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let at = path.clone();
    blocking(move || {
        let mut client = AdminClient::connect(&at, Duration::from_secs(10)).unwrap();
        let echo: Value = client.call("echo", json!({"a": [1, "zwei\n"]})).unwrap();
        assert_eq!(echo, json!({"a": [1, "zwei\n"]}));
        let fault = client.call::<Value>("nothing", ()).unwrap_err();
        assert!(matches!(fault, AdminError::Fault(f) if f.code == FaultCode::BadRequest));
        assert_eq!(client.call::<u64>("echo", 7).unwrap(), 7);
    })
    .await;
    trigger.trigger();
    task.await.unwrap();
    assert!(!path.exists());
    let gone = AdminClient::connect(&path, Duration::from_secs(1));
    assert!(matches!(gone, Err(AdminError::NotRunning { .. })));
}

#[tokio::test]
async fn what_is_no_request_is_told_so_and_the_server_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _trigger, _task) = serve(&dir);
    blocking(move || {
        for noise in [&b"hello\n"[..], b"{}\n", b"\xff\n", b"[1,2"] {
            let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            stream.write_all(noise).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("bad_request"), "{answer}");
        }
        let mut client = AdminClient::connect(&path, Duration::from_secs(10)).unwrap();
        assert!(client.call::<bool>("echo", true).unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SOCKET);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(AdminServer::bind(&path).is_ok());
}
