//! The table of requests: what is sent, why, and what a service that reads tokens rightly answers. Pure.
//!
//! Every hostile token is a good one bent in one place, so that only the bend can be the reason of a refusal.

mod actor;
mod algorithm;
mod claims;
mod form;
mod good;
mod header;
mod kid;
mod request;
mod revoked;
mod signature;
mod time;

use serde::Serialize;

use super::forge::Subject;

/// What a right answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// 2xx.
    Accept,
    /// 401, or 400 where a service calls the request malformed.
    Refuse,
    /// 403: a good token of somebody whom the route does not admit.
    Forbid,
    /// 400, 401 or 403: the token says that somebody acts, and says it wrongly.
    RefuseOrForbid,
    /// Any 4xx, or a closed connection: too much to be read at all.
    RefuseUnread,
    /// Both ways are right; shown, not counted.
    Either,
}

/// How grave a wrong answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A hole, or a good token refused.
    Must,
    /// Laxity without a known attack: stock libraries differ here. Counts only when asked for (`--strict`);
    /// Stagedoor's own doors keep all of these.
    Should,
}

/// How the token is presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// `Authorization: Bearer <token>`.
    Bearer(String),
    /// Anything else.
    Request(Request),
}

/// A request that is not simply a bearer token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Every `Authorization` header, whole.
    pub authorization: Vec<String>,
    /// Other headers.
    pub headers: Vec<(&'static str, String)>,
    /// Added to the target's query.
    pub query: Option<(&'static str, String)>,
}

/// One request of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What it is about.
    pub group: &'static str,
    /// Its name: never changes its meaning.
    pub id: String,
    /// What it shows, in one line.
    pub why: String,
    /// The right answer.
    pub expect: Expect,
    /// How grave a wrong one is.
    pub level: Level,
    /// What is sent.
    pub presented: Presented,
}

impl Case {
    /// The token, where the case is one alone: for doors that take it otherwise than in a header.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        match &self.presented {
            Presented::Bearer(token) => Some(token),
            Presented::Request(_) => None,
        }
    }

    /// Whether HTTP carries the case as it is: control characters it refuses, white space at the end it
    /// takes away (so that another token would arrive).
    #[must_use]
    pub fn fits_http(&self) -> bool {
        match &self.presented {
            Presented::Bearer(token) => {
                !token.is_empty() && token.trim() == token && !token.chars().any(|c| c.is_ascii_control())
            }
            Presented::Request(_) => true,
        }
    }
}

/// Collects the cases of one group.
pub(super) struct Sheet {
    group: &'static str,
    cases: Vec<Case>,
}

impl Sheet {
    fn new(group: &'static str) -> Self {
        Self { group, cases: Vec::new() }
    }

    fn put(&mut self, expect: Expect, level: Level, id: &str, why: &str, presented: Presented) {
        let id = format!("{}-{id}", self.group);
        self.cases.push(Case { group: self.group, id, why: why.to_owned(), expect, level, presented });
    }

    /// A token that everybody must refuse.
    fn must(&mut self, id: &str, why: &str, token: String) {
        self.put(Expect::Refuse, Level::Must, id, why, Presented::Bearer(token));
    }

    /// A token that a strict reader refuses.
    fn should(&mut self, id: &str, why: &str, token: String) {
        self.put(Expect::Refuse, Level::Should, id, why, Presented::Bearer(token));
    }

    fn bearer(&mut self, expect: Expect, level: Level, id: &str, why: &str, token: String) {
        self.put(expect, level, id, why, Presented::Bearer(token));
    }

    fn request(&mut self, expect: Expect, level: Level, id: &str, why: &str, request: Request) {
        self.put(expect, level, id, why, Presented::Request(request));
    }

    fn done(self) -> Vec<Case> {
        self.cases
    }
}

/// Requests that must work: without them a refusal says nothing. The first is the token that is bent.
///
/// # Panics
/// When the crypto library fails to sign.
#[must_use]
pub fn good_set(subject: &Subject) -> Vec<Case> {
    good::cases(subject)
}

/// Requests that must not work.
///
/// # Panics
/// When the crypto library fails to sign.
#[must_use]
pub fn hostile_set(subject: &Subject) -> Vec<Case> {
    [
        algorithm::cases,
        kid::cases,
        header::cases,
        claims::cases,
        time::cases,
        actor::cases,
        form::cases,
        signature::cases,
        request::cases,
        revoked::cases,
    ]
    .iter()
    .flat_map(|cases| cases(subject))
    .collect()
}
