//! Associators, References and their names, of instances and of classes (DSP0200 5.3.2.13-16).

use std::collections::{BTreeMap, HashSet};

use super::parameters::Parameters;
use super::{Answer, Operation, Repository, Take, part, returned};
use crate::wire::{Encoder, Shape};
use crate::xml::Writer;
use crate::{CimError, Class, Instance, Name, Path, Type, Value, same_name};

/// Whether objects are wanted or only their paths.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Objects,
    Names,
}

/// What narrows a walk. Roles are names of references, classes take their subclasses in.
#[derive(Default)]
pub(super) struct Walk<'a> {
    /// AssocClass, or of references ResultClass.
    pub(super) association: Option<&'a str>,
    pub(super) result: Option<&'a str>,
    pub(super) role: Option<&'a str>,
    pub(super) result_role: Option<&'a str>,
    /// The far ends, or the associations themselves.
    pub(super) far: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn read(p: &mut Parameters<'a>, far: bool) -> Result<Self, CimError> {
        let mut walk = Self { far, role: p.text("Role")?, ..Self::default() };
        match far {
            true => {
                walk.association = p.class("AssocClass")?;
                walk.result = p.class("ResultClass")?;
                walk.result_role = p.text("ResultRole")?;
            }
            false => walk.association = p.class("ResultClass")?,
        }
        // An empty text is how some clients say that they want everything.
        for text in [&mut walk.role, &mut walk.result_role] {
            *text = text.filter(|text| !text.is_empty());
        }
        for class in [&mut walk.association, &mut walk.result] {
            *class = class.filter(|class| !class.is_empty());
        }
        Ok(walk)
    }
}

fn role_fits(role: Option<&str>, name: &str) -> bool {
    role.is_none_or(|role| same_name(role, name))
}

