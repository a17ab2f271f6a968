//! Tapes, drives and jobs that do what they are told, and a note of what each name must hold.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use copy::policy::{CopyWish, Desk, Found, Hands, JobEnd, MigrationWish, Refusal, Whereabouts};
use model::JobId;
use svs::{
    Catalogue, CopyEntry, CopyStart, Ending, JobKind, JobOwner, JobState, MapPolicy, MapStatus,
    MediumFacts, MediumRef, MigrationEntry, NewJob, Settled, Verified,
};

pub(crate) type Shared = Rc<RefCell<World>>;

pub(crate) fn tape(name: &str) -> MediumRef {
    format!("lib V tape {name}").parse().unwrap()
}

/// Numbers that look random: splitmix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A name that is mounted, and where.
struct Mount {
    on: MediumRef,
    position: usize,
    /// What the watch has noted: lowest object and count of orders.
    noted: Option<(u64, u64)>,
}

struct Job {
    target: MediumRef,
    source: MediumRef,
    read: MediumRef,
    from: usize,
    snapshot: Vec<u64>,
    written: Option<usize>,
    verify: Verified,
}

pub(crate) struct World {
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) now: u64,
    pub(crate) copies_begun: u64,
    pub(crate) moves: u64,
    dir: tempfile::TempDir,
    random: Random,
    tapes: BTreeMap<MediumRef, Vec<u64>>,
    /// What each name that a host uses must hold.
    expected: BTreeMap<String, Vec<u64>>,
    mounts: BTreeMap<String, Mount>,
    jobs: BTreeMap<JobId, Job>,
    /// Touched without a write behind it, copied by a job that failed, or written while a copy was
    /// ordered: a copy more is no fault.
    vain: BTreeSet<MediumRef>,
    orders: u64,
    calm: bool,
}

fn scratch() -> tempfile::TempDir {
    // The catalogue waits for the disk at each step; memory will do here.
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(dir) = tempfile::tempdir_in(memory)
    {
        return dir;
    }
    tempfile::tempdir().unwrap()
}

impl World {
    pub(crate) fn new(seed: u64) -> Shared {
        let dir = scratch();
        let catalogue = Arc::new(Catalogue::open(&dir.path().join("svs.db")).unwrap());
        Rc::new(RefCell::new(Self {
            catalogue,
            now: 20_000 * 24 * 3600 * 1000,
            copies_begun: 0,
            moves: 0,
            dir,
            random: Random::new(seed ^ 0xabcd),
            tapes: BTreeMap::new(),
            expected: BTreeMap::new(),
            mounts: BTreeMap::new(),
            jobs: BTreeMap::new(),
            vain: BTreeSet::new(),
            orders: 0,
            calm: false,
        }))
    }

    fn content(&self, medium: &MediumRef) -> &[u64] {
        self.tapes.get(medium).map_or(&[], Vec::as_slice)
    }

    fn busy(&self, medium: &MediumRef) -> bool {
        self.jobs.values().any(|job| job.target == *medium)
            || self.mounts.values().any(|mount| mount.on == *medium)
    }

    pub(crate) fn mount(&mut self, name: &str) {
        let on = self.catalogue.places(&tape(name)).unwrap().primary;
        if !self.busy(&on) {
            let mount = Mount { on, position: 0, noted: None };
            self.mounts.insert(name.to_owned(), mount);
        }
    }

    pub(crate) fn dismount(&mut self, name: &str) {
        self.mounts.remove(name);
    }

    /// Writes some objects behind a place, as a host does; the watch notes it before.
    pub(crate) fn write(&mut self, name: &str, count: u64) {
        let Some(mount) = self.mounts.get(name) else { return };
        let (on, length) = (mount.on.clone(), self.content(&mount.on).len());
        let facts = self.catalogue.medium_facts(&tape(name)).unwrap();
        if on != tape(name) && facts.freed.is_none() {
            // Which of the two is the tape is being decided: a frontend answers that it is busy.
            return;
        }
        let position = match self.random.below(6) {
            0 => 0,
            1 => self.random.below(length as u64 + 1) as usize,
            2 => mount.position.min(length),
            _ => length,
        };
        let covered = mount
            .noted
            .is_some_and(|(lowest, orders)| lowest <= position as u64 && orders == self.orders);
        if !covered {
            self.touch(&on, name, position as u64);
        }
        if !self.calm && self.random.one_in(12) {
            // The engine died between the note and the write.
            self.vain.insert(tape(name));
            return;
        }
        let content = self.tapes.entry(on.clone()).or_default();
        content.truncate(position);
        for _ in 0..count {
            content.push(self.random.below(u64::MAX));
        }
        let mount = self.mounts.get_mut(name).unwrap();
        mount.position = content.len();
        self.expected.insert(name.to_owned(), content.clone());
        self.catalogue.count_written(&tape(name), count, count * 10).unwrap();
    }

