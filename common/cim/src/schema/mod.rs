//! The classes that are served, with their superclasses, features and qualifiers.

mod parse;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::{Name, Type, same_name};

pub use parse::SchemaError;

/// The files of `schemas/cim/`.
const FILES: [(&str, &str); 9] = [
    ("qualifiers.cim", include_str!("../../../../schemas/cim/qualifiers.cim")),
    ("core.cim", include_str!("../../../../schemas/cim/core.cim")),
    ("device.cim", include_str!("../../../../schemas/cim/device.cim")),
    ("physical.cim", include_str!("../../../../schemas/cim/physical.cim")),
    ("interop.cim", include_str!("../../../../schemas/cim/interop.cim")),
    ("event.cim", include_str!("../../../../schemas/cim/event.cim")),
    ("job.cim", include_str!("../../../../schemas/cim/job.cim")),
    ("replication.cim", include_str!("../../../../schemas/cim/replication.cim")),
    ("twinreel.cim", include_str!("../../../../schemas/cim/twinreel.cim")),
];

/// A qualifier of a class or of a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Qualifier {
    pub(crate) name: String,
    pub(crate) kind: Type,
    /// `None` for a scalar.
    pub(crate) values: Vec<String>,
    pub(crate) array: bool,
}

/// A qualifier's declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declaration {
    pub(crate) name: String,
    pub(crate) kind: Type,
    pub(crate) array: bool,
    pub(crate) default: Option<String>,
    pub(crate) scopes: Vec<String>,
}

/// A property or a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub kind: Type,
    /// Whether it is an array.
    pub array: bool,
    /// Of a reference, the class.
    pub class: Option<String>,
    /// Whether it is a part of the path.
    pub key: bool,
    /// Whether it may not be NULL.
    pub required: bool,
    /// Whether it holds an instance (of that class, or of any).
    pub embedded: Option<String>,
    /// The value map: values and their words.
    pub values: Vec<(String, String)>,
    /// The class that declares it.
    pub origin: String,
    pub(crate) default: Option<String>,
    pub(crate) qualifiers: Vec<Qualifier>,
}

/// A parameter of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Name, type and qualifiers.
    pub feature: Feature,
    /// Whether the caller gives it.
    pub input: bool,
    /// Whether the callee returns it.
    pub output: bool,
}

/// A method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// Name, return type and what its values mean.
    pub feature: Feature,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
}

impl Method {
    /// A parameter by name.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| same_name(&p.feature.name, name))
    }
}

/// A class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: Name,
    /// Its superclass.
    pub superclass: Option<String>,
    /// Whether it has instances of its own only through subclasses.
    pub is_abstract: bool,
    /// Whether it joins others.
    pub association: bool,
    /// Whether its instances are events.
    pub indication: bool,
    /// All properties, inherited ones first.
    pub properties: Vec<Feature>,
    /// All methods, inherited ones first.
    pub methods: Vec<Method>,
    pub(crate) qualifiers: Vec<Qualifier>,
}

impl Class {
    /// A property by name.
    pub fn property(&self, name: &str) -> Option<&Feature> {
        self.properties.iter().find(|p| same_name(&p.name, name))
    }

    /// A method by name.
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|m| same_name(&m.feature.name, name))
    }

    /// The properties that make the path.
    pub fn keys(&self) -> impl Iterator<Item = &Feature> {
        self.properties.iter().filter(|p| p.key)
    }
}

/// All classes.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// By lower-case name.
    classes: BTreeMap<String, Class>,
    /// Names in the order of the files, superclasses before subclasses.
    order: Vec<String>,
    /// Direct subclasses by lower-case name; the roots by the empty one.
    children: BTreeMap<String, Vec<String>>,
    declarations: Vec<Declaration>,
}

impl Schema {
    /// The schema of `schemas/cim/`.
    ///
    /// # Errors
    /// The files do not fit each other; a test of this crate keeps that from being released.
    pub fn served() -> Result<Self, SchemaError> {
        Self::parse(&FILES)
    }