impl<R: Repository> Operation<'_, R> {
    pub(super) fn associate(
        &self,
        space: &str,
        p: &mut Parameters<'_>,
        (wanted, far): (Wanted, bool),
        w: &mut Writer,
    ) -> Answer {
        let object = p.object("ObjectName")?;
        let walk = Walk::read(p, far)?;
        let shape = match wanted {
            Wanted::Objects => p.instance_shape()?,
            Wanted::Names => Shape::default(),
        };
        p.end()?;
        self.check_walk(&walk)?;
        match object {
            Err(class) => {
                let from = self.class(class)?;
                let found = self.class_walk(from, &walk);
                self.class_objects(space, &found, wanted, shape, w)
            }
            Ok(mut path) => {
                self.checked(&mut path, space)?;
                let e = self.encoder();
                returned(w, |w| {
                    self.walk(&path, &walk, wanted, &mut |instance| {
                        object_of(&e, w, &instance, wanted, &shape);
                        part(w)
                    })
                })
            }
        }
    }

    pub(super) fn check_walk(&self, walk: &Walk<'_>) -> Result<(), CimError> {
        for class in walk.association.iter().chain(&walk.result) {
            let unknown = || CimError::parameter(format!("there is no class {class}"));
            self.schema.class(class).ok_or_else(unknown)?;
        }
        Ok(())
    }

    /// The association classes that a walk from a class may go over.
    fn ways(&self, from: &Class, walk: &Walk<'_>) -> Vec<&Class> {
        let reaches = |class: &&Class| {
            class.association
                && walk.association.is_none_or(|wanted| self.schema.is_a(&class.name, wanted))
                && references(class).any(|(name, target)| {
                    role_fits(walk.role, name) && self.schema.is_a(&from.name, target)
                })
        };
        self.schema.classes().filter(reaches).collect()
    }

    /// Shows what is joined to an instance: whole instances where objects are wanted, else their
    /// paths.
    pub(super) fn walk(
        &self,
        path: &Path,
        walk: &Walk<'_>,
        wanted: Wanted,
        take: &mut Take<'_>,
    ) -> Result<(), CimError> {
        let from = self.class(&path.class)?;
        let mut ends: Vec<Path> = Vec::new();
        // Two ways may lead to the same object.
        let mut known = HashSet::new();
        for way in self.ways(from, walk).into_iter().filter(|way| !way.is_abstract) {
            self.visit(&way.name, Some(path), &mut |joined| {
                let mut roles = joined.properties.iter().filter_map(reference);
                let own =
                    |(name, end): &(&Name, &Path)| role_fits(walk.role, name) && end.same(path);
                let Some(role) = roles.find(own).map(|(name, _)| name.clone()) else {
                    return Ok(());
                };
                if !walk.far {
                    return take(joined);
                }
                let far = joined.properties.iter().filter_map(reference).filter(|(name, end)| {
                    **name != role
                        && role_fits(walk.result_role, name)
                        && walk.result.is_none_or(|class| self.schema.is_a(&end.class, class))
                });
                for (_, end) in far {
                    if known.insert(end.canonical()) {
                        ends.push(end.clone());
                    }
                }
                Ok(())
            })?;
        }
        self.objects(ends, wanted, take)
    }

    /// Shows the instances at these paths, or only the paths.
    fn objects(
        &self,
        ends: Vec<Path>,
        wanted: Wanted,
        take: &mut Take<'_>,
    ) -> Result<(), CimError> {
        if wanted == Wanted::Names {
            let bare = |path| Instance { path, properties: Vec::new() };
            return ends.into_iter().map(bare).try_for_each(take);
        }
        let mut by_class: BTreeMap<Name, Vec<Path>> = BTreeMap::new();
        for end in ends {
            by_class.entry(end.class.clone()).or_default().push(end);
        }
        for (class, ends) in by_class {
            if let [end] = ends.as_slice() {
                self.find(end)?.map_or(Ok(()), &mut *take)?;
                continue;
            }
            // One look at all of them costs less than one at each.
            let wanted: HashSet<String> = ends.iter().map(Path::canonical).collect();
            self.visit(&class, None, &mut |instance| match wanted
                .contains(&instance.path.canonical())
            {
                true => take(instance),
                false => Ok(()),
            })?;
        }
        Ok(())
    }

    fn class_walk<'a>(&'a self, from: &Class, walk: &Walk<'_>) -> Vec<&'a Class> {
        let mut found: Vec<&Class> = Vec::new();
        for way in self.ways(from, walk) {
            if !walk.far {
                note(&mut found, Some(way));
                continue;
            }
            let near: Vec<_> = references(way)
                .filter(|(n, c)| role_fits(walk.role, n) && self.schema.is_a(&from.name, c))
                .collect();
            for (name, target) in references(way) {
                let other = near.iter().any(|(own, _)| *own != name);
                let fits = role_fits(walk.result_role, name)
                    && walk.result.is_none_or(|class| self.schema.is_a(target, class));
                if other && fits {
                    note(&mut found, self.schema.class(target));
                }
            }
        }
        found
    }

    fn class_objects(
        &self,
        space: &str,
        found: &[&Class],
        wanted: Wanted,
        shape: Shape,
        w: &mut Writer,
    ) -> Answer {
        let e = self.encoder();
        let shape = Shape { qualifiers: true, ..shape };
        returned(w, |w| {
            found.iter().try_for_each(|class| {
                match wanted {
                    Wanted::Names => {
                        w.within("OBJECTPATH", &[], |w| e.class_path(w, space, &class.name));
                    }
                    Wanted::Objects => w.within("VALUE.OBJECTWITHPATH", &[], |w| {
                        e.class_path(w, space, &class.name);
                        e.class(w, class, &shape);
                    }),
                }
                part(w)
            })
        })
    }
}

fn note<'a>(found: &mut Vec<&'a Class>, class: Option<&'a Class>) {
    if let Some(class) = class.filter(|class| !found.iter().any(|known| known.name == class.name)) {
        found.push(class);
    }
}

fn references(class: &Class) -> impl Iterator<Item = (&Name, &str)> {
    let references = class.properties.iter().filter(|p| p.kind == Type::Reference);
    references.filter_map(|p| Some((&p.name, p.class.as_deref()?)))
}

fn reference((name, value): &(Name, Value)) -> Option<(&Name, &Path)> {
    value.reference().map(|path| (name, path))
}

fn object_of(e: &Encoder<'_>, w: &mut Writer, instance: &Instance, wanted: Wanted, shape: &Shape) {
    match wanted {
        Wanted::Names => w.within("OBJECTPATH", &[], |w| e.path(w, &instance.path)),
        Wanted::Objects => w.within("VALUE.OBJECTWITHPATH", &[], |w| {
            e.path(w, &instance.path);
            e.instance(w, instance, shape);
        }),
    }
}
