//! The engine's side.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{ANSWER_MAX, AdminFault, Answer, FaultCode, REQUEST_MAX, Request};
use crate::shutdown::Shutdown;

/// Connections at once; one more waits.
const CONNECTIONS: usize = 16;

/// Answers admin requests.
pub trait AdminHandler: Send + Sync + 'static {
    /// Does what `method` says. Several calls run at once, from different connections.
    ///
    /// # Errors
    /// What the caller is told; [`FaultCode::BadRequest`] for an unknown method.
    fn call(
        &self,
        method: &str,
        params: Value,
    ) -> impl Future<Output = Result<Value, AdminFault>> + Send;
}

/// Does what may block, such as waiting for the catalogue, elsewhere than among the sockets.
///
/// # Errors
/// Those of the work; [`FaultCode::Failed`] if it panicked.
pub async fn blocking(
    work: impl FnOnce() -> Result<Value, AdminFault> + Send + 'static,
) -> Result<Value, AdminFault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(AdminFault::new(FaultCode::Failed, error.to_string())))
}

/// A bound admin socket; dropped, it removes its file.
#[derive(Debug)]
pub struct AdminServer {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminServer {
    /// Binds the socket, mode 0600. A file that an engine left behind is replaced, so claim the
    /// state directory ([`crate::state::StateDir`]) first.
    ///
    /// # Errors
    /// The system's, for a path above 107 bytes or a directory that is not ours.
    pub fn bind(path: &Path) -> std::io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves until the shutdown; requests under way are given up then.
    pub async fn serve<H: AdminHandler>(self, handler: Arc<H>, shutdown: Shutdown) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = shutdown.requested() => return,
                accepted = accept(&self.listener, &places) => accepted,
            };
            let Some((stream, place)) = accepted else { continue };
            let (handler, shutdown) = (handler.clone(), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = shutdown.requested() => {}
                    result = converse(stream, &*handler) => {
                        if let Err(error) = result {
                            tracing::debug!(%error, "an admin connection ended");
                        }
                    }
                }
                drop(place);
            });
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> Option<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::warn!(%error, "the admin socket refuses a connection");
            // Out of descriptors: let somebody else end first.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            None
        }
    }
}

async fn converse<H: AdminHandler>(stream: UnixStream, handler: &H) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limited = &mut (&mut read).take(REQUEST_MAX as u64);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let complete = line.ends_with(b"\n");
        let mut answer = serde_json::to_vec(&answer(&line, handler).await)?;
        if answer.len() >= ANSWER_MAX {
            let error = AdminFault::new(FaultCode::Failed, "the answer exceeds 64 MiB");
            answer = serde_json::to_vec(&Answer { id: 0, result: None, error: Some(error) })?;
        }
        answer.push(b'\n');
        write.write_all(&answer).await?;
        if !complete {
            return Ok(());
        }
    }
}

async fn answer<H: AdminHandler>(line: &[u8], handler: &H) -> Answer {
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => {
            let fault = AdminFault::new(FaultCode::BadRequest, format!("no request: {error}"));
            return Answer { id: 0, result: None, error: Some(fault) };
        }
    };
    match handler.call(&request.method, request.params).await {
        Ok(result) => Answer { id: request.id, result: Some(result), error: None },
        Err(fault) => Answer { id: request.id, result: None, error: Some(fault) },
    }
}
