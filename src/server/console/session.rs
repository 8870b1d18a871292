//! A signed-in person's session: sealed in a cookie, short, kept nowhere else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::seal::{Seals, TooLong};
use crate::server::master_key::Purpose;
use crate::server::policy::ActorFacts;
use crate::token::{Act, Assurance, Issuer, Sub};

/// The cookie that holds a session.
pub const COOKIE: &str = "__Host-stagedoor-console";
/// How long a session lasts, seconds. It is not prolonged: signing in again is one click at the provider.
pub const SESSION_SECONDS: i64 = 3600;

const SESSION: Purpose = Purpose::new("console-session.v1");

/// Who signed in, as his issuer said then. What the directory says of him is asked anew at every page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The session's own id.
    pub id: String,
    /// Who vouches for him.
    pub iss: Issuer,
    /// Who he is.
    pub sub: Sub,
    /// Roles from his token.
    pub roles: Vec<String>,
    /// Groups from his token.
    pub groups: Vec<String>,
    /// Organisation from his token.
    pub org: Option<String>,
    /// How strongly he signed in.
    pub acr: Option<String>,
    /// By which methods.
    pub amr: Vec<String>,
    /// When he logged in.
    pub auth_time: Option<DateTime<Utc>>,
    /// Under which id the directory knows him.
    pub directory_id: Option<Sub>,
    /// When the session ends.
    pub exp: DateTime<Utc>,
}

impl Session {
    /// A session that begins now.
    #[must_use]
    pub fn begin(id: String, facts: ActorFacts, iss: Issuer, now: DateTime<Utc>) -> Self {
        Self {
            id,
            iss,
            sub: facts.act.sub,
            roles: facts.roles,
            groups: facts.groups,
            org: facts.org,
            acr: facts.acr,
            amr: facts.amr,
            auth_time: facts.auth_time,
            directory_id: facts.directory_id,
            exp: now + TimeDelta::seconds(SESSION_SECONDS),
        }
    }

    /// Its cookie's value.
    ///
    /// # Errors
    /// Too many roles and groups to fit a cookie.
    pub fn seal(&self, seals: &Seals) -> Result<String, TooLong> {
        seals.seal(SESSION, self)
    }

    /// The session in a cookie's value, if it has not ended.
    #[must_use]
    pub fn open(text: &str, seals: &Seals, now: DateTime<Utc>) -> Option<Self> {
        seals.open::<Self>(SESSION, text).filter(|session| now < session.exp)
    }

    /// The person as the policy looks at him; what the directory says is left to be filled in.
    #[must_use]
    pub fn facts(&self) -> ActorFacts {
        ActorFacts {
            act: self.act(),
            assurance: Assurance::Verified,
            roles: self.roles.clone(),
            groups: self.groups.clone(),
            org: self.org.clone(),
            acr: self.acr.clone(),
            amr: self.amr.clone(),
            auth_time: self.auth_time,
            directory_id: self.directory_id.clone(),
            person: None,
        }
    }

    /// The person as he stands in tokens and in the log.
    #[must_use]
    pub fn act(&self) -> Act {
        Act { sub: self.sub.clone(), iss: Some(self.iss.clone()), act: None }
    }
}

/// The most ended sessions remembered: as many people do not sign out within an hour.
const MAX_ENDED: usize = 100_000;

/// Sessions whose person signed out before they ended: a copy of the cookie opens nothing here. Per process.
#[derive(Debug, Default)]
pub struct EndedSessions(Mutex<HashMap<String, DateTime<Utc>>>);

impl EndedSessions {
    /// Ends a session.
    pub fn end(&self, session: &Session, now: DateTime<Utc>) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() >= MAX_ENDED {
            ended.retain(|_, exp| *exp > now);
        }
        if ended.len() < MAX_ENDED {
            ended.insert(session.id.clone(), session.exp);
        }
    }

    /// Whether it was ended.
    #[must_use]
    pub fn has(&self, session: &Session) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&session.id)
    }
}

#[cfg(test)]
pub(super) fn test_session(exp_seconds: i64) -> Session {
    Session {
        id: "s1".into(),
        iss: "https://idp.example".parse().unwrap(),
        sub: "agent_1".parse().unwrap(),
        roles: vec!["support".into()],
        groups: Vec::new(),
        org: Some("acme".into()),
        acr: None,
        amr: Vec::new(),
        auth_time: None,
        directory_id: Some("agent_1".parse().unwrap()),
        exp: DateTime::from_timestamp(exp_seconds, 0).unwrap(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::console::seal::test_seals;

    #[test]
    fn a_session_ends_on_time_and_cannot_be_written_by_anybody_else() {
        let (seals, session) = (test_seals(), test_session(100));
        let at = |s| DateTime::from_timestamp(s, 0).unwrap();
        let cookie = session.seal(&seals).unwrap();
        assert_eq!(Session::open(&cookie, &seals, at(99)), Some(session));
        assert_eq!(Session::open(&cookie, &seals, at(100)), None, "over");
        let mut forged = cookie.into_bytes();
        forged[40] ^= 1;
        assert_eq!(Session::open(&String::from_utf8(forged).unwrap(), &seals, at(99)), None);
    }

    #[test]
    fn who_signed_out_is_out_though_somebody_kept_the_cookie() {
        let (ended, session) = (EndedSessions::default(), test_session(100));
        assert!(!ended.has(&session));
        ended.end(&session, DateTime::from_timestamp(50, 0).unwrap());
        assert!(ended.has(&session));
        assert!(!ended.has(&Session { id: "s2".into(), ..session }));
    }
}
