//! A site in a directory of its own, and a peer written by hand that talks to its engine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use link::{
    Answer, Bases, Begin, Channel, Chunk, ClientEvent, Entry, Hello, JobReport, LeaseClient,
    Message, Offer, Pack, PackForm, Segment, Sender, SenderOutput, SiteReport, Token, Totals,
    TransferId, Work,
};
use model::{CartridgeId, DeviceName, EngineId, GenerationId, JobId, LeaseId, SiteName, Ulid};
use remote_engine::engine::{Running, now_ms};
use service::config::{EngineConfig, RemoteConfig, TlsFiles};
use service::framing::{FrameReader, FrameWriter};
use service::init::{InitOptions, init};
use service::tls;
use store::{ObjectRun, Store};
use tape::{Operation, Outcome, TapeError};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

type Stream = TlsStream<TcpStream>;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn hq() -> SiteName {
    SiteName::new("hq").unwrap()
}

/// The remote site `dr` with the library `ptl0`.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: RemoteConfig,
}

impl Site {
    pub(crate) fn new(capacity: &str, early_warning: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = InitOptions::with_ports(1, 1).unwrap();
        options.physical_capacity = capacity.to_owned();
        options.early_warning = Some(early_warning.to_owned());
        let made = init(dir.path(), &options).unwrap();
        let mut config = RemoteConfig::load(&made.remote).unwrap();
        config.link.listen = "127.0.0.1:0".parse().unwrap();
        Self { dir, config }
    }

    pub(crate) async fn start(&self) -> Running {
        Running::start(self.config.clone()).await.unwrap()
    }

    /// Connects as the local engine of this run.
    pub(crate) async fn connect(&self, engine: &Running, run: EngineId) -> Local {
        Local::connect(self.dir.path(), engine, run).await
    }
}

pub(crate) fn run_id() -> EngineId {
    EngineId::generate(now_ms())
}

/// One connection.
pub(crate) struct Connection {
    /// What a task of its own reads, so that a wait for it can be given up.
    messages: mpsc::Receiver<Message>,
    writer: FrameWriter<WriteHalf<Stream>>,
}

impl Connection {
    async fn open(dir: &Path, engine: &Running, hello: Hello) -> Self {
        let pki = dir.join("pki");
        let (ca, certificate, key) = (pki.join("ca.pem"), pki.join("hq.pem"), pki.join("hq.key"));
        let files = TlsFiles { ca: &ca, certificate: &certificate, key: &key };
        let config = tls::client_config(files).unwrap();
        let tcp = TcpStream::connect(engine.address()).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = tls::server_name("dr").unwrap();
        let secured = tls::connect(tcp, &config, name).await.unwrap();
        let (reader, writer) = tokio::io::split(secured.stream);
        let (read, messages) = mpsc::channel(256);
        tokio::spawn(forward(FrameReader::new(reader, link::FRAME_MAX), read));
        let writer = FrameWriter::new(writer, link::FRAME_MAX);
        let mut connection = Self { messages, writer };
        connection.send(Message::Hello(hello.clone())).await;
        let answer = connection.next().await;
        let Message::Hello(theirs) = answer else { panic!("no greeting: {answer:?}") };
        link::greet(&hello, &theirs, &SiteName::new("dr").unwrap()).unwrap();
        connection
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.writer.write(&[&message.encode()]).await.unwrap();
        self.writer.flush().await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Message {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.messages.recv()).await;
            match message.expect("an answer in time").expect("an open connection") {
                Message::Ping(nonce) => self.send(Message::Pong(nonce)).await,
                message => return message,
            }
        }
    }
}

async fn forward(mut reader: FrameReader<ReadHalf<Stream>>, to: mpsc::Sender<Message>) {
    while let Ok(Some(frame)) = reader.next().await {
        if to.send(Message::decode(frame).unwrap()).await.is_err() {
            return;
        }
    }
}

