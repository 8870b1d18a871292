//! Idempotency keys (IK-1 to IK-3): a request that is sent again is given the same claims again, signed anew;
//! no token is ever stored.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use super::sign::Mold;
use super::{Caller, Decided, Denial, IssueDesk, IssueError, Minted};
use crate::server::clients::Client;
use crate::server::log::{
    Condition, Effect, Event, Grant, GrantRow, GrantStatus, KeyRow, LogError, Tag, UnreleasedToken,
};
use crate::token::{Act, ActorClaims, GrantId, Sub};

/// An idempotency key and the body it came with, neither of which can be read from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// [`super::HandoffSecrets::request_key`].
    pub key: Tag,
    /// [`super::HandoffSecrets::request_body`].
    pub body: Tag,
}

impl RequestKey {
    pub(super) fn free(&self) -> Condition {
        Condition::KeyFree(self.key.clone())
    }

    pub(super) fn taken(&self, grant: &GrantRow) -> Effect {
        self.taken_until(grant, grant.exp)
    }

    pub(super) fn taken_until(&self, grant: &GrantRow, exp: DateTime<Utc>) -> Effect {
        Effect::InsertKey(KeyRow {
            key: self.key.clone(),
            body: self.body.clone(),
            grant: grant.id.clone(),
            exp,
        })
    }
}

/// Keys that are being worked on in this process. Other replicas meet under the log's lock.
#[derive(Debug, Default, Clone)]
pub struct InFlight(Arc<Mutex<HashSet<Tag>>>);

/// A key that is being worked on, until this is dropped.
pub(super) struct Working(InFlight, Option<Tag>);

impl InFlight {
    fn begin(&self, key: Option<&RequestKey>) -> Option<Working> {
        let Some(RequestKey { key, .. }) = key else { return Some(Working(self.clone(), None)) };
        let first = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        first.then(|| Working(self.clone(), Some(key.clone())))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(key) = &self.1 {
            (self.0).0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        }
    }
}

/// How a request with a key goes on.
pub(super) enum Begun {
    /// As any other.
    First(Working),
    /// It was answered before, with this grant.
    Again(GrantId),
    /// Not at all.
    Refused(Denial),
}

impl IssueDesk {
    /// Looks whether the log has time for it, before any work is put into it, and whether it was made before.
    pub(super) async fn begin(
        &self,
        client: &Client,
        key: Option<&RequestKey>,
        now: DateTime<Utc>,
    ) -> Result<Begun, IssueError> {
        self.log.has_time_for(&client.id)?;
        let Some(working) = self.in_flight.begin(key) else { return Ok(Begun::Refused(Denial::in_flight())) };
        let Some(key) = key else { return Ok(Begun::First(working)) };
        Ok(match self.log.answered_under(&key.key, now).await? {
            None => Begun::First(working),
            Some(stored) if stored.body_tag != *key.body.0 => Begun::Refused(Denial::key_reused()),
            Some(stored) => match GrantId::try_from(stored.grant_id) {
                Ok(grant) => Begun::Again(grant),
                Err(_) => Begun::Refused(Denial::grant_ended()),
            },
        })
    }

    /// Gives the token of a mint again, once everything was checked as for a new one.
    pub(super) async fn mint_again(
        &self,
        caller: &Caller<'_>,
        decided: Result<Decided, Denial>,
        event: Event,
        grant: &GrantId,
    ) -> Result<Result<Minted, Denial>, IssueError> {
        match decided {
            Ok(decided) if decided.waits() => {
                self.refuse(event, Denial::grant_ended_by(&Denial::nobody_asked())).await
            }
            Ok(decided) => {
                let people = Some((&decided.act, &decided.target.id));
                self.release_again(caller.client, people, event, grant).await
            }
            // whatever refuses it now, the client must not take it for the answer to a new request
            Err(denial) => self.refuse(event, Denial::grant_ended_by(&denial)).await,
        }
    }

    /// Signs the claims of a live grant anew and releases them, if they are what the log says.
    pub(super) async fn release_again(
        &self,
        minter: &Client,
        people: Option<(&Act, &Sub)>,
        mut event: Event,
        id: &GrantId,
    ) -> Result<Result<Minted, Denial>, IssueError> {
        event.grant = Some(id.clone());
        let Some(grant) = self.live_grant(id).await? else {
            return self.refuse(event, Denial::grant_ended()).await;
        };
        // which grant a key or a code stands for is a row like others: it is not believed to be somebody else's
        let theirs = people.is_none_or(|(act, sub)| {
            grant.actor.as_ref() == Some(act) && grant.subject.as_ref() == Some(sub)
        });
        if grant.row.client != minter.id || !theirs {
            tracing::error!(grant = %id, "a request is answered with another's grant in the database: somebody changed it");
            return self.refuse(event, Denial::grant_ended()).await;
        }
        let Some(token) = self.sign_again(minter, &grant)? else {
            return self.refuse(event, Denial::grant_ended()).await;
        };
        match self.log.release_again(token).await? {
            Some(token) => {
                let (created_at, updated_at) = (grant.row.created_at, grant.updated_at);
                let accepted = grant.status == GrantStatus::Accepted;
                Ok(Ok(Minted { token, created_at, updated_at, accepted }))
            }
            None => self.refuse(event, Denial::grant_ended()).await,
        }
    }

    /// The grant, if it is not over, as far as the database knows now.
    pub(super) async fn live_grant(&self, id: &GrantId) -> Result<Option<Grant>, IssueError> {
        self.revocations.refresh().await.map_err(LogError::from)?;
        let now = self.clock.now();
        let grant = self.log.grant(id).await?;
        Ok(grant.filter(|grant| self.stands(grant, now)))
    }

    /// Whether a grant is not over, by its row and by what covers it.
    pub(super) fn stands(&self, grant: &Grant, now: DateTime<Utc>) -> bool {
        grant.is_live(now) && !self.revocations.covers(&grant.row)
    }

    /// `None`: the key signs no more, or the people's ids were erased.
    fn sign_again(&self, minter: &Client, grant: &Grant) -> Result<Option<UnreleasedToken>, IssueError> {
        let Some(signer) = self.keyring.signer_named(&grant.row.kid) else { return Ok(None) };
        let Mold { typ, iss, azp, .. } = self.mold(minter)?;
        let (Some(sub), Some(act)) = (grant.subject.clone(), grant.actor.clone()) else { return Ok(None) };
        let row = &grant.row;
        let claims = ActorClaims {
            iss,
            sub,
            aud: row.aud.clone(),
            exp: row.exp,
            iat: row.iat,
            nbf: row.iat,
            jti: row.jti.clone(),
            client_id: row.client.clone(),
            scope: row.scope.clone(),
            sid: row.id.clone(),
            actor_assurance: row.assurance,
            azp,
            break_glass: grant.is_break_glass(),
            act,
        };
        UnreleasedToken::sign(&*signer, typ, claims).map(Some).map_err(IssueError::Sign)
    }
}
