//! A handoff code becomes a token, once, for the product it is meant for.

use aws_lc_rs::constant_time;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use zeroize::Zeroizing;

use super::again::Facts;
use super::approval::within;
use super::once::{Begun, RequestKey};
use super::secrets::HandoffSecrets;
use super::sign::Mold;
use super::{Caller, Denial, IssueDesk, IssueError, Minted};
use crate::server::clients::{Client, ClientScope};
use crate::server::log::{
    Beginning, CODE_REUSED, Condition, Decision, Effect, Event, EventType, Grant, LogError, Personal,
    RedeemRow, StoredCode, UnreleasedToken,
};
use crate::token::signer::sha256;
use crate::token::{ActorClaims, ClientId, Sub};

/// A request to redeem, checked for form.
#[derive(Debug)]
pub struct RedeemAsk {
    /// The code.
    pub code: Zeroizing<String>,
    /// What the code's challenge was made from.
    pub code_verifier: Option<Zeroizing<String>>,
    /// Who the product thinks acts.
    pub expected_actor: Option<Sub>,
}

/// A code that may be redeemed, with everything its token is made from.
struct Redeemable {
    code: StoredCode,
    grant: Grant,
    minter: std::sync::Arc<Client>,
    facts: Facts,
}

impl IssueDesk {
    /// Exchanges a code for its token, or says why not; recorded either way. A second use ends the grant.
    ///
    /// # Errors
    /// [`IssueError`] when the attempt could not be recorded.
    pub async fn redeem(
        &self,
        caller: &Caller<'_>,
        ask: RedeemAsk,
        key: Option<RequestKey>,
    ) -> Result<Result<Minted, Denial>, IssueError> {
        let now = self.clock.now();
        let mut event = Event {
            decision: Some(Decision::Granted),
            client: Some(caller.client.id.clone()),
            req: Some(caller.request.clone()),
            personal: Personal { address: caller.address, ..Personal::default() },
            ..Event::new(EventType::Redeem)
        };
        if let Err(denial) = self.not_too_often(caller) {
            return self.refuse(event, denial).await;
        }
        // who may redeem nothing learns nothing of codes; whose own code it is, is asked when it is found
        if !caller.client.may(ClientScope::Redeem) && !caller.client.may(ClientScope::Issue) {
            return self.refuse(event, Denial::scope(ClientScope::Redeem)).await;
        }
        let begun = self.begin(caller.client, key.as_ref(), now).await?;
        let again = matches!(begun, Begun::Again(_));
        let _working = match begun {
            Begun::Refused(denial) => return self.refuse(event, denial).await,
            Begun::Again(_) => None,
            Begun::First(working) => Some(working),
        };
        let redeemable = match self.redeemable(caller, &ask, &mut event).await? {
            Ok(redeemable) => redeemable,
            Err(denial) => return self.refuse(event, denial).await,
        };
        if redeemable.code.used_idx.is_some() && !again {
            return self.used_twice(event, &redeemable.grant, now).await;
        }
        if again {
            return Box::pin(self.redeem_again(caller, redeemable, event, now)).await;
        }
        if redeemable.code.exp_us <= now.timestamp_micros() {
            return self.refuse(event, Denial::code("code_expired")).await;
        }
        if !self.stands(&redeemable.grant, now) {
            return self.refuse(event, Denial::code("grant_ended")).await;
        }
        if !redeemable.facts.are_of(&redeemable.grant.row) {
            tracing::error!(grant = %redeemable.grant.row.id, "a grant's row is not as it was granted: somebody changed it");
            return self.refuse(event, Denial::code("code_void")).await;
        }
        self.redeem_first(caller, redeemable, event, now, key.as_ref()).await
    }

