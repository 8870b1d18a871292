//! Why a decision is what it is: the verdict, and what became of every rule.

use std::fmt;

use cedar_policy::{Authorizer, Effect, PolicySet};
use serde_json::{Value, json};

use super::decide::{concerns, hard_limits};
use super::entities::{Asked, Facts};
use super::limits::{Offer, offer};
use super::load::{Policy, Rule};
use super::{Limits, Question, Refusal, Verdict};

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It applies.
    Applies,
    /// Its scope or a condition does not hold.
    DoesNotApply,
    /// It could not be evaluated; Cedar's words. Nothing is allowed then.
    Failed(String),
}

/// One rule's part in a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTrace {
    /// Its `@id`.
    pub rule: String,
    /// A forbid; else a permit.
    pub forbids: bool,
    /// The file it stands in.
    pub file: String,
    /// The line it begins on.
    pub line: usize,
    /// What became of it.
    pub outcome: Outcome,
    /// Of a permit that applies: why it does not grant what is asked.
    pub but: Option<String>,
    /// Facts it reads that are not known, as the schema names them.
    pub missing: Vec<String>,
}

/// A decision with its reasons. The trace is for operators: it says what the answer to a caller may not,
/// such as that a user does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What [`Policy::decide`] answers.
    pub verdict: Verdict,
    /// The policy that decided, `id@sha256`.
    pub policy: String,
    /// Every rule that concerns the action, in the order of the text. Empty when a limit that no policy
    /// loosens decided before.
    pub trace: Vec<RuleTrace>,
}

impl Policy {
    /// Decides and says why. Slower than [`Policy::decide`]: every rule is evaluated alone.
    #[must_use]
    pub fn explain(&self, question: &Question) -> Explanation {
        let facts = self.facts(question);
        let trace = match (hard_limits(&facts), Asked::build(&facts)) {
            (Ok(()), Ok(asked)) => self.trace(&facts, &asked),
            _ => Vec::new(),
        };
        Explanation { verdict: self.decide(question), policy: self.version().to_owned(), trace }
    }

    fn trace(&self, facts: &Facts<'_>, asked: &Asked) -> Vec<RuleTrace> {
        let action = facts.question.action.as_str();
        let Ok(request) = asked.request(action) else { return Vec::new() };
        let authorizer = Authorizer::new();
        let one = |rule: &Rule| {
            let alone = PolicySet::from_policies([rule.policy.clone()]).unwrap_or_default();
            let response = authorizer.is_authorized(&request, &alone, &asked.entities);
            let diagnostics = response.diagnostics();
            let outcome = if let Some(error) = diagnostics.errors().next() {
                Outcome::Failed(error.to_string())
            } else if diagnostics.reason().next().is_some() {
                Outcome::Applies
            } else {
                Outcome::DoesNotApply
            };
            let but = match (&outcome, rule.effect) {
                (Outcome::Applies, Effect::Permit) => match offer(&rule.annotations, facts) {
                    Offer::Grants { complete: true, .. } => None,
                    Offer::Grants { limits, complete: false } => {
                        Some(format!("it grants no more than scope {}", limits.scope))
                    }
                    Offer::Silent(why) => Some(why.to_owned()),
                    Offer::Refuses(refused) => Some(refused.message),
                },
                _ => None,
            };
            RuleTrace {
                rule: rule.annotations.id.clone(),
                forbids: rule.effect == Effect::Forbid,
                file: rule.file.clone(),
                line: rule.line,
                outcome,
                but,
                missing: missing(rule, facts),
            }
        };
        self.rules.iter().filter(|rule| concerns(rule, action)).map(one).collect()
    }
}

