//! One generation on its way in, on a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use link::{
    Begin, Begun, Counters, FailWhy, Failure, Message, Peer, Piece, Receiver, ReceiverOutput,
    ReplicateBody, Segment, Totals, TransferId, Unpack,
};
use model::{Digest, JobId, LibraryName};
use serde::Deserialize;
use service::messages;
use store::{ChunkRef, GenerationInfo, Import, ObjectRun, StoreError};
use svs::{
    Cartridge, Ending, EventKind, GenerationState, JobKind, JobOwner, JobState, NewJob, Progress,
    Replication, ReplicationState, SvsError, Verified,
};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::Incoming;
use super::base::{Base, OldError};
use crate::engine::{Ground, now_ms};

/// The rows follow at most so often.
const ROW_TIME: Duration = Duration::from_millis(500);

/// What the sending engine tells of a generation beyond `link::Begin`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    library: Option<LibraryName>,
    capacity: u64,
    created_ms: u64,
    /// Bytes of all records, if the sender knows.
    bytes: Option<u64>,
    /// The number of the generation among those of its cartridge.
    number: Option<u64>,
    /// The sender's job.
    job: Option<JobId>,
    /// It is still written there: nothing is promised before it is committed.
    ahead: bool,
    /// What [`Recipes::digest`] says there, if it is sealed and the sender tells.
    digest: Option<String>,
}

/// A generation that arrives.
pub(super) struct Arrival {
    ground: Arc<Ground>,
    peer: Peer,
    begin: Begin,
    attributes: Attributes,
    receiver: Receiver,
    bulk: mpsc::Sender<Message>,
    import: Option<Import>,
    /// What the peer tells it by; pinned as long as the transfer lasts.
    base: Option<Base>,
    job: JobId,
    /// The job has a row.
    written: bool,
    /// Bytes of all messages of this transfer, both ways.
    wire: u64,
    row: Instant,
    /// It came to its end; nothing more is to be written.
    over: bool,
}

fn failure(error: &StoreError) -> Failure {
    let why = match error {
        StoreError::WrongChunk { .. } | StoreError::WrongImport { .. } => FailWhy::Corrupt,
        StoreError::MissingChunk(_) => FailWhy::Corrupt,
        _ => FailWhy::Store,
    };
    Failure { why, text: error.to_string() }
}

fn unwritten(error: &SvsError) -> Failure {
    let text = format!("the rows of the generation can not be written: {error}");
    Failure { why: FailWhy::Store, text }
}

impl Arrival {
    pub(super) fn new(
        ground: Arc<Ground>,
        peer: Peer,
        begin: Begin,
        receiver: Receiver,
        bulk: mpsc::Sender<Message>,
        wire: u64,
    ) -> Self {
        let attributes: Attributes = serde_json::from_slice(&begin.attributes).unwrap_or_default();
        let job = attributes.job.unwrap_or(JobId(receiver.transfer().0));
        Self {
            ground,
            peer,
            begin,
            attributes,
            receiver,
            bulk,
            import: None,
            base: None,
            job,
            written: false,
            wire,
            row: Instant::now(),
            over: false,
        }
    }

    fn transfer(&self) -> TransferId {
        self.receiver.transfer()
    }

