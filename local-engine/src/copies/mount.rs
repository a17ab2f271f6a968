//! Drives for the tapes of a copy, waited for in the queue.

use tape::CancelToken;

use super::order::TapeAt;
use crate::device::Opener;
use crate::engine::Engine;
use crate::mounting::{
    Asker, Halt, Heard, InLine, LOOK, Mounted, Mounts, Tried, Wish, attempt, why_not,
};

/// Tapes in drives, and the place in the queue that they came from.
pub(super) struct Taken {
    line: InLine,
    /// In the order in which they were asked for.
    pub(super) mounted: Vec<Mounted>,
}

/// Brings tapes into drives, all or none, and waits for that as long as nobody cancels.
pub(super) fn mount(
    engine: &Engine,
    asker: Asker,
    tapes: &[TapeAt],
    (opener, cancel): (&Opener, &CancelToken),
    waiting: &mut dyn FnMut(&str),
) -> Result<Taken, Halt> {
    let registry = &engine.ground.registry;
    let line = Mounts::join(registry, asker)?;
    let choices = [tapes.iter().cloned().map(Into::into).collect()];
    loop {
        if cancel.is_cancelled() {
            return Err(Halt::Cancelled);
        }
        let seats = match line.turn(&choices, LOOK) {
            Heard::Go(_, seats) => seats,
            Heard::Never(tape) => return Err(Halt::Failed(why_not(registry, &tape))),
            Heard::Wait(why) => {
                waiting(&why);
                continue;
            }
        };
        let mut mounted: Vec<Mounted> = Vec::new();
        let mut lacks = None;
        for seat in seats {
            let home = line.home(&seat.tape);
            let (tape, drive) = (&seat.tape, Some(seat.drive));
            let told = std::cell::RefCell::new(&mut *waiting);
            let tell = |what: &str| (told.borrow_mut())(what);
            let wish = Wish { tape, opener, cancel, drive, home, left_over: false, tell: &tell };
            match attempt(registry, &wish) {
                Ok(Tried::Mounted(it)) => {
                    line.took(&seat.tape);
                    mounted.push(it);
                }
                Ok(Tried::Busy) => {
                    line.refused(&seat);
                    lacks = Some(Ok("drive or changer are in use"));
                }
                Ok(Tried::Offline) => lacks = Some(Ok("the library can not be reached")),
                Err(halt) => lacks = Some(Err(halt)),
            }
            if lacks.is_some() {
                break;
            }
        }
        let Some(lacks) = lacks else { return Ok(Taken { line, mounted }) };
        mounted.into_iter().for_each(|it| unmount(engine, it, opener));
        waiting(lacks?);
        line.again(true);
    }
}

/// Gives tapes and drives back. A tape that somebody waits for stays where it is.
pub(super) fn put_back(engine: &Engine, taken: Taken, opener: &Opener) {
    let Taken { line, mounted } = taken;
    line.finish(mounted).into_iter().for_each(|it| unmount(engine, it, opener));
}

/// What fails here leaves the tape in its drive, and is told in the log: the copy itself is done.
fn unmount(engine: &Engine, mounted: Mounted, opener: &Opener) {
    let tape = mounted.tape().clone();
    if let Err(cause) = mounted.unmount(&engine.ground.registry, opener) {
        tracing::warn!(%tape, cause, "a copied tape stays in its drive");
    }
}
