//! GetClass, EnumerateClasses, EnumerateClassNames, GetQualifier, EnumerateQualifiers.

use super::parameters::Parameters;
use super::{Answer, Operation, Repository, part, returned};
use crate::wire::Shape;
use crate::xml::Writer;
use crate::{CimError, Class, Status, same_name};

impl<R: Repository> Operation<'_, R> {
    pub(super) fn get_class(&self, p: &mut Parameters<'_>, w: &mut Writer) -> Answer {
        let name = p.needed_class("ClassName")?;
        let shape = class_shape(p, true)?;
        let shape = Shape { properties: p.names("PropertyList")?, ..shape };
        p.end()?;
        let class = self
            .schema
            .class(name)
            .ok_or_else(|| CimError::new(Status::NotFound, format!("there is no class {name}")))?;
        returned(w, |w| {
            self.encoder().class(w, class, &shape);
            Ok(())
        })
    }

    pub(super) fn enumerate_classes(
        &self,
        p: &mut Parameters<'_>,
        names: bool,
        w: &mut Writer,
    ) -> Answer {
        let above = p.class("ClassName")?;
        let deep = p.boolean("DeepInheritance", false)?;
        let shape = if names { Shape::default() } else { class_shape(p, true)? };
        p.end()?;
        if let Some(above) = above {
            self.class(above)?;
        }
        let mut found = self.schema.children(above);
        let mut next = 0;
        while let Some(class) = found.get(next).filter(|_| deep) {
            found.extend(self.schema.children(Some(&class.name)));
            next += 1;
        }
        let e = self.encoder();
        returned(w, |w| {
            found.iter().try_for_each(|class: &&Class| {
                match names {
                    true => w.leaf("CLASSNAME", &[("NAME", &class.name)], ""),
                    false => e.class(w, class, &shape),
                }
                part(w)
            })
        })
    }

    pub(super) fn get_qualifier(&self, p: &mut Parameters<'_>, w: &mut Writer) -> Answer {
        let name = p.needed_text("QualifierName")?;
        p.end()?;
        let mut all = self.schema.declarations().iter();
        let found =
            all.find(|declaration| same_name(&declaration.name, name)).ok_or_else(|| {
                CimError::new(Status::NotFound, format!("there is no qualifier {name}"))
            })?;
        returned(w, |w| {
            crate::wire::declaration(w, found);
            Ok(())
        })
    }

    pub(super) fn enumerate_qualifiers(&self, p: &mut Parameters<'_>, w: &mut Writer) -> Answer {
        p.end()?;
        let all = self.schema.declarations();
        returned(w, |w| {
            all.iter().for_each(|declaration| crate::wire::declaration(w, declaration));
            Ok(())
        })
    }
}

fn class_shape(p: &mut Parameters<'_>, local_only: bool) -> Result<Shape, CimError> {
    Ok(Shape {
        local_only: p.boolean("LocalOnly", local_only)?,
        qualifiers: p.boolean("IncludeQualifiers", true)?,
        class_origin: p.boolean("IncludeClassOrigin", false)?,
        ..Shape::default()
    })
}