    /// Finds the code and checks who comes for it. Nothing here uses it up.
    async fn redeemable(
        &self,
        caller: &Caller<'_>,
        ask: &RedeemAsk,
        event: &mut Event,
    ) -> Result<Result<Redeemable, Denial>, IssueError> {
        let hash = HandoffSecrets::code_hash(&ask.code);
        let found = self.log.handoff(hash).await?;
        let Some((code, grant)) = found else { return Ok(Err(Denial::code("code_unknown"))) };
        let id = grant.row.id.clone();
        event.grant = Some(id.clone());
        if code.redeem_client != caller.client.id.as_str() {
            return Ok(Err(Denial::code("code_of_another_client")));
        }
        let own = grant.row.client == caller.client.id && caller.client.may(ClientScope::Issue);
        if !own && !caller.client.may(ClientScope::Redeem) {
            return Ok(Err(Denial::scope(ClientScope::Redeem)));
        }
        event.aud.clone_from(&grant.row.aud);
        event.assurance = Some(grant.row.assurance);
        let facts = self
            .secrets
            .open(&id, &code.sealed)
            .and_then(|facts| serde_json::from_slice::<Facts>(&facts).ok());
        if let Some(facts) = &facts {
            event.personal.actor = Some(facts.act.clone());
            event.personal.subject = Some(facts.target.clone());
        }
        let minter = self.clients.get(&grant.row.client).filter(|client| client.is_active());
        let (Some(facts), Some(minter)) = (facts, minter) else { return Ok(Err(Denial::code("code_void"))) };
        // the row finds the code; that it is this grant's, and for whom and how long, is not the row's to say
        let own = self.secrets.code(&id);
        if constant_time::verify_slices_are_equal(own.as_bytes(), ask.code.as_bytes()).is_err()
            || !facts.are_handed_by(&code)
        {
            tracing::error!(grant = %id, "a handoff code's row is not as it was made: somebody changed it");
            return Ok(Err(Denial::code("code_void")));
        }
        if let Err(denial) = prove(&code, ask) {
            return Ok(Err(denial));
        }
        let redeemable = Redeemable { code, grant, minter, facts };
        if ask.expected_actor.as_ref().is_some_and(|expected| *expected != redeemable.facts.act.sub) {
            return Ok(Err(Denial::by_rule(
                "expected_actor",
                "This code is another person's impersonation. Begin again from the console.",
            )));
        }
        Ok(Ok(redeemable))
    }

    /// The second use of a code: whoever holds the first one's token, one of the two should not. Where the grant is over
    /// already there is nothing to end, and the use is an attempt like others: it does not touch the reserve.
    async fn used_twice<T>(
        &self,
        event: Event,
        grant: &Grant,
        now: DateTime<Utc>,
    ) -> Result<Result<T, Denial>, IssueError> {
        if !self.stands(grant, now) {
            return self.refuse(event, Denial::code("code_used")).await;
        }
        self.revoker.end_reused(event.denied(CODE_REUSED), &grant.row.id).await?;
        Ok(Err(Denial::code("code_used")))
    }

    /// The policy's word of now, within what was granted then.
    async fn terms_of_now(
        &self,
        caller: &Caller<'_>,
        redeemable: &Redeemable,
        event: &mut Event,
        now: DateTime<Utc>,
    ) -> Result<RedeemRow, Denial> {
        let Redeemable { grant, minter, facts, .. } = redeemable;
        let limits = self.judge_again(minter, caller.request, (grant, facts), true, event, now).await?;
        let (scope, lifetime) = within(grant, &limits)?;
        Ok(RedeemRow {
            grant: grant.row.id.clone(),
            kid: grant.row.kid.clone(),
            scope,
            iat: now.duration_trunc(TimeDelta::seconds(1)).unwrap_or(now),
            // counted from the mint, or from when an approved one was released: a code that was kept does not
            // lengthen anything
            exp: grant.row.exp.min(grant.row.iat + lifetime),
        })
    }

    async fn redeem_again(
        &self,
        caller: &Caller<'_>,
        redeemable: Redeemable,
        mut event: Event,
        now: DateTime<Utc>,
    ) -> Result<Result<Minted, Denial>, IssueError> {
        if let Err(denial) = self.terms_of_now(caller, &redeemable, &mut event, now).await {
            return self.refuse(event, Denial::grant_ended_by(&denial)).await;
        }
        let id = redeemable.grant.row.id.clone();
        self.release_again(&redeemable.minter, None, event, &id).await
    }