    /// Reads a schema from files, by name and text.
    ///
    /// # Errors
    /// The first thing that does not fit, with its file and line.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, SchemaError> {
        let mut schema = Self::default();
        let mut waiting = Vec::new();
        for (file, text) in files {
            waiting.extend(parse::file(&mut schema.declarations, file, text)?);
        }
        // Superclasses first, wherever they stand; each round enters at least one class.
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut later = Vec::new();
            for (at, class) in waiting {
                match &class.superclass {
                    Some(above) if schema.class(above).is_none() => later.push((at, class)),
                    _ => schema.add(class).map_err(|text| SchemaError(format!("{at}: {text}")))?,
                }
            }
            if let Some((at, class)) = later.first().filter(|_| later.len() == before) {
                let above = class.superclass.as_deref().unwrap_or_default();
                return Err(SchemaError(format!("{at}: no superclass {above}")));
            }
            waiting = later;
        }
        schema.check()?;
        Ok(schema)
    }

    /// A class by name.
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(&name.to_ascii_lowercase())
    }

    /// All classes, superclasses before subclasses.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.order.iter().filter_map(|name| self.classes.get(name))
    }

    /// The direct subclasses of a class; of `None` the roots.
    pub fn children(&self, name: Option<&str>) -> Vec<&Class> {
        let key = name.unwrap_or_default().to_ascii_lowercase();
        let names = self.children.get(&key).map(Vec::as_slice).unwrap_or_default();
        names.iter().filter_map(|name| self.class(name)).collect()
    }

    /// A class and everything below it.
    pub fn family(&self, name: &str) -> Vec<&Class> {
        let mut found: Vec<_> = self.class(name).into_iter().collect();
        let mut next = 0;
        while let Some(class) = found.get(next) {
            found.extend(self.children(Some(&class.name)));
            next += 1;
        }
        found
    }

    /// Whether a class is another one or below it.
    pub fn is_a(&self, class: &str, ancestor: &str) -> bool {
        self.line(class).any(|name| same_name(name, ancestor))
    }

    /// A class and its superclasses, upwards.
    fn line<'a>(&'a self, class: &str) -> impl Iterator<Item = &'a str> {
        let mut next = self.class(class);
        std::iter::from_fn(move || {
            let class = next?;
            next = class.superclass.as_deref().and_then(|name| self.class(name));
            Some(class.name.as_ref())
        })
    }

    pub(crate) fn declarations(&self) -> &[Declaration] {
        &self.declarations
    }

    fn add(&mut self, mut class: Class) -> Result<(), String> {
        let key = class.name.to_ascii_lowercase();
        let parent = class.superclass.as_deref().and_then(|name| self.class(name)).cloned();
        if let Some(parent) = &parent {
            class.properties = inherited(&parent.properties, class.properties, |p| p, adopt);
            class.methods = inherited(
                &parent.methods,
                class.methods,
                |m| &m.feature,
                |m, parent| {
                    adopt(&mut m.feature, &parent.feature);
                },
            );
            class.association |= parent.association;
            class.indication |= parent.indication;
        }
        let above = class.superclass.clone().unwrap_or_default().to_ascii_lowercase();
        self.children.entry(above).or_default().push(class.name.to_string());
        self.order.push(key.clone());
        match self.classes.insert(key, class) {
            Some(twice) => Err(format!("{} is declared twice", twice.name)),
            None => Ok(()),
        }
    }

    /// What can only be looked at when everything is read.
    fn check(&self) -> Result<(), SchemaError> {
        let known: BTreeSet<_> = self.declarations.iter().map(|d| d.name.as_str()).collect();
        for class in self.classes() {
            let parameters = class.methods.iter().flat_map(|m| &m.parameters).map(|p| &p.feature);
            let features: Vec<_> = class.properties.iter().chain(parameters).collect();
            for feature in &features {
                let mut named = feature.class.iter().chain(&feature.embedded);
                if let Some(missing) = named.find(|n| !n.is_empty() && self.class(n).is_none()) {
                    let text = format!("{}.{} names {missing}", class.name, feature.name);
                    return Err(SchemaError(text));
                }
            }
            let all = features.iter().flat_map(|f| &f.qualifiers).chain(&class.qualifiers);
            if let Some(unknown) = all.map(|q| q.name.as_str()).find(|name| !known.contains(name)) {
                return Err(SchemaError(format!("{}: no qualifier {unknown}", class.name)));
            }
        }
        Ok(())
    }
}

/// The parent's features with the own ones in their places, and the new ones behind.
fn inherited<T: Clone>(
    parent: &[T],
    own: Vec<T>,
    feature: impl Fn(&T) -> &Feature,
    adopt: impl Fn(&mut T, &T),
) -> Vec<T> {
    let mut all = parent.to_vec();
    for mut new in own {
        let name = feature(&new).name.clone();
        match all.iter_mut().find(|old| same_name(&feature(old).name, &name)) {
            Some(old) => {
                adopt(&mut new, old);
                *old = new;
            }
            None => all.push(new),
        }
    }
    all
}

/// What an overriding feature has from the one that it overrides.
fn adopt(new: &mut Feature, old: &Feature) {
    new.key |= old.key;
    new.required |= old.required;
    if new.embedded.is_none() {
        new.embedded.clone_from(&old.embedded);
    }
    if new.values.is_empty() {
        new.values.clone_from(&old.values);
    }
    for qualifier in &old.qualifiers {
        if !new.qualifiers.iter().any(|q| q.name == qualifier.name) && qualifier.name != "Override"
        {
            new.qualifiers.push(qualifier.clone());
        }
    }
}
