//! Which copy of a tape is mounted for a host, and where.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use copy::access::{Candidate, order};
use copy::mounts::{Need, Seat};
use scsi::Sense;
use service::messages;
use svs::{Catalogue, DeviceRef, EventKind, MediumRef, MountPriority};
use tape::CancelToken;
use tape::target::MediumError;

use super::left::LeftOver;
use crate::device::{Library, LibraryView, Opener, Registry};
use crate::mounting::{
    self, Asker, Halt, Heard, InLine, LOOK, Mounted, Mounts, TapeAt, Tried, Wish, attempt, why_not,
};

/// How long a mount waits for what is in use.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a medium that failed is taken after all others.
const AVOIDED: Duration = Duration::from_secs(900);
/// Media that are remembered as failed.
const AVOIDED_MAX: usize = 10_000;
/// Nexuses of frontends begin here; those of sessions count up from 1.
const NEXUS: u64 = 1 << 49;

/// 02/04/00: not ready, and nothing is said about the medium: its library can not be reached.
const UNREACHABLE: Sense = Sense::new(0x02, 0x04, 0x00);

/// The way from frontends to backends.
pub struct Access {
    /// Its libraries hold this.
    registry: Weak<Registry>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) stopping: CancelToken,
    pub(super) left: LeftOver,
    avoided: Mutex<BTreeMap<MediumRef, Instant>>,
    /// Mounts under way, by the serial number of the library: its drives are not in use yet.
    going: Mutex<BTreeMap<String, u32>>,
    nexus: AtomicU64,
}

/// A tape as a host asks for it.
#[derive(Clone, Debug)]
pub struct Place {
    /// What the host calls it, for people: `fe0/A00001L8`.
    pub name: String,
    /// The medium that the map names.
    pub medium: MediumRef,
    /// The drive at the frontend and the one that stands behind it; none for a tape that is served
    /// by its own library.
    pub row: Option<(DeviceRef, DeviceRef)>,
}

/// A tape in a backend drive.
pub struct Reached {
    /// The drive and the tape.
    pub mounted: Mounted,
    /// Which medium it is.
    pub medium: MediumRef,
    /// Whether it may be written.
    pub primary: bool,
    opener: Opener,
    /// Its place in the queue, once it is sure to stay.
    line: Option<InLine>,
}

/// A candidate, where its library is known.
struct Standing {
    medium: MediumRef,
    candidate: Candidate,
    library: Option<(Arc<dyn Library>, LibraryView)>,
}

/// Why a round brought nothing.
#[derive(Default)]
struct Round {
    /// What failed, in this mount; for the operator.
    failed: BTreeMap<MediumRef, String>,
    busy: bool,
    offline: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn catalogue_error(error: impl Display) -> MediumError {
    MediumError::Io(error.to_string())
}

impl Access {
    /// The way to the libraries of this registry.
    pub fn new(
        registry: &Arc<Registry>,
        catalogue: Arc<Catalogue>,
    ) -> Result<Arc<Self>, svs::SvsError> {
        let left = LeftOver::load(Arc::clone(&catalogue))?;
        let registry = Arc::downgrade(registry);
        let (stopping, avoided, going, nexus) = Default::default();
        Ok(Arc::new(Self { registry, catalogue, stopping, left, avoided, going, nexus }))
    }

    /// All libraries; none once the engine is gone.
    pub(super) fn registry(&self) -> Arc<Registry> {
        self.registry.upgrade().unwrap_or_default()
    }

    /// Whether there is no engine any more, or it was told to stop.
    pub(super) fn is_over(&self) -> bool {
        self.stopping.is_cancelled() || self.registry.strong_count() == 0
    }

    /// Nothing is mounted any more.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    pub(super) fn opener(&self, who: &str) -> Opener {
        let nexus = NEXUS + self.nexus.fetch_add(1, Ordering::Relaxed);
        Opener { nexus, who: who.to_owned() }
    }

    /// Tells the operator.
    pub(crate) fn tell(&self, id: &'static str, words: &[(&str, &dyn Display)], subject: &str) {
        messages::note(&self.catalogue, EventKind::Device, id, words, Some(subject));
    }

    /// A medium failed: others are taken for a while.
    pub(super) fn avoid(&self, medium: &MediumRef) {
        let mut avoided = locked(&self.avoided);
        avoided.retain(|_, since| since.elapsed() < AVOIDED);
        if avoided.len() < AVOIDED_MAX {
            avoided.insert(medium.clone(), Instant::now());
        }
    }

    fn is_avoided(&self, medium: &MediumRef) -> bool {
        locked(&self.avoided).get(medium).is_some_and(|since| since.elapsed() < AVOIDED)
    }

