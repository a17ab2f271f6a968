//! What a stranger may send by HTTP, and what is answered; the sockets are [`service::http`].

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cim::wire::{Head, Refusal, Request};
use cim::xml::{Drain, Limits, Writer};
use cim::{Caller, Server};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use model::Network;
use service::cli::Failure;
use service::config::Smis;
use service::http::Handler;
use service::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::EngineRepository;
use super::auth::{Denied, Gatekeeper, User};

/// How long a body may take.
const BODY: Duration = Duration::from_secs(30);
/// How long what is not wanted is waited for.
const DRAIN: Duration = Duration::from_secs(3);
/// Operations at a time; more wait.
const OPERATIONS: usize = 8;

/// Replies that go in parts at a time. A client that is slow to take its reply holds up only these,
/// and not the operations.
const STREAMS: usize = 16;
/// Parts of a reply that wait for its client, and how long one may.
const PARTS: usize = 2;
const PART: Duration = Duration::from_secs(20);

type Reply = Response<Either<Full<Bytes>, Parts>>;

/// Why a reply was cut off.
#[derive(Debug, thiserror::Error)]
#[error("the reply could not be ended")]
struct CutOff;

/// A piece of a reply.
enum Piece {
    Part(Bytes),
    Last(Bytes),
}

/// A reply in parts; its error cuts it off.
struct Parts {
    first: Option<Piece>,
    rest: mpsc::Receiver<Piece>,
    ended: bool,
}

impl Body for Parts {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let piece = match self.first.take() {
            Some(first) => Some(first),
            None if self.ended => return Poll::Ready(None),
            None => std::task::ready!(self.rest.poll_recv(cx)),
        };
        Poll::Ready(Some(match piece {
            Some(Piece::Part(bytes)) => Ok(Frame::data(bytes)),
            Some(Piece::Last(bytes)) => {
                self.ended = true;
                Ok(Frame::data(bytes))
            }
            None => {
                self.ended = true;
                Err(CutOff)
            }
        }))
    }
}

/// What all connections share.
struct Shared {
    server: Server<EngineRepository>,
    keeper: Gatekeeper,
    allow: Option<Vec<Network>>,
    operations: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    begun: Instant,
}

/// Listens until the shutdown.
pub(super) async fn listen(
    server: Server<EngineRepository>,
    config: &Smis,
    shutdown: &Shutdown,
) -> Result<Vec<JoinHandle<()>>, Failure> {
    let keeper = Gatekeeper::new(config).map_err(|error| error.to_string())?;
    let shared = Arc::new(Shared {
        server,
        keeper,
        allow: config.allow.clone(),
        operations: Arc::new(Semaphore::new(OPERATIONS)),
        streams: Arc::new(Semaphore::new(STREAMS)),
        begun: Instant::now(),
    });
    let places = Arc::new(Semaphore::new(config.max_connections as usize));
    let mut tasks = Vec::new();
    let tls = match (&config.https, &config.certificate, &config.key) {
        (Some(address), Some(certificate), Some(key)) => {
            let tls = service::tls::https_config(certificate, key);
            let tls = tls.map_err(|error| error.to_string())?;
            Some((*address, Some(TlsAcceptor::from(tls))))
        }
        _ => None,
    };
    for (address, tls) in config.http.map(|address| (address, None)).into_iter().chain(tls) {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        tracing::info!(smis = %address, scheme, "SMI-S ready");
        let (places, handler) = (Arc::clone(&places), Arc::clone(&shared));
        let served = service::http::serve(listener, tls, places, handler, shutdown.clone());
        tasks.push(tokio::spawn(served));
    }
    Ok(tasks)
}

