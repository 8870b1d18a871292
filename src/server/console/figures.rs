//! Counts over the log for the auditor's chart: attempts, grants and denials over time, by actor, by rule.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::server::log::LogEntry;

/// How many columns the chart has.
pub const COLUMNS: usize = 24;
/// How many actors and rules are named.
const TOP: usize = 10;

/// Attempts of one kind or span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Granted.
    pub granted: u32,
    /// Denied.
    pub denied: u32,
    /// Waiting for a second person.
    pub pending: u32,
}

impl Count {
    /// All attempts.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.granted + self.denied + self.pending
    }

    fn add(&mut self, decision: Option<&str>) {
        match decision {
            Some("granted") => self.granted += 1,
            Some("denied") => self.denied += 1,
            Some("pending") => self.pending += 1,
            _ => {}
        }
    }
}

/// What the chart shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// When the first column begins.
    pub since: DateTime<Utc>,
    /// How long a column is.
    pub step: TimeDelta,
    /// The columns.
    pub columns: Vec<Count>,
    /// Everything.
    pub total: Count,
    /// The actors with the most attempts, by (`iss`, `sub`); nobody where the log shows no people.
    pub actors: Vec<(String, Count)>,
    /// The rules that decided most often.
    pub rules: Vec<(String, Count)>,
    /// Whether older attempts were left out because there are too many.
    pub cut: bool,
}

/// Counts `entries`, attempts between `since` and `until`.
#[must_use]
pub fn figures(entries: &[LogEntry], since: DateTime<Utc>, until: DateTime<Utc>, cut: bool) -> Figures {
    let span = (until - since).num_milliseconds().max(1);
    let columns_wide = i64::try_from(COLUMNS).unwrap_or(1);
    let mut columns = vec![Count::default(); COLUMNS];
    let (mut total, mut actors, mut rules) = (Count::default(), HashMap::new(), HashMap::new());
    for entry in entries {
        let said = |name: &str| entry.body.as_ref().and_then(|body| body.get(name)).and_then(|v| v.as_str());
        let decision = said("decision");
        let place = (entry.time - since).num_milliseconds().clamp(0, span - 1) * columns_wide / span;
        if let Some(column) = usize::try_from(place).ok().and_then(|place| columns.get_mut(place)) {
            column.add(decision);
        }
        total.add(decision);
        if let Some(rule) = said("rule") {
            rules.entry(rule.to_owned()).or_insert_with(Count::default).add(decision);
        }
        let actor = entry.personal.as_ref().and_then(|p| p.get("act"));
        if let Some(sub) = actor.and_then(|act| act.get("sub")).and_then(|sub| sub.as_str()) {
            actors.entry(sub.to_owned()).or_insert_with(Count::default).add(decision);
        }
    }
    Figures {
        since,
        step: TimeDelta::milliseconds(span / columns_wide),
        columns,
        total,
        actors: top(actors),
        rules: top(rules),
        cut,
    }
}

fn top(counts: HashMap<String, Count>) -> Vec<(String, Count)> {
    let mut all: Vec<_> = counts.into_iter().collect();
    all.sort_by(|a, b| b.1.attempts().cmp(&a.1.attempts()).then_with(|| a.0.cmp(&b.0)));
    all.truncate(TOP);
    all
}
