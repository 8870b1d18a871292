//! Reads a query string strictly: unknown and repeated parameters are refused, never ignored.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::fields::nearest;
use super::oauth::decode;
use super::problem::{Code, Problem};
use crate::token::ids::InvalidId;

/// The longest query string read, bytes.
const MAX_BYTES: usize = 4096;

/// The parameters of a query string.
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads `text`, taking only `known` parameters, each once.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, Problem> {
        if text.len() > MAX_BYTES {
            return Err(Problem::new(
                Code::QueryInvalid,
                format!("The query string is over {MAX_BYTES} bytes."),
            ));
        }
        // the parser puts a replacement character, and a caller's mistake would look like an empty answer
        if decode(text).is_none() {
            return Err(Problem::new(Code::QueryInvalid, "The query string cannot be decoded."));
        }
        let pairs: Vec<(String, String)> = actix_web::web::Query::<Vec<(String, String)>>::from_query(text)
            .map_err(|_| Problem::new(Code::QueryInvalid, "The query string cannot be decoded."))?
            .into_inner();
        let mut out = BTreeMap::new();
        for (name, value) in pairs {
            if !known.contains(&name.as_str()) {
                let hint = match nearest(&name, known) {
                    Some(near) => format!(" Did you mean `{near}`?"),
                    None if known.is_empty() => " This path takes none.".to_owned(),
                    None => format!(" This path takes: {}.", known.join(", ")),
                };
                return Err(Problem::new(
                    Code::QueryInvalid,
                    format!("A query parameter is not known here.{hint}"),
                )
                .param(name.chars().filter(|c| !c.is_control()).take(64).collect::<String>()));
            }
            if out.insert(name.clone(), value).is_some() {
                return Err(bad(&name, "is given twice"));
            }
        }
        Ok(Self(out))
    }

    /// A parameter's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// An identifier.
    pub fn id<'a, T: TryFrom<&'a str, Error = InvalidId>>(
        &'a self,
        name: &str,
    ) -> Result<Option<T>, Problem> {
        self.text(name).map(T::try_from).transpose().map_err(|e| bad(name, &e.to_string()))
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.text(name)
            .map(|t| t.parse().map_err(|_| bad(name, "must be a whole number, zero or more")))
            .transpose()
    }

    /// How many rows to answer: 1 to `max`.
    pub fn limit(&self, default: u32, max: u32) -> Result<u32, Problem> {
        match self.number("limit")? {
            None => Ok(default),
            Some(n) if n >= 1 && n <= u64::from(max) => Ok(u32::try_from(n).unwrap_or(max)),
            Some(_) => Err(bad("limit", &format!("must lie between 1 and {max}"))),
        }
    }

    /// A moment: RFC 3339, or milliseconds since the epoch.
    pub fn time(&self, name: &str) -> Result<Option<DateTime<Utc>>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let parsed = match text.parse::<i64>() {
            Ok(millis) => DateTime::from_timestamp_millis(millis),
            Err(_) => DateTime::parse_from_rfc3339(text).ok().map(|t| t.with_timezone(&Utc)),
        };
        parsed.map(Some).ok_or_else(|| {
            bad(name, "must be a time such as 2026-11-22T11:30:00Z, or milliseconds since 1970")
        })
    }

    /// One of a few words.
    pub fn word<'k>(&self, name: &str, known: &[&'k str]) -> Result<Option<&'k str>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        known
            .iter()
            .find(|k| **k == text)
            .map(|k| Some(*k))
            .ok_or_else(|| bad(name, &format!("must be one of: {}", known.join(", "))))
    }
}

/// A parameter cannot be used.
pub fn bad(name: &str, why: &str) -> Problem {
    Problem::new(Code::QueryInvalid, format!("`{name}` {why}.")).param(name.to_owned())
}