/// Nothing but a status; the connection ends, since what was sent may not have been read.
fn status(code: StatusCode) -> Reply {
    let mut reply = Response::new(Either::Left(Full::default()));
    *reply.status_mut() = code;
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

fn refused(refusal: &Refusal) -> Reply {
    let code = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut reply = status(code);
    if !refusal.cim_error.is_empty() {
        let name = HeaderName::from_static("cimerror");
        reply.headers_mut().insert(name, HeaderValue::from_static(refusal.cim_error));
    }
    reply
}

impl Handler for Shared {
    type Body = Either<Full<Bytes>, Parts>;

    fn name(&self) -> &'static str {
        "SMI-S"
    }

    fn allows(&self, host: IpAddr) -> bool {
        let within = |all: &Vec<Network>| all.iter().any(|network| network.contains(host));
        self.allow.as_ref().is_none_or(within)
    }

    async fn reply(self: Arc<Self>, request: hyper::Request<Incoming>, host: IpAddr) -> Reply {
        let began = Instant::now();
        match self.answer(request, host).await {
            Ok((body, prefix)) => good(body, prefix.as_deref(), began.elapsed()),
            Err(reply) => *reply,
        }
    }
}

impl Shared {
    /// The body of the reply, and the number of its headers for M-POST.
    async fn answer(
        self: &Arc<Self>,
        request: hyper::Request<Incoming>,
        host: IpAddr,
    ) -> Result<(Made, Option<String>), Box<Reply>> {
        let (parts, body) = request.into_parts();
        let (head, caller) = match self.admit(&parts, host).await {
            Ok(admitted) => admitted,
            Err(reply) => {
                // A client that learns only now that it has to log in has sent everything already.
                // What is left unread would take the reply away from it.
                drain(body).await;
                return Err(reply);
            }
        };
        let body = read(&parts.headers, body).await?;
        let parsed = Request::parse(&body, &head);
        drop(body);
        let request = parsed.map_err(|refusal| {
            tracing::debug!(%host, %refusal, "SMI-S: refused");
            Box::new(refused(&refusal))
        })?;
        Ok((self.operate(request, caller).await?, head.prefix))
    }

    /// Who asks, and what the headers say of the request: all that is known before its body.
    async fn admit(
        &self,
        parts: &hyper::http::request::Parts,
        host: IpAddr,
    ) -> Result<(Head, Caller), Box<Reply>> {
        let extended = method(parts)?;
        let given = parts.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let user = match self.keeper.admit(host, given).await {
            Ok(User(user)) => user,
            Err(Denied(delay)) => {
                tokio::time::sleep(delay).await;
                let mut reply = status(StatusCode::UNAUTHORIZED);
                let challenge = HeaderValue::from_static("Basic realm=\"twinreel\"");
                reply.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                return Err(Box::new(reply));
            }
        };
        let named = |name: &str| parts.headers.get(name).map(|value| value.as_bytes().to_vec());
        let head = Head::read(extended, &named).map_err(|refusal| {
            tracing::debug!(%host, %refusal, "SMI-S: refused");
            Box::new(refused(&refusal))
        })?;
        Ok((head, Caller { user, host }))
    }

    /// Does it on a thread that may wait for the catalogue's disk.
    async fn operate(
        self: &Arc<Self>,
        request: Request,
        caller: Caller,
    ) -> Result<Made, Box<Reply>> {
        let turn = Arc::clone(&self.operations).acquire_owned().await.ok();
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let shared = Arc::clone(self);
        let (parts, mut waiting) = mpsc::channel(PARTS);
        let outlet = Outlet { parts, streams: Arc::clone(&self.streams), turn };
        tokio::task::spawn_blocking(move || {
            let last = outlet.parts.clone();
            let writer = Writer::draining(outlet.drain());
            if let Some(reply) = shared.server.answer(&request, &caller, now, writer) {
                let sending = tokio::time::timeout(PART, last.send(Piece::Last(reply.into())));
                drop(Handle::current().block_on(sending));
            }
        });
        match waiting.recv().await {
            Some(Piece::Last(whole)) => Ok(Made::Whole(whole)),
            Some(first) => {
                Ok(Made::Parts(Parts { first: Some(first), rest: waiting, ended: false }))
            }
            None => {
                tracing::error!("SMI-S: an operation broke");
                Err(Box::new(status(StatusCode::INTERNAL_SERVER_ERROR)))
            }
        }
    }
}

/// A reply: known to its end, or as it is made.
enum Made {
    Whole(Bytes),
    Parts(Parts),
}

