//! Text to a query.

use super::{Comparison, Condition, Element, Operand, Property, Query};
use crate::Scalar;

/// The longest query.
const BYTES_MAX: usize = 4096;
/// Conditions within each other.
const DEPTH_MAX: usize = 32;

/// The text is no query that is known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAQuery(pub String);

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Number(Scalar),
    Text(String),
    Sign(&'static str),
}

const SIGNS: [&str; 17] =
    ["<>", "!=", "<=", ">=", "::", "=", "<", ">", "(", ")", "[", "]", ".", ",", "*", ";", "-"];

fn tokens(text: &str) -> Result<Vec<Token>, NotAQuery> {
    if text.len() > BYTES_MAX {
        return Err(NotAQuery(format!("a query of more than {BYTES_MAX} bytes")));
    }
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let behind;
        if first.is_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push(Token::Word(rest[..end].to_owned()));
            behind = &rest[end..];
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let number = rest[..end].parse().map_err(|_| NotAQuery("a number".into()))?;
            found.push(Token::Number(Scalar::Integer(number)));
            behind = &rest[end..];
        } else if first == '\'' || first == '"' {
            let (text, end) = quoted(rest, first)?;
            found.push(Token::Text(text));
            behind = &rest[end..];
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let sign = sign.ok_or_else(|| NotAQuery(format!("the character {first:?}")))?;
            found.push(Token::Sign(sign));
            behind = &rest[sign.len()..];
        }
        rest = behind.trim_start();
    }
    Ok(found)
}

/// The text in quotes at the beginning, and where it ends; `\` and doubled quotes escape.
fn quoted(rest: &str, quote: char) -> Result<(String, usize), NotAQuery> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => text.extend(chars.next().map(|(_, c)| c)),
            c if c == quote => match chars.next_if(|(_, c)| *c == quote) {
                Some(_) => text.push(quote),
                None => return Ok((text, at + quote.len_utf8())),
            },
            c => text.push(c),
        }
    }
    Err(NotAQuery("a text that does not end".into()))
}