    /// Brings the tape, or a current copy of it, into a drive.
    ///
    /// # Errors
    /// No copy can be had; the operator was told.
    pub(super) fn reach(self: &Arc<Self>, place: &Place) -> Result<Reached, MediumError> {
        self.reach_one_of(place, false).map_err(|(error, cause)| {
            let words: [(&str, &dyn Display); 2] = [("tape", &place.name), ("cause", &cause)];
            self.tell(messages::FRONTEND_NO_COPY, &words, &place.name);
            error
        })
    }

    /// Brings the medium that is written into a drive.
    ///
    /// # Errors
    /// It can not be had; why, for the operator.
    pub(super) fn reach_primary(self: &Arc<Self>, place: &Place) -> Result<Reached, String> {
        self.reach_one_of(place, true).map_err(|(_, cause)| cause)
    }

    fn reach_one_of(
        self: &Arc<Self>,
        place: &Place,
        primary_only: bool,
    ) -> Result<Reached, (MediumError, String)> {
        let begun = Instant::now();
        let mut round = Round::default();
        let (job, who) = (None, place.name.clone());
        let asker = Asker { job, who, priority: MountPriority::Restore };
        let line = Mounts::join(&self.registry(), asker).map_err(|_| {
            let cause = "too many wait for drives".to_owned();
            (MediumError::InUse(cause.clone()), cause)
        })?;
        loop {
            (round.busy, round.offline) = (false, false);
            match self.round(place, primary_only, &mut round, &line) {
                Ok(Some(mut reached)) => {
                    self.note_device(place, Some(&reached));
                    reached.line = Some(line);
                    return Ok(reached);
                }
                Ok(None) => {}
                Err(error) => {
                    let cause = error.to_string();
                    return Err((error, cause));
                }
            }
            let over = !round.busy || begun.elapsed() >= PATIENCE;
            if over || self.is_over() {
                return Err(round.verdict());
            }
        }
    }

    /// Waits a moment for one of the candidates, the best first, and tries it if it is its turn.
    fn round(
        self: &Arc<Self>,
        place: &Place,
        primary_only: bool,
        round: &mut Round,
        line: &InLine,
    ) -> Result<Option<Reached>, MediumError> {
        let places = self.catalogue.places(&place.medium).map_err(catalogue_error)?;
        let copies = places.copies.into_iter().filter(|_| !primary_only);
        let media: Vec<_> = std::iter::once(places.primary).chain(copies).collect();
        let standing = media.into_iter().enumerate();
        let standing: Vec<_> = standing.map(|(n, medium)| self.standing(medium, n == 0)).collect();
        let candidates: Vec<_> = standing.iter().map(|it| it.candidate).collect();
        let (mut able, mut choices) = (Vec::new(), Vec::new());
        for index in order(&candidates) {
            match self.need(place, &standing[index]) {
                _ if round.failed.contains_key(&standing[index].medium) => {}
                Ok(Some(need)) => {
                    able.push(index);
                    choices.push(vec![need]);
                }
                Ok(None) => round.offline = true,
                Err(cause) => self.failed(place, &standing[index], cause, round),
            }
        }
        if choices.is_empty() {
            return Ok(None);
        }
        let (choice, seat) = match line.turn(&choices, LOOK) {
            Heard::Go(choice, seats) => match seats.into_iter().next() {
                Some(seat) => (choice, seat),
                None => return Ok(None),
            },
            // It was there a moment ago.
            Heard::Never(tape) => {
                let cause = why_not(&self.registry(), &tape);
                for index in able {
                    self.failed(place, &standing[index], cause.clone(), round);
                }
                return Ok(None);
            }
            Heard::Wait(_) => {
                round.busy = true;
                return Ok(None);
            }
        };
        let reached = self.mount(place, &standing[able[choice]], &seat, round, line)?;
        if let Some(reached) = &reached {
            self.tell_if_copy(place, reached, &standing[0].candidate, round);
        }
        Ok(reached)
    }

    /// Brings a candidate into the drive that was given for it.
    fn mount(
        self: &Arc<Self>,
        place: &Place,
        candidate: &Standing,
        seat: &Seat,
        round: &mut Round,
        line: &InLine,
    ) -> Result<Option<Reached>, MediumError> {
        match self.attempt(place, candidate, seat, line) {
            Ok(Tried::Mounted(mounted)) => {
                let (medium, primary) = (candidate.medium.clone(), candidate.candidate.primary);
                let (opener, line_of) = (self.opener(&place.name), None);
                let reached = Reached { mounted, medium, primary, opener, line: line_of };
                if self.is_current(place, &reached)? {
                    return Ok(Some(reached));
                }
                // It was written while it was mounted: this round looks at what is old.
                self.release(place, reached);
                round.busy = true;
                line.again(false);
                return Ok(None);
            }
            Ok(Tried::Busy) => {
                line.refused(seat);
                round.busy = true;
            }
            Ok(Tried::Offline) => round.offline = true,
            Err(Halt::Cancelled) => {}
            Err(Halt::Failed(cause) | Halt::Unfit(cause)) => {
                self.failed(place, candidate, cause, round);
                // Another may do.
                round.busy = true;
                line.again(false);
                return Ok(None);
            }
        }
        line.again(true);
        Ok(None)
    }

