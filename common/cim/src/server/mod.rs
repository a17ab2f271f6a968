//! The operations of DSP0200 over a [`Repository`].

mod associate;
mod classes;
mod instances;
mod parameters;
mod pull;
#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use crate::wire::{Call, Encoder, Reply, Request};
use crate::xml::Writer;
use crate::{
    CimError, Class, Instance, Method, Path, Scalar, Schema, Status, Value, namespace, same_name,
};

use parameters::Parameters;
use pull::Contexts;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name that was proven.
    pub user: String,
    /// The host that the request came from.
    pub host: std::net::IpAddr,
}

/// What a method returned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Invoked {
    /// The return value.
    pub returned: Value,
    /// Output parameters by name.
    pub outputs: Vec<(&'static str, Value)>,
}

impl Invoked {
    /// A return code.
    pub fn code(code: u32) -> Self {
        Self { returned: code.into(), outputs: Vec::new() }
    }

    /// With an output parameter.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.outputs.push((name, value.into()));
        self
    }
}

/// Takes an instance; an error ends the showing.
pub type Take<'a> = dyn FnMut(Instance) -> Result<(), CimError> + 'a;

/// What the server shows. Calls may block; paths that come in have a namespace, in their
/// references too.
pub trait Repository: Send + Sync {
    /// What is kept between the looks of one operation, so that they are of one moment.
    type Look: Default;

    /// Shows the instances of exactly this class, in all namespaces, with keys among the
    /// properties. Where `like` is given only those are needed whose path, or for an association
    /// one of whose references, is the same; more do no harm.
    ///
    /// # Errors
    /// What could not be looked up, and the first error of `take`, which ends it.
    fn visit(
        &self,
        look: &Self::Look,
        class: &str,
        like: Option<&Path>,
        take: &mut Take<'_>,
    ) -> Result<(), CimError>;

    /// Makes an instance. Its path has the class and the namespace; the keys are the properties'.
    ///
    /// # Errors
    /// [`Status::NotSupported`] for a class whose instances are not made by clients.
    fn create(&self, instance: Instance, caller: &Caller) -> Result<Path, CimError>;

    /// Changes an instance: these properties.
    ///
    /// # Errors
    /// As for [`Repository::create`].
    fn modify(&self, path: &Path, properties: Vec<(String, Value)>) -> Result<(), CimError>;

    /// Removes an instance.
    ///
    /// # Errors
    /// As for [`Repository::create`].
    fn delete(&self, path: &Path) -> Result<(), CimError>;

    /// Calls a method of an instance. `inputs` are of the declared types.
    ///
    /// # Errors
    /// [`Status::MethodNotAvailable`] for one that is declared and not offered.
    fn invoke(
        &self,
        path: &Path,
        method: &Method,
        inputs: Vec<(String, Value)>,
        caller: &Caller,
    ) -> Result<Invoked, CimError>;
}

/// The server.
pub struct Server<R> {
    schema: Arc<Schema>,
    namespaces: Vec<&'static str>,
    host: String,
    repository: R,
    contexts: Mutex<Contexts>,
}

/// One operation under way.
struct Operation<'a, R: Repository> {
    server: &'a Server<R>,
    look: R::Look,
}

impl<R: Repository> Deref for Operation<'_, R> {
    type Target = Server<R>;

    fn deref(&self) -> &Server<R> {
        self.server
    }
}

/// Whether the answer to an operation was written, as what is within IMETHODRESPONSE.
type Answer = Result<(), CimError>;

impl<R: Repository> Server<R> {
    /// A server of these namespaces; `host` is what its paths say.
    pub fn new(
        schema: Arc<Schema>,
        namespaces: Vec<&'static str>,
        host: impl Into<String>,
        repository: R,
    ) -> Self {
        let contexts = Mutex::default();
        Self { schema, namespaces, host: host.into(), repository, contexts }
    }

    /// What it shows.
    pub fn repository(&self) -> &R {
        &self.repository
    }

