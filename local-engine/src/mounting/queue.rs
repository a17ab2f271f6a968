//! The queue of those who need tapes in drives: [`copy::mounts`] with eyes, a clock and threads.
//!
//! Everything of this engine that needs a drive without being a session waits here: copies,
//! migrations, tapes that a frontend shows. Sessions take the drives that they name; to the queue
//! they are outsiders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use copy::mounts::{Choice, DriveNow, LibraryNow, Queue, Seat, Seen, Spot, Standing, Ticket, Turn};
use model::{DeviceName, ElementAddress, ElementType, JobId, LibraryName};
use svs::{Catalogue, Mount, MountPriority, MountState};
use tape::ElementStatus;

use super::{Halt, Mounted, TapeAt, Wish, attempt, drives};
use crate::device::{LibraryView, Opener, Registry};
use crate::engine::now_ms;

/// How long an attempt that failed is not made again.
const PAUSE: u64 = 500;
/// How long a drive that was refused is passed over.
const REFUSED: Duration = Duration::from_secs(1);
/// What one step of priority is worth where nobody says otherwise.
const STEP_SECONDS: u32 = 600;
/// How old a decision may be that is not made anew although nothing was heard.
const FRESH: Duration = Duration::from_millis(250);

/// Who waits.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The job, if it is one.
    pub job: Option<JobId>,
    /// For people.
    pub who: String,
    /// What the tapes are wanted for.
    pub priority: MountPriority,
}

/// The queue.
pub struct Mounts {
    state: Mutex<State>,
    /// The rows as they were written; taken before `state` where both are.
    rows: Mutex<BTreeMap<Ticket, Mount>>,
    catalogue: OnceLock<Arc<Catalogue>>,
    /// One movement at a time in each library: its arm is one.
    arms: Mutex<BTreeMap<LibraryName, Arc<Mutex<()>>>>,
}

struct State {
    queue: Queue,
    /// Decided, and not heard yet by those whose turns they are.
    turns: BTreeMap<Ticket, Turn>,
    /// Tapes that stay in their drives for the next who wants them, and where they go afterwards.
    homes: BTreeMap<TapeAt, ElementAddress>,
    people: BTreeMap<Ticket, Asker>,
    /// Drives that were refused, and when.
    refused: BTreeMap<(LibraryName, u16), Instant>,
    /// Rings of the bell before the last decision, and when it was made.
    decided: Option<(u64, Instant)>,
}

