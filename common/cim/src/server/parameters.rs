//! The parameters of an operation, taken by name.

use crate::wire::{Raw, Shape};
use crate::{CimError, Instance, Path, same_name};

/// What is left of an operation's parameters.
pub(super) struct Parameters<'a> {
    all: &'a [(String, Raw)],
    taken: Vec<&'a str>,
}

impl<'a> Parameters<'a> {
    pub(super) fn new(all: &'a [(String, Raw)]) -> Self {
        Self { all, taken: Vec::new() }
    }

    fn take(&mut self, name: &str) -> &'a Raw {
        let found = self.all.iter().find(|(known, _)| same_name(known, name));
        match found {
            Some((known, raw)) => {
                self.taken.push(known);
                raw
            }
            None => &Raw::Null,
        }
    }

    fn wrong(name: &str) -> CimError {
        CimError::parameter(format!("{name} is not what it has to be"))
    }

    fn missing(name: &str) -> CimError {
        CimError::parameter(format!("{name} is missing"))
    }

    /// Whether all that was given is known; called when everything was taken.
    pub(super) fn end(&self) -> Result<(), CimError> {
        let unknown = self.all.iter().find(|(name, _)| !self.taken.contains(&name.as_str()));
        match unknown {
            Some((name, _)) => Err(CimError::parameter(format!("there is no parameter {name}"))),
            None => Ok(()),
        }
    }

    /// A boolean with what it is where it is not given.
    pub(super) fn boolean(&mut self, name: &str, default: bool) -> Result<bool, CimError> {
        match self.take(name) {
            Raw::Null => Ok(default),
            Raw::Text(text) if text.trim().eq_ignore_ascii_case("true") => Ok(true),
            Raw::Text(text) if text.trim().eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(Self::wrong(name)),
        }
    }

    /// A number, if given.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u32>, CimError> {
        match self.take(name) {
            Raw::Null => Ok(None),
            Raw::Text(text) => text.trim().parse().map(Some).map_err(|_| Self::wrong(name)),
            _ => Err(Self::wrong(name)),
        }
    }

    /// A text, if given.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<&'a str>, CimError> {
        match self.take(name) {
            Raw::Null => Ok(None),
            Raw::Text(text) => Ok(Some(text)),
            _ => Err(Self::wrong(name)),
        }
    }

    /// A text that has to be there.
    pub(super) fn needed_text(&mut self, name: &str) -> Result<&'a str, CimError> {
        self.text(name)?.ok_or_else(|| Self::missing(name))
    }

    /// A class name, if given.
    pub(super) fn class(&mut self, name: &str) -> Result<Option<&'a str>, CimError> {
        match self.take(name) {
            Raw::Null => Ok(None),
            Raw::Class(path) => Ok(Some(&path.class)),
            // A path without keys is a class too; some clients write it so.
            Raw::Path(path) if path.keys.is_empty() => Ok(Some(&path.class)),
            _ => Err(Self::wrong(name)),
        }
    }

    /// A class name that has to be there.
    pub(super) fn needed_class(&mut self, name: &str) -> Result<&'a str, CimError> {
        self.class(name)?.ok_or_else(|| Self::missing(name))
    }

    /// The path of an instance; it has to be there.
    pub(super) fn path(&mut self, name: &str) -> Result<Path, CimError> {
        match self.take(name) {
            Raw::Null => Err(Self::missing(name)),
            Raw::Path(path) => Ok(path.clone()),
            _ => Err(Self::wrong(name)),
        }
    }

    /// An instance's path, or a class.
    pub(super) fn object(&mut self, name: &str) -> Result<Result<Path, &'a str>, CimError> {
        match self.take(name) {
            Raw::Null => Err(Self::missing(name)),
            Raw::Path(path) => Ok(Ok(path.clone())),
            Raw::Class(path) => Ok(Err(&path.class)),
            _ => Err(Self::wrong(name)),
        }
    }

    /// An instance; it has to be there.
    pub(super) fn instance(&mut self, name: &str) -> Result<Instance, CimError> {
        match self.take(name) {
            Raw::Null => Err(Self::missing(name)),
            Raw::Instance(instance) => Ok(instance.clone()),
            _ => Err(Self::wrong(name)),
        }
    }

    /// A list of names, if given.
    pub(super) fn names(&mut self, name: &str) -> Result<Option<Vec<String>>, CimError> {
        match self.take(name) {
            Raw::Null => Ok(None),
            Raw::Texts(texts) => {
                let all: Option<Vec<_>> = texts.iter().cloned().collect();
                all.map(Some).ok_or_else(|| Self::wrong(name))
            }
            _ => Err(Self::wrong(name)),
        }
    }

    /// What of instances is wanted; LocalOnly and IncludeQualifiers are known and have no effect
    /// there (DSP0200 5.3.2.2 deprecates both).
    pub(super) fn instance_shape(&mut self) -> Result<Shape, CimError> {
        self.boolean("LocalOnly", false)?;
        self.boolean("IncludeQualifiers", false)?;
        let class_origin = self.boolean("IncludeClassOrigin", false)?;
        let properties = self.names("PropertyList")?;
        Ok(Shape { properties, class_origin, ..Shape::default() })
    }
}