    /// The classes.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Writes in the words of this server.
    pub fn encoder(&self) -> Encoder<'_> {
        Encoder { schema: &self.schema, host: &self.host }
    }

    /// Does what a request of `caller` asks, and writes the reply to `w`: returns it, or its last
    /// part where `w` handed on some. `None` where that has to be cut off. `now_ms` is any clock
    /// that does not go back: pull contexts run out by it.
    pub fn answer(
        &self,
        request: &Request,
        caller: &Caller,
        now_ms: u64,
        w: Writer,
    ) -> Option<String> {
        let id = &request.id;
        let operation = Operation { server: self, look: R::Look::default() };
        match &request.call {
            Call::Intrinsic { name, namespace, parameters } => Reply::intrinsic(w, id, name, |w| {
                let space = self.namespace(namespace)?;
                let mut parameters = Parameters::new(parameters);
                operation.operate(name, &space, &mut parameters, (caller, now_ms), w)
            }),
            Call::Extrinsic { name, target, parameters } => {
                Some(match operation.invoke(target, name, parameters, caller) {
                    Ok(reply) => reply(id, name),
                    Err(error) => Reply::error(id, name, &error),
                })
            }
        }
    }

    fn namespace(&self, name: &str) -> Result<String, CimError> {
        let space = namespace(name);
        match self.namespaces.contains(&space.as_str()) {
            true => Ok(space),
            false => {
                let text = format!("there is no namespace {name}");
                Err(CimError::new(Status::InvalidNamespace, text))
            }
        }
    }

    fn contexts(&self) -> std::sync::MutexGuard<'_, Contexts> {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A class that an instance operation names.
    fn class(&self, name: &str) -> Result<&Class, CimError> {
        self.schema
            .class(name)
            .ok_or_else(|| CimError::new(Status::InvalidClass, format!("there is no class {name}")))
    }
}