impl Default for Mounts {
    fn default() -> Self {
        let state = State {
            queue: Queue::new(u64::from(STEP_SECONDS) * 1000),
            turns: BTreeMap::new(),
            homes: BTreeMap::new(),
            people: BTreeMap::new(),
            refused: BTreeMap::new(),
            decided: None,
        };
        let (rows, catalogue, arms) = Default::default();
        Self { state: Mutex::new(state), rows, catalogue, arms }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one who waits hears.
pub enum Heard {
    /// These drives are his, for this of his choices.
    Go(usize, Vec<Seat>),
    /// This tape is not there, nor is any other choice.
    Never(TapeAt),
    /// He goes on waiting; for what, for people.
    Wait(String),
}

/// A place in the queue. Dropped, it is given up with everything that came with it.
pub struct InLine {
    registry: Weak<Registry>,
    mounts: Arc<Mounts>,
    ticket: Ticket,
}

/// What a library and its drives look like to the queue.
fn library_now(registry: &Registry, name: &LibraryName, view: &LibraryView) -> LibraryNow {
    let drive = |(index, element): (u16, &ElementStatus)| {
        let condition = view.condition(index);
        let held = registry.holder(&DeviceName::drive(name.clone(), index)).is_some();
        DriveNow {
            in_service: condition.down.is_none(),
            taken: held,
            // The report lags behind those who have just let go.
            rumoured: condition.in_use,
            full: element.full,
        }
    };
    LibraryNow { online: view.online, drives: drives(view).map(drive).collect() }
}

fn spot(view: &LibraryView, tape: &TapeAt) -> Spot {
    let there = |element: &&ElementStatus| element.barcode.as_ref() == Some(&tape.barcode);
    let found = view.inventory.elements.iter().filter(|it| it.full).find(there);
    match found.map(|element| (element.kind, super::drive_of(view, element))) {
        None | Some((ElementType::ImportExport, _)) => Spot::Away,
        Some((_, Some(drive))) => Spot::Drive(drive),
        Some((_, None)) => Spot::Shelf,
    }
}

impl Mounts {
    /// Shows the queue in this catalogue from here on; what the last run left there is removed.
    /// A step of priority is worth so many seconds of waiting.
    ///
    /// # Errors
    /// The catalogue can not be written.
    pub fn begin(
        &self,
        catalogue: &Arc<Catalogue>,
        step_seconds: u32,
    ) -> Result<(), svs::SvsError> {
        catalogue.clear_mounts()?;
        let mut state = locked(&self.state);
        state.queue = Queue::new(u64::from(step_seconds) * 1000);
        // Set once: an engine has one catalogue.
        let _ = self.catalogue.set(Arc::clone(catalogue));
        Ok(())
    }

    /// A tape can not leave its drive now: it goes home later, unless somebody wants it there.
    pub(super) fn takes_home(&self, mounted: Mounted) {
        if let Some(home) = mounted.home {
            locked(&self.state).homes.insert(mounted.tape.clone(), home);
        }
    }

    /// Where media are noted that are outside of their libraries.
    pub(super) fn catalogue(&self) -> Option<&Arc<Catalogue>> {
        self.catalogue.get()
    }

    /// The right to move something in a library.
    pub(super) fn arm(&self, library: &LibraryName) -> Arc<Mutex<()>> {
        Arc::clone(locked(&self.arms).entry(library.clone()).or_default())
    }

    /// Stands somebody in line.
    ///
    /// # Errors
    /// Too many wait.
    pub fn join(registry: &Arc<Registry>, asker: Asker) -> Result<InLine, Halt> {
        let mounts = registry.mounts();
        let mut state = locked(&mounts.state);
        // What he wants he says when he asks.
        let ticket = state.queue.join(now_ms(), asker.priority, Vec::new());
        let ticket = ticket.ok_or_else(|| Halt::Failed("too many wait for drives".to_owned()))?;
        state.people.insert(ticket, asker);
        drop(state);
        let (registry, mounts) = (Arc::downgrade(registry), Arc::clone(mounts));
        Ok(InLine { registry, mounts, ticket })
    }

    /// Everybody in the queue.
    pub fn rows(&self) -> Vec<Mount> {
        locked(&self.state).rows()
    }

    /// Those of the queue who are a job are as urgent as that. `false`: none of them waits.
    pub fn set_priority(&self, registry: &Registry, job: JobId, priority: MountPriority) -> bool {
        let mut guard = locked(&self.state);
        let state = &mut *guard;
        let its = state.people.iter().filter(|(_, asker)| asker.job == Some(job));
        let tickets: Vec<_> = its.map(|(ticket, _)| *ticket).collect();
        let set = tickets.iter().filter(|it| state.queue.set_priority(**it, priority)).count();
        state.decided = None;
        drop(guard);
        self.show();
        registry.bell().ring();
        set > 0
    }

    /// The job that this number of the queue is.
    pub fn job_of(&self, ticket: Ticket) -> Option<JobId> {
        locked(&self.state).people.get(&ticket)?.job
    }

    /// Brings the rows up to date. Blocks on the catalogue.
    fn show(&self) {
        let Some(catalogue) = self.catalogue.get() else { return };
        let mut shown = locked(&self.rows);
        let now: BTreeMap<_, _> = self.rows().into_iter().map(|row| (row.ticket, row)).collect();
        let changed = now.values().filter(|row| shown.get(&row.ticket) != Some(*row));
        let changed: Vec<_> = changed.cloned().collect();
        let gone: Vec<_> = shown.keys().filter(|it| !now.contains_key(*it)).copied().collect();
        if let Err(error) = catalogue.put_mounts(&changed, &gone) {
            tracing::warn!(%error, "the mount queue could not be shown");
        }
        *shown = now;
    }
}

impl State {
    fn seen(&self, registry: &Registry) -> Seen {
        let mut seen = Seen::default();
        let wanted = self.queue.wanted();
        let names: BTreeSet<_> = wanted.iter().map(|tape| &tape.library).collect();
        let mut libraries = registry.libraries();
        libraries.retain(|library| names.contains(library.name()));
        for library in libraries {
            let Some(view) = library.view() else { continue };
            for tape in wanted.iter().filter(|tape| tape.library == *library.name()) {
                seen.tapes.insert((*tape).clone(), spot(&view, tape));
            }
            let mut now = library_now(registry, library.name(), &view);
            for (index, drive) in (0u16..).zip(&mut now.drives) {
                let refused = self.refused.get(&(library.name().clone(), index));
                drive.taken |= refused.is_some_and(|when| when.elapsed() < REFUSED);
            }
            seen.libraries.insert(library.name().clone(), now);
        }
        seen
    }

    /// Whose turn it is now, unless that was decided a moment ago and nothing was heard since.
    /// Whether it was decided.
    fn look(&mut self, registry: &Registry, heard: u64) -> bool {
        let fresh = |(at, when): (u64, Instant)| at == heard && when.elapsed() < FRESH;
        if self.decided.is_some_and(fresh) {
            return false;
        }
        let seen = self.seen(registry);
        let turns = self.queue.decide(now_ms(), &seen);
        if !turns.is_empty() {
            tracing::debug!(?turns, ?seen, "drives are given");
        }
        self.turns.extend(turns);
        self.decided = Some((heard, Instant::now()));
        true
    }

    fn rows(&self) -> Vec<Mount> {
        let row = |standing: Standing| {
            let asker = self.people.get(&standing.ticket);
            let list = |names: Vec<String>| names.join(", ");
            let drive = |seat: &Seat| super::drive_name(&seat.tape, seat.drive).to_string();
            let is_waiting = standing.seats.is_empty();
            Mount {
                ticket: standing.ticket,
                job: asker.and_then(|it| it.job).map(|job| job.to_string()),
                who: asker.map_or_else(String::new, |asker| asker.who.clone()),
                tapes: list(standing.tapes.iter().map(TapeAt::to_string).collect()),
                priority: standing.priority,
                since: standing.joined,
                rank: standing.rank,
                state: if is_waiting { MountState::Waiting } else { MountState::Mounted },
                drives: list(standing.seats.iter().map(drive).collect()),
                reason: standing.obstacle.map(|obstacle| obstacle.to_string()),
            }
        };
        self.queue.standing().into_iter().map(row).collect()
    }
}

impl InLine {
    /// Asks for one of these choices, the first the most, and waits for the turn: until something
    /// changes, or so long.
    pub fn turn(&self, choices: &[Choice], patience: Duration) -> Heard {
        let Some(registry) = self.registry.upgrade() else {
            return Heard::Wait("the engine stops".to_owned());
        };
        let heard = registry.bell().rings();
        if let Some(heard) = self.look(&registry, choices, heard) {
            return heard;
        }
        registry.bell().wait(heard, patience);
        let heard = registry.bell().rings();
        let told = self.look(&registry, choices, heard);
        told.unwrap_or_else(|| {
            let standing = locked(&self.mounts.state).queue.standing();
            let mine = standing.into_iter().find(|it| it.ticket == self.ticket);
            let obstacle = mine.and_then(|it| it.obstacle);
            Heard::Wait(obstacle.map_or_else(|| "its turn".to_owned(), |it| it.to_string()))
        })
    }

    fn look(&self, registry: &Registry, choices: &[Choice], heard: u64) -> Option<Heard> {
        let (turn, is_new, gives) = {
            let mut state = locked(&self.mounts.state);
            let mut is_new = false;
            if !state.turns.contains_key(&self.ticket) {
                if state.queue.revise(self.ticket, choices) {
                    state.decided = None;
                }
                is_new = state.look(registry, heard);
            }
            let turn = state.turns.remove(&self.ticket);
            // Others were given something.
            (turn, is_new, is_new && !state.turns.is_empty())
        };
        if is_new {
            self.mounts.show();
        }
        if gives {
            registry.bell().ring();
        }
        Some(match turn? {
            Turn::Go { choice, seats } => Heard::Go(choice, seats),
            Turn::Never(tape) => Heard::Never(tape),
        })
    }

    /// Where a tape goes that somebody has left in its drive for this one.
    pub fn home(&self, tape: &TapeAt) -> Option<ElementAddress> {
        locked(&self.mounts.state).homes.get(tape).copied()
    }

    /// A tape was taken over, with the duty to take it home.
    pub fn took(&self, tape: &TapeAt) {
        locked(&self.mounts.state).homes.remove(tape);
    }

    /// A drive that was given is another's: it is not tried again at once.
    pub fn refused(&self, seat: &Seat) {
        let mut state = locked(&self.mounts.state);
        state.refused.retain(|_, when| when.elapsed() < REFUSED);
        state.refused.insert((seat.tape.library.clone(), seat.drive), Instant::now());
    }

    /// What was given could not be used. He waits again in his old place; with `pause`, a moment
    /// at least.
    pub fn again(&self, pause: bool) {
        let mut state = locked(&self.mounts.state);
        let not_before = if pause { now_ms().saturating_add(PAUSE) } else { 0 };
        state.queue.back(self.ticket, not_before);
        state.decided = None;
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.bell().ring();
        }
    }

    /// The tapes are done with. Those that somebody waits for stay in their drives, which are
    /// closed here; the others are returned and are to be put back before the place is given up.
    pub fn finish(&self, mounted: Vec<Mounted>) -> Vec<Mounted> {
        let Some(registry) = self.registry.upgrade() else { return mounted };
        let mut state = locked(&self.mounts.state);
        let seen = state.seen(&registry);
        let (turns, back) = state.queue.finish(self.ticket, now_ms(), &seen);
        let stays = |tape: &TapeAt| back.iter().all(|seat| seat.tape != *tape);
        let (handed, rest): (Vec<_>, Vec<_>) = mounted.into_iter().partition(|it| stays(&it.tape));
        for mounted in &handed {
            if let Some(home) = mounted.home {
                state.homes.insert(mounted.tape.clone(), home);
            }
        }
        // They hear of it when the drives are closed.
        let (late, now): (Vec<_>, Vec<_>) = turns.into_iter().partition(|(_, turn)| {
            let Turn::Go { seats, .. } = turn else { return false };
            seats.iter().any(|seat| handed.iter().any(|it| it.tape == seat.tape))
        });
        state.turns.extend(now);
        drop(state);
        self.wake();
        if !handed.is_empty() {
            drop(handed);
            locked(&self.mounts.state).turns.extend(late);
            self.wake();
        }
        self.mounts.show();
        rest
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        let left = {
            let mut state = locked(&self.mounts.state);
            let state = &mut *state;
            state.queue.leave(self.ticket);
            state.turns.remove(&self.ticket);
            state.people.remove(&self.ticket);
            state.decided = None;
            // Tapes that were left in drives for this one, and that nobody else wants.
            let standing = state.queue.standing();
            let seats = standing.iter().flat_map(|it| it.seats.iter().map(|seat| &seat.tape));
            let wanted: BTreeSet<_> =
                standing.iter().flat_map(|it| &it.tapes).chain(seats).collect();
            let homes = std::mem::take(&mut state.homes).into_iter();
            let (kept, left): (Vec<_>, Vec<_>) = homes.partition(|(tape, _)| wanted.contains(tape));
            state.homes = kept.into_iter().collect();
            left
        };
        self.mounts.show();
        self.wake();
        let Some(registry) = self.registry.upgrade() else { return };
        if left.is_empty() {
            return;
        }
        // A drive that makes a tape ready does not let it go for hours.
        let thread = std::thread::Builder::new().name("put-away".into());
        let started = thread.spawn(move || {
            left.into_iter().for_each(|(tape, home)| put_away(&registry, &tape, home));
        });
        if let Err(error) = started {
            tracing::error!(%error, "tapes are left in their drives");
        }
    }
}

/// Takes a tape home that nobody wants any more.
fn put_away(registry: &Registry, tape: &TapeAt, home: ElementAddress) {
    let opener = Opener { nexus: crate::device::ENGINE_NEXUS, who: format!("return of {tape}") };
    let cancel = tape::CancelToken::new();
    let wish = Wish {
        tape,
        opener: &opener,
        cancel: &cancel,
        drive: None,
        home: Some(home),
        left_over: false,
        tell: &|_| {},
    };
    let put = match attempt(registry, &wish) {
        Ok(super::Tried::Mounted(mounted)) => mounted.unmount(registry, &opener),
        Ok(super::Tried::Busy) => Err("it is in use".to_owned()),
        Ok(super::Tried::Offline) => Err("the library can not be reached".to_owned()),
        Err(halt) => Err(format!("{halt:?}")),
    };
    if let Err(cause) = put {
        tracing::warn!(%tape, cause, "a tape stays in its drive");
    }
}
