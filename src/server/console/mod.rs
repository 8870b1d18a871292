//! The pages for people: who is signed in, what the policy lets him see, and how it is shown.
//!
//! The handlers stand in `http::console`; here is what they call and what they show.

pub mod draft;
pub mod figures;
pub mod seal;
pub mod session;
pub mod sign_in;
pub mod view;

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::server::clients::{Client, ClientScope};
use crate::server::policy::{Action, ClientFacts, Person, Policy, Question, TargetFacts, Verdict};
use crate::token::{ClientId, Issuer, Sub};
use draft::UsedDrafts;
use seal::Seals;
use session::{EndedSessions, Session};
use sign_in::RelyingParty;

/// The client that questions about the console's own pages name, and the "person" they are about.
const CONSOLE: (&str, &str) = ("client_console", "console");

/// How people sign in.
pub enum SignIn {
    /// `dev`: a page of our own on which anybody picks a person of the directory. `serve` never has it.
    Local {
        /// Who vouches for such people: nobody's issuer but this demo's.
        iss: Issuer,
    },
    /// At the company's identity provider.
    Issuer(Box<RelyingParty>),
}

/// The console of one process.
pub struct Console {
    /// How people sign in.
    pub sign_in: SignIn,
    /// What seals cookies.
    pub seals: Seals,
    /// Drafts whose code was made already.
    pub used_drafts: UsedDrafts,
    /// Whom a copy of his cookie lets in no more.
    pub ended: EndedSessions,
    /// Where the console is served: scheme, host and port of our issuer.
    pub origin: String,
}

/// What a person may see and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct May {
    /// The support pages.
    pub support: bool,
    /// The log.
    pub audit: bool,
    /// Live grants of all, revocations, the red button.
    pub revoke: bool,
}

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// His session.
    pub session: Session,
    /// What the directory says of him.
    pub person: Option<Person>,
    /// What he may.
    pub may: May,
}

impl Viewer {
    /// What to call him.
    #[must_use]
    pub fn name(&self) -> &str {
        self.person.as_ref().and_then(|p| p.display_name.as_deref()).unwrap_or(self.session.sub.as_str())
    }
}

/// Asks the policy what the owner of `session` may see. Asked at every page: a rule that changed, a role that
/// was taken away and an account that was deactivated count from the next click on.
#[must_use]
pub fn permissions(
    policy: &Policy,
    session: &Session,
    person: Option<&Person>,
    address: Option<IpAddr>,
    now: DateTime<Utc>,
) -> May {
    let may = |action| {
        let Some(question) = question(action, session, person, address, now) else { return false };
        matches!(policy.decide(&question), Verdict::Granted { .. })
    };
    May {
        support: may(Action::ConsoleSupport),
        audit: may(Action::ConsoleAudit),
        revoke: may(Action::ConsoleRevoke),
    }
}

fn question(
    action: Action,
    session: &Session,
    person: Option<&Person>,
    address: Option<IpAddr>,
    now: DateTime<Utc>,
) -> Option<Question> {
    let mut actor = session.facts();
    actor.person = person.cloned();
    Some(Question {
        action,
        issuer: actor.act.iss.clone(),
        actor,
        target: TargetFacts { id: Sub::try_from(CONSOLE.1).ok()?, person: None },
        client: ClientFacts {
            id: ClientId::try_from(CONSOLE.0).ok()?,
            name: CONSOLE.1.to_owned(),
            may_assert: false,
            clerk: false,
        },
        reason: None,
        ticket: None,
        lifetime_seconds: None,
        scope: None,
        audience: Vec::new(),
        by_code: false,
        now,
        address,
        targets_last_hour: 0,
    })
}

/// The products that an impersonation can be opened in: clients that mint and say where a code is taken.
#[must_use]
pub fn products(clients: &[Arc<Client>]) -> Vec<Arc<Client>> {
    let opens = |c: &&Arc<Client>| c.is_active() && c.handoff_url.is_some() && c.may(ClientScope::Issue);
    let mut out: Vec<_> = clients.iter().filter(opens).cloned().collect();
    out.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(policy: &Policy, role: &str) -> May {
        let now = DateTime::from_timestamp(50, 0).unwrap();
        let session = Session { roles: vec![role.into()], ..session::test_session(100) };
        permissions(policy, &session, None, None, now)
    }

    #[test]
    fn the_policy_says_who_sees_which_page() {
        let policy = Policy::shipped_default();
        let nothing = May::default();
        assert_eq!(may(&policy, "support"), May { support: true, ..nothing });
        assert_eq!(may(&policy, "auditor"), May { audit: true, ..nothing });
        assert_eq!(may(&policy, "security"), May { audit: true, revoke: true, ..nothing });
        assert_eq!(may(&policy, "admin"), May { support: true, revoke: true, ..nothing });
        assert_eq!(may(&policy, "customer"), nothing);
    }

    #[test]
    fn a_deactivated_person_sees_nothing_from_the_next_page_on() {
        let now = DateTime::from_timestamp(50, 0).unwrap();
        let session = session::test_session(100);
        let person = |active| Person { id: Some(session.sub.clone()), active, ..Person::default() };
        let policy = Policy::shipped_default();
        assert!(permissions(&policy, &session, Some(&person(true)), None, now).support);
        assert_eq!(permissions(&policy, &session, Some(&person(false)), None, now), May::default());
    }
}