/// The optional facts a rule reads and nobody knows.
fn missing(rule: &Rule, facts: &Facts<'_>) -> Vec<String> {
    let q = facts.question;
    let (actor, target) = (facts.actor, facts.target);
    let facts: [(&str, &str, bool); 14] = [
        ("principal", "known", actor.is_some()),
        ("principal", "iss", q.actor.act.iss.is_some()),
        ("principal", "id", actor.is_some()),
        ("principal", "active", actor.is_some()),
        ("principal", "org", facts.actor_org().is_some()),
        ("principal", "acr", q.actor.acr.is_some()),
        ("principal", "login_age", facts.login_age_seconds().is_some()),
        ("resource", "known", target.is_some()),
        ("resource", "active", target.is_some()),
        ("resource", "org", target.is_some_and(|p| p.org.is_some())),
        ("resource", "consent_until", target.is_some_and(|p| p.consent_until.is_some())),
        ("context", "reason", facts.reason.is_some()),
        ("context", "ticket", q.ticket.is_some()),
        ("context", "address", q.address.is_some()),
    ];
    let text = rule.policy.to_string();
    let reads = |of: &str, name: &str| {
        [format!("{of}.{name}"), format!("{of} has {name}")].iter().any(|written| {
            text.match_indices(written.as_str()).any(|(at, _)| {
                !text[at + written.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            })
        })
    };
    facts
        .iter()
        .filter(|(of, name, there)| !there && reads(of, name))
        .map(|(of, name, _)| format!("{of}.{name}"))
        .collect()
}

impl Verdict {
    /// `granted` or `denied`.
    #[must_use]
    pub const fn decision(&self) -> &'static str {
        match self {
            Self::Granted { .. } => "granted",
            Self::Denied { .. } => "denied",
        }
    }

    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> &str {
        match self {
            Self::Granted { rule, .. } | Self::Denied { rule, .. } => rule,
        }
    }

    /// The decision in one sentence.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Denied { message, .. } => message.clone(),
            Self::Granted { rule, limits } => format!(
                "Rule {rule} permits it for {} seconds with scope {}{}.",
                limits.lifetime_seconds,
                limits.scope,
                if limits.require_approval { ", once a colleague has approved" } else { "" },
            ),
        }
    }

    /// What is allowed, if anything.
    #[must_use]
    pub const fn limits(&self) -> Option<&Limits> {
        match self {
            Self::Granted { limits, .. } => Some(limits),
            Self::Denied { .. } => None,
        }
    }

    /// The answer to `POST /v1/policy/explain`: `decision`, `rule`, `message`, `limits` (null when denied).
    /// It says no more than a refused mint would.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "decision": self.decision(),
            "rule": self.rule(),
            "message": self.message(),
            "limits": self.limits().map(Limits::to_json),
        })
    }
}

impl Limits {
    /// The limits as they stand in answers.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "lifetime_seconds": self.lifetime_seconds,
            "scope": self.scope.to_string(),
            "audience": self.audience,
            "require_approval": self.require_approval,
            "break_glass": self.break_glass,
            "max_targets_per_hour": self.max_targets_per_hour,
            "ticket_lookup": self.ticket_lookup,
        })
    }
}

impl Refusal {
    /// The word for it in expectations and explanations.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::UnknownTarget => "unknown_target",
            Self::StepUp(_) => "step_up",
            Self::Error => "error",
        }
    }
}

impl Explanation {
    /// Everything, for `policy explain --json`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut out = self.verdict.to_json();
        out["policy"] = json!(self.policy);
        if let Verdict::Denied { refusal, .. } = &self.verdict {
            out["refusal"] = json!(refusal.as_str());
        }
        let rules: Vec<Value> = self
            .trace
            .iter()
            .map(|t| {
                json!({
                    "rule": t.rule,
                    "effect": if t.forbids { "forbid" } else { "permit" },
                    "file": t.file,
                    "line": t.line,
                    "outcome": match &t.outcome {
                        Outcome::Applies => "applies",
                        Outcome::DoesNotApply => "does_not_apply",
                        Outcome::Failed(_) => "failed",
                    },
                    "error": match &t.outcome { Outcome::Failed(error) => Some(error), _ => None },
                    "but": t.but,
                    "missing": t.missing,
                })
            })
            .collect();
        out["trace"] = Value::Array(rules);
        out
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.verdict.decision(), self.verdict.message())?;
        writeln!(f, "rule    {}", self.verdict.rule())?;
        writeln!(f, "policy  {}", self.policy)?;
        if let Some(limits) = self.verdict.limits() {
            writeln!(f, "limits  {}", limits.to_json())?;
        }
        for t in &self.trace {
            let kind = if t.forbids { "forbid" } else { "permit" };
            let outcome = match &t.outcome {
                Outcome::Applies => "applies".to_owned(),
                Outcome::DoesNotApply => "does not apply".to_owned(),
                Outcome::Failed(error) => format!("FAILED: {error}"),
            };
            write!(f, "  {kind} {} ({}:{}) {outcome}", t.rule, t.file, t.line)?;
            if let Some(but) = &t.but {
                write!(f, ", but {but}")?;
            }
            if !t.missing.is_empty() {
                write!(f, " [not known: {}]", t.missing.join(", "))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
