//! Pull operations: enumerations in pieces (DSP0200 5.3.2.24).
//!
//! What an enumeration found is written down when it is opened, so its pieces are of one moment. A
//! context ends by itself when nobody asks for so long, and together they hold a bounded number of
//! bytes.

use std::collections::{BTreeMap, VecDeque};

use super::associate::{Walk, Wanted};
use super::parameters::Parameters;
use super::{Answer, Operation, Repository, part, returned};
use crate::xml::Writer;
use crate::{CimError, Instance, Status};

/// Open enumerations.
const CONTEXTS_MAX: usize = 64;
/// Bytes that they hold together.
const BYTES_MAX: usize = 64 << 20;
/// Seconds after which one ends that nobody asks for, where its client says nothing.
const TIMEOUT_S: u32 = 30;
/// The most that a client can ask for.
const TIMEOUT_MAX_S: u32 = 300;
/// Objects in one piece.
const PIECE_MAX: u32 = 10_000;

/// What the objects of an enumeration look like; it is pulled by the operation of its own kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Instances,
    Paths,
}

struct Context {
    kind: Kind,
    objects: VecDeque<String>,
    bytes: usize,
    timeout_ms: u64,
    until: u64,
}

/// The open enumerations.
#[derive(Default)]
pub(super) struct Contexts {
    open: BTreeMap<u64, Context>,
    bytes: usize,
    next: u64,
}

impl Contexts {
    fn expire(&mut self, now: u64) {
        let bytes = &mut self.bytes;
        self.open.retain(|_, context| {
            let alive = context.until > now;
            if !alive {
                *bytes -= context.bytes;
            }
            alive
        });
    }

    fn remove(&mut self, id: u64) -> Option<Context> {
        let context = self.open.remove(&id)?;
        self.bytes -= context.bytes;
        Some(context)
    }

    fn insert(&mut self, id: u64, context: Context) {
        self.bytes += context.bytes;
        self.open.insert(id, context);
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.open.len() < CONTEXTS_MAX && self.bytes + bytes <= BYTES_MAX
    }
}

fn over() -> CimError {
    let text = "the enumeration is over, was closed, or is of another kind";
    CimError::new(Status::InvalidEnumerationContext, text)
}

