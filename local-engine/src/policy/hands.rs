//! What the desk can do here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use copy::generation_row;
use copy::policy::{CopyWish, Found, Hands, JobEnd, MigrationWish, Refusal, Whereabouts};
use copy::upkeep::retire_superseded;
use model::{Barcode, ElementType, JobId, LibraryName};
use service::messages;
use svs::{
    CopyStart, EventKind, JobState, MediumFacts, MediumRef, MountPriority, Settled, Verified,
};

use super::names;
use crate::copies::{Order, Purpose, Refused, Section, TapeAt};
use crate::device::LibraryView;
use crate::engine::{Engine, now_ms};

/// How long a proof of the other site may come behind the end of its copy, in milliseconds.
const PROOF_COMES: u64 = 10_000;

/// The hands of an engine.
///
/// They are made for one look at the maps, and look at each library once.
pub(super) struct EngineHands {
    engine: Arc<Engine>,
    seen: Mutex<BTreeMap<String, Option<Arc<Seen>>>>,
}

/// A library as it was at the beginning of the look.
struct Seen {
    library: LibraryName,
    is_virtual: bool,
    tapes: BTreeMap<Barcode, Whereabouts>,
}

impl Seen {
    fn of(library: &LibraryName, view: &LibraryView) -> Self {
        let elements = view.inventory.elements.iter();
        let tapes = elements.filter_map(|element| {
            let place = match element.kind {
                ElementType::DataTransfer => Whereabouts::InDrive,
                _ => Whereabouts::Shelved,
            };
            Some((element.barcode.clone()?, place))
        });
        let (library, is_virtual) = (library.clone(), names::is_virtual(view));
        Self { library, is_virtual, tapes: tapes.collect() }
    }
}

impl EngineHands {
    pub(super) fn new(engine: &Arc<Engine>) -> Self {
        Self { engine: Arc::clone(engine), seen: Mutex::default() }
    }

    /// The library with a serial number.
    fn seen(&self, serial: &str) -> Option<Arc<Seen>> {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = all.get(serial) {
            return seen.clone();
        }
        let found = names::by_serial(&self.engine, serial);
        let seen = found.map(|(library, view)| Arc::new(Seen::of(library.name(), &view)));
        all.insert(serial.to_owned(), seen.clone());
        seen
    }

    /// A medium outside of its library is waited for.
    fn is_inside(&self, medium: &MediumRef) -> Result<(), Refusal> {
        match self.engine.ground.catalogue.find_outside(medium) {
            Ok(None) => Ok(()),
            Ok(Some(it)) => {
                let text = format!("{medium} is {} since {}", it.place, it.since);
                Err(Refusal::Busy(text))
            }
            Err(error) => Err(Refusal::Busy(error.to_string())),
        }
    }

    fn tape(&self, medium: &MediumRef) -> Result<TapeAt, Refusal> {
        let known = names::tape(&self.engine, medium);
        known.ok_or_else(|| Refusal::Busy(format!("the library of {medium} is not known now")))
    }

    fn order(
        &self,
        (read, target): (&MediumRef, &MediumRef),
        (from, verify): (u64, Verified),
        purpose: &Purpose<'_>,
    ) -> Result<JobId, Refusal> {
        self.is_inside(read)?;
        self.is_inside(target)?;
        let order = Order {
            source: self.tape(read)?,
            target: self.tape(target)?,
            section: Section { start: from, count: None },
            append: false,
            requested_by: "policy".into(),
            priority: match purpose {
                Purpose::Migration(..) => MountPriority::Migration,
                Purpose::Copy(_) | Purpose::Asked => MountPriority::Policy,
            },
            generation: None,
            begins: (from > 0).then_some(from),
            verify: Some(verify),
        };
        // What is copied is chosen behind this.
        self.engine.policy.ordered();
        self.engine.copy_for(order, purpose).map_err(|refused| match refused {
            Refused::Invalid(why) => Refusal::Never(why),
            other => Refusal::Busy(other.to_string()),
        })
    }

    /// The other site tells how it has proven a copy a moment after that is done.
    fn proof_is_to_come(&self, job: &svs::Job) -> bool {
        let order = job.resume.as_deref().and_then(|note| serde_json::from_str::<Order>(note).ok());
        let wanted = order.and_then(|order| order.verify).unwrap_or(Verified::None);
        let ended: Option<jiff::Timestamp> = job.ended.as_deref().and_then(|at| at.parse().ok());
        let since = ended.map_or(u64::MAX, |at| {
            now_ms().saturating_sub(u64::try_from(at.as_millisecond()).unwrap_or(0))
        });
        job.verified < wanted && since < PROOF_COMES
    }

