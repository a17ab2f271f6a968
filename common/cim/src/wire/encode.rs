//! Values, paths, instances and classes as elements (DSP0201 5.2).

use crate::schema::{Declaration, Qualifier};
use crate::xml::Writer;
use crate::{
    Class, Feature, Instance, KeyValue, Method, Path, Scalar, Schema, Type, Value, same_name,
};

/// What of an instance or a class is written.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Only these properties; all if not given. One that has no value is written as NULL only if
    /// it is asked for by name.
    pub properties: Option<Vec<String>>,
    /// Of these alone, and as if they had not been asked for by name.
    pub only: Option<Vec<String>>,
    /// With CLASSORIGIN.
    pub class_origin: bool,
    /// Of a class: with qualifiers.
    pub qualifiers: bool,
    /// Of a class: only what it declares itself.
    pub local_only: bool,
}

impl Shape {
    fn wants(&self, name: &str) -> bool {
        let has = |names: &Vec<String>| names.iter().any(|n| same_name(n, name));
        self.properties.as_ref().is_none_or(has) && self.only.as_ref().is_none_or(has)
    }

    /// Whether a property is asked for by its name.
    fn names(&self, name: &str) -> bool {
        self.properties.is_some() && self.wants(name)
    }
}

/// Writes elements in the words of a schema.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'a> {
    /// Types and origins are looked up here.
    pub schema: &'a Schema,
    /// The host in paths.
    pub host: &'a str,
}

fn yes_no(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn real(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".into(),
        v if v.is_infinite() => if v > 0.0 { "INF" } else { "-INF" }.into(),
        v => format!("{v:e}"),
    }
}