    fn touch(&mut self, on: &MediumRef, name: &str, object: u64) {
        self.catalogue.touch(on, object, None, self.now).unwrap();
        if *on != tape(name) {
            self.catalogue.touch(&tape(name), object, None, self.now).unwrap();
        }
        // What was noted before the last order says nothing about the time after it.
        let orders = self.orders;
        let before = self.mounts[name].noted.filter(|(_, then)| *then == orders);
        let lowest = before.map_or(object, |(lowest, _)| lowest.min(object));
        self.mounts.get_mut(name).unwrap().noted = Some((lowest, orders));
    }

    pub(crate) fn fill(&mut self, name: &str) {
        if self.mounts.contains_key(name) {
            self.write(name, 1);
            self.catalogue.set_full(&tape(name)).unwrap();
        }
    }

    pub(crate) fn ask(&mut self, number: u64) {
        let entries = self.catalogue.copy_entries().unwrap();
        if let Some(entry) = entries.get(number as usize) {
            self.catalogue.ask_copy(&entry.source_medium, &entry.target_medium).unwrap();
        }
    }

    pub(crate) fn write_a_target_behind_our_back(&mut self, number: u64) {
        let entries = self.catalogue.copy_entries().unwrap();
        let Some(entry) = entries.get(number as usize) else { return };
        let target = entry.target_medium.clone();
        let primary = self
            .expected
            .keys()
            .any(|name| self.catalogue.places(&tape(name)).unwrap().primary == target);
        let moving = self.catalogue.migration_entries().unwrap();
        let moving = moving.iter().any(|entry| entry.migration_medium == target);
        if self.busy(&target) || primary || moving {
            return;
        }
        let position = self.random.below(self.content(&target).len() as u64 + 1);
        self.catalogue.touch(&target, position, None, self.now).unwrap();
        let value = self.random.below(u64::MAX);
        let content = self.tapes.entry(target).or_default();
        content.truncate(position as usize);
        content.push(value);
    }

    /// Lets jobs write some objects.
    pub(crate) fn work(&mut self, amount: u64) {
        let running: Vec<_> = self.jobs.keys().copied().collect();
        for id in running {
            let Some(mut job) = self.jobs.remove(&id) else { continue };
            let begins = job.written.is_none();
            let at = job.written.unwrap_or(job.from);
            if begins {
                let state = JobState::InProgress;
                self.catalogue.transition(id, state, None).unwrap();
                // As the engine's watch: a migration is no copy of the entry that has its target.
                let entry = self.catalogue.copy_entry(&job.source, &job.target).unwrap();
                let own = entry.is_some_and(|entry| entry.job == Some(id));
                let (target, source) = (&job.target, own.then_some(&job.source));
                self.catalogue.touch(target, job.from as u64, source, self.now).unwrap();
                self.tapes.entry(job.target.clone()).or_default().truncate(job.from);
            }
            let end = job.snapshot.len().min(at.saturating_add(amount as usize));
            if at < end {
                let more = job.snapshot[at..end].to_vec();
                self.tapes.entry(job.target.clone()).or_default().extend(more);
            }
            if end >= job.snapshot.len() {
                if job.verify == Verified::Readback {
                    assert_eq!(self.content(&job.target), job.snapshot, "{id} reads back");
                }
                self.catalogue.finish(id, &Ending::done(1, job.verify)).unwrap();
            } else {
                job.written = Some(end);
                self.jobs.insert(id, job);
            }
        }
    }

    pub(crate) fn fail_a_job(&mut self) {
        if let Some((id, job)) = self.jobs.pop_first() {
            self.vain.insert(job.source);
            self.catalogue.finish(id, &Ending::failed("the drive burns")).unwrap();
        }
    }

    /// The process dies; half of the jobs go on afterwards from their beginning.
    pub(crate) fn restart(&mut self) {
        self.catalogue = Arc::new(Catalogue::open(&self.dir.path().join("svs.db")).unwrap());
        self.catalogue.recover_after_restart("restart").unwrap();
        self.mounts.values_mut().for_each(|mount| mount.noted = None);
        let jobs: Vec<_> = self.jobs.keys().copied().collect();
        for id in jobs {
            if self.random.one_in(2) {
                self.jobs.get_mut(&id).unwrap().written = None;
            } else {
                let job = self.jobs.remove(&id).unwrap();
                self.vain.insert(job.source);
                self.catalogue.finish(id, &Ending::failed("the engine died")).unwrap();
            }
        }
    }

