//! From a decision to a recorded grant: claims, signature, conditions, effects, release.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

use super::once::RequestKey;
use super::secrets::HandoffSecrets;
use super::{Caller, Decided, Denial, IssueDesk, IssueError, Minted};
use crate::server::clients::{Client, Profile};
use crate::server::log::{
    ApprovalRow, ApprovalState, Beginning, Condition, Effect, Event, GrantRow, LogError, RedeemRow,
    UnreleasedToken,
};
use crate::token::{ActorClaims, GrantId, Issuer, Jti, Signer};

/// How often an attempt waits for the second after a cut-off before it gives up.
const MAX_WAITS: u32 = 4;
/// The longest such wait: a cut-off lies at most a second ahead, and clocks differ.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// The shortest: keys are being replaced.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// What shapes a token.
pub(super) struct Mold {
    pub signer: Arc<dyn Signer>,
    pub typ: &'static str,
    pub iss: Issuer,
    pub azp: Option<String>,
}

/// A grant that is decided, with what it depends on and what it changes.
pub(super) struct Prepared {
    pub claims: ActorClaims,
    pub grant: GrantRow,
    pub conditions: Vec<Condition>,
    pub effects: Vec<Effect>,
}

impl Decided {
    /// When the grant last changed, once it is recorded: a new one when it was asked for, one that a colleague approved
    /// when it was `recorded` that the asker came for it.
    pub(super) fn updated_at(&self, created_at: DateTime<Utc>, recorded: DateTime<Utc>) -> DateTime<Utc> {
        if self.request.is_some() { recorded } else { created_at }
    }
}

impl IssueDesk {
    /// What shapes a client's tokens: key, type and issuer (contract.md §6).
    pub(super) fn mold(&self, client: &Client) -> Result<Mold, IssueError> {
        match client.profile {
            Profile::Standard => Ok(Mold {
                signer: self.keyring.token_signer().map_err(IssueError::NoKey)?,
                typ: "at+jwt",
                iss: self.issuer.clone(),
                azp: None,
            }),
            Profile::Clerk => Ok(Mold {
                signer: self.keyring.clerk_signer(&client.id).ok_or(IssueError::NoClerkKey)?,
                typ: "JWT",
                iss: self.clerk_issuer(client),
                azp: client.origins.first().cloned(),
            }),
        }
    }

    /// The issuer of one client's tokens in profile `clerk`: nobody else's key speaks for it.
    pub fn clerk_issuer(&self, client: &Client) -> Issuer {
        let text = format!("{}/clerk/{}", self.issuer, client.id);
        Issuer::try_from(text).unwrap_or_else(|_| self.issuer.clone())
    }

