//! Revocations by a person at the console: the policy let him, and the entry says who he is.

use std::net::IpAddr;

use super::{Ask, Refused, Revocation, RevokeError, Revoker, describe, detail};
use crate::server::log::{Decision, Event, EventType, LogError, Reserve};
use crate::token::{Act, GrantId, RequestId};

/// Who ends grants in person.
#[derive(Debug, Clone)]
pub struct ByPerson<'a> {
    /// Who.
    pub act: Act,
    /// The request.
    pub request: &'a RequestId,
    /// Where it came from.
    pub address: Option<IpAddr>,
}

impl ByPerson<'_> {
    fn event(&self, what: &'static str) -> Event {
        let mut event = Event {
            decision: Some(Decision::Granted),
            rule: Some("console".into()),
            req: Some(self.request.clone()),
            detail: Some(detail(what)),
            ..Event::new(EventType::Revoke)
        };
        event.personal.actor = Some(self.act.clone());
        event.personal.address = self.address;
        event
    }
}

impl Revoker {
    /// Ends one grant, and what was delegated from it; the entry. Whether the person may is the caller's to ask.
    ///
    /// # Errors
    /// [`LogError`]: it may still be valid.
    pub async fn revoke_grant_by_person(
        &self,
        by: ByPerson<'_>,
        id: &GrantId,
        reason: String,
    ) -> Result<Result<u64, Refused>, LogError> {
        let mut event = by.event("grant");
        event.grant = Some(id.clone());
        event.personal.reason = Some(reason);
        let Some(grant) = self.log.grant(id).await? else {
            return self.refuse(event, Refused::Unknown).await;
        };
        if !self.is_live(&grant) {
            return self.refuse(event, Refused::Over).await;
        }
        event.client = Some(grant.row.client.clone());
        event.personal.subject.clone_from(&grant.subject);
        let recorded = self.end_grant(event, id, Reserve::Open).await?;
        Ok(if recorded.failed.is_some() { Err(Refused::Over) } else { Ok(recorded.index) })
    }

    /// Ends everything that `ask` names, whoever's it is. Whether the person may is the caller's to ask.
    ///
    /// # Errors
    /// [`RevokeError`]: to be asked again.
    pub async fn revoke_by_person(
        &self,
        by: ByPerson<'_>,
        ask: Ask,
    ) -> Result<Result<Revocation, Refused>, RevokeError> {
        let id = self.new_id();
        let mut event = by.event(ask.target.word());
        describe(&mut event, &id, &ask);
        Ok(match self.carry_out(event, ask, None).await? {
            Ok((index, matched)) => Ok(Revocation { id, matched, index }),
            Err(refused) => Err(refused),
        })
    }
}