    /// A cartridge of ours is made blank, and what it held is deleted as far as nothing needs it.
    fn erase(&self, tape: &TapeAt) -> Result<(), String> {
        let ground = &self.engine.ground;
        let (store, catalogue) = (&ground.store, &ground.catalogue);
        let row = catalogue.find_cartridge(&ground.config.site.name, &tape.library, &tape.barcode);
        let row = row.map_err(|error| error.to_string())?;
        let row = row.ok_or_else(|| format!("there is no cartridge {tape}"))?;
        let failed = |error: store::StoreError| error.to_string();
        let mut image = store.image(row.id).map_err(failed)?;
        image.locate(0).map_err(failed)?;
        image.erase().map_err(failed)?;
        if let Some(id) = image.seal().map_err(failed)? {
            let blank = generation_row(store, catalogue, id).map_err(|error| error.to_string())?;
            let noted = blank.map_or(Ok(()), |blank| catalogue.put_generation(&blank));
            noted.map_err(|error| error.to_string())?;
        }
        drop(image);
        let deleted = retire_superseded(store, catalogue, row.id);
        deleted.map(drop).map_err(|error| error.to_string())
    }
}

impl Hands for EngineHands {
    fn find(&self, medium: &MediumRef) -> Found {
        let nowhere =
            Found { place: Whereabouts::Unknown, blank: false, facts: MediumFacts::default() };
        let MediumRef::Tape { library, volser } = medium else { return nowhere };
        let Some(seen) = self.seen(library) else { return nowhere };
        let Some(place) = seen.tapes.get(volser).copied() else { return nowhere };
        let ground = &self.engine.ground;
        let site = &ground.config.site.name;
        let row = match seen.is_virtual {
            true => ground.catalogue.find_cartridge(site, &seen.library, volser).ok().flatten(),
            false => None,
        };
        let blank = row.is_some_and(|row| {
            let written = ground.store.latest(row.id).is_some_and(|info| info.objects > 0);
            !written && ground.store.open_generation(row.id).is_none()
        });
        Found { place, blank, facts: MediumFacts::default() }
    }

    fn copy(&self, wish: &CopyWish<'_>) -> Result<JobId, Refusal> {
        let CopyWish { source, target, version, from, seen, .. } = *wish;
        let start = CopyStart { source, target, version, from, seen };
        self.order((wish.read, target), (from, wish.verify), &Purpose::Copy(start))
    }

    fn migrate(&self, wish: &MigrationWish<'_>) -> Result<JobId, Refusal> {
        let purpose = Purpose::Migration(wish.source, wish.version);
        self.order((wish.source, wish.target), (0, wish.verify), &purpose)
    }

    fn job(&self, id: JobId) -> JobEnd {
        let job = match self.engine.ground.catalogue.job(id) {
            Ok(Some(job)) => job,
            Ok(None) => return JobEnd::Failed("its job is gone".into()),
            Err(error) => {
                tracing::warn!(%id, %error, "a job can not be read");
                return JobEnd::Running;
            }
        };
        let message = job.message.clone().unwrap_or_else(|| job.state.to_string());
        match job.state {
            JobState::Done if self.proof_is_to_come(&job) => JobEnd::Proving,
            JobState::Done => JobEnd::Done(job.verified),
            JobState::Cancelled => JobEnd::Unfit(message),
            JobState::Failed if self.engine.copies.is_unfit(id) => JobEnd::Unfit(message),
            JobState::Failed => JobEnd::Failed(message),
            _ => JobEnd::Running,
        }
    }

    fn free(&self, medium: &MediumRef) -> Result<(), String> {
        let MediumRef::Tape { library, volser } = medium else { return Ok(()) };
        let Some((library, view)) = names::by_serial(&self.engine, library) else {
            return Err("its library is not known now".into());
        };
        let element = names::element(&view, volser);
        if element.is_some_and(|element| element.kind == ElementType::DataTransfer) {
            return Err("it is in a drive".into());
        }
        match names::is_virtual(&view) {
            // A physical tape is free by that nobody looks for its content there any more.
            false => Ok(()),
            true => {
                self.erase(&TapeAt { library: library.name().clone(), barcode: volser.clone() })
            }
        }
    }

    fn tell(&self, source: &MediumRef, target: &MediumRef, end: &Settled, is_migration: bool) {
        let (from, to) = (names::show(&self.engine, source), names::show(&self.engine, target));
        let (id, last): (&str, &dyn std::fmt::Display) = match (end, is_migration) {
            (Settled::Done(proven), false) => (messages::POLICY_COPIED, proven),
            (Settled::Done(proven), true) => (messages::MIGRATED, proven),
            (Settled::Failed { message, again: Some(_) }, _) => (messages::POLICY_AGAIN, message),
            (Settled::Failed { message, again: None }, false) => (messages::POLICY_FAILED, message),
            (Settled::Failed { message, again: None }, true) => {
                (messages::MIGRATION_FAILED, message)
            }
        };
        let key = if matches!(end, Settled::Done(_)) { "proven" } else { "cause" };
        let words: [(&str, &dyn std::fmt::Display); 3] =
            [("source", &from), ("target", &to), (key, last)];
        let catalogue = &self.engine.ground.catalogue;
        messages::note(catalogue, EventKind::Job, id, &words, Some(&from));
    }
}