impl Encoder<'_> {
    /// VALUE, VALUE.ARRAY, VALUE.REFERENCE or VALUE.REFARRAY; nothing for NULL.
    pub fn value(&self, w: &mut Writer, value: &Value) {
        match value {
            Value::Null => {}
            Value::One(one) => self.scalar(w, one),
            Value::Many(many) => {
                let references = matches!(many.first(), Some(Scalar::Reference(_)));
                let name = if references { "VALUE.REFARRAY" } else { "VALUE.ARRAY" };
                w.within(name, &[], |w| many.iter().for_each(|one| self.scalar(w, one)));
            }
        }
    }

    fn scalar(&self, w: &mut Writer, scalar: &Scalar) {
        match scalar {
            Scalar::Reference(path) => {
                w.within("VALUE.REFERENCE", &[], |w| self.local_path(w, path));
            }
            Scalar::Boolean(true) => w.leaf("VALUE", &[], "TRUE"),
            Scalar::Boolean(false) => w.leaf("VALUE", &[], "FALSE"),
            Scalar::Integer(value) => w.number(*value),
            Scalar::Real(value) => w.leaf("VALUE", &[], &real(*value)),
            Scalar::Text(text) => w.leaf("VALUE", &[], text),
            Scalar::Instance(instance) => {
                let mut inner = Writer::new();
                self.instance(&mut inner, instance, &Shape::default());
                w.leaf("VALUE", &[], &inner.finish());
            }
        }
    }

    /// LOCALNAMESPACEPATH.
    pub fn local_namespace(&self, w: &mut Writer, namespace: &str) {
        w.within("LOCALNAMESPACEPATH", &[], |w| {
            for part in namespace.split('/') {
                w.leaf("NAMESPACE", &[("NAME", part)], "");
            }
        });
    }

    fn namespace_path(&self, w: &mut Writer, namespace: &str) {
        w.within("NAMESPACEPATH", &[], |w| {
            w.leaf("HOST", &[], self.host);
            self.local_namespace(w, namespace);
        });
    }

    /// INSTANCENAME, the keys in the order of the class.
    pub fn instance_name(&self, w: &mut Writer, path: &Path) {
        let class = self.schema.class(&path.class);
        let place =
            |name: &str| class.and_then(|c| c.keys().position(|k| same_name(&k.name, name)));
        let mut keys: Vec<_> = path.keys.iter().collect();
        keys.sort_by_key(|(name, _)| place(name));
        w.within("INSTANCENAME", &[("CLASSNAME", &path.class)], |w| {
            for (name, value) in keys {
                w.within("KEYBINDING", &[("NAME", name)], |w| match value {
                    KeyValue::Text(text) => {
                        let kind = class.and_then(|c| c.property(name)).map(|p| p.kind);
                        let kind = kind.unwrap_or(Type::String);
                        let attributes = [("VALUETYPE", kind.key_word()), ("TYPE", kind.as_str())];
                        w.leaf("KEYVALUE", &attributes, text);
                    }
                    KeyValue::Reference(path) => {
                        w.within("VALUE.REFERENCE", &[], |w| self.local_path(w, path));
                    }
                });
            }
        });
    }

    /// LOCALINSTANCEPATH.
    pub fn local_path(&self, w: &mut Writer, path: &Path) {
        w.within("LOCALINSTANCEPATH", &[], |w| {
            self.local_namespace(w, &path.namespace);
            self.instance_name(w, path);
        });
    }

    /// INSTANCEPATH.
    pub fn path(&self, w: &mut Writer, path: &Path) {
        w.within("INSTANCEPATH", &[], |w| {
            self.namespace_path(w, &path.namespace);
            self.instance_name(w, path);
        });
    }

    /// CLASSPATH.
    pub fn class_path(&self, w: &mut Writer, namespace: &str, class: &str) {
        w.within("CLASSPATH", &[], |w| {
            self.namespace_path(w, namespace);
            w.leaf("CLASSNAME", &[("NAME", class)], "");
        });
    }

    /// INSTANCE.
    pub fn instance(&self, w: &mut Writer, instance: &Instance, shape: &Shape) {
        let class = self.schema.class(instance.class());
        w.within("INSTANCE", &[("CLASSNAME", instance.class())], |w| {
            let Some(class) = class else { return };
            for feature in &class.properties {
                if !shape.wants(&feature.name) {
                    continue;
                }
                let known = |(name, _): &&(crate::Name, Value)| same_name(name, &feature.name);
                match instance.properties.iter().find(known) {
                    Some((_, value)) => self.property(w, class, feature, value, shape, false),
                    None if shape.names(&feature.name) => {
                        self.property(w, class, feature, &Value::Null, shape, false);
                    }
                    None => {}
                }
            }
        });
    }

    fn property(
        &self,
        w: &mut Writer,
        class: &Class,
        feature: &Feature,
        value: &Value,
        shape: &Shape,
        declaring: bool,
    ) {
        let name = match (feature.kind, feature.array) {
            (Type::Reference, _) => "PROPERTY.REFERENCE",
            (_, true) => "PROPERTY.ARRAY",
            (_, false) => "PROPERTY",
        };
        w.begin(name);
        w.attribute("NAME", &feature.name);
        match (feature.kind, &feature.class) {
            (Type::Reference, Some(target)) => w.attribute("REFERENCECLASS", target),
            (Type::Reference, None) => {}
            (kind, _) => w.attribute("TYPE", kind.as_str()),
        }
        if shape.class_origin {
            w.attribute("CLASSORIGIN", &feature.origin);
        }
        if declaring && !same_name(&feature.origin, &class.name) {
            w.attribute("PROPAGATED", "true");
        }
        // A class's own property says so by its qualifiers (DSP0201 5.3.2).
        if feature.embedded.is_some() && !declaring {
            w.attribute("EmbeddedObject", "instance");
        }
        w.begun();
        if declaring && shape.qualifiers {
            feature.qualifiers.iter().for_each(|q| qualifier(w, q));
        }
        self.value(w, value);
        w.close(name);
    }

    /// CLASS.
    pub fn class(&self, w: &mut Writer, class: &Class, shape: &Shape) {
        let mut attributes = vec![("NAME", class.name.as_ref())];
        if let Some(above) = &class.superclass {
            attributes.push(("SUPERCLASS", above));
        }
        let own = |feature: &Feature| !shape.local_only || same_name(&feature.origin, &class.name);
        w.within("CLASS", &attributes, |w| {
            if shape.qualifiers {
                class.qualifiers.iter().for_each(|q| qualifier(w, q));
            }
            for feature in class.properties.iter().filter(|p| own(p) && shape.wants(&p.name)) {
                let default =
                    feature.default.as_ref().map(|text| Scalar::Text(text.clone().into()));
                let default = default.map_or(Value::Null, Value::One);
                self.property(w, class, feature, &default, shape, true);
            }
            for method in class.methods.iter().filter(|m| own(&m.feature)) {
                self.method(w, class, method, shape);
            }
        });
    }

    fn method(&self, w: &mut Writer, class: &Class, method: &Method, shape: &Shape) {
        let feature = &method.feature;
        let mut attributes = vec![("NAME", feature.name.as_ref()), ("TYPE", feature.kind.as_str())];
        if shape.class_origin {
            attributes.push(("CLASSORIGIN", &feature.origin));
        }
        if !same_name(&feature.origin, &class.name) {
            attributes.push(("PROPAGATED", "true"));
        }
        w.within("METHOD", &attributes, |w| {
            if shape.qualifiers {
                feature.qualifiers.iter().for_each(|q| qualifier(w, q));
            }
            for parameter in &method.parameters {
                let feature = &parameter.feature;
                let mut attributes = vec![("NAME", feature.name.as_ref())];
                let name = match (feature.kind, feature.array) {
                    (Type::Reference, array) => {
                        if let Some(target) = &feature.class {
                            attributes.push(("REFERENCECLASS", target));
                        }
                        if array { "PARAMETER.REFARRAY" } else { "PARAMETER.REFERENCE" }
                    }
                    (kind, array) => {
                        attributes.push(("TYPE", kind.as_str()));
                        if array { "PARAMETER.ARRAY" } else { "PARAMETER" }
                    }
                };
                w.within(name, &attributes, |w| {
                    if shape.qualifiers {
                        feature.qualifiers.iter().for_each(|q| qualifier(w, q));
                    }
                });
            }
        });
    }
}

