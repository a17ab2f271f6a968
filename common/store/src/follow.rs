//! Generations that are followed while they are written: what replication sends ahead of the seal.
//!
//! The journal of an open generation says what was written, in order. A follower reads it behind
//! the writer and keeps lists of its own, so that the writer waits for nobody. What was written and
//! not flushed may be followed too: a crash ends the follower as well.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::GenerationId;

use crate::collect::Hold;
use crate::journal::Tracker;
use crate::layout::Layout;
use crate::recipe::{Recipe, layout_of};
use crate::store::{Inner, Pin};
use crate::{GenerationInfo, Result, Store, StoreError};

/// What an open generation has grown to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The generation.
    pub generation: GenerationId,
    /// Bytes of the chunks that were cut since it was begun, or gone on with.
    pub bytes: u64,
    /// Whether it is still written; false: it was sealed, given up, or its image was dropped.
    pub open: bool,
}

/// Who wants to know of growth.
pub type Watcher = Arc<dyn Fn(Growth) + Send + Sync>;

#[derive(Clone, Copy)]
struct Opened {
    /// Which opening it is: a journal that is gone on with is cut back first.
    opening: u64,
    bytes: u64,
}

/// The generations that are written now, and who watches them.
#[derive(Default)]
pub(crate) struct Live {
    opened: Mutex<HashMap<GenerationId, Opened>>,
    openings: AtomicU64,
    watchers: Mutex<Vec<Watcher>>,
}

impl Live {
    fn opened(&self) -> MutexGuard<'_, HashMap<GenerationId, Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, growth: Growth) {
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        watchers.iter().for_each(|watcher| watcher(growth));
    }

    fn opening(&self, id: GenerationId) -> Option<u64> {
        self.opened().get(&id).map(|opened| opened.opening)
    }
}

/// A writer's entry among those that are live; dropped, the entry goes.
pub(crate) struct Writing {
    live: Arc<Live>,
    id: GenerationId,
}

impl Writing {
    pub(crate) fn new(live: &Arc<Live>, id: GenerationId) -> Self {
        let opening = live.openings.fetch_add(1, Ordering::Relaxed);
        live.opened().insert(id, Opened { opening, bytes: 0 });
        Self { live: live.clone(), id }
    }

    /// The journal says of so many bytes of chunks by now.
    pub(crate) fn wrote(&self, bytes: u64) {
        if let Some(opened) = self.live.opened().get_mut(&self.id) {
            opened.bytes = bytes;
        }
        self.live.tell(Growth { generation: self.id, bytes, open: true });
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let opened = self.live.opened().remove(&self.id);
        let bytes = opened.map_or(0, |opened| opened.bytes);
        self.live.tell(Growth { generation: self.id, bytes, open: false });
    }
}

/// How a followed generation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is being written.
    Open,
    /// It is sealed, and all of it was followed.
    Sealed(GenerationInfo),
    /// Nobody writes it and it is not sealed, or what was followed is not how it ended. Where it
    /// is sealed now, it can be read as such.
    Lost,
}

/// The lists of a generation that may still be written.
pub(crate) struct Lists {
    pub(crate) layout: Layout,
    pub(crate) id: GenerationId,
    log: Option<Log>,
    standing: Standing,
    /// Of the sealed generation, and of the one below it.
    _pins: [Option<Pin>; 2],
}

struct Log {
    inner: Arc<Inner>,
    tracker: Tracker,
    opening: u64,
    /// What it reads of stays.
    _hold: Hold,
}

impl Lists {
    /// Of a sealed generation, or else of an open one.
    pub(crate) fn open(inner: &Arc<Inner>, id: GenerationId) -> Result<Self> {
        match inner.recipe(id) {
            Ok((recipe, pin)) => Ok(Self::sealed(inner, &recipe, pin)),
            Err(StoreError::NoGeneration(_)) => Self::follow(inner, id),
            Err(error) => Err(error),
        }
    }

    fn sealed(inner: &Arc<Inner>, recipe: &Recipe, pin: Pin) -> Self {
        let layout = layout_of(Some(recipe), inner.params(), &inner.scratch);
        let standing = Standing::Sealed(recipe.info);
        Self { layout, id: recipe.info.id, log: None, standing, _pins: [Some(pin), None] }
    }

    fn follow(inner: &Arc<Inner>, id: GenerationId) -> Result<Self> {
        let opening = inner.live.opening(id).ok_or(StoreError::NoGeneration(id))?;
        let hold = Hold::new(inner);
        let tracker = Tracker::open(inner.vfs.as_ref(), &inner.journal_path(id), id)?;
        let base = tracker.parent().map(|id| inner.recipe(id)).transpose()?;
        let recipe = base.as_ref().map(|(recipe, _)| recipe);
        let layout = layout_of(recipe, inner.params(), &inner.scratch);
        let log = Log { inner: inner.clone(), tracker, opening, _hold: hold };
        let pins = [None, base.map(|(_, pin)| pin)];
        Ok(Self { layout, id, log: Some(log), standing: Standing::Open, _pins: pins })
    }

    /// Takes in what was written meanwhile. The second value tells how much of what was known
    /// before is still so: everything before so many chunks and objects.
    pub(crate) fn advance(&mut self) -> Result<(Standing, u64, u64)> {
        let mut kept = (self.layout.chunks.len(), self.layout.end.object);
        if let Some(log) = &mut self.log {
            self.standing = loop {
                // Looked at before it is read, and again behind it: then it is of one writing.
                let sealed = log.inner.generation(self.id);
                let before = log.is_live(self.id);
                if !log.tracker.advance(&mut self.layout, &mut kept)? {
                    break Standing::Lost;
                }
                match sealed {
                    Some(info) if ended_as(&self.layout, &info) => break Standing::Sealed(info),
                    None if before && log.is_live(self.id) => break Standing::Open,
                    // It ended meanwhile: there may be more to read.
                    None if before => {}
                    _ => break Standing::Lost,
                }
            };
        }
        if self.standing != Standing::Open
            && let Some(log) = self.log.take()
        {
            self._pins[0] = log.inner.pin(self.id).ok();
        }
        Ok((self.standing, kept.0, kept.1))
    }
}

impl Log {
    fn is_live(&self, id: GenerationId) -> bool {
        self.inner.live.opening(id) == Some(self.opening)
    }
}

fn ended_as(layout: &Layout, info: &GenerationInfo) -> bool {
    let Layout { end, chunks, chunked, .. } = layout;
    let found = (end.object, end.byte, end.file, chunks.len(), *chunked);
    found == (info.objects, info.bytes, info.filemarks, info.chunks, info.bytes)
}

impl Store {
    /// Tells `watcher` from now on how open generations grow, on the thread that writes: it must
    /// not wait, and not write to the store.
    pub fn watch(&self, watcher: Watcher) {
        let mut watchers = self.0.live.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.push(watcher);
    }

    /// The generations that are written now.
    pub fn growing(&self) -> Vec<Growth> {
        let opened = self.0.live.opened();
        let growth = |(generation, opened): (&GenerationId, &Opened)| {
            let (generation, bytes) = (*generation, opened.bytes);
            Growth { generation, bytes, open: true }
        };
        opened.iter().map(growth).collect()
    }

    /// Whose generation it is that is written now, and on what.
    pub fn open_header(
        &self,
        id: GenerationId,
    ) -> Result<(model::CartridgeId, Option<GenerationId>, u64)> {
        let tracker = Tracker::open(self.0.vfs.as_ref(), &self.0.journal_path(id), id)?;
        Ok(tracker.head())
    }
}