    /// A candidate failed: the operator is told, and others are taken for a while.
    fn failed(&self, place: &Place, standing: &Standing, cause: String, round: &mut Round) {
        let medium = &standing.medium;
        self.avoid(medium);
        let words: [(&str, &dyn Display); 3] =
            [("tape", &place.name), ("medium", medium), ("cause", &cause)];
        self.tell(messages::FRONTEND_MOUNT_FAILED, &words, &place.name);
        round.failed.insert(medium.clone(), cause);
    }

    /// How the library of a medium stands.
    fn standing(&self, medium: MediumRef, primary: bool) -> Standing {
        let library = match &medium {
            MediumRef::Tape { library, .. } => mounting::backend(&self.registry(), library),
            MediumRef::Disk(_) => None,
        };
        let mut candidate = Candidate {
            primary,
            online: false,
            avoided: self.is_avoided(&medium),
            drives: 0,
            in_use: 0,
        };
        if let Some((library, view)) = &library {
            candidate.online = view.online;
            for (index, element) in mounting::drives(view) {
                let name = model::DeviceName::drive(library.name().clone(), index);
                let in_use = element.full || self.registry().holder(&name).is_some();
                candidate.drives += 1;
                candidate.in_use += u32::from(in_use);
            }
            let going = locked(&self.going).get(&view.identity.serial).copied();
            candidate.in_use = candidate.in_use.saturating_add(going.unwrap_or(0));
        }
        Standing { medium, candidate, library }
    }

    /// The tape of a candidate and the drives for it; `None` while its library does not answer.
    fn need(&self, place: &Place, standing: &Standing) -> Result<Option<Need>, String> {
        let (MediumRef::Tape { volser, .. }, Some((library, view))) =
            (&standing.medium, &standing.library)
        else {
            return Ok(None);
        };
        if !view.online {
            return Ok(None);
        }
        let tape = TapeAt { library: library.name().clone(), barcode: volser.clone() };
        let there = |element: &tape::ElementStatus| {
            element.full
                && element.barcode.as_ref() == Some(volser)
                && element.kind != model::ElementType::ImportExport
        };
        if !view.inventory.elements.iter().any(there) {
            return Err(why_not(&self.registry(), &tape));
        }
        let drives = self.drives_for(place, library.as_ref(), view);
        let (prefer, spared) =
            drives.map_err(|error| format!("the frontend-backend map can not be read: {error}"))?;
        Ok(Some(Need { tape, prefer, spared }))
    }

    fn attempt(
        &self,
        place: &Place,
        standing: &Standing,
        seat: &Seat,
        line: &InLine,
    ) -> Result<Tried, Halt> {
        let Some((_, view)) = &standing.library else { return Ok(Tried::Offline) };
        let tape = &seat.tape;
        let left_over = self.left.take(tape).map_err(Halt::Failed)?;
        let opener = self.opener(&place.name);
        let cancel = self.stopping.clone();
        let (drive, home) = (Some(seat.drive), line.home(tape));
        let (opener, cancel, tell) = (&opener, &cancel, &|_: &str| {});
        let wish = Wish { tape, opener, cancel, drive, home, left_over, tell };
        let going = Going::begin(self, &view.identity.serial);
        let tried = attempt(&self.registry(), &wish);
        drop(going);
        match &tried {
            Ok(Tried::Mounted(_)) => line.took(tape),
            // It was not moved.
            Ok(Tried::Busy | Tried::Offline) if !left_over => self.left.home(tape),
            _ => self.left.leave(tape),
        }
        tried
    }

