//! The page and its listener.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use askama::Template;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{Job, Library, Status};
use crate::http::{self, Handler};
use crate::shutdown::Shutdown;

/// Connections at once; more wait.
const CONNECTIONS: usize = 16;
/// Pages that are made at a time; more wait.
const MAKERS: usize = 2;

/// Looks at an engine; may wait for the catalogue's disk. An error is told on the page.
pub type Source = Arc<dyn Fn() -> Result<Status, String> + Send + Sync>;

type Reply = Response<Full<Bytes>>;

struct Pages {
    source: Source,
    makers: Arc<Semaphore>,
}

/// The template's name for what it shows.
#[derive(Template)]
#[template(path = "status.html")]
struct Page<'a> {
    status: &'a Status,
}

/// Bytes in a unit that people read.
fn bytes(count: &u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (*count as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let unit = UNITS.get(unit).unwrap_or(&"");
    if value.fract() == 0.0 || value >= 99.95 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// An age in the largest unit that fits.
fn age(seconds: &u64) -> String {
    match *seconds {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

impl Library {
    fn what(&self) -> &'static str {
        match self.role {
            "ghost" => "ghost of a library at another site",
            "virtual" => "virtual library",
            _ => "physical library",
        }
    }
}

impl Job {
    /// The state in words: `in progress`.
    fn words(&self) -> String {
        self.state.replace('_', " ")
    }
}

/// Listens, and answers until the shutdown. Returns where it listens, too.
///
/// # Errors
/// The address can not be bound.
pub async fn start(
    address: SocketAddr,
    source: Source,
    shutdown: &Shutdown,
) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    tracing::info!(status = %address, "status page ready");
    let pages = Arc::new(Pages { source, makers: Arc::new(Semaphore::new(MAKERS)) });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let served = http::serve(listener, None, places, pages, shutdown.clone());
    Ok((address, tokio::spawn(served)))
}

impl Handler for Pages {
    type Body = Full<Bytes>;

    fn name(&self) -> &'static str {
        "status page"
    }

    fn allows(&self, host: IpAddr) -> bool {
        host.to_canonical().is_loopback()
    }

    async fn reply(self: Arc<Self>, request: Request<Incoming>, _host: IpAddr) -> Reply {
        // A body is not read, so the connection can not go on behind one.
        let unread = !hyper::body::Body::is_end_stream(request.body());
        let mut reply = self.answer(&request).await;
        let headers = reply.headers_mut();
        if unread {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            // No script at all, nothing from elsewhere, and in nobody's frame.
            (
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; \
                 form-action 'none'; base-uri 'none'",
            ),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if request.method() == Method::HEAD {
            *reply.body_mut() = Full::default();
        }
        reply
    }
}

fn plain(status: StatusCode, text: &'static str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *reply.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

/// Whether the client asked for an address or for `localhost`, and not for a name that somebody
/// else lets lead here.
fn is_addressed(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

impl Pages {
    async fn answer(&self, request: &Request<Incoming>) -> Reply {
        if !is_addressed(request.headers()) {
            return plain(StatusCode::MISDIRECTED_REQUEST, "ask for an address or localhost\n");
        }
        let json = match request.uri().path() {
            "/" => false,
            "/status.json" => true,
            _ => return plain(StatusCode::NOT_FOUND, "there are / and /status.json\n"),
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut reply = plain(StatusCode::METHOD_NOT_ALLOWED, "it is for reading only\n");
            let allow = HeaderValue::from_static("GET, HEAD");
            reply.headers_mut().insert(header::ALLOW, allow);
            return reply;
        }
        let Ok(turn) = Arc::clone(&self.makers).acquire_owned().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the engine stops\n");
        };
        let source = Arc::clone(&self.source);
        let made = tokio::task::spawn_blocking(move || {
            let made = make(&source, json);
            drop(turn);
            made
        });
        match made.await {
            Ok(Ok(body)) => {
                let mut reply = Response::new(Full::new(Bytes::from(body)));
                let kind = if json { "application/json" } else { "text/html; charset=utf-8" };
                let kind = HeaderValue::from_static(kind);
                reply.headers_mut().insert(header::CONTENT_TYPE, kind);
                reply
            }
            failed => {
                tracing::warn!(?failed, "the status page could not be made");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the engine could not be looked at\n")
            }
        }
    }
}

fn make(source: &Source, json: bool) -> Result<String, String> {
    let status = source()?;
    match json {
        true => serde_json::to_string(&status).map_err(|error| error.to_string()),
        false => Page { status: &status }.render().map_err(|error| error.to_string()),
    }
}