    /// Receives until the generation is committed, has failed, or the connection is gone.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Incoming>) {
        let generation = self.begin.generation;
        self.ground.replicas.begin(generation, self.transfer());
        let ended = self.receive(&mut inbox);
        if let Err(cause) = ended
            && !self.over
        {
            self.interrupted(&cause);
        }
        self.ground.replicas.end(generation, self.transfer());
    }

    fn receive(&mut self, inbox: &mut mpsc::Receiver<Incoming>) -> Result<(), String> {
        loop {
            while let Some(output) = self.receiver.poll() {
                self.act(output)?;
            }
            if self.over {
                return Ok(());
            }
            let (body, length) = self.next(inbox).ok_or("the link is down")?;
            self.wire += length;
            if let (Some(base), ReplicateBody::Offer { offer, .. }) = (&mut self.base, &body) {
                base.offered(offer);
            }
            if let Err(error) = self.receiver.handle(body) {
                self.ground.peers.end(&self.peer.site, &error.to_string());
            }
        }
    }

    /// The next message. Old bytes are read until it comes.
    fn next(&mut self, inbox: &mut mpsc::Receiver<Incoming>) -> Option<Incoming> {
        loop {
            match inbox.try_recv() {
                Err(TryRecvError::Empty) => {}
                come => return come.ok(),
            }
            if !self.base.as_mut().is_some_and(Base::read_ahead) {
                return inbox.blocking_recv();
            }
        }
    }

    /// Does what the machine asks for. An error ends the thread.
    fn act(&mut self, output: ReceiverOutput) -> Result<(), String> {
        let asked = |result: Result<(), link::TransferError>| result.map_err(|it| it.to_string());
        match output {
            ReceiverOutput::Send(message) => {
                let message = Message::Replicate(message);
                let gone = |_| "the link is down".to_owned();
                self.bulk.blocking_send(message).map_err(gone)?;
            }
            ReceiverOutput::Begin(_) => match self.begin() {
                Ok(begun) => asked(self.receiver.begun(begun))?,
                Err(failure) => self.receiver.fail(failure),
            },
            ReceiverOutput::Append { segments, pieces } => {
                if let Err(failure) = self.append(&segments, &pieces) {
                    self.receiver.fail(failure);
                }
            }
            ReceiverOutput::NeedMissing { sequence, digests } => {
                let missing = self.ground.store.missing(&digests);
                asked(self.receiver.missing(sequence, &missing))?;
            }
            ReceiverOutput::Unpack(pack) => match self.put(&pack) {
                Ok(names) => asked(self.receiver.stored(&names))?,
                Err(failure) => self.receiver.fail(failure),
            },
            ReceiverOutput::Commit(totals) => match self.commit(totals) {
                Ok(()) => asked(self.receiver.committed())?,
                Err(failure) => self.receiver.fail(failure),
            },
            ReceiverOutput::Done(counters) => self.done(counters),
            // The sender comes back at once, without a base.
            ReceiverOutput::Failed(failure) if failure.why == FailWhy::Base => {
                tracing::warn!(job = %self.job, cause = failure.text, "a base can not be used");
                self.over = true;
                self.interrupted(&failure.to_string());
            }
            ReceiverOutput::Failed(failure) => self.failed(&failure),
        }
        Ok(())
    }

    /// Looks what is here, and writes the job before the work.
    fn begin(&mut self) -> Result<Begun, Failure> {
        let refused = |text: &str| Failure { why: FailWhy::Refused, text: text.to_owned() };
        if self.begin.barcode.is_none() || self.attributes.library.is_none() {
            return Err(refused("barcode and library of the cartridge are not told"));
        }
        if let Some(info) = self.here()? {
            if info.cartridge != self.begin.cartridge {
                return Err(refused("the generation is here as one of another cartridge"));
            }
            // The store commits first: a crash may have come before the rows.
            self.write_rows(&info, Counters::default()).map_err(|error| unwritten(&error))?;
            self.over = true;
            return Ok(Begun::Already);
        }
        if !self.attributes.ahead {
            self.write_job().map_err(|error| unwritten(&error))?;
        }
        let store = &self.ground.store;
        let bases = self.begin.bases.list().iter().zip(0u32..);
        let mut here = bases.filter_map(|(id, index)| Some((index, store.recipe(*id).ok()?)));
        let (index, base) = here.next().unzip();
        self.base = base.map(|recipe| Base::new(store, recipe));
        self.import = Some(store.import_unannounced(GenerationInfo {
            id: self.begin.generation,
            cartridge: self.begin.cartridge,
            parent: self.begin.parent,
            created_ms: self.attributes.created_ms,
            objects: 0,
            filemarks: 0,
            bytes: 0,
            chunks: 0,
            unique_bytes: 0,
            stored_bytes: 0,
        }));
        Ok(Begun::Import { base: index })
    }

    /// The generation, if it is here already and is the one that is sent. One that came with a seed
    /// and is another one is given up; nothing has relied on it.
    fn here(&self) -> Result<Option<GenerationInfo>, Failure> {
        let (ground, id) = (&self.ground, self.begin.generation);
        let Some(info) = ground.store.generation(id) else { return Ok(None) };
        let Some(theirs) = &self.attributes.digest else { return Ok(Some(info)) };
        let lists = ground.store.recipe(id);
        let ours = lists.and_then(|lists| lists.digest()).map_err(|error| failure(&error))?;
        if ours.to_string() == *theirs {
            return Ok(Some(info));
        }
        let rows = ground.catalogue.replications(&[]).map_err(|error| unwritten(&error))?;
        if rows.iter().any(|row| row.generation == id) {
            let text = "what was replicated under this name is something else".to_owned();
            return Err(Failure { why: FailWhy::Corrupt, text });
        }
        let words: [(&str, &dyn std::fmt::Display); 2] =
            [("cartridge", &self.ends().0), ("site", &self.peer.site)];
        messages::note(&ground.catalogue, EventKind::Store, messages::SEED_WRONG, &words, None);
        if ground.catalogue.generation(id).map_err(|error| unwritten(&error))?.is_some() {
            ground.catalogue.remove_generation(id).map_err(|error| unwritten(&error))?;
        }
        ground.store.delete_generation(id).map_err(|error| failure(&error))?;
        Ok(None)
    }

    fn ends(&self) -> (String, String) {
        let barcode = self.begin.barcode.as_ref().map_or("-", |barcode| barcode.as_str());
        let library = self.attributes.library.as_ref().map_or("-", |library| library.as_str());
        let source = format!("{}-{library}/{barcode}", self.peer.site);
        (source, format!("replica of {library}/{barcode}"))
    }

    fn write_job(&mut self) -> Result<(), SvsError> {
        let catalogue = &self.ground.catalogue;
        self.write_cartridge()?;
        let ends = self.ends();
        let source = ends.0.clone();
        let by = format!("site {}", self.peer.site);
        let mut job = NewJob::new(self.job, JobKind::Replication, JobOwner::Peer, ends, by);
        job.state = JobState::InProgress;
        job.bytes_total = self.attributes.bytes;
        job.cartridge = Some(self.begin.cartridge);
        // An attempt that was interrupted is this same job.
        let note = self.begin.generation.to_string();
        let unfinished = catalogue.unfinished_jobs(Some(JobKind::Replication))?;
        let former = unfinished.iter().find(|job| job.resume.as_ref() == Some(&note));
        if let Some(former) = former {
            (self.job, job.id) = (former.id, former.id);
        }
        job.resume = Some(note);
        if !catalogue.create_job(&job)? {
            let known = catalogue.job(self.job)?.map(|job| job.state);
            if known.is_some_and(JobState::is_final) {
                // The peer begins again what had ended here: this attempt has a row of its own.
                self.job = JobId::generate(now_ms());
                catalogue.create_job(&NewJob { id: self.job, ..job })?;
            } else {
                catalogue.transition(self.job, JobState::InProgress, None)?;
            }
        }
        let words: [(&str, &dyn std::fmt::Display); 3] = [
            ("cartridge", &source),
            ("site", &self.ground.config.site.name),
            ("bytes", &self.attributes.bytes.unwrap_or(0)),
        ];
        let (id, subject) = (messages::REPLICATION_BEGINS, self.job.to_string());
        messages::note(catalogue, EventKind::Job, id, &words, Some(&subject));
        self.written = true;
        Ok(())
    }

    /// A failure that may be the base's, which the peer can do without.
    fn failure(&self, error: &StoreError) -> Failure {
        let damaged = matches!(error, StoreError::Damaged { .. } | StoreError::MissingChunk(_));
        match self.base.is_some() && damaged {
            true => Failure { why: FailWhy::Base, text: error.to_string() },
            false => failure(error),
        }
    }

    fn append(&mut self, segments: &[Segment], pieces: &[Piece]) -> Result<(), Failure> {
        let appended = self.append_all(segments, pieces);
        appended.map_err(|error| self.failure(&error))
    }

    fn append_all(&mut self, segments: &[Segment], pieces: &[Piece]) -> Result<(), StoreError> {
        let base = self.base.as_ref().map(Base::id);
        let Some(import) = &mut self.import else { return Ok(()) };
        for segment in segments {
            import.append_objects(match segment {
                Segment::Records { size, count } => {
                    ObjectRun::Records { size: *size, count: *count }
                }
                Segment::Filemarks(count) => ObjectRun::Filemarks { count: *count },
            })?;
        }
        for piece in pieces {
            match (piece, base) {
                (Piece::Chunk(chunk), _) => {
                    import.append_chunk(ChunkRef { digest: chunk.digest, len: chunk.length })?;
                }
                (Piece::Again { first, count }, _) => import.append_again(*first, *count)?,
                (Piece::Run { first, count }, Some(base)) => {
                    import.append_run(base, *first, *count)?;
                }
                // The machine lets no run pass without a base.
                (Piece::Run { .. }, None) => {}
            }
        }
        Ok(())
    }

    /// Verifies and stores the chunks of a pack; their names.
    fn put(&mut self, pack: &Unpack) -> Result<Vec<Digest>, Failure> {
        let old = match &mut self.base {
            Some(base) => base.old(&pack.olds),
            None => Ok(Vec::new()),
        };
        let old = old.map_err(|error| match error {
            OldError::Store(error) => self.failure(&error),
            OldError::Wrong(text) => Failure { why: FailWhy::Refused, text: text.to_owned() },
        })?;
        let corrupt = |error: link::PackError| {
            let (why, text) = (FailWhy::Corrupt, error.to_string());
            Failure { why, text }
        };
        let bytes = (&old[..], &pack.bytes);
        let chunks = link::unpack(&pack.chunks, pack.form, bytes, &pack.proof).map_err(corrupt)?;
        self.ground.store.put_chunks(&chunks).map_err(|error| failure(&error))?;
        if self.written && self.row.elapsed() >= ROW_TIME {
            self.row = Instant::now();
            let bytes = self.receiver.counters().offered;
            let progress = Progress { bytes, bytes_total: None };
            if let Err(error) = self.ground.catalogue.progress(self.job, progress) {
                tracing::warn!(job = %self.job, %error, "the job row could not be written");
            }
        }
        Ok(chunks.into_iter().map(|(name, _)| name).collect())
    }

    /// The store first, then the rows.
    fn commit(&mut self, totals: Totals) -> Result<(), Failure> {
        let gone = || Failure { why: FailWhy::Store, text: "no import is open".to_owned() };
        let import = self.import.as_mut().ok_or_else(gone)?;
        import.announce(totals.objects, totals.bytes, totals.chunks);
        import.tell_new(totals.unique, totals.stored);
        if !self.written {
            self.attributes.bytes = Some(totals.bytes);
            self.write_job().map_err(|error| unwritten(&error))?;
        }
        let Some(import) = &mut self.import else { return Ok(()) };
        let generation = self.begin.generation;
        tracing::debug!(%generation, "commit: every chunk is here");
        let info = import.commit();
        let info = info.map_err(|error| self.failure(&error))?;
        tracing::debug!(%generation, "commit: the store has it");
        self.import = None;
        let counters = self.receiver.counters();
        self.write_rows(&info, counters).map_err(|error| unwritten(&error))?;
        // Before the sender hears of it, so that both sides never disagree.
        self.ground.jobs.done(self.job, info.bytes, Verified::Readback);
        tracing::debug!(%generation, "commit: the rows say so");
        Ok(())
    }

    fn write_cartridge(&self) -> Result<(), SvsError> {
        let (Some(barcode), Some(library)) = (&self.begin.barcode, &self.attributes.library) else {
            return Ok(());
        };
        self.ground.catalogue.put_cartridge(&Cartridge {
            id: self.begin.cartridge,
            site: self.peer.site.clone(),
            library: library.clone(),
            barcode: barcode.clone(),
            capacity: self.attributes.capacity,
            write_protected: false,
            element: None,
            home: None,
        })
    }

    fn write_rows(&self, info: &GenerationInfo, counters: Counters) -> Result<(), SvsError> {
        let catalogue = &self.ground.catalogue;
        self.write_cartridge()?;
        if catalogue.generation(info.id)?.is_none_or(|row| row.state != GenerationState::Sealed) {
            let known = catalogue.generations(info.cartridge)?;
            let taken = |number| known.iter().any(|row| row.number == number && row.id != info.id);
            let newest = known.iter().map(|row| row.number).max().unwrap_or(0);
            // Generations that never came here leave gaps; the sender's count is kept if it can be.
            let number = self.attributes.number.filter(|number| !taken(*number));
            catalogue.put_generation(&svs::Generation {
                id: info.id,
                cartridge: info.cartridge,
                number: number.unwrap_or(newest + 1),
                state: GenerationState::Sealed,
                records: info.objects - info.filemarks,
                filemarks: info.filemarks,
                logical_bytes: info.bytes,
                unique_bytes: counters.unique,
            })?;
        }
        let known = catalogue.replication(info.id, &self.peer.site)?;
        if known.is_some_and(|row| row.state == ReplicationState::Done) {
            return Ok(());
        }
        catalogue.put_replication(&Replication {
            generation: info.id,
            site: self.peer.site.clone(),
            state: ReplicationState::Done,
            job: self.ground.catalogue.job(self.job)?.map(|job| job.id),
            bytes_logical: info.bytes,
            bytes_unique: counters.unique,
            bytes_wire: self.wire,
            message: None,
        })
    }

    fn done(&mut self, counters: Counters) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let bytes = self.ground.store.generation(self.begin.generation).map_or(0, |it| it.bytes);
        let words: [(&str, &dyn std::fmt::Display); 5] = [
            ("cartridge", &self.ends().0),
            ("site", &self.ground.config.site.name),
            ("logical", &bytes),
            ("unique", &counters.unique),
            ("wire", &self.wire),
        ];
        let (id, subject) = (messages::REPLICATION_DONE, self.job.to_string());
        messages::note(&self.ground.catalogue, EventKind::Job, id, &words, Some(&subject));
    }

    fn failed(&mut self, failure: &Failure) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if !self.written {
            tracing::debug!(job = %self.job, %failure, "what was sent ahead is given up");
            return;
        }
        let words: [(&str, &dyn std::fmt::Display); 3] = [
            ("cartridge", &self.ends().0),
            ("site", &self.ground.config.site.name),
            ("cause", failure),
        ];
        let (id, subject) = (messages::REPLICATION_FAILED, self.job.to_string());
        messages::note(&self.ground.catalogue, EventKind::Job, id, &words, Some(&subject));
        self.ground.jobs.finish(self.job, &Ending::failed(failure.to_string()));
    }

    /// The sender comes back with the next connection.
    fn interrupted(&mut self, cause: &str) {
        if !self.ground.replicas.is_newest(self.begin.generation, self.transfer()) {
            return;
        }
        let known = self.ground.catalogue.job(self.job).ok().flatten();
        if known.is_some_and(|job| !job.state.is_final()) {
            let message = format!("{cause}; to be resumed");
            self.ground.jobs.enter(self.job, JobState::Pending, Some(&message));
        }
    }
}