pub(super) fn query(text: &str) -> Result<Query, NotAQuery> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    parser.keyword("SELECT")?;
    // What is selected does not matter: a listener gets the whole indication.
    while !parser.is_keyword("FROM") {
        let token = parser.next().ok_or_else(|| NotAQuery("no FROM".into()))?;
        let fits = matches!(token, Token::Word(_) | Token::Sign("*" | "," | "." | "::"));
        if !fits {
            return Err(NotAQuery("something odd is selected".into()));
        }
    }
    parser.keyword("FROM")?;
    let from = parser.word()?;
    let condition = match parser.take_keyword("WHERE") {
        true => Some(parser.either(0)?),
        false => None,
    };
    parser.take_sign(";");
    match parser.next() {
        None => Ok(Query { from, condition }),
        Some(token) => Err(NotAQuery(format!("{token:?} behind the query"))),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn is_keyword(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word))
    }

    fn take_keyword(&mut self, word: &str) -> bool {
        let found = self.is_keyword(word);
        self.at += usize::from(found);
        found
    }

    fn keyword(&mut self, word: &str) -> Result<(), NotAQuery> {
        match self.take_keyword(word) {
            true => Ok(()),
            false => Err(NotAQuery(format!("{:?} instead of {word}", self.peek()))),
        }
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, sign: &str) -> Result<(), NotAQuery> {
        match self.take_sign(sign) {
            true => Ok(()),
            false => Err(NotAQuery(format!("{:?} instead of {sign}", self.peek()))),
        }
    }

    fn word(&mut self) -> Result<String, NotAQuery> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            other => Err(NotAQuery(format!("{other:?} instead of a name"))),
        }
    }

    fn either(&mut self, depth: usize) -> Result<Condition, NotAQuery> {
        let mut condition = self.both(depth)?;
        while self.take_keyword("OR") {
            condition = Condition::Or(Box::new(condition), Box::new(self.both(depth)?));
        }
        Ok(condition)
    }

    fn both(&mut self, depth: usize) -> Result<Condition, NotAQuery> {
        let mut condition = self.one(depth)?;
        while self.take_keyword("AND") {
            condition = Condition::And(Box::new(condition), Box::new(self.one(depth)?));
        }
        Ok(condition)
    }

    fn one(&mut self, depth: usize) -> Result<Condition, NotAQuery> {
        if depth > DEPTH_MAX {
            return Err(NotAQuery(format!("conditions deeper than {DEPTH_MAX}")));
        }
        if self.take_keyword("NOT") {
            return Ok(Condition::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take_sign("(") {
            let condition = self.either(depth + 1)?;
            self.sign(")")?;
            return Ok(condition);
        }
        let left = self.operand()?;
        if self.take_keyword("ISA") {
            let Operand::Property(Property { steps, .. }) = left else {
                return Err(NotAQuery("a value ISA a class".into()));
            };
            let class = match self.next() {
                Some(Token::Word(class) | Token::Text(class)) => class,
                other => return Err(NotAQuery(format!("{other:?} instead of a class"))),
            };
            return Ok(Condition::Isa(steps, class));
        }
        if self.take_keyword("IS") {
            let not = self.take_keyword("NOT");
            self.keyword("NULL")?;
            let Operand::Property(property) = left else {
                return Err(NotAQuery("a value IS NULL".into()));
            };
            let null = Condition::Null(property);
            return Ok(if not { Condition::Not(Box::new(null)) } else { null });
        }
        let how = self.comparison()?;
        Ok(Condition::Compare(left, how, self.operand()?))
    }

    fn comparison(&mut self) -> Result<Comparison, NotAQuery> {
        Ok(match self.next() {
            Some(Token::Sign("=")) => Comparison::Equal,
            Some(Token::Sign("<>" | "!=")) => Comparison::NotEqual,
            Some(Token::Sign("<")) => Comparison::Less,
            Some(Token::Sign("<=")) => Comparison::LessOrEqual,
            Some(Token::Sign(">")) => Comparison::Greater,
            Some(Token::Sign(">=")) => Comparison::GreaterOrEqual,
            other => return Err(NotAQuery(format!("{other:?} instead of a comparison"))),
        })
    }

    fn operand(&mut self) -> Result<Operand, NotAQuery> {
        let any = self.take_keyword("ANY");
        if !any {
            match self.peek() {
                Some(Token::Number(_) | Token::Text(_) | Token::Sign("-")) => {
                    return self.literal();
                }
                Some(Token::Word(word)) => {
                    let truth = [("TRUE", true), ("FALSE", false)];
                    let truth = truth.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
                    if let Some((_, truth)) = truth {
                        self.at += 1;
                        return Ok(Operand::Literal(Scalar::Boolean(truth)));
                    }
                }
                _ => {}
            }
        }
        let steps = self.steps()?;
        let mut element = if any { Element::Any } else { Element::Whole };
        if self.take_sign("[") {
            element = match self.next() {
                Some(Token::Sign("*")) => Element::Any,
                Some(Token::Number(Scalar::Integer(at))) => {
                    let at = usize::try_from(at).map_err(|_| NotAQuery("an index".into()))?;
                    Element::At(at)
                }
                other => return Err(NotAQuery(format!("{other:?} as an index"))),
            };
            self.sign("]")?;
        }
        Ok(Operand::Property(Property { steps, element }))
    }

    fn literal(&mut self) -> Result<Operand, NotAQuery> {
        let negative = self.take_sign("-");
        match self.next() {
            Some(Token::Number(Scalar::Integer(number))) => {
                let number = if negative { -number } else { number };
                Ok(Operand::Literal(Scalar::Integer(number)))
            }
            Some(Token::Text(text)) if !negative => Ok(Operand::Literal(Scalar::Text(text.into()))),
            other => Err(NotAQuery(format!("{other:?} instead of a value"))),
        }
    }

    /// `a.b.Class::c`; the class is a hint for the reader.
    fn steps(&mut self) -> Result<Vec<String>, NotAQuery> {
        let mut steps = Vec::new();
        loop {
            let name = self.word()?;
            match self.take_sign("::") {
                true => continue,
                false => steps.push(name),
            }
            if !self.take_sign(".") {
                return Ok(steps);
            }
        }
    }
}