impl<R: Repository> Operation<'_, R> {
    fn operate(
        &self,
        name: &str,
        space: &str,
        p: &mut Parameters<'_>,
        (caller, now): (&Caller, u64),
        w: &mut Writer,
    ) -> Answer {
        let operation = name.to_ascii_lowercase();
        match operation.as_str() {
            "getclass" => self.get_class(p, w),
            "enumerateclasses" => self.enumerate_classes(p, false, w),
            "enumerateclassnames" => self.enumerate_classes(p, true, w),
            "getqualifier" => self.get_qualifier(p, w),
            "enumeratequalifiers" => self.enumerate_qualifiers(p, w),
            "getinstance" => self.get_instance(space, p, w),
            "enumerateinstances" => self.enumerate(space, p, false, w),
            "enumerateinstancenames" => self.enumerate(space, p, true, w),
            "associators" => self.associate(space, p, (associate::Wanted::Objects, true), w),
            "associatornames" => self.associate(space, p, (associate::Wanted::Names, true), w),
            "references" => self.associate(space, p, (associate::Wanted::Objects, false), w),
            "referencenames" => self.associate(space, p, (associate::Wanted::Names, false), w),
            "createinstance" => self.create(space, p, caller, w),
            "modifyinstance" => self.modify(space, p),
            "deleteinstance" => self.delete(space, p),
            _ if operation.starts_with("open") || operation.starts_with("pull") => {
                self.pull(&operation, space, p, now, w)
            }
            "closeenumeration" => self.close(p, now),
            _ => {
                let text = format!("the operation {name} is not offered");
                Err(CimError::new(Status::NotSupported, text))
            }
        }
    }

    fn visit(&self, class: &str, like: Option<&Path>, take: &mut Take<'_>) -> Result<(), CimError> {
        self.repository.visit(&self.look, class, like, take)
    }

    /// The class of a path, once the path's keys fit it; a key without a name gets the only one.
    fn checked(&self, path: &mut Path, space: &str) -> Result<&Class, CimError> {
        let class = self.class(&path.class)?;
        let keys: Vec<_> = class.keys().map(|key| key.name.clone()).collect();
        if let ([(name, _)], [only]) = (path.keys.as_mut_slice(), keys.as_slice())
            && name.is_empty()
        {
            *name = only.clone();
        }
        let known = |(name, _): &(crate::Name, _)| keys.iter().any(|key| same_name(key, name));
        if path.keys.len() != keys.len() || !path.keys.iter().all(known) {
            let text = format!("{path} has not the keys of its class");
            return Err(CimError::parameter(text));
        }
        path.settle(space);
        Ok(class)
    }

    /// The instance at a path.
    fn find(&self, path: &Path) -> Result<Option<Instance>, CimError> {
        let mut found = None;
        self.visit(&path.class, Some(path), &mut |instance| {
            if found.is_none() && instance.path.same(path) {
                found = Some(instance);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Every instance of a class and its subclasses that `like` may fit.
    fn each(&self, class: &str, like: Option<&Path>, each: &mut Take<'_>) -> Result<(), CimError> {
        for class in self.schema.family(class) {
            if !class.is_abstract {
                self.visit(&class.name, like, each)?;
            }
        }
        Ok(())
    }

    fn invoke(
        &self,
        target: &Path,
        name: &str,
        raw: &[(String, crate::wire::Raw)],
        caller: &Caller,
    ) -> Result<impl FnOnce(&str, &str) -> String, CimError> {
        let space = self.namespace(&target.namespace)?;
        let class = self.class(&target.class)?;
        let method = class.method(name).ok_or_else(|| {
            let text = format!("{} has no method {name}", class.name);
            CimError::new(Status::MethodNotFound, text)
        })?;
        if target.keys.is_empty() {
            let text = format!("{name} is a method of instances, not of the class");
            return Err(CimError::parameter(text));
        }
        let mut path = target.clone();
        self.checked(&mut path, &space)?;
        self.find(&path)?.ok_or_else(|| CimError::not_found(&path))?;
        let inputs = inputs(method, raw, &space)?;
        let invoked = self.repository.invoke(&path, method, inputs, caller)?;
        Ok(move |id: &str, name: &str| {
            let outputs = invoked.outputs.iter().filter_map(|(name, value)| {
                method.parameter(name).map(|parameter| (&parameter.feature, value))
            });
            let outputs: Vec<_> = outputs.collect();
            let returned = (&method.feature, &invoked.returned);
            Reply::extrinsic(id, name, &self.encoder(), returned, &outputs)
        })
    }
}

/// Writes IRETURNVALUE with what `inside` writes.
fn returned(w: &mut Writer, inside: impl FnOnce(&mut Writer) -> Answer) -> Answer {
    w.open("IRETURNVALUE", &[]);
    inside(w)?;
    w.close("IRETURNVALUE");
    Ok(())
}

/// Lets a long reply go in parts.
fn part(w: &mut Writer) -> Answer {
    match w.part() {
        true => Ok(()),
        false => Err(CimError::failed("nobody takes the reply")),
    }
}

/// The parameters of a method in their declared types.
fn inputs(
    method: &Method,
    raw: &[(String, crate::wire::Raw)],
    space: &str,
) -> Result<Vec<(String, Value)>, CimError> {
    let mut inputs = Vec::new();
    for (name, raw) in raw {
        let unknown = || CimError::parameter(format!("there is no parameter {name}"));
        let parameter = method.parameter(name).ok_or_else(unknown)?;
        let feature = &parameter.feature;
        let value =
            crate::wire::typed(raw, feature.kind, feature.array, feature.embedded.is_some());
        let mut value =
            value.map_err(|error| CimError::parameter(format!("{name}: {}", error.text)))?;
        settle(&mut value, space);
        inputs.push((feature.name.to_string(), value));
    }
    let given = |name: &str| inputs.iter().any(|(known, v)| known == name && !v.is_null());
    let needed = method.parameters.iter().filter(|p| p.input && p.feature.required);
    match needed.map(|p| &p.feature.name).find(|name| !given(name)) {
        Some(missing) => Err(CimError::parameter(format!("{missing} is missing"))),
        None => Ok(inputs),
    }
}

/// Gives the references in a value a namespace.
fn settle(value: &mut Value, space: &str) {
    let one = |scalar: &mut Scalar| match scalar {
        Scalar::Reference(path) => path.settle(space),
        Scalar::Instance(instance) => {
            instance.properties.iter_mut().for_each(|(_, value)| settle(value, space));
        }
        _ => {}
    };
    match value {
        Value::Null => {}
        Value::One(scalar) => one(scalar),
        Value::Many(many) => many.iter_mut().for_each(one),
    }
}
