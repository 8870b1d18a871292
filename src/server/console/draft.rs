//! A start on its way through the product: what was asked for, until the product names its challenge.
//!
//! Nothing is minted for a draft. It waits in a sealed cookie of the console's own host; the product sees its
//! id only, and the browser that began must be the one that comes back (contract.md §8).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::seal::{Seals, TooLong};
use crate::server::master_key::Purpose;
use crate::token::{ClientId, GrantId, Scope, Sub};

/// The cookie that holds the draft.
pub const COOKIE: &str = "__Host-stagedoor-draft";
/// How long a product may take to come back, seconds.
pub const DRAFT_SECONDS: i64 = 600;
/// The most drafts remembered as used; over that none is accepted until some have ended.
const MAX_USED: usize = 100_000;

const DRAFT: Purpose = Purpose::new("console-draft.v1");

/// What an agent asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// Its id: all that the product sees.
    pub id: String,
    /// The console session it belongs to.
    pub session: String,
    /// The product.
    pub client: ClientId,
    /// The target user.
    pub user: Sub,
    /// Why.
    pub reason: String,
    /// The ticket.
    pub ticket: Option<String>,
    /// How long, seconds.
    pub seconds: u32,
    /// To do what; `None`: what the policy grants.
    pub scope: Option<Scope>,
    /// The request that a colleague approved.
    pub approval: Option<GrantId>,
    /// When it ends.
    pub exp: DateTime<Utc>,
}

impl Draft {
    /// When a draft that begins now ends.
    #[must_use]
    pub fn ends(now: DateTime<Utc>) -> DateTime<Utc> {
        now + TimeDelta::seconds(DRAFT_SECONDS)
    }

    /// Its cookie's value.
    ///
    /// # Errors
    /// The reason is too long for a cookie.
    pub fn seal(&self, seals: &Seals) -> Result<String, TooLong> {
        seals.seal(DRAFT, self)
    }

    /// The draft `id` of `session` in a cookie's value, if it has not ended.
    #[must_use]
    pub fn open(text: &str, id: &str, session: &str, seals: &Seals, now: DateTime<Utc>) -> Option<Self> {
        seals.open::<Self>(DRAFT, text).filter(|d| now < d.exp && d.id == id && d.session == session)
    }
}

/// Drafts whose code was made: a second return makes no second code. Per process; the cookie is cleared as well.
#[derive(Debug, Default)]
pub struct UsedDrafts(Mutex<HashMap<String, DateTime<Utc>>>);

impl UsedDrafts {
    /// Whether `draft` is used for the first time.
    #[must_use]
    pub fn first_use(&self, draft: &Draft, now: DateTime<Utc>) -> bool {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MAX_USED {
            used.retain(|_, exp| *exp > now);
        }
        used.len() < MAX_USED && used.insert(draft.id.clone(), draft.exp).is_none()
    }
}

/// Where the browser goes to begin at the product: its handoff address, without fragment, with the draft.
#[must_use]
pub fn start_url(handoff_url: &str, draft: &str) -> String {
    let address = handoff_url.split('#').next().unwrap_or(handoff_url);
    let joint = if address.contains('?') { '&' } else { '?' };
    format!("{address}{joint}draft={draft}")
}

/// How the code gets to the product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// By a form's POST to this address.
    Post(String),
    /// By going to this address: the code stands in its fragment.
    Go(String),
}

/// How `code` gets to the product that takes codes at `handoff_url`.
#[must_use]
pub fn delivery(handoff_url: &str, code: &str) -> Delivery {
    match handoff_url.split_once('#') {
        Some((_, fragment)) if fragment.contains("{code}") => {
            Delivery::Go(handoff_url.replace("{code}", code))
        }
        _ => Delivery::Post(handoff_url.split('#').next().unwrap_or(handoff_url).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::console::seal::test_seals;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn draft() -> Draft {
        Draft {
            id: "d1".into(),
            session: "s1".into(),
            client: "client_1".parse().unwrap(),
            user: "user_42".parse().unwrap(),
            reason: "Ticket 4711: <b>\u{202e}".into(),
            ticket: None,
            seconds: 600,
            scope: None,
            approval: None,
            exp: at(100),
        }
    }

    #[test]
    fn a_draft_fits_its_own_session_and_id_only() {
        let (seals, draft) = (test_seals(), draft());
        let cookie = draft.seal(&seals).unwrap();
        assert_eq!(Draft::open(&cookie, "d1", "s1", &seals, at(99)), Some(draft));
        for (id, session, now) in [("d2", "s1", 99), ("d1", "s2", 99), ("d1", "s1", 100)] {
            assert_eq!(Draft::open(&cookie, id, session, &seals, at(now)), None, "{id} {session} {now}");
        }
    }

    #[test]
    fn a_draft_is_used_once() {
        let used = UsedDrafts::default();
        assert!(used.first_use(&draft(), at(1)));
        assert!(!used.first_use(&draft(), at(2)));
    }

    #[test]
    fn the_longest_reason_of_the_form_fits_the_cookie() {
        let longest = Draft { reason: "😀".repeat(super::super::view::support::MAX_REASON), ..draft() };
        assert!(longest.seal(&test_seals()).is_ok());
    }

    #[test]
    fn a_code_travels_by_post_or_in_the_fragment_never_in_a_query() {
        assert_eq!(
            start_url("https://as.example/take#code={code}", "d1"),
            "https://as.example/take?draft=d1"
        );
        assert_eq!(start_url("https://as.example/take?x=1", "d1"), "https://as.example/take?x=1&draft=d1");
        assert_eq!(
            delivery("https://as.example/take", "C"),
            Delivery::Post("https://as.example/take".into())
        );
        assert_eq!(
            delivery("https://as.example/take#code={code}", "C"),
            Delivery::Go("https://as.example/take#code=C".into())
        );
    }
}
