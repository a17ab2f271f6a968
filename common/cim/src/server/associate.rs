//! Associators, References and their names, of instances and of classes (DSP0200 5.3.2.13-16).

use super::parameters::Parameters;
use super::{Answer, Repository, Server};
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

impl<R: Repository> Server<R> {
    pub(super) fn associate(
        &self,
        space: &str,
        p: &mut Parameters<'_>,
        wanted: Wanted,
        far: bool,
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
            Err(class) => self.class_walk(space, class, &walk, wanted, &shape),
            Ok(mut path) => {
                self.checked(&mut path, space)?;
                let found = self.walk(&path, &walk, wanted)?;
                Ok(self.write(|e, w| {
                    w.within("IRETURNVALUE", &[], |w| {
                        found.iter().for_each(|instance| object_of(e, w, instance, wanted, &shape));
                    });
                }))
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

    /// What is joined to an instance: whole instances where objects are wanted, else their paths.
    pub(super) fn walk(
        &self,
        path: &Path,
        walk: &Walk<'_>,
        wanted: Wanted,
    ) -> Result<Vec<Instance>, CimError> {
        let from = self.class(&path.class)?;
        let mut found: Vec<Instance> = Vec::new();
        for way in self.ways(from, walk).into_iter().filter(|way| !way.is_abstract) {
            for joined in self.repository.instances(&way.name, Some(path))? {
                let mut roles = joined.properties.iter().filter_map(reference);
                let own =
                    |(name, end): &(&Name, &Path)| role_fits(walk.role, name) && end.same(path);
                let Some(role) = roles.find(own).map(|(name, _)| name.clone()) else { continue };
                if !walk.far {
                    found.push(joined);
                    continue;
                }
                let ends = joined.properties.iter().filter_map(reference);
                let far = ends.filter(|(name, end)| {
                    **name != role
                        && role_fits(walk.result_role, name)
                        && walk.result.is_none_or(|class| self.schema.is_a(&end.class, class))
                });
                for (_, end) in far {
                    // Two ways may lead to the same object.
                    if !found.iter().any(|known| known.path.same(end)) {
                        found.push(Instance { path: end.clone(), properties: Vec::new() });
                    }
                }
            }
        }
        if walk.far && wanted == Wanted::Objects {
            let whole = found.iter().map(|end| self.find(&end.path));
            let whole: Result<Vec<_>, _> = whole.collect();
            return Ok(whole?.into_iter().flatten().collect());
        }
        Ok(found)
    }

    fn class_walk(
        &self,
        space: &str,
        class: &str,
        walk: &Walk<'_>,
        wanted: Wanted,
        shape: &Shape,
    ) -> Answer {
        let from = self.class(class)?;
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
        let shape = Shape { qualifiers: true, ..shape.clone() };
        Ok(self.write(|e, w| {
            w.within("IRETURNVALUE", &[], |w| {
                for class in found {
                    match wanted {
                        Wanted::Names => {
                            w.within("OBJECTPATH", &[], |w| e.class_path(w, space, &class.name));
                        }
                        Wanted::Objects => w.within("VALUE.OBJECTWITHPATH", &[], |w| {
                            e.class_path(w, space, &class.name);
                            e.class(w, class, &shape);
                        }),
                    }
                }
            });
        }))
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