/// Where the parts of a long reply go; on a thread that may block.
struct Outlet {
    parts: mpsc::Sender<Piece>,
    streams: Arc<Semaphore>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Outlet {
    fn drain(mut self) -> Drain {
        let runtime = Handle::current();
        let mut place = None;
        Box::new(move |part| {
            // From here on the client says how long it takes: that is no operation's time.
            drop(self.turn.take());
            let sent = runtime.block_on(tokio::time::timeout(PART, async {
                if place.is_none() {
                    place = Arc::clone(&self.streams).acquire_owned().await.ok();
                }
                self.parts.send(Piece::Part(part.into())).await.is_ok()
            }));
            sent.unwrap_or(false)
        })
    }
}

/// Whether it is an M-POST; anything else than that and POST is turned away.
fn method(parts: &hyper::http::request::Parts) -> Result<bool, Box<Reply>> {
    let extended = match &parts.method {
        method if *method == Method::POST => false,
        method if method.as_str() == "M-POST" => true,
        _ => {
            let mut reply = status(StatusCode::METHOD_NOT_ALLOWED);
            let allow = HeaderValue::from_static("POST, M-POST");
            reply.headers_mut().insert(header::ALLOW, allow);
            return Err(Box::new(reply));
        }
    };
    match parts.uri.path() {
        "/cimom" | "/" => Ok(extended),
        _ => Err(Box::new(status(StatusCode::NOT_FOUND))),
    }
}

/// Reads what is not wanted, as far as it is little and comes soon.
async fn drain(body: Incoming) {
    if body.size_hint().lower() <= Limits::REQUEST.bytes as u64 {
        let body = Limited::new(body, Limits::REQUEST.bytes);
        drop(tokio::time::timeout(DRAIN, body.collect()).await);
    }
}

/// The body, once its headers promise one that can be read.
async fn read(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Box<Reply>> {
    let fail = |code| Err(Box::new(status(code)));
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let length = headers.contains_key(header::CONTENT_LENGTH);
    match (chunked, length) {
        // Who reads which of them is what smuggling lives from.
        (true, true) => return fail(StatusCode::BAD_REQUEST),
        (false, false) => return fail(StatusCode::LENGTH_REQUIRED),
        _ => {}
    }
    if body.size_hint().lower() > Limits::REQUEST.bytes as u64 {
        return fail(StatusCode::PAYLOAD_TOO_LARGE);
    }
    if !is_xml(headers) {
        return fail(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let limited = Limited::new(body, Limits::REQUEST.bytes);
    match tokio::time::timeout(BODY, limited.collect()).await {
        Err(_) => fail(StatusCode::REQUEST_TIMEOUT),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => fail(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => fail(StatusCode::BAD_REQUEST),
    }
}

/// `application/xml` or `text/xml`, in UTF-8 where a character set is named.
fn is_xml(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let Ok(text) = value.to_str() else { return false };
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    matches!(kind.as_str(), "application/xml" | "text/xml")
        && charset.is_none_or(|name| name.eq_ignore_ascii_case("utf-8"))
}

fn good(made: Made, prefix: Option<&str>, took: Duration) -> Reply {
    let body = match made {
        Made::Whole(whole) => Either::Left(Full::new(whole)),
        Made::Parts(parts) => Either::Right(parts),
    };
    let mut reply = Response::new(body);
    let headers = reply.headers_mut();
    let kind = HeaderValue::from_static("application/xml; charset=\"utf-8\"");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let mut add = |name: String, value: String| {
        let pair = (HeaderName::try_from(name), HeaderValue::try_from(value));
        if let (Ok(name), Ok(value)) = pair {
            headers.insert(name, value);
        }
    };
    add("wbemserverresponsetime".into(), took.as_micros().to_string());
    match prefix {
        None => add("cimoperation".into(), "MethodResponse".into()),
        Some(number) => {
            add("ext".into(), String::new());
            let man = format!("http://www.dmtf.org/cim/mapping/http/v1.0; ns={number}");
            add("man".into(), man);
            add(format!("{number}-cimoperation"), "MethodResponse".into());
        }
    }
    reply
}
