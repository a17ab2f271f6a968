//! The queries of indication filters: what WQL and CQL (DSP0202) have in common, and what the
//! standard filters of SMI-S need of CQL beyond it: `Class::Property`, `ANY ...[*]`, `[n]`.

mod parse;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use crate::{Instance, Scalar, Schema, Value, same_name};

pub use parse::NotAQuery;

/// A filter's query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The class of indications.
    pub from: String,
    condition: Option<Condition>,
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Isa(Vec<String>, String),
    Null(Property),
    Compare(Operand, Comparison, Operand),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
struct Property {
    steps: Vec<String>,
    element: Element,
}

/// Which element of an array is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Whole,
    At(usize),
    Any,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Property(Property),
    Literal(Scalar),
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// It is no query that is known here; the text says where it goes wrong.
    pub fn parse(text: &str) -> Result<Self, NotAQuery> {
        parse::query(text)
    }

    /// Whether it chooses an indication.
    pub fn chooses(&self, schema: &Schema, indication: &Instance) -> bool {
        schema.is_a(indication.class(), &self.from)
            && self.condition.as_ref().is_none_or(|condition| condition.holds(schema, indication))
    }

    /// The classes that instances must be of, where the query says so.
    pub fn classes(&self) -> Vec<&str> {
        let mut found = Vec::new();
        if let Some(condition) = &self.condition {
            condition.classes(&mut found);
        }
        found
    }
}

impl Condition {
    fn holds(&self, schema: &Schema, of: &Instance) -> bool {
        match self {
            Self::And(one, other) => one.holds(schema, of) && other.holds(schema, of),
            Self::Or(one, other) => one.holds(schema, of) || other.holds(schema, of),
            Self::Not(inner) => !inner.holds(schema, of),
            Self::Isa(steps, class) => match follow(of, steps) {
                Value::One(Scalar::Instance(instance)) => schema.is_a(instance.class(), class),
                _ => false,
            },
            Self::Null(property) => property.value(of).is_null(),
            Self::Compare(one, how, other) => compare(&one.value(of), *how, &other.value(of)),
        }
    }

    fn classes<'a>(&'a self, found: &mut Vec<&'a str>) {
        match self {
            Self::And(one, other) | Self::Or(one, other) => {
                one.classes(found);
                other.classes(found);
            }
            Self::Not(inner) => inner.classes(found),
            Self::Isa(_, class) => found.push(class),
            Self::Null(_) | Self::Compare(..) => {}
        }
    }
}

/// A property of a property of ...; NULL where one is not there.
fn follow(instance: &Instance, steps: &[String]) -> Value {
    let Some((first, rest)) = steps.split_first() else { return Value::Null };
    match instance.get(first) {
        value if rest.is_empty() => value.clone(),
        Value::One(Scalar::Instance(inner)) => follow(inner, rest),
        _ => Value::Null,
    }
}

impl Property {
    fn value(&self, of: &Instance) -> Value {
        let whole = follow(of, &self.steps);
        match self.element {
            Element::Whole | Element::Any => whole,
            Element::At(index) => {
                whole.elements().get(index).cloned().map_or(Value::Null, Value::One)
            }
        }
    }
}

/// What is compared: a whole value, or each element of an array.
struct Compared {
    value: Value,
    any: bool,
}

impl Operand {
    fn value(&self, of: &Instance) -> Compared {
        match self {
            Self::Literal(scalar) => Compared { value: Value::One(scalar.clone()), any: false },
            Self::Property(property) => {
                Compared { value: property.value(of), any: property.element == Element::Any }
            }
        }
    }
}

fn compare(one: &Compared, how: Comparison, other: &Compared) -> bool {
    if one.any || other.any {
        let all = |compared: &Compared| compared.value.elements().to_vec();
        let (left, right) = (all(one), all(other));
        return left.iter().any(|l| right.iter().any(|r| holds(order(l, r), how)));
    }
    match (&one.value, &other.value) {
        (Value::One(left), Value::One(right)) => holds(order(left, right), how),
        // NULL is equal to NULL alone; arrays are equal if all their elements are.
        (left, right) => match how {
            Comparison::Equal => left == right,
            Comparison::NotEqual => left != right,
            _ => false,
        },
    }
}

fn order(one: &Scalar, other: &Scalar) -> Option<Ordering> {
    match (one, other) {
        (Scalar::Integer(one), Scalar::Integer(other)) => Some(one.cmp(other)),
        (Scalar::Text(one), Scalar::Text(other)) => Some(one.cmp(other)),
        (Scalar::Boolean(one), Scalar::Boolean(other)) => Some(one.cmp(other)),
        (Scalar::Real(one), Scalar::Real(other)) => one.partial_cmp(other),
        (Scalar::Integer(one), Scalar::Real(other)) => (*one as f64).partial_cmp(other),
        (Scalar::Real(one), Scalar::Integer(other)) => one.partial_cmp(&(*other as f64)),
        (Scalar::Reference(one), Scalar::Reference(other)) if one.same(other) => {
            Some(Ordering::Equal)
        }
        _ => None,
    }
}

/// What can not be ordered is different.
fn holds(order: Option<Ordering>, how: Comparison) -> bool {
    match (how, order) {
        (Comparison::NotEqual, order) => order != Some(Ordering::Equal),
        (_, None) => false,
        (Comparison::Equal, Some(order)) => order.is_eq(),
        (Comparison::Less, Some(order)) => order.is_lt(),
        (Comparison::LessOrEqual, Some(order)) => order.is_le(),
        (Comparison::Greater, Some(order)) => order.is_gt(),
        (Comparison::GreaterOrEqual, Some(order)) => order.is_ge(),
    }
}

/// Whether a query language is known here.
pub fn is_known(language: &str) -> bool {
    ["DMTF:CQL", "CQL", "WQL", "CIM:CQL"].iter().any(|known| same_name(known, language.trim()))
}