fn qualifier(w: &mut Writer, qualifier: &Qualifier) {
    let attributes = [("NAME", qualifier.name.as_str()), ("TYPE", qualifier.kind.as_str())];
    w.within("QUALIFIER", &attributes, |w| {
        let values = |w: &mut Writer| {
            qualifier.values.iter().for_each(|value| w.leaf("VALUE", &[], value));
        };
        if qualifier.array { w.within("VALUE.ARRAY", &[], values) } else { values(w) }
    });
}

/// QUALIFIER.DECLARATION.
pub(crate) fn declaration(w: &mut Writer, declaration: &Declaration) {
    let attributes = [
        ("NAME", declaration.name.as_str()),
        ("TYPE", declaration.kind.as_str()),
        ("ISARRAY", yes_no(declaration.array)),
    ];
    w.within("QUALIFIER.DECLARATION", &attributes, |w| {
        const SCOPES: [&str; 7] =
            ["CLASS", "ASSOCIATION", "REFERENCE", "PROPERTY", "METHOD", "PARAMETER", "INDICATION"];
        let any = declaration.scopes.iter().any(|scope| scope == "ANY");
        let named = |name: &str| any || declaration.scopes.iter().any(|scope| scope == name);
        let scopes = SCOPES.map(|name| (name, yes_no(named(name))));
        w.leaf("SCOPE", &scopes, "");
        if let Some(default) = &declaration.default {
            w.leaf("VALUE", &[], default);
        }
    });
}
