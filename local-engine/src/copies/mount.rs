//! A drive for a tape, waited for.

use tape::CancelToken;

use super::order::TapeAt;
use crate::device::Opener;
use crate::engine::Engine;
use crate::mounting::{Halt, LOOK, Mounted, Tried, Wish, attempt};

/// Brings a tape into a drive, and waits for one as long as nobody cancels.
pub(super) fn mount(
    engine: &Engine,
    tape: &TapeAt,
    opener: &Opener,
    cancel: &CancelToken,
    waiting: &mut dyn FnMut(&str),
) -> Result<Mounted, Halt> {
    let (prefer, spared, left_over) = Default::default();
    let wish = Wish { tape, opener, cancel, prefer, spared, left_over };
    loop {
        if cancel.is_cancelled() {
            return Err(Halt::Cancelled);
        }
        waiting(match attempt(&engine.ground.registry, &wish)? {
            Tried::Mounted(mounted) => return Ok(mounted),
            Tried::Busy => "no drive is free",
            Tried::Offline => "the library can not be reached",
        });
        std::thread::sleep(LOOK);
    }
}

/// Takes a tape back. What fails here leaves it in the drive, and is told in the log: the copy
/// itself is done.
pub(super) fn put_back(engine: &Engine, mounted: Mounted, opener: &Opener) {
    let tape = mounted.tape().clone();
    if let Err(cause) = mounted.unmount(&engine.ground.registry, opener) {
        tracing::warn!(%tape, cause, "a copied tape stays in its drive");
    }
}
