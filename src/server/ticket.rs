//! Asks the ticket system whether a ticket exists, is open, belongs to the actor and is about the target.
//!
//! One POST of `{"ticket", "actor": {"sub", "iss"?}, "user_id", "request_id"}` to the configured address; the
//! answer is `{"exists": bool, "open": bool, "assigned_to_actor": bool, "about_user": bool}`, every member
//! required. A permit asks for it by `@ticket_lookup("true")` (docs/policy.md).

use serde::Deserialize;
use serde_json::json;

use super::config::{Secret, TicketConfig};
use super::outbound::{Call, Outbound, OutboundError};
use crate::token::json::parse_strict;
use crate::token::{Act, RequestId, Sub};

/// How deep an answer may nest.
const MAX_DEPTH: usize = 4;

/// What the ticket system says of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "four answers to four questions, as they travel")]
pub struct TicketFacts {
    /// There is such a ticket.
    pub exists: bool,
    /// It is open.
    pub open: bool,
    /// It is the actor's.
    pub assigned_to_actor: bool,
    /// It is about the target user.
    pub about_user: bool,
}

impl TicketFacts {
    /// What is wrong with it, in words an agent understands; `None`: nothing.
    #[must_use]
    pub const fn objection(self) -> Option<(&'static str, &'static str)> {
        if !self.exists {
            Some(("ticket_unknown", "The ticket system knows no such ticket."))
        } else if !self.open {
            Some(("ticket_closed", "The ticket is closed."))
        } else if !self.assigned_to_actor {
            Some(("ticket_of_another", "The ticket is assigned to somebody else."))
        } else if !self.about_user {
            Some(("ticket_about_another", "The ticket is about another user."))
        } else {
            None
        }
    }
}

/// Why the ticket system could not say.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// It could not be called.
    #[error("the ticket system could not be asked")]
    Unreachable(#[source] OutboundError),
    /// It did not answer with 200.
    #[error("the ticket system answered with status {0}")]
    Status(u16),
    /// Its answer is not the documented one.
    #[error("the ticket system's answer is not the documented one")]
    Malformed,
}

/// The configured ticket system.
pub struct TicketSystem {
    url: String,
    token: Option<Secret>,
    outbound: Outbound,
}

impl TicketSystem {
    /// The ticket system at the configured address.
    #[must_use]
    pub fn new(config: &TicketConfig, outbound: Outbound) -> Self {
        Self { url: config.url.clone(), token: config.token.clone(), outbound }
    }

    /// Asks about one ticket. Values travel in the body, never in the address.
    ///
    /// # Errors
    /// It could not say: nothing may be granted then.
    pub async fn look_up(
        &self,
        ticket: &str,
        actor: &Act,
        target: &Sub,
        request: &RequestId,
    ) -> Result<TicketFacts, TicketError> {
        let mut person = json!({ "sub": actor.sub });
        if let Some(iss) = &actor.iss {
            person["iss"] = json!(iss);
        }
        let body = json!({ "ticket": ticket, "actor": person, "user_id": target, "request_id": request });
        let url = self.outbound.destination(&self.url).map_err(TicketError::Unreachable)?;
        let mut call =
            Call::post(url, "application/json", body.to_string().into_bytes()).accept("application/json");
        if let Some(token) = &self.token {
            call = call.bearer(token.expose()).map_err(TicketError::Unreachable)?;
        }
        let answer = self.outbound.send(call).await.map_err(TicketError::Unreachable)?;
        if answer.status != 200 {
            return Err(TicketError::Status(answer.status));
        }
        let value = parse_strict(&answer.body, MAX_DEPTH).map_err(|_| TicketError::Malformed)?;
        serde_json::from_value(value).map_err(|_| TicketError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_objection_is_named() {
        let good = TicketFacts { exists: true, open: true, assigned_to_actor: true, about_user: true };
        assert_eq!(good.objection(), None);
        for (facts, rule) in [
            (TicketFacts { exists: false, open: false, ..good }, "ticket_unknown"),
            (TicketFacts { open: false, ..good }, "ticket_closed"),
            (TicketFacts { assigned_to_actor: false, ..good }, "ticket_of_another"),
            (TicketFacts { about_user: false, ..good }, "ticket_about_another"),
        ] {
            assert_eq!(facts.objection().map(|(rule, _)| rule), Some(rule));
        }
    }

    #[test]
    fn an_answer_that_leaves_something_out_is_no_answer() {
        for bad in [
            r#"{"exists":true}"#,
            r#"{"exists":1,"open":true,"assigned_to_actor":true,"about_user":true}"#,
            "[]",
        ] {
            assert!(serde_json::from_str::<TicketFacts>(bad).is_err(), "{bad}");
        }
    }
}