    /// Signs and records; a cut-off that covers this second is waited for, so that no `iat` lies in the future.
    pub(super) async fn sign_and_release(
        &self,
        caller: &Caller<'_>,
        decided: &Decided,
        event: Event,
        now: DateTime<Utc>,
        key: Option<&RequestKey>,
    ) -> Result<Result<Minted, Denial>, IssueError> {
        let (mut at, mut waits) = (now, 0);
        loop {
            let Mold { signer, typ, iss, azp } = self.mold(caller.client)?;
            let signed_by = Some(&*signer);
            let Prepared { claims, grant, conditions, mut effects } =
                self.prepare(caller, decided, at, (iss, azp), signed_by, key);
            effects.extend(self.facts_kept(&grant, decided.facts.as_deref()));
            let token = UnreleasedToken::sign(&*signer, typ, claims).map_err(IssueError::Sign)?;
            match self.log.release(token, event.clone(), conditions, effects).await {
                Ok(Ok(token)) => {
                    self.watch.saw(&token.claims().act, &token.claims().sub);
                    let created_at = grant.created_at;
                    let updated_at = decided.updated_at(created_at, token.audit().time);
                    return Ok(Ok(Minted { token, created_at, updated_at, accepted: false }));
                }
                Ok(Err(recorded)) => return Ok(Err(Denial::condition(recorded.rule()))),
                Err(LogError::NotYet { after }) => at = self.pass(after, &mut waits).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the second `after` is over, and looks for another key in case the one used is refused; the time then.
    /// `waits` counts them.
    ///
    /// # Errors
    /// [`LogError::NotYet`] after [`MAX_WAITS`].
    pub(super) async fn pass(
        &self,
        after: DateTime<Utc>,
        waits: &mut u32,
    ) -> Result<DateTime<Utc>, LogError> {
        if *waits == MAX_WAITS {
            return Err(LogError::NotYet { after });
        }
        *waits += 1;
        let wait = (after + TimeDelta::seconds(1) - self.clock.now()).to_std().unwrap_or_default();
        tokio::time::sleep(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT)).await;
        if let Err(error) = self.keyring.refresh(self.log.db()).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the keys could not be read again");
        }
        Ok(self.clock.now())
    }

    /// Everything about a grant minted at `at`; without a signer it waits for its code to be used.
    pub(super) fn prepare(
        &self,
        caller: &Caller<'_>,
        decided: &Decided,
        at: DateTime<Utc>,
        (iss, azp): (Issuer, Option<String>),
        signer: Option<&dyn Signer>,
        key: Option<&RequestKey>,
    ) -> Prepared {
        let Decided { act, assurance, target, limits, request, .. } = decided;
        let iat = at.duration_trunc(TimeDelta::seconds(1)).unwrap_or(at);
        let own_end = iat + TimeDelta::seconds(i64::from(limits.lifetime_seconds));
        let claims = ActorClaims {
            iss,
            sub: target.id.clone(),
            aud: limits.audience.clone(),
            exp: target.parent.as_ref().map_or(own_end, |parent| own_end.min(parent.exp)),
            iat,
            nbf: iat,
            jti: request
                .as_ref()
                .map_or_else(|| Jti::generate(at, &*self.entropy), |request| request.jti.clone()),
            client_id: caller.client.id.clone(),
            scope: limits.scope.clone(),
            sid: request
                .as_ref()
                .map_or_else(|| GrantId::generate(at, &*self.entropy), |request| request.id.clone()),
            actor_assurance: *assurance,
            azp,
            break_glass: limits.break_glass,
            act: act.clone(),
        };
        let parent = target.parent.as_ref().map(|parent| parent.grant.clone());
        let kid = signer.map(|signer| signer.kid().clone());
        let grant = GrantRow {
            id: claims.sid.clone(),
            jti: claims.jti.clone(),
            client: claims.client_id.clone(),
            // a grant by code is signed later; until then it stands under no key that could be refused
            kid: kid.clone().unwrap_or_else(HandoffSecrets::unsigned_kid),
            aud: claims.aud.clone(),
            scope: claims.scope.clone(),
            assurance: claims.actor_assurance,
            iat: claims.iat,
            exp: claims.exp,
            created_at: request.as_ref().map_or(at, |request| request.created_at),
            parent: parent.clone(),
        };
        let people = self.people.of_grant(&claims.client_id, &claims.act, &claims.sub);
        let mut conditions = vec![
            Condition::ClientActive(claims.client_id.clone()),
            Condition::NotHeld(Box::new(Beginning { client: claims.client_id.clone(), kid, iat, people })),
        ];
        conditions.extend(parent.map(Condition::GrantLive));
        conditions.extend(limits.max_targets_per_hour.map(|max| Condition::TargetsBelow {
            actor: claims.act.clone(),
            subject: claims.sub.clone(),
            max,
        }));
        let mut effects = Vec::with_capacity(3);
        if request.is_some() {
            // it is there since it was asked for, chain and all
            conditions
                .extend([Condition::GrantLive(grant.id.clone()), Condition::Approved(grant.id.clone())]);
            effects.push(Effect::Release(RedeemRow {
                grant: grant.id.clone(),
                kid: grant.kid.clone(),
                scope: grant.scope.clone(),
                iat: grant.iat,
                exp: grant.exp,
            }));
        } else {
            effects.push(Effect::InsertGrant(grant.clone()));
            let earlier = self.people.earlier(&claims.act);
            if !earlier.is_empty() {
                effects.push(Effect::InsertChain {
                    grant: grant.id.clone(),
                    exp: grant.exp,
                    people: earlier,
                });
            }
        }
        if limits.break_glass {
            effects.push(Effect::InsertApproval(ApprovalRow {
                grant: grant.id.clone(),
                state: ApprovalState::Waived,
                lapses_at: grant.exp,
                lifetime_seconds: limits.lifetime_seconds,
                asker: None,
            }));
        }
        if let Some(key) = key {
            conditions.push(key.free());
            effects.push(key.taken(&grant));
        }
        Prepared { claims, grant, conditions, effects }
    }
}
