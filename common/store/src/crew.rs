//! Threads that work ahead of one that needs their results in order, or beside it.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{Builder, JoinHandle, scope};

/// The most threads of a crew.
const MOST: usize = 4;

/// One thread, and the ways to it and back.
struct Member<Job, Done> {
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

/// A few threads that do jobs in turns. Its drop waits for what they do.
pub(crate) struct Crew<Job, Done> {
    members: Vec<Member<Job, Done>>,
    /// Jobs for each of them that are under way at once.
    depth: usize,
    given: usize,
    taken: usize,
}

/// As many threads as there are processors for.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).clamp(1, MOST)
}

impl<Job: Send + 'static, Done: Send + 'static> Crew<Job, Done> {
    /// Starts threads, each with its own worker and so many jobs at once. Without any (the system
    /// has none left) every job comes back from [`Crew::give`].
    pub(crate) fn start<Worker>(
        name: &str,
        (threads, depth): (usize, usize),
        worker: impl Fn() -> Worker,
    ) -> Self
    where
        Worker: FnMut(Job) -> Done + Send + 'static,
    {
        let start = |_| {
            let (give, jobs) = sync_channel::<Job>(depth);
            let (finish, done) = sync_channel::<Done>(depth);
            let mut worker = worker();
            let work = move || {
                while let Ok(job) = jobs.recv() {
                    if finish.send(worker(job)).is_err() {
                        return;
                    }
                }
            };
            let thread = Builder::new().name(name.into()).spawn(work).ok()?;
            Some(Member { jobs: Some(give), done, thread: Some(thread) })
        };
        Self { members: (0..threads).map_while(start).collect(), depth, given: 0, taken: 0 }
    }

    /// Its threads.
    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    /// Jobs whose results were not taken.
    pub(crate) fn under_way(&self) -> usize {
        self.given - self.taken
    }

    /// Whether another job would be kept waiting by its thread.
    pub(crate) fn is_full(&self) -> bool {
        self.under_way() >= self.depth * self.members.len()
    }

    /// Gives a job to the next thread; back comes one that nobody can do. Must not be full.
    pub(crate) fn give(&mut self, job: Job) -> Result<(), Job> {
        let Some(member) =
            self.members.get(self.given.checked_rem(self.members.len()).unwrap_or(0))
        else {
            return Err(job);
        };
        let Some(jobs) = &member.jobs else { return Err(job) };
        jobs.send(job).map_err(|error| error.0)?;
        self.given += 1;
        Ok(())
    }

    /// The result of the oldest job, waited for if `wait`; the inner `None` if its thread died of
    /// it. The outer one: nothing is there.
    pub(crate) fn take(&mut self, wait: bool) -> Option<Option<Done>> {
        if self.under_way() == 0 {
            return None;
        }
        let member = &self.members[self.taken % self.members.len()];
        let done = match wait {
            true => member.done.recv().ok(),
            false => match member.done.try_recv() {
                Err(TryRecvError::Empty) => return None,
                other => other.ok(),
            },
        };
        self.taken += 1;
        Some(done)
    }
}

impl<Job, Done> Drop for Crew<Job, Done> {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.jobs = None;
        }
        for member in &mut self.members {
            // What is finished is not wanted any more, but its thread waits to say so.
            while member.done.recv().is_ok() {}
            if let Some(thread) = member.thread.take() {
                // A panic there was reported when it happened.
                let _ = thread.join();
            }
        }
    }
}

/// What `work` makes of each item, in their order: on as many threads as there are processors for,
/// four at most, and `worth` items for each. Where the system has no more threads this one does it
/// all.
pub fn side_by_side<T: Sync, R: Send>(
    items: &[T],
    worth: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let others = threads().min(items.len().div_ceil(worth)).saturating_sub(1);
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item)));
        }
    };
    let mut done = scope(|scope| {
        let start = |_| Builder::new().name("beside".into()).spawn_scoped(scope, some).ok();
        let others: Vec<_> = (0..others).map_while(start).collect();
        let mut done = some();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_a_dead_thread_is_told() {
        let mut crew = Crew::start("crew", (3, 2), || |job: u64| job * job);
        let (mut next, mut taken) = (0, Vec::new());
        while taken.len() < 1000 {
            while !crew.is_full() && next < 1000 {
                crew.give(next).unwrap();
                next += 1;
            }
            taken.extend(crew.take(true).flatten());
        }
        assert!(crew.take(true).is_none());
        assert!(taken.iter().copied().eq((0..1000).map(|n| n * n)));
        // Dropped with work under way.
        crew.give(1).unwrap();
        drop(crew);
        let mut crew = Crew::start("crew", (1, 2), || |job: u64| 100 / job);
        crew.give(0).unwrap();
        assert_eq!(crew.take(true), Some(None));
        assert_eq!(crew.give(4), Err(4));
        let mut none = Crew::start("crew", (0, 2), || |job: u64| job);
        assert_eq!((none.give(4), none.under_way()), (Err(4), 0));
    }

    #[test]
    fn side_by_side_results_are_in_the_order_of_the_items() {
        for count in [0, 1, 7, 8, 1000] {
            let items: Vec<u64> = (0..count).collect();
            let squares = side_by_side(&items, 8, |item| item * item);
            assert!(squares.into_iter().eq((0..count).map(|item| item * item)), "{count}");
        }
    }
}
