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
use std::sync::Arc;

use cim::{CimError, Instance, Path, Take};
use model::ElementAddress;

use crate::device::{Library, LibraryView};
use crate::engine::Engine;

pub(super) use health::datetime;
pub(super) use jobs::{job_errors, job_of, job_path};
pub(super) use libraries::appliance_name;
pub(super) use names::{Names, TapeName, tape_of};

/// What was seen of the libraries: all that is made of it is of one moment.
#[derive(Default)]
pub(super) struct Look {
    libraries: OnceCell<Vec<Seen>>,
}

/// A library, looked at when somebody asks for it.
struct Seen {
    library: Arc<dyn Library>,
    names: Names,
    facts: OnceCell<Option<LibraryFacts>>,
}

/// One look at the engine.
pub(super) struct Model<'a> {
    engine: &'a Engine,
    look: &'a Look,
    /// The one library that is looked at, where what is asked for can be in no other.
    only: Option<&'a str>,
}

/// A library and what is in it.
pub(super) struct LibraryFacts {
    /// How it is called in keys.
    pub(super) names: Names,
    /// What is known of it.
    pub(super) view: LibraryView,
}

/// Passes the instances on that are wanted, and makes no other ones.
struct Sink<'a> {
    like: Option<&'a Path>,
    take: &'a mut Take<'a>,
    ended: Result<(), CimError>,
}

impl Sink<'_> {
    /// Whether something about the tape of this name at this place may be wanted: known before a
    /// path is made of it.
    fn may_be_tape(&self, names: &Names, tag: &str, place: ElementAddress) -> bool {
        self.like.is_none_or(|like| names::may_be_tape(like, names, tag, place))
    }

    /// An instance at `path`, filled if somebody wants it.
    fn add(&mut self, path: Path, fill: impl FnOnce(Instance) -> Instance) {
        let wanted = self.like.is_none_or(|like| {
            let ends =
                |(name, _): &(cim::Name, _)| path.reference(name).is_some_and(|end| end.same(like));
            path.same(like) || path.keys.iter().any(ends)
        });
        if wanted && self.ended.is_ok() {
            self.ended = (self.take)(fill(Instance::at(path)));
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
    /// The engine as it is seen in a look.
    pub(super) fn new(engine: &'a Engine, look: &'a Look) -> Self {
        Self { engine, look, only: None }
    }

    /// The site of this engine.
    fn site(&self) -> &str {
        self.engine.ground.config.site.name.as_str()
    }

    /// All libraries, each looked at once.
    pub(super) fn libraries(&self) -> impl Iterator<Item = &'a LibraryFacts> {
        let seen = self.look.libraries.get_or_init(|| {
            let all = self.engine.ground.registry.libraries().into_iter();
            let seen = all.map(|library| {
                let names = Names::new(self.site(), library.name().clone());
                Seen { library, names, facts: OnceCell::new() }
            });
            seen.collect()
        });
        let only = self.only;
        seen.iter()
            .filter(move |seen| only.is_none_or(|only| only == seen.names.system_name()))
            .filter_map(|seen| {
                let look =
                    || Some(LibraryFacts { names: seen.names.clone(), view: seen.library.view()? });
                seen.facts.get_or_init(look).as_ref()
            })
    }

    /// Shows the instances of a class, at least those that are `like` the one that is asked for.
    pub(super) fn visit(
        (engine, look): (&Engine, &Look),
        class: &str,
        like: Option<&Path>,
        take: &mut Take<'_>,
    ) -> Result<(), CimError> {
        let only = like.filter(|_| names::is_of_one_library(class)).and_then(names::system_of);
        let model = Model { only, ..Model::new(engine, look) };
        model.show(class, like, take)
    }

    /// The instances of a class.
    pub(super) fn instances(&self, class: &str) -> Result<Vec<Instance>, CimError> {
        let mut found = Vec::new();
        self.show(class, None, &mut |instance| {
            found.push(instance);
            Ok(())
        })?;
        Ok(found)
    }

    fn show(&self, class: &str, like: Option<&Path>, take: &mut Take<'_>) -> Result<(), CimError> {
        let mut sink = Sink { like, take: &mut *take, ended: Ok(()) };
        let done = self.library_instances(class, &mut sink)
            || self.media_instances(class, &mut sink)?
            || self.job_instances(class, &mut sink)?
            || self.replication_instances(class, &mut sink)?
            || self.interop_instances(class, &mut sink)
            || self.profile_instances(class, &mut sink);
        tracing::trace!(class, done, "SMI-S instances");
        sink.ended
    }
}