/// The local engine, as far as a test needs it.
pub(crate) struct Local {
    control: Connection,
    pub(crate) bulk: Connection,
    pub(crate) reports: Vec<SiteReport>,
    pub(crate) jobs: Vec<JobReport>,
    pub(crate) proofs: Vec<(JobId, link::Verify)>,
    events: Vec<(LeaseId, ClientEvent)>,
}

impl Local {
    async fn connect(dir: &Path, engine: &Running, run: EngineId) -> Self {
        let token = Token(Ulid::generate(now_ms()).0.to_be_bytes());
        let hello = |channel| Hello::new(hq(), run, channel, token);
        let control = Connection::open(dir, engine, hello(Channel::Control)).await;
        let bulk = Connection::open(dir, engine, hello(Channel::Bulk)).await;
        Self {
            control,
            bulk,
            reports: Vec::new(),
            jobs: Vec::new(),
            proofs: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.control.send(message).await;
    }

    /// The next message on the control connection, sorted into where it belongs. Gives a reply
    /// to a lease.
    async fn step(&mut self) -> Option<link::LeaseReply> {
        match self.control.next().await {
            Message::Report(report) => self.reports.push(report),
            Message::Job(report) => self.jobs.push(report),
            Message::JobProof(job, how) => self.proofs.push((job, how)),
            Message::LeaseReply(reply) => return Some(reply),
            other => panic!("unexpected: {other:?}"),
        }
        None
    }

    /// The first report that the test likes; those before it are dropped.
    pub(crate) async fn report(&mut self, likes: impl Fn(&SiteReport) -> bool) -> SiteReport {
        loop {
            if let Some(at) = self.reports.iter().position(&likes) {
                return self.reports.drain(..=at).next_back().unwrap();
            }
            // The end of a lease of an earlier run is told as well.
            drop(self.step().await);
        }
    }

    /// Whatever comes next on either connection: a message of a stream, or an event of the lease.
    pub(crate) async fn either(
        &mut self,
        client: &mut LeaseClient,
    ) -> (Option<link::Stream>, Option<ClientEvent>) {
        let Self { control, bulk, reports, jobs, proofs, .. } = self;
        let message = tokio::select! {
            message = control.next() => message,
            message = bulk.next() => message,
        };
        match message {
            Message::Report(report) => reports.push(report),
            Message::Job(report) => jobs.push(report),
            Message::JobProof(job, how) => proofs.push((job, how)),
            Message::LeaseReply(reply) => return (None, client.handle(reply)),
            Message::Stream(stream) => return (Some(stream), None),
            other => panic!("unexpected: {other:?}"),
        }
        (None, None)
    }

    /// Says that a job has ended, and waits until the engine has taken note.
    pub(crate) async fn end_job(&mut self, job: JobId) {
        self.send(Message::JobOver(job)).await;
        self.send(Message::Ping(1)).await;
        loop {
            match self.control.next().await {
                Message::Report(report) => self.reports.push(report),
                Message::Job(report) => self.jobs.push(report),
                Message::JobProof(job, how) => self.proofs.push((job, how)),
                Message::Pong(_) => return,
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// Waits for a job report.
    pub(crate) async fn job_report(&mut self) -> JobReport {
        while self.jobs.is_empty() {
            self.step().await;
        }
        self.jobs.remove(0)
    }

    /// The next event of a lease, progress left out.
    pub(crate) async fn event(&mut self, client: &mut LeaseClient) -> ClientEvent {
        loop {
            let Some(reply) = self.step().await else { continue };
            match client.handle(reply) {
                None | Some(ClientEvent::Progress { .. }) => {}
                Some(event) => {
                    self.events.push((client.lease(), event.clone()));
                    return event;
                }
            }
        }
    }

    /// Opens a device.
    pub(crate) async fn open(&mut self, device: &str) -> LeaseClient {
        let device: DeviceName = device.parse().unwrap();
        let (mut client, request) = LeaseClient::open(LeaseId::generate(now_ms()), device, true);
        self.send(Message::Lease(request)).await;
        let event = self.event(&mut client).await;
        assert_eq!(event, ClientEvent::Opened);
        client
    }

    /// Asks for a device that is refused; the words of it.
    pub(crate) async fn refused(&mut self, device: &str) -> String {
        let device: DeviceName = device.parse().unwrap();
        let (mut client, request) = LeaseClient::open(LeaseId::generate(now_ms()), device, true);
        self.send(Message::Lease(request)).await;
        match self.event(&mut client).await {
            ClientEvent::Refused(refusal) => refusal.text,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Takes a lease up again over this connection and gives the answer to what is outstanding.
    pub(crate) async fn resume(&mut self, client: &mut LeaseClient) -> Option<Answer> {
        client.on_disconnect(0);
        let outstanding = client.outstanding();
        for request in client.on_reconnect() {
            self.send(Message::Lease(request)).await;
        }
        assert_eq!(self.event(client).await, ClientEvent::Resumed);
        match outstanding {
            Some(_) => Some(self.answer(client).await),
            None => None,
        }
    }

    async fn answer(&mut self, client: &mut LeaseClient) -> Answer {
        match self.event(client).await {
            ClientEvent::Answered { answer, .. } => answer,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// Sends a work without waiting for its answer.
    pub(crate) async fn submit(&mut self, client: &mut LeaseClient, work: Work) {
        let request = client.submit(work).unwrap();
        self.send(Message::Lease(request)).await;
    }

    /// Reads an answer off the connection and forgets it, as if it had been lost.
    pub(crate) async fn lose_answer(&mut self) {
        while self.step().await.is_none() {}
    }

    /// Does a work.
    pub(crate) async fn work(&mut self, client: &mut LeaseClient, work: Work) -> Answer {
        self.submit(client, work).await;
        self.answer(client).await
    }

    /// Does an operation.
    pub(crate) async fn operate(
        &mut self,
        client: &mut LeaseClient,
        operation: Operation,
    ) -> Result<Outcome, TapeError> {
        match self.work(client, Work::Operation(operation)).await {
            Answer::Outcome(outcome) => Ok(outcome),
            Answer::Failed(error) => Err(error),
            other => panic!("no outcome: {other:?}"),
        }
    }

    /// Meets the unit attention that a new initiator finds.
    pub(crate) async fn attention(&mut self, client: &mut LeaseClient, operation: Operation) {
        let met = self.operate(client, operation).await.unwrap_err();
        assert_eq!(met, TapeError::Check(scsi::Sense::POWER_ON_RESET));
    }

    pub(crate) async fn position(&mut self, client: &mut LeaseClient) -> u64 {
        match self.operate(client, Operation::Position).await {
            Ok(Outcome::Position(position)) => position.object,
            other => panic!("no position: {other:?}"),
        }
    }

    /// Moves a cartridge between two elements, over a changer lease of its own.
    pub(crate) async fn change(&mut self, moves: &[(u16, u16)]) {
        let mut changer = self.open("ptl0/changer").await;
        for (from, to) in moves {
            let operation = Operation::Move { from: *from, to: *to };
            assert_eq!(self.operate(&mut changer, operation).await, Ok(Outcome::Done));
        }
        assert_eq!(self.work(&mut changer, Work::Close).await, Answer::Closed);
    }

    /// Begins to send a generation, and says no more when its chunks were asked for.
    pub(crate) async fn replicate_half(&mut self, store: &Store, generation: GenerationId) {
        let transfer = TransferId(Ulid::generate(now_ms()));
        let mut sender = Sender::new(transfer, begin(store, generation));
        loop {
            while let Some(output) = sender.poll() {
                match output {
                    SenderOutput::Send(message) => {
                        self.bulk.send(Message::Replicate(message)).await;
                    }
                    SenderOutput::NeedBatch { .. } => {
                        sender.batch(offer(store, generation)).unwrap();
                    }
                    SenderOutput::NeedPack { .. } => return,
                    other => panic!("{other:?}"),
                }
            }
            let message = self.bulk.next().await;
            let Message::Replicate(message) = message else { panic!("{message:?}") };
            sender.handle(message.body).unwrap();
        }
    }

    /// Sends a generation of a store until it is committed; what the sender counted.
    pub(crate) async fn replicate(&mut self, store: &Store, generation: GenerationId) -> u64 {
        let mut sender =
            Sender::new(TransferId(Ulid::generate(now_ms())), begin(store, generation));
        let mut sent = false;
        loop {
            while let Some(output) = sender.poll() {
                match output {
                    SenderOutput::Send(message) => {
                        self.bulk.send(Message::Replicate(message)).await;
                    }
                    SenderOutput::NeedBatch { .. } if sent => {
                        let info = store.generation(generation).unwrap();
                        let store::GenerationInfo { objects, bytes, chunks, .. } = info;
                        sender.end(Totals { objects, bytes, chunks, ..Totals::default() }).unwrap();
                    }
                    SenderOutput::NeedBatch { .. } => {
                        sent = true;
                        sender.batch(offer(store, generation)).unwrap();
                    }
                    SenderOutput::NeedPack { chunks, .. } => {
                        sender.pack(pack(store, generation, &chunks)).unwrap();
                    }
                    SenderOutput::Done(counters) => return counters.unique,
                    SenderOutput::Failed(failure) => panic!("{failure}"),
                }
            }
            let message = self.bulk.next().await;
            let Message::Replicate(message) = message else { panic!("{message:?}") };
            sender.handle(message.body).unwrap();
        }
    }
}

fn begin(store: &Store, generation: GenerationId) -> Begin {
    let info = store.generation(generation).unwrap();
    let attributes = serde_json::json!({
        "library": "vtl0",
        "capacity": 1u64 << 30,
        "created_ms": info.created_ms,
        "unique_bytes": info.unique_bytes,
        "stored_bytes": info.stored_bytes,
    });
    Begin {
        generation,
        cartridge: info.cartridge,
        parent: info.parent,
        bases: Bases::Any(Vec::new()),
        barcode: Some(model::Barcode::new("VTA001L8").unwrap()),
        attributes: attributes.to_string().into(),
    }
}

/// A generation small enough for one batch.
fn offer(store: &Store, generation: GenerationId) -> Offer {
    let recipe = store.recipe(generation).unwrap();
    let segment = |run| match run {
        ObjectRun::Records { size, count } => Segment::Records { size, count },
        ObjectRun::Filemarks { count } => Segment::Filemarks(count),
    };
    let segments = recipe.runs(0).map(|run| segment(run.unwrap())).collect();
    let chunk =
        |chunk: store::ChunkRef| Entry::Chunk(Chunk { digest: chunk.digest, length: chunk.len });
    let entries = recipe.chunks(0).map(|it| chunk(it.unwrap())).collect();
    Offer { segments, entries }
}

/// Chunks of it, as they are.
fn pack(store: &Store, generation: GenerationId, chunks: &[u32]) -> Pack {
    let recipe = store.recipe(generation).unwrap();
    let name = |index: &u32| recipe.chunk((*index).into()).unwrap().unwrap().digest;
    let names: Vec<_> = chunks.iter().map(name).collect();
    let bytes: Vec<u8> = names.iter().flat_map(|name| store.chunk(name).unwrap()).collect();
    let (form, proof) = (PackForm::Plain, link::proof(&names));
    Pack { chunks: chunks.to_vec(), olds: Vec::new(), form, proof, bytes: bytes.into() }
}

/// A store beside the test with one sealed generation of these records; `None` is a filemark.
pub(crate) fn store_with(dir: &Path, objects: &[Option<Bytes>]) -> (Store, GenerationId) {
    let vfs = Arc::new(vfs::RealVfs);
    let (store, _) = Store::open(vfs, &dir.join("hq-store"), &store::Options::default()).unwrap();
    let mut image = store.image(CartridgeId::generate(now_ms())).unwrap();
    for object in objects {
        match object {
            Some(record) => image.write(record).unwrap(),
            None => image.write_filemarks(1).unwrap(),
        }
    }
    let generation = image.seal().unwrap().unwrap();
    drop(image);
    (store, generation)
}

/// Bytes that nothing compresses, from a seed.
pub(crate) fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}