impl<R: Repository> Operation<'_, R> {
    /// Everything that begins with Open or Pull.
    pub(super) fn pull(
        &self,
        name: &str,
        space: &str,
        p: &mut Parameters<'_>,
        now: u64,
        w: &mut Writer,
    ) -> Answer {
        let (what, kind) = match name {
            "openenumerateinstances" => (None, Kind::Instances),
            "openenumerateinstancepaths" => (None, Kind::Paths),
            "openassociatorinstances" => (Some(true), Kind::Instances),
            "openassociatorinstancepaths" => (Some(true), Kind::Paths),
            "openreferenceinstances" => (Some(false), Kind::Instances),
            "openreferenceinstancepaths" => (Some(false), Kind::Paths),
            "pullinstanceswithpath" => return self.next(p, Kind::Instances, now, w),
            "pullinstancepaths" => return self.next(p, Kind::Paths, now, w),
            "pullinstances" => {
                p.text("EnumerationContext")?;
                return Err(over());
            }
            _ => {
                let text = "queries are not offered".to_owned();
                return Err(CimError::new(Status::NotSupported, text));
            }
        };
        let asked = Asked::read(p)?;
        asked.check()?;
        let objects = match what {
            None => self.all(space, p, kind)?,
            Some(far) => self.joined(space, p, kind, far)?,
        };
        let bytes = objects.iter().map(String::len).sum();
        let context = Context { kind, objects, bytes, timeout_ms: asked.timeout_ms(), until: 0 };
        let mut contexts = self.contexts();
        contexts.expire(now);
        let id = contexts.next;
        contexts.next += 1;
        drop(contexts);
        self.piece(id, context, asked.count.unwrap_or(0), now, w)
    }

    fn all(
        &self,
        space: &str,
        p: &mut Parameters<'_>,
        kind: Kind,
    ) -> Result<VecDeque<String>, CimError> {
        let (class, shape) = match kind {
            Kind::Instances => self.enumeration(p)?,
            Kind::Paths => (p.needed_class("ClassName")?, Default::default()),
        };
        p.end()?;
        self.class(class)?;
        let mut found = Found::default();
        self.each(class, None, &mut |instance| match instance.path.namespace == space {
            true => found.push(self.object(&instance, kind, &shape)),
            false => Ok(()),
        })?;
        Ok(found.objects)
    }

    fn joined(
        &self,
        space: &str,
        p: &mut Parameters<'_>,
        kind: Kind,
        far: bool,
    ) -> Result<VecDeque<String>, CimError> {
        let mut path = p.path("InstanceName")?;
        let walk = Walk::read(p, far)?;
        let (shape, wanted) = match kind {
            Kind::Instances => (p.instance_shape()?, Wanted::Objects),
            Kind::Paths => (Default::default(), Wanted::Names),
        };
        p.end()?;
        self.check_walk(&walk)?;
        self.checked(&mut path, space)?;
        let mut found = Found::default();
        self.walk(&path, &walk, wanted, &mut |instance| {
            found.push(self.object(&instance, kind, &shape))
        })?;
        Ok(found.objects)
    }

    fn object(&self, instance: &Instance, kind: Kind, shape: &crate::wire::Shape) -> String {
        let (e, mut w) = (self.encoder(), Writer::new());
        match kind {
            Kind::Paths => e.path(&mut w, &instance.path),
            Kind::Instances => w.within("VALUE.INSTANCEWITHPATH", &[], |w| {
                e.path(w, &instance.path);
                e.instance(w, instance, shape);
            }),
        }
        w.finish()
    }

    fn next(&self, p: &mut Parameters<'_>, kind: Kind, now: u64, w: &mut Writer) -> Answer {
        let id = p.needed_text("EnumerationContext")?.trim().parse::<u64>();
        let count = p.number("MaxObjectCount")?;
        p.end()?;
        let count = count.ok_or_else(|| CimError::parameter("MaxObjectCount is missing"))?;
        let mut contexts = self.contexts();
        contexts.expire(now);
        let id = id.map_err(|_| over())?;
        if contexts.open.get(&id).is_none_or(|context| context.kind != kind) {
            return Err(over());
        }
        let context = contexts.remove(id).ok_or_else(over)?;
        drop(contexts);
        self.piece(id, context, count, now, w)
    }

    pub(super) fn close(&self, p: &mut Parameters<'_>, now: u64) -> Answer {
        let id = p.needed_text("EnumerationContext")?.trim().parse::<u64>();
        p.end()?;
        let mut contexts = self.contexts();
        contexts.expire(now);
        let closed = id.ok().and_then(|id| contexts.remove(id));
        closed.map(drop).ok_or_else(over)
    }

    /// The next objects, at most `count`; the rest is kept.
    fn piece(&self, id: u64, mut context: Context, count: u32, now: u64, w: &mut Writer) -> Answer {
        let taken = (count.min(PIECE_MAX) as usize).min(context.objects.len());
        let piece: VecDeque<_> = context.objects.drain(..taken).collect();
        context.bytes -= piece.iter().map(String::len).sum::<usize>();
        // An open that asks for nothing does not say whether there is something.
        let end = context.objects.is_empty() && count > 0;
        let token = if end { String::new() } else { id.to_string() };
        if !end {
            context.until = now + context.timeout_ms;
            let mut contexts = self.contexts();
            if !contexts.has_room(context.bytes) {
                let text = "too many enumerations are open; close some, or take all at once";
                return Err(CimError::new(Status::ServerLimitsExceeded, text));
            }
            contexts.insert(id, context);
        }
        returned(w, |w| {
            piece.into_iter().try_for_each(|object| {
                w.raw(&object);
                part(w)
            })
        })?;
        w.within("PARAMVALUE", &[("NAME", "EnumerationContext"), ("PARAMTYPE", "string")], |w| {
            w.leaf("VALUE", &[], &token);
        });
        w.within("PARAMVALUE", &[("NAME", "EndOfSequence"), ("PARAMTYPE", "boolean")], |w| {
            w.leaf("VALUE", &[], if end { "TRUE" } else { "FALSE" });
        });
        Ok(())
    }
}

/// What an enumeration found so far; more than all may hold together is not gathered.
#[derive(Default)]
struct Found {
    objects: VecDeque<String>,
    bytes: usize,
}

impl Found {
    fn push(&mut self, object: String) -> Result<(), CimError> {
        self.bytes += object.len();
        if self.bytes > BYTES_MAX {
            let text = "it is too much for an open enumeration; enumerate it at once";
            return Err(CimError::new(Status::ServerLimitsExceeded, text));
        }
        self.objects.push_back(object);
        Ok(())
    }
}

/// What every open operation may ask for.
struct Asked {
    filter: bool,
    timeout: Option<u32>,
    go_on: bool,
    count: Option<u32>,
}

impl Asked {
    fn read(p: &mut Parameters<'_>) -> Result<Self, CimError> {
        let filter = [p.text("FilterQueryLanguage")?, p.text("FilterQuery")?];
        Ok(Self {
            filter: filter.iter().flatten().any(|text| !text.is_empty()),
            timeout: p.number("OperationTimeout")?,
            go_on: p.boolean("ContinueOnError", false)?,
            count: p.number("MaxObjectCount")?,
        })
    }

    fn check(&self) -> Result<(), CimError> {
        if self.filter {
            let text = "enumerations are not filtered here";
            return Err(CimError::new(Status::FilteredEnumerationNotSupported, text));
        }
        if self.go_on {
            let text = "ContinueOnError is not offered";
            return Err(CimError::new(Status::NotSupported, text));
        }
        Ok(())
    }

    /// 0 asks for a context that never ends; it gets the longest time instead.
    fn timeout_ms(&self) -> u64 {
        let seconds = match self.timeout {
            None => TIMEOUT_S,
            Some(0) => TIMEOUT_MAX_S,
            Some(asked) => asked.min(TIMEOUT_MAX_S),
        };
        u64::from(seconds) * 1000
    }
}