    async fn redeem_first(
        &self,
        caller: &Caller<'_>,
        redeemable: Redeemable,
        mut event: Event,
        now: DateTime<Utc>,
        key: Option<&RequestKey>,
    ) -> Result<Result<Minted, Denial>, IssueError> {
        let (mut at, mut waits) = (now, 0);
        loop {
            let row = match self.terms_of_now(caller, &redeemable, &mut event, at).await {
                Ok(row) if row.exp > row.iat => row,
                Ok(_) => return self.refuse(event, Denial::code("grant_ended")).await,
                Err(denial) => return self.refuse(event, denial).await,
            };
            let Mold { signer, typ, iss, azp } = self.mold(&redeemable.minter)?;
            let row = RedeemRow { kid: signer.kid().clone(), ..row };
            let claims = claims(&redeemable, &row, (iss, azp));
            let (conditions, effects) =
                self.rests_on(&caller.client.id, &redeemable.grant, &claims, row, key);
            let token = UnreleasedToken::sign(&*signer, typ, claims).map_err(IssueError::Sign)?;
            match self.log.release(token, event.clone(), conditions, effects).await {
                Ok(Ok(token)) => {
                    let (created_at, updated_at) = (redeemable.grant.row.created_at, token.audit().time);
                    return Ok(Ok(Minted { token, created_at, updated_at, accepted: true }));
                }
                Ok(Err(recorded)) if recorded.rule() == "code_used" => {
                    // somebody was faster: the same as a second use
                    return self.used_twice(event, &redeemable.grant, at).await;
                }
                // it was used a moment ago, and that use was followed by another
                Ok(Err(recorded)) if recorded.rule() == "grant_ended" => {
                    return Ok(Err(Denial::code("grant_ended")));
                }
                Ok(Err(recorded)) => return Ok(Err(Denial::condition(recorded.rule()))),
                Err(LogError::NotYet { after }) => at = self.pass(after, &mut waits).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn rests_on(
        &self,
        redeemer: &ClientId,
        grant: &Grant,
        claims: &ActorClaims,
        row: RedeemRow,
        key: Option<&RequestKey>,
    ) -> (Vec<Condition>, Vec<Effect>) {
        let client = claims.client_id.clone();
        let people = self.people.of_grant(&client, &claims.act, &claims.sub);
        let mut conditions = Vec::with_capacity(6);
        let mut effects = Vec::with_capacity(2);
        // before the code's: the same request, made twice at once, is no second use
        if let Some(key) = key {
            conditions.push(key.free());
            effects.push(key.taken(&grant.row));
        }
        conditions.extend([
            Condition::ClientActive(client.clone()),
            Condition::ClientActive(redeemer.clone()),
            // before the code's: a second use that is too late to find a grant ends nothing
            Condition::GrantLive(grant.row.id.clone()),
            Condition::CodeUnused(grant.row.id.clone()),
            Condition::NotHeld(Box::new(Beginning {
                client,
                kid: Some(row.kid.clone()),
                iat: row.iat,
                people,
            })),
        ]);
        effects.push(Effect::Redeem(row));
        (conditions, effects)
    }
}

/// What a redeemed grant's token says.
fn claims(
    redeemable: &Redeemable,
    row: &RedeemRow,
    (iss, azp): (crate::token::Issuer, Option<String>),
) -> ActorClaims {
    let Redeemable { grant, facts, .. } = redeemable;
    ActorClaims {
        iss,
        sub: facts.target.clone(),
        aud: grant.row.aud.clone(),
        exp: row.exp,
        iat: row.iat,
        nbf: row.iat,
        jti: grant.row.jti.clone(),
        client_id: grant.row.client.clone(),
        scope: row.scope.clone(),
        sid: grant.row.id.clone(),
        actor_assurance: grant.row.assurance,
        azp,
        break_glass: grant.is_break_glass(),
        act: facts.act.clone(),
    }
}

/// Whether the code's challenge and the verifier belong together (RFC 7636 §4.6). One without the other is
/// refused too: else a code that was slipped into somebody's browser would pass.
fn prove(code: &StoredCode, ask: &RedeemAsk) -> Result<(), Denial> {
    match (&code.code_challenge, &ask.code_verifier) {
        (None, None) => Ok(()),
        (Some(challenge), Some(verifier)) => {
            let made = URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()));
            constant_time::verify_slices_are_equal(made.as_bytes(), challenge.as_bytes())
                .map_err(|_| Denial::code_verifier("is not the one that the code was bound to"))
        }
        (Some(_), None) => Err(Denial::code_verifier("is missing: the code was bound to one")),
        (None, Some(_)) => Err(Denial::code_verifier("does not go with this code, which was bound to none")),
    }
}
