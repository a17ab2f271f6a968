//! GetInstance, EnumerateInstances and their names; CreateInstance, ModifyInstance, DeleteInstance.

use super::parameters::Parameters;
use super::{Answer, Caller, Operation, Repository, part, returned, settle};
use crate::wire::Shape;
use crate::xml::Writer;
use crate::{CimError, Class, Instance, Status, Value, same_name};

impl<R: Repository> Operation<'_, R> {
    pub(super) fn get_instance(
        &self,
        space: &str,
        p: &mut Parameters<'_>,
        w: &mut Writer,
    ) -> Answer {
        let mut path = p.path("InstanceName")?;
        let shape = p.instance_shape()?;
        p.end()?;
        self.checked(&mut path, space)?;
        let found = self.find(&path)?.ok_or_else(|| CimError::not_found(&path))?;
        returned(w, |w| {
            self.encoder().instance(w, &found, &shape);
            Ok(())
        })
    }

    pub(super) fn enumerate(
        &self,
        space: &str,
        p: &mut Parameters<'_>,
        names: bool,
        w: &mut Writer,
    ) -> Answer {
        let (class, shape) = match names {
            true => (p.needed_class("ClassName")?, Shape::default()),
            false => self.enumeration(p)?,
        };
        p.end()?;
        self.class(class)?;
        let e = self.encoder();
        returned(w, |w| {
            self.each(class, None, &mut |instance| {
                if instance.path.namespace != space {
                    return Ok(());
                }
                match names {
                    true => e.instance_name(w, &instance.path),
                    false => w.within("VALUE.NAMEDINSTANCE", &[], |w| {
                        e.instance_name(w, &instance.path);
                        e.instance(w, &instance, &shape);
                    }),
                }
                part(w)
            })
        })
    }

    /// The class of an enumeration and what of its instances is wanted. Without DeepInheritance
    /// only the properties that the class itself has are (DSP0200 5.3.2.11).
    pub(super) fn enumeration<'a>(
        &self,
        p: &mut Parameters<'a>,
    ) -> Result<(&'a str, Shape), CimError> {
        let name = p.needed_class("ClassName")?;
        let deep = p.boolean("DeepInheritance", true)?;
        let mut shape = p.instance_shape()?;
        let class = self.class(name)?;
        if !deep {
            shape.within(class);
        }
        Ok((name, shape))
    }

    pub(super) fn create(
        &self,
        space: &str,
        p: &mut Parameters<'_>,
        caller: &Caller,
        w: &mut Writer,
    ) -> Answer {
        let mut instance = p.instance("NewInstance")?;
        p.end()?;
        let class = self.class(instance.class())?;
        check_properties(class, &mut instance, space)?;
        instance.path.class = class.name.clone();
        instance.path.namespace = space.to_owned().into();
        instance.path.keys.clear();
        let path = self.repository.create(instance, caller)?;
        returned(w, |w| {
            self.encoder().instance_name(w, &path);
            Ok(())
        })
    }

    pub(super) fn modify(&self, space: &str, p: &mut Parameters<'_>) -> Answer {
        let mut instance = p.instance("ModifiedInstance")?;
        p.boolean("IncludeQualifiers", true)?;
        let names = p.names("PropertyList")?;
        p.end()?;
        let mut path = instance.path.clone();
        let class = self.checked(&mut path, space)?;
        check_properties(class, &mut instance, space)?;
        self.find(&path)?.ok_or_else(|| CimError::not_found(&path))?;
        let wanted = |name: &str| {
            names.as_ref().is_none_or(|names| names.iter().any(|known| same_name(known, name)))
        };
        let mut changes: Vec<(String, Value)> = Vec::new();
        for (name, value) in instance.properties {
            if wanted(&name) {
                changes.push((name.into_owned(), value));
            }
        }
        self.repository.modify(&path, changes)
    }

    pub(super) fn delete(&self, space: &str, p: &mut Parameters<'_>) -> Answer {
        let mut path = p.path("InstanceName")?;
        p.end()?;
        self.checked(&mut path, space)?;
        self.find(&path)?.ok_or_else(|| CimError::not_found(&path))?;
        self.repository.delete(&path)
    }
}

/// Every property is one of the class, and of its type; names get the class's spelling.
fn check_properties(class: &Class, instance: &mut Instance, space: &str) -> Result<(), CimError> {
    for (name, value) in &mut instance.properties {
        let feature = class
            .property(name)
            .ok_or_else(|| CimError::parameter(format!("{} has no property {name}", class.name)))?;
        *name = feature.name.clone();
        settle(value, space);
        if !fits(feature, value) {
            let text = format!("{name} is no {}", feature.kind.as_str());
            return Err(CimError::new(Status::InvalidParameter, text));
        }
    }
    Ok(())
}

/// Whether a value is of the type of a feature.
pub(super) fn fits(feature: &crate::Feature, value: &Value) -> bool {
    use crate::{Scalar, Type};
    let one = |scalar: &Scalar| match (scalar, feature.kind) {
        (Scalar::Instance(_), Type::String) => feature.embedded.is_some(),
        (Scalar::Boolean(_), Type::Boolean) | (Scalar::Reference(_), Type::Reference) => true,
        (Scalar::Integer(value), Type::Integer(bits, signed)) => match signed {
            true => (-(1i128 << (bits - 1))..1i128 << (bits - 1)).contains(value),
            false => (0..1i128 << bits).contains(value),
        },
        (Scalar::Real(_), Type::Real(_)) => true,
        (Scalar::Text(_), Type::String | Type::Char16 | Type::Datetime) => true,
        _ => false,
    };
    match value {
        Value::Null => true,
        Value::One(scalar) => !feature.array && one(scalar),
        Value::Many(many) => feature.array && many.iter().all(one),
    }
}

impl Shape {
    /// Narrows to the properties of a class.
    fn within(&mut self, class: &Class) {
        let names = self.properties.take();
        let known = class.properties.iter().map(|p| p.name.to_string());
        match names {
            Some(names) => {
                let kept = names.into_iter().filter(|name| class.property(name).is_some());
                self.properties = Some(kept.collect());
            }
            None => self.only = Some(known.collect()),
        }
    }
}
