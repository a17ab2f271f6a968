//! HTTP/1.1 for strangers: the accept loop of every web server of an engine, with its limits.

use std::convert::Infallible;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::shutdown::Shutdown;

/// How long the head of a request may take, and how long a connection may be silent between two.
const HEAD: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to fetch its replies before its connection is given up.
const CONNECTION: Duration = Duration::from_secs(3600);
/// Bytes of the head of a request, and how many headers.
const HEAD_BYTES: usize = 16 << 10;
const HEADERS: usize = 64;
/// How long to wait where a connection can not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(250);

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// What replies are made of.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// The word for it in the log.
    fn name(&self) -> &'static str;

    /// Whether a host may connect; else it is not answered at all.
    fn allows(&self, host: IpAddr) -> bool;

    /// Answers a request of a host.
    fn reply(
        self: Arc<Self>,
        request: Request<Incoming>,
        host: IpAddr,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Serves a listener until the shutdown. A connection beyond `places`, which several listeners may
/// share, waits in the system's queue.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    handler: Arc<H>,
    shutdown: Shutdown,
) {
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = shutdown.requested() => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            () = shutdown.requested() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                let server = handler.name();
                tracing::warn!(server, %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        if !handler.allows(peer.ip()) {
            continue;
        }
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(server = handler.name(), %error, "TCP_NODELAY");
        }
        let (handler, tls) = (Arc::clone(&handler), tls.clone());
        connections.spawn(async move {
            let server = handler.name();
            let served = async {
                match tls {
                    None => converse(stream, peer, handler).await,
                    Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                        Ok(Ok(stream)) => converse(stream, peer, handler).await,
                        Ok(Err(error)) => tracing::debug!(server, %peer, %error, "TLS"),
                        Err(_) => tracing::debug!(server, %peer, "TLS took too long"),
                    },
                }
            };
            if tokio::time::timeout(CONNECTION, served).await.is_err() {
                tracing::debug!(server, %peer, "a connection was too old");
            }
            drop(place);
        });
    }
    // What is under way is cut off: nothing is lost by it, since long work is a job.
    connections.shutdown().await;
}

async fn converse<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    handler: Arc<H>,
) {
    let server = handler.name();
    let service = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(handler.reply(request, peer.ip()).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .half_close(true);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(server, %peer, %error, "a connection ended");
    }
}