    /// No troubles any more, and nothing in a drive.
    pub(crate) fn calm(&mut self) {
        self.calm = true;
        self.mounts.clear();
    }

    /// What holds at any time.
    pub(crate) fn check(&self) {
        for (name, expected) in &self.expected {
            let places = self.catalogue.places(&tape(name)).unwrap();
            assert_eq!(self.content(&places.primary), expected, "the primary of {name}");
            for copy in places.copies {
                assert_eq!(self.content(&copy), expected, "{copy} is told to be current");
            }
        }
        for entry in self.catalogue.copy_entries().unwrap() {
            let Some(same) = entry.changed_from else { continue };
            let source = self.catalogue.places(&entry.source_medium).unwrap().primary;
            if source == entry.target_medium {
                continue;
            }
            let begin = |medium| {
                let content = self.content(medium);
                content[..content.len().min(same as usize)].to_vec()
            };
            assert_eq!(begin(&source), begin(&entry.target_medium), "{entry:?}");
        }
    }

    pub(crate) fn check_final_copy(&self, entry: &CopyEntry) {
        let source = &entry.source_medium;
        let facts = self.catalogue.medium_facts(source).unwrap();
        let moved_here = facts.moved_to.as_ref() == Some(&entry.target_medium);
        let primary = facts.moved_to.clone().unwrap_or_else(|| source.clone());
        let never = match entry.policy {
            MapPolicy::WhenFull => !facts.full,
            MapPolicy::Deferred => entry.rule.schedule.is_none(),
            _ => false,
        };
        let few = entry.rule.after_records.is_none_or(|n| facts.records - entry.seen_records < n);
        let blank = self.content(&primary).is_empty();
        if moved_here || blank || (never && few && !entry.asked) {
            return;
        }
        assert_eq!(entry.status, MapStatus::Done, "{entry:?} {facts:?}");
        assert_eq!(self.content(&entry.target_medium), self.content(&primary), "{entry:?}");
    }

    pub(crate) fn check_final_migration(&self, entry: &MigrationEntry) {
        let facts = self.catalogue.medium_facts(&entry.source_medium).unwrap();
        let blank = self.content(&entry.source_medium).is_empty();
        let wanted = entry.policy == MapPolicy::AfterDays || facts.full;
        if entry.status != MapStatus::Done {
            assert!(blank || !wanted, "{entry:?} {facts:?}");
            return;
        }
        assert!(facts.freed.is_some() && blank, "{entry:?} is freed");
        assert!(entry.proven >= entry.rule.verify, "{entry:?} is proven");
    }
}

/// The desk's hands, in the world.
pub(crate) struct HandsOfWorld(Shared);

impl HandsOfWorld {
    pub(crate) fn desk(world: &Shared) -> Desk<Self> {
        let catalogue = Arc::clone(&world.borrow().catalogue);
        Desk::new(catalogue, Self(Rc::clone(world)))
    }
}

impl Hands for HandsOfWorld {
    fn find(&self, medium: &MediumRef) -> Found {
        let world = self.0.borrow();
        let in_drive = world.mounts.values().any(|mount| mount.on == *medium);
        Found {
            place: if in_drive { Whereabouts::InDrive } else { Whereabouts::Shelved },
            blank: world.content(medium).is_empty(),
            facts: MediumFacts::default(),
        }
    }

    fn copy(&self, wish: &CopyWish<'_>) -> Result<JobId, Refusal> {
        let mut world = self.0.borrow_mut();
        if world.busy(wish.target) || world.jobs.values().any(|job| job.target == *wish.read) {
            return Err(Refusal::Busy("in use".into()));
        }
        let fault = world.not_due(wish);
        // From here on every write is noted again; then what is copied is chosen.
        world.orders += 1;
        world.write_in_between(wish.source);
        let snapshot = world.content(wish.read).to_vec();
        world.write_in_between(wish.source);
        let id = JobId::generate(world.now);
        let job = NewJob::new(id, JobKind::Copy, JobOwner::Engine, ("s", "t"), "test");
        let CopyWish { source, target, version, from, seen, .. } = *wish;
        let start = CopyStart { source, target, version, from, seen };
        if world.catalogue.begin_copy(&job, &start).is_err() {
            return Err(Refusal::Busy("the entry can not begin".into()));
        }
        // What was written since the desk looked is refused above, and then nothing was begun.
        assert_eq!(fault, None);
        world.copies_begun += 1;
        let media = (wish.source, wish.read, wish.target);
        world.order(id, media, wish.from, wish.verify, snapshot);
        Ok(id)
    }

