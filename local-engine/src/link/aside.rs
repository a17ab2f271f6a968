//! Independent work on all processors.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, available_parallelism, scope};

/// The most threads.
const MOST: usize = 4;
/// So many items are worth another thread.
const WORTH: usize = 8;

/// What `work` makes of each item, in their order. Where the system has no more threads this one
/// does it all.
pub(super) fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = available_parallelism().map_or(1, usize::from).min(MOST);
    let others = threads.min(1 + items.len() / WORTH) - 1;
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
    fn results_are_in_the_order_of_the_items() {
        for count in [0, 1, 7, 8, 1000] {
            let items: Vec<u64> = (0..count).collect();
            let squares = side_by_side(&items, |item| item * item);
            assert!(squares.into_iter().eq((0..count).map(|item| item * item)), "{count}");
        }
    }
}
