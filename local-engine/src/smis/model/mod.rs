//! The engine as instances, made at the moment when they are asked for.
//!
//! Libraries come from the same state that NDMP serves ([`crate::device::Library::view`]), jobs
//! from the catalogue's rows.

mod health;
mod interop;
mod jobs;
mod libraries;
mod media;
mod names;
mod profiles;
mod replication;

use std::cell::OnceCell;

use cim::{CimError, Instance, Path};

use crate::device::LibraryView;
use crate::engine::Engine;

pub(super) use health::datetime;
pub(super) use jobs::{job_errors, job_of, job_path};
pub(super) use names::{Names, TapeName, tape_of};

/// One look at the engine.
pub(super) struct Model<'a> {
    engine: &'a Engine,
    libraries: OnceCell<Vec<LibraryFacts>>,
}

/// A library and what is in it.
pub(super) struct LibraryFacts {
    /// How it is called in keys.
    pub(super) names: Names,
    /// What is known of it.
    pub(super) view: LibraryView,
}

/// Takes the instances that are wanted, and makes no other ones.
struct Sink<'a> {
    like: Option<&'a Path>,
    found: Vec<Instance>,
}

impl Sink<'_> {
    /// An instance at `path`, filled if somebody wants it.
    fn add(&mut self, path: Path, fill: impl FnOnce(Instance) -> Instance) {
        let wanted = self.like.is_none_or(|like| {
            let ends =
                |(name, _): &(cim::Name, _)| path.reference(name).is_some_and(|end| end.same(like));
            path.same(like) || path.keys.iter().any(ends)
        });
        if wanted {
            self.found.push(fill(Instance::at(path)));
        }
    }

    /// An association whose two references are its keys.
    fn join(&mut self, class: &'static str, ends: [(&'static str, Path); 2]) {
        self.join_with(class, ends, |instance| instance);
    }

    /// One with more properties.
    fn join_with(
        &mut self,
        class: &'static str,
        [one, other]: [(&'static str, Path); 2],
        fill: impl FnOnce(Instance) -> Instance,
    ) {
        let space = one.1.namespace.clone();
        let path = Path::new(space, class);
        self.add(path.with_reference(one.0, one.1).with_reference(other.0, other.1), fill);
    }
}

impl<'a> Model<'a> {
    /// A look at the engine as it is now.
    pub(super) fn new(engine: &'a Engine) -> Self {
        Self { engine, libraries: OnceCell::new() }
    }

    /// The site of this engine.
    fn site(&self) -> &str {
        self.engine.ground.config.site.name.as_str()
    }

    /// All libraries, looked at once.
    pub(super) fn libraries(&self) -> &[LibraryFacts] {
        self.libraries.get_or_init(|| {
            let all = self.engine.ground.registry.libraries();
            let facts = all.iter().filter_map(|library| {
                let names = Names::new(self.site(), library.name().clone());
                Some(LibraryFacts { names, view: library.view()? })
            });
            facts.collect()
        })
    }

    /// The instances of a class.
    pub(super) fn instances(
        &self,
        class: &str,
        like: Option<&Path>,
    ) -> Result<Vec<Instance>, CimError> {
        let mut sink = Sink { like, found: Vec::new() };
        let done = self.library_instances(class, &mut sink)
            || self.media_instances(class, &mut sink)?
            || self.job_instances(class, &mut sink)?
            || self.replication_instances(class, &mut sink)?
            || self.interop_instances(class, &mut sink)
            || self.profile_instances(class, &mut sink);
        tracing::trace!(class, done, found = sink.found.len(), "SMI-S instances");
        Ok(sink.found)
    }
}