    fn migrate(&self, wish: &MigrationWish<'_>) -> Result<JobId, Refusal> {
        let mut world = self.0.borrow_mut();
        if world.busy(wish.target) || world.busy(wish.source) {
            return Err(Refusal::Busy("in use".into()));
        }
        world.orders += 1;
        let snapshot = world.content(wish.source).to_vec();
        let id = JobId::generate(world.now);
        let job = NewJob::new(id, JobKind::Migration, JobOwner::Engine, ("s", "t"), "test");
        if world.catalogue.begin_migration(&job, wish.source, wish.version).is_err() {
            return Err(Refusal::Busy("the entry can not begin".into()));
        }
        let media = (wish.source, wish.source, wish.target);
        world.order(id, media, 0, wish.verify, snapshot);
        Ok(id)
    }

    fn job(&self, id: JobId) -> JobEnd {
        let world = self.0.borrow();
        let job = world.catalogue.job(id).unwrap().unwrap();
        match job.state {
            JobState::Done => JobEnd::Done(job.verified),
            JobState::Failed => JobEnd::Failed(job.message.unwrap_or_default()),
            _ => JobEnd::Running,
        }
    }

    fn free(&self, medium: &MediumRef) -> Result<(), String> {
        let mut world = self.0.borrow_mut();
        if world.busy(medium) || world.jobs.values().any(|job| job.read == *medium) {
            return Err("in use".into());
        }
        let facts = world.catalogue.medium_facts(medium).unwrap();
        let to = facts.moved_to.expect("what is freed was moved");
        assert_eq!(world.content(medium), world.content(&to), "{medium} is freed");
        world.tapes.insert(medium.clone(), Vec::new());
        world.moves += 1;
        Ok(())
    }

    fn tell(&self, _: &MediumRef, _: &MediumRef, _: &Settled, _: bool) {}
}

impl World {
    fn order(
        &mut self,
        id: JobId,
        (source, read, target): (&MediumRef, &MediumRef, &MediumRef),
        from: u64,
        verify: Verified,
        snapshot: Vec<u64>,
    ) {
        let job = Job {
            target: target.clone(),
            source: source.clone(),
            read: read.clone(),
            from: from as usize,
            snapshot,
            written: None,
            verify,
        };
        self.jobs.insert(id, job);
    }

    /// A write that comes between the look, the choice of what is copied, and the order.
    fn write_in_between(&mut self, source: &MediumRef) {
        if let MediumRef::Tape { volser, .. } = source
            && !self.calm
            && self.random.one_in(4)
        {
            self.write(volser.as_str(), 2);
            self.vain.insert(source.clone());
        }
    }

    /// What is wrong with a copy that begins now: it is more than the policy wants, or more of it.
    fn not_due(&self, wish: &CopyWish<'_>) -> Option<String> {
        let entry = self.catalogue.copy_entry(wish.source, wish.target).unwrap().unwrap();
        let (source, target) = (self.content(wish.read), self.content(wish.target));
        let vain = self.vain.contains(wish.source);
        if source == target && !vain {
            return Some(format!("a copy of what is there: {entry:?}"));
        }
        let facts = self.catalogue.medium_facts(wish.source).unwrap();
        let counted =
            entry.rule.after_records.is_some_and(|n| facts.records - entry.seen_records >= n);
        let mounted = self.mounts.values().any(|mount| mount.on == *wish.read);
        let due = entry.asked
            || counted
            || match entry.policy {
                MapPolicy::Always | MapPolicy::Incremental => !mounted,
                MapPolicy::WhenFull => !mounted && facts.full,
                _ => entry.rule.schedule.as_deref().is_some_and(|text| {
                    let at = text.trim_start_matches("at ").parse::<jiff::Timestamp>().unwrap();
                    at.as_millisecond() as u64 <= self.now
                }),
            };
        if !due {
            return Some(format!("not due: {entry:?}"));
        }
        // Incremental: exactly from the first object that differs, but for notes in vain.
        let from = wish.from as usize;
        let incremental = entry.policy == MapPolicy::Incremental && from > 0;
        let same = || Some(source.get(..from)? == target.get(..from)?);
        (incremental && same() != Some(true))
            .then(|| format!("from {from} of {} on {}: {entry:?}", source.len(), target.len()))
    }
}
