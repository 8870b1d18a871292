//! Reads a JSON object's members into values, naming the member that cannot be used.

use serde_json::{Map, Value};

use super::problem::{Code, Problem};
use crate::token::ids::InvalidId;
use crate::token::json;

/// How deep a request body may nest.
const MAX_DEPTH: usize = 8;

/// The members of a body that have not been read yet.
pub struct Fields {
    members: Map<String, Value>,
    prefix: &'static str,
}

impl Fields {
    /// Reads a body: one JSON object, UTF-8, no member twice.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        match json::parse_strict(body, MAX_DEPTH) {
            Ok(Value::Object(members)) => Ok(Self { members, prefix: "" }),
            Ok(_) => Err(Problem::new(
                Code::RequestBodyInvalid,
                "The body must be a JSON object, such as {\"user_id\": \"user_42\"}.",
            )),
            Err(error) => Err(Problem::new(
                Code::RequestBodyInvalid,
                format!("The body is not the JSON this endpoint reads: {error}."),
            )),
        }
    }

    /// As [`Self::parse`], with an empty body standing for an empty object.
    pub fn parse_or_empty(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() { Ok(Self { members: Map::new(), prefix: "" }) } else { Self::parse(body) }
    }

    /// Takes a member; `null` counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|v| !v.is_null())
    }

    /// The full name of a member, for errors.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A text member of at most `max` bytes.
    pub fn text(&mut self, name: &str, max: usize) -> Result<Option<String>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let full = self.name(name);
        let Value::String(text) = value else { return Err(invalid(full, "must be a string")) };
        if text.len() > max {
            return Err(invalid(full, &format!("must be at most {max} bytes long")));
        }
        Ok(Some(text))
    }

    /// A free text that people write: no control characters but tab and line ends.
    pub fn prose(&mut self, name: &str, max_chars: usize) -> Result<Option<String>, Problem> {
        let Some(text) = self.text(name, max_chars * 4)? else { return Ok(None) };
        if text.chars().count() > max_chars {
            return Err(invalid(self.name(name), &format!("must be at most {max_chars} characters long")));
        }
        if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
            return Err(invalid(self.name(name), "must not contain control characters"));
        }
        Ok(Some(text))
    }

    /// An identifier.
    pub fn id<T>(&mut self, name: &str) -> Result<Option<T>, Problem>
    where
        T: TryFrom<String, Error = InvalidId>,
    {
        let Some(value) = self.take(name) else { return Ok(None) };
        let full = self.name(name);
        let Value::String(text) = value else { return Err(invalid(full, "must be a string")) };
        T::try_from(text).map(Some).map_err(|e| invalid(full, &e.to_string()))
    }

    /// A positive whole number that fits 32 bits.
    pub fn positive(&mut self, name: &str) -> Result<Option<u32>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let full = self.name(name);
        match value.as_u64() {
            Some(n) if n > 0 => Ok(Some(u32::try_from(n).unwrap_or(u32::MAX))),
            // larger than any number of 64 bits, and as good as the largest
            None if value.as_f64().is_some_and(|n| n > 1e18) => Ok(Some(u32::MAX)),
            _ => Err(invalid(full, "must be a whole number greater than zero")),
        }
    }

    /// A nested object.
    pub fn object(&mut self, name: &'static str, prefix: &'static str) -> Result<Option<Self>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(Self { members, prefix })),
            Some(_) => Err(invalid(self.name(name), "must be an object")),
        }
    }

    /// Refuses what was not read, naming the nearest of the `known` members.
    pub fn finish(self, known: &[&str]) -> Result<(), Problem> {
        let Some(name) = self.members.keys().next() else { return Ok(()) };
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let hint = nearest(name, known).map_or(String::new(), |n| format!(" Did you mean `{n}`?"));
        Err(Problem::new(
            Code::FormParamUnknown,
            format!("`{}{shown}` is not known here.{hint}", self.prefix),
        )
        .param(format!("{}{shown}", self.prefix)))
    }
}

/// A member is needed and not there.
pub fn missing(name: &'static str, hint: &str) -> Problem {
    Problem::new(Code::FormParamMissing, format!("`{name}` is missing. {hint}")).param(name)
}

/// A member's value cannot be used.
pub fn invalid(name: impl Into<String>, why: &str) -> Problem {
    let name = name.into();
    Problem::new(Code::FormParamValueInvalid, format!("`{name}` {why}.")).param(name)
}

/// The known name closest to `name`, if it is close at all: few letters apart, or one the other's beginning.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    if name.len() > 64 {
        return None;
    }
    let begins = |k: &str| name.len() >= 4 && k.len() >= 4 && (k.starts_with(name) || name.starts_with(k));
    let (distance, closest) = known.iter().map(|k| (distance(name, k), *k)).min()?;
    if distance <= 1 + closest.len() / 3 {
        return Some(closest);
    }
    known.iter().find(|k| begins(k)).copied()
}

/// Levenshtein distance of two short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = if ca == *cb { diagonal } else { 1 + diagonal.min(row[j]).min(row[j + 1]) };
            diagonal = row[j + 1];
            row[j + 1] = cost;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_member_is_refused_naming_the_nearest() {
        let mut fields = Fields::parse(br#"{"user_id":"a","reasn":"x"}"#).unwrap();
        assert_eq!(fields.text("user_id", 10).unwrap().as_deref(), Some("a"));
        let problem = fields.finish(&["user_id", "reason"]).unwrap_err();
        assert_eq!(problem.code, Code::FormParamUnknown);
        assert!(problem.detail.contains("Did you mean `reason`?"), "{}", problem.detail);
    }

    #[test]
    fn the_nearest_name_is_a_few_letters_off_or_begins_alike() {
        let known = &["user_id", "expires_in_seconds", "scope"];
        assert_eq!(nearest("userid", known), Some("user_id"));
        assert_eq!(nearest("expires_in", known), Some("expires_in_seconds"));
        assert_eq!(
            (nearest("exp", known), nearest("iss", known), nearest("zzzzzzzz", known)),
            (None, None, None)
        );
    }

    #[test]
    fn numbers_must_be_whole_and_positive() {
        for bad in ["0", "-1", "1.5", "\"600\"", "true", "[]"] {
            let mut fields = Fields::parse(format!("{{\"n\":{bad}}}").as_bytes()).unwrap();
            assert!(fields.positive("n").is_err(), "{bad}");
        }
        let mut fields = Fields::parse(b"{\"n\":99999999999}").unwrap();
        assert_eq!(fields.positive("n").unwrap(), Some(u32::MAX), "clamped later, not refused");
    }
}
