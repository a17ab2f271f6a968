//! Tapes that this engine has brought into backend drives, noted before they are moved: after a
//! crash they go back to their slots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use svs::Catalogue;
use tape::CancelToken;

use super::access::Access;
use crate::mounting::{self, LOOK, Mounted, TapeAt, Tried, Wish, attempt};

/// Where the list is in the catalogue.
const KEY: &str = "frontend/mounted";

/// The list, and which of them are in use by this run of the engine.
pub(super) struct LeftOver {
    catalogue: Arc<Catalogue>,
    /// Whether it is in use.
    tapes: Mutex<BTreeMap<TapeAt, bool>>,
    /// Whether somebody puts them back.
    returning: Mutex<bool>,
}

impl LeftOver {
    /// What the last run has left.
    pub(super) fn load(catalogue: Arc<Catalogue>) -> Result<Self, svs::SvsError> {
        let text = catalogue.meta(KEY)?.unwrap_or_default();
        let tapes: BTreeSet<TapeAt> = serde_json::from_str(&text).unwrap_or_default();
        let tapes = tapes.into_iter().map(|tape| (tape, false)).collect();
        Ok(Self { catalogue, tapes: Mutex::new(tapes), returning: Mutex::new(false) })
    }

    fn tapes(&self) -> MutexGuard<'_, BTreeMap<TapeAt, bool>> {
        self.tapes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, tapes: &BTreeMap<TapeAt, bool>) -> Result<(), String> {
        let list: Vec<_> = tapes.keys().collect();
        let text = serde_json::to_string(&list).map_err(|error| error.to_string())?;
        self.catalogue.set_meta(KEY, &text).map_err(|error| error.to_string())
    }

    /// Takes a tape into use, durably before it is moved; whether it was left over.
    pub(super) fn take(&self, tape: &TapeAt) -> Result<bool, String> {
        let mut tapes = self.tapes();
        let before = tapes.insert(tape.clone(), true);
        match before {
            Some(_) => Ok(true),
            None => self.save(&tapes).map(|()| false),
        }
    }

    /// A tape is back in its slot, or was never moved.
    pub(super) fn home(&self, tape: &TapeAt) {
        let mut tapes = self.tapes();
        tapes.remove(tape);
        if let Err(error) = self.save(&tapes) {
            // It is looked for once more after a restart, and found in its slot.
            tracing::warn!(%tape, error, "a tape's return could not be noted");
        }
    }

    /// A tape is no longer used and not back.
    pub(super) fn leave(&self, tape: &TapeAt) {
        self.tapes().insert(tape.clone(), false);
    }

    fn to_be_put_back(&self) -> Vec<TapeAt> {
        let tapes = self.tapes();
        tapes.iter().filter(|(_, in_use)| !**in_use).map(|(tape, _)| tape.clone()).collect()
    }
}

impl Access {
    /// Puts back what was left in drives, on a thread of its own, as soon as the libraries can be
    /// reached. Nothing is done where nothing is left.
    pub fn put_back_left(self: &Arc<Self>) {
        let mut returning = self.left.returning.lock().unwrap_or_else(PoisonError::into_inner);
        if *returning || self.left.to_be_put_back().is_empty() {
            return;
        }
        let access = Arc::clone(self);
        let thread = std::thread::Builder::new().name("put-back".into());
        let started = thread.spawn(move || {
            while !access.is_over() {
                let left = access.left.to_be_put_back();
                if left.is_empty() {
                    break;
                }
                left.iter().for_each(|tape| access.put_back(tape));
                // Nothing tells of drives of another site.
                std::thread::sleep(LOOK);
            }
            *access.left.returning.lock().unwrap_or_else(PoisonError::into_inner) = false;
        });
        match started {
            Ok(_) => *returning = true,
            Err(error) => tracing::error!(%error, "tapes are left in their drives"),
        }
    }

    fn put_back(&self, tape: &TapeAt) {
        let Some(found) = mounting::find(&self.registry(), tape) else {
            // A library that is not known yet may hold it.
            let libraries = self.registry().libraries();
            let view = libraries.iter().find(|it| *it.name() == tape.library);
            if view.and_then(|library| library.view()).is_some_and(|view| view.online) {
                self.left.home(tape);
            }
            return;
        };
        if !found.view.online {
            return;
        }
        if mounting::drive_of(&found.view, &found.element).is_none() {
            self.left.home(tape);
            return;
        }
        let opener = self.opener(&format!("return of {tape}"));
        let cancel = CancelToken::new();
        let (drive, home) = (None, None);
        let (cancel, tell) = (&cancel, &|_: &str| {});
        let wish = Wish { tape, opener: &opener, cancel, drive, home, left_over: true, tell };
        match attempt(&self.registry(), &wish) {
            Ok(Tried::Mounted(mounted)) => match self.unmount(mounted, &opener) {
                Ok(()) => tracing::info!(%tape, "a tape left in a drive is back in its slot"),
                Err(cause) => tracing::debug!(%tape, cause, "a tape could not be put back yet"),
            },
            Ok(Tried::Busy | Tried::Offline) => {}
            Err(cause) => tracing::debug!(%tape, ?cause, "a tape could not be put back yet"),
        }
    }

    /// Takes a tape back to its slot; after a failure that is tried again until it is done.
    pub(super) fn unmount(
        &self,
        mounted: Mounted,
        opener: &crate::device::Opener,
    ) -> Result<(), String> {
        let tape = mounted.tape().clone();
        let unmounted = mounted.unmount(&self.registry(), opener);
        match &unmounted {
            Ok(()) => self.left.home(&tape),
            Err(_) => self.left.leave(&tape),
        }
        unmounted
    }
}