    /// The drive of a library to take first, and those that stand behind other frontends.
    fn drives_for(
        &self,
        place: &Place,
        library: &dyn Library,
        view: &LibraryView,
    ) -> Result<(Option<u16>, std::collections::BTreeSet<u16>), svs::SvsError> {
        let number = |device: &DeviceRef| match device {
            DeviceRef::Drive { library: serial, drive } if *serial == view.identity.serial => {
                mounting::drive_by_serial(library, drive)
            }
            _ => None,
        };
        let own = place.row.as_ref();
        let prefer = own.and_then(|(_, backend)| number(backend));
        let rows = self.catalogue.frontend_backends()?;
        let others = rows.iter().filter(|row| {
            row.frontend_device.is_some()
                && row.frontend_device.as_ref() != own.map(|(frontend, _)| frontend)
        });
        let spared = others.filter_map(|row| number(&row.backend_device));
        Ok((prefer, spared.filter(|index| Some(*index) != prefer).collect()))
    }

    /// Whether what is mounted still holds what the host asked for.
    pub(super) fn is_current(&self, place: &Place, at: &Reached) -> Result<bool, MediumError> {
        let places = self.catalogue.places(&place.medium).map_err(catalogue_error)?;
        Ok(match at.primary {
            true => places.primary == at.medium,
            false => places.copies.contains(&at.medium),
        })
    }

    /// Tells the operator where a host reads from, if it is not what the map says for a reason.
    fn tell_if_copy(&self, place: &Place, reached: &Reached, primary: &Candidate, round: &Round) {
        if reached.primary {
            return;
        }
        let cause = match () {
            () if !primary.online => "the primary's library can not be reached",
            () if !round.failed.is_empty() => "the primary could not be mounted",
            () if primary.avoided => "the primary failed a short while ago",
            () if round.busy || round.offline => "the primary is in use",
            () => {
                let (tape, medium) = (&place.name, &reached.medium);
                tracing::info!(%tape, %medium, "served from a copy: its library is less utilised");
                return;
            }
        };
        let words: [(&str, &dyn Display); 3] =
            [("tape", &place.name), ("medium", &reached.medium), ("cause", &cause)];
        self.tell(messages::FRONTEND_SERVES_COPY, &words, &place.name);
    }

    /// Enters in the map which device is used in the backend's place, or that none is.
    pub(super) fn note_device(&self, place: &Place, reached: Option<&Reached>) {
        let Some((frontend, backend)) = &place.row else { return };
        let used = reached.and_then(|reached| {
            let MediumRef::Tape { library, .. } = &reached.medium else { return None };
            let (found, _) = mounting::backend(&self.registry(), library)?;
            mounting::drive_ref(found.as_ref(), library, reached.mounted.index())
        });
        let alternative = used.filter(|used| used != backend);
        if let Err(error) = self.catalogue.set_alternative(frontend, alternative.as_ref()) {
            // The row went away while its tape was in the drive.
            tracing::debug!(%frontend, %error, "the map does not tell which device is used");
        }
    }

    /// Takes a tape back to its slot, unless somebody waits for it; what fails is tried again
    /// later.
    pub(super) fn release(self: &Arc<Self>, place: &Place, reached: Reached) {
        let Reached { mounted, medium, opener, line, .. } = reached;
        let tape = mounted.tape().clone();
        let mounted = match &line {
            Some(line) => line.finish(vec![mounted]).pop(),
            None => Some(mounted),
        };
        let Some(mounted) = mounted else {
            // Whoever has it now takes it home; after a crash it is looked for.
            return self.left.leave(&tape);
        };
        if let Err(cause) = self.unmount(mounted, &opener) {
            let words: [(&str, &dyn Display); 2] = [("medium", &medium), ("cause", &cause)];
            self.tell(messages::FRONTEND_LEFT_IN_DRIVE, &words, &place.name);
            self.put_back_left();
        }
    }
}

impl Round {
    /// What the host is told, and the operator.
    fn verdict(self) -> (MediumError, String) {
        let causes = self.failed.iter().map(|(medium, cause)| format!("{medium}: {cause}"));
        let mut causes: Vec<_> = causes.collect();
        if self.offline {
            causes.push("a library that holds it can not be reached".to_owned());
        }
        if self.busy {
            causes.push("it, the drives or the changer are in use".to_owned());
        }
        let cause = match causes.is_empty() {
            true => "the engine stops".to_owned(),
            false => causes.join("; "),
        };
        let error = match () {
            () if self.busy => MediumError::InUse(cause.clone()),
            () if self.offline => MediumError::Device(UNREACHABLE),
            () => MediumError::Io(cause.clone()),
        };
        (error, cause)
    }
}

/// A mount under way.
struct Going<'a> {
    access: &'a Access,
    library: &'a str,
}

impl<'a> Going<'a> {
    fn begin(access: &'a Access, library: &'a str) -> Self {
        *locked(&access.going).entry(library.to_owned()).or_default() += 1;
        Self { access, library }
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        if let Some(count) = locked(&self.access.going).get_mut(self.library) {
            *count = count.saturating_sub(1);
        }
    }
}
