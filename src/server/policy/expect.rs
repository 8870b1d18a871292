//! `policy test`: a table of expectations, run against a policy, with a difference a person can read.

use std::fmt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::facts::{FactsError, question_from_json};
use super::{Policy, Question, Verdict};
use crate::token::Audience;

/// The time cases are asked at unless they name one: Monday, 5 January 2026, noon.
const NOON: DateTime<Utc> = match DateTime::from_timestamp(1_767_614_400, 0) {
    Some(noon) => noon,
    None => DateTime::UNIX_EPOCH,
};
/// The most bytes of a table that are read.
const MAX_BYTES: u64 = 1 << 20;

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum ExpectationsError {
    /// The file could not be read.
    #[error("{} could not be read", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// More than is ever read.
    #[error("{} is larger than {MAX_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Neither TOML nor JSON of the right shape; the message names line and column.
    #[error("the table is not valid: {0}")]
    Syntax(String),
    /// No case at all: a table that tests nothing would pass for ever.
    #[error("the table holds no case")]
    Empty,
    /// The facts of a case are not a question.
    #[error("case {number} ({name}): {source}")]
    Case {
        /// From 1.
        number: usize,
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: FactsError,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    policy: Option<PathBuf>,
    #[serde(default)]
    base: Map<String, Value>,
    #[serde(default, rename = "case")]
    cases: Vec<WrittenCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCase {
    name: String,
    #[serde(default)]
    given: Map<String, Value>,
    expect: Expect,
}

/// What a case expects; what is left out is not compared.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    decision: Decision,
    rule: Option<String>,
    refusal: Option<String>,
    /// A part of the message.
    message: Option<String>,
    lifetime: Option<u32>,
    scope: Option<String>,
    audience: Option<Vec<String>>,
    require_approval: Option<bool>,
    break_glass: Option<bool>,
    max_targets_per_hour: Option<u32>,
    ticket_lookup: Option<bool>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Decision {
    Granted,
    Denied,
}

/// A table of cases, read and understood.
#[derive(Debug, Clone)]
pub struct Expectations {
    /// The policy the table names, as written; relative to the table's own file.
    pub policy: Option<PathBuf>,
    cases: Vec<Case>,
}

#[derive(Debug, Clone)]
struct Case {
    name: String,
    question: Question,
    expect: Expect,
}

/// One thing that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What.
    pub what: &'static str,
    /// What the table says.
    pub expected: String,
    /// What the policy says.
    pub got: String,
}

/// How one case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseResult {
    /// From 1, as in the table.
    pub number: usize,
    /// The case's name.
    pub name: String,
    /// Empty when it is as expected.
    pub differences: Vec<Difference>,
    /// The policy's own words.
    pub message: String,
}

/// How all went; `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestReport {
    /// The policy that was tested, `id@sha256`.
    pub policy: String,
    /// Every case, in order.
    pub results: Vec<CaseResult>,
}

impl Expectations {
    /// Reads a table from a file: JSON when its name ends in `.json`, else TOML.
    ///
    /// # Errors
    /// It cannot be read, or is not a table of cases.
    pub fn from_path(path: &Path) -> Result<Self, ExpectationsError> {
        use std::io::Read;
        let unreadable = |e| ExpectationsError::Unreadable(path.to_owned(), e);
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(ExpectationsError::TooLarge(path.to_owned()));
        }
        let json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        Self::parse(&text, json)
    }

    /// Reads a table from its text.
    ///
    /// # Errors
    /// As [`Expectations::from_path`].
    pub fn parse(text: &str, json: bool) -> Result<Self, ExpectationsError> {
        let table: Table = if json {
            serde_json::from_str(text).map_err(|e| ExpectationsError::Syntax(e.to_string()))?
        } else {
            toml::from_str(text).map_err(|e| ExpectationsError::Syntax(e.to_string()))?
        };
        if table.cases.is_empty() {
            return Err(ExpectationsError::Empty);
        }
        let cases = table.cases.into_iter().enumerate().map(|(at, case)| {
            let mut facts = Value::Object(table.base.clone());
            merge(&mut facts, Value::Object(case.given));
            match question_from_json(facts, NOON) {
                Ok(question) => Ok(Case { name: case.name, question, expect: case.expect }),
                Err(source) => Err(ExpectationsError::Case { number: at + 1, name: case.name, source }),
            }
        });
        Ok(Self { policy: table.policy, cases: cases.collect::<Result<_, _>>()? })
    }

    /// Asks the policy every case.
    #[must_use]
    pub fn run(&self, policy: &Policy) -> TestReport {
        let results = self
            .cases
            .iter()
            .enumerate()
            .map(|(at, case)| {
                let verdict = policy.decide(&case.question);
                CaseResult {
                    number: at + 1,
                    name: case.name.clone(),
                    differences: case.expect.differences(&verdict),
                    message: verdict.message(),
                }
            })
            .collect();
        TestReport { policy: policy.version().to_owned(), results }
    }
}

/// Tables are merged member by member, everything else is replaced.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                merge(base.entry(name).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

impl Expect {
    fn differences(&self, verdict: &Verdict) -> Vec<Difference> {
        let mut out = Vec::new();
        let mut compare = |what, expected: Option<String>, got: Option<String>| {
            let Some(expected) = expected else { return };
            let got = got.unwrap_or_else(|| "nothing".to_owned());
            if expected != got {
                out.push(Difference { what, expected, got });
            }
        };
        let decision = match self.decision {
            Decision::Granted => "granted",
            Decision::Denied => "denied",
        };
        compare("decision", Some(decision.to_owned()), Some(verdict.decision().to_owned()));
        compare("rule", self.rule.clone(), Some(verdict.rule().to_owned()));
        let refusal = match verdict {
            Verdict::Denied { refusal, .. } => Some(refusal.as_str().to_owned()),
            Verdict::Granted { .. } => None,
        };
        compare("refusal", self.refusal.clone(), refusal);
        let message = verdict.message();
        if self.message.as_ref().is_some_and(|part| !message.contains(part)) {
            compare("message", self.message.clone(), Some(message));
        }
        let limits = verdict.limits();
        let of = |get: fn(&super::Limits) -> String| limits.map(get);
        compare("lifetime", self.lifetime.map(|l| l.to_string()), of(|l| l.lifetime_seconds.to_string()));
        compare("scope", self.scope.clone(), of(|l| l.scope.to_string()));
        let audience = of(|l| l.audience.iter().map(Audience::as_str).collect::<Vec<_>>().join(" "));
        compare("audience", self.audience.as_ref().map(|a| a.join(" ")), audience);
        let approval = of(|l| l.require_approval.to_string());
        compare("require_approval", self.require_approval.map(|b| b.to_string()), approval);
        compare("break_glass", self.break_glass.map(|b| b.to_string()), of(|l| l.break_glass.to_string()));
        compare(
            "max_targets_per_hour",
            self.max_targets_per_hour.map(|n| n.to_string()),
            limits.and_then(|l| l.max_targets_per_hour).map(|n| n.to_string()),
        );
        let lookup = of(|l| l.ticket_lookup.to_string());
        compare("ticket_lookup", self.ticket_lookup.map(|b| b.to_string()), lookup);
        out
    }
}

impl TestReport {
    /// How many cases are not as expected.
    pub fn failed(&self) -> usize {
        self.results.iter().filter(|r| !r.differences.is_empty()).count()
    }

    /// The report for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let cases: Vec<Value> = self
            .results
            .iter()
            .map(|r| {
                let differences: Vec<Value> = r
                    .differences
                    .iter()
                    .map(|d| json!({ "what": d.what, "expected": d.expected, "got": d.got }))
                    .collect();
                json!({ "number": r.number, "name": r.name, "ok": r.differences.is_empty(),
                    "differences": differences, "message": r.message })
            })
            .collect();
        json!({ "policy": self.policy, "cases": cases, "failed": self.failed() })
    }
}

impl fmt::Display for TestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for result in &self.results {
            if result.differences.is_empty() {
                writeln!(f, "ok    {} {}", result.number, result.name)?;
                continue;
            }
            writeln!(f, "FAIL  {} {}", result.number, result.name)?;
            for d in &result.differences {
                writeln!(f, "        {}", d.what)?;
                writeln!(f, "        - expected {}", d.expected)?;
                writeln!(f, "        + got      {}", d.got)?;
            }
            writeln!(f, "        the policy says: {}", result.message)?;
        }
        writeln!(f, "{} cases, {} failed ({})", self.results.len(), self.failed(), self.policy)
    }
}
