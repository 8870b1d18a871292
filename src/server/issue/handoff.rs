//! Handoff codes: a grant is minted, and its token is signed only when the product that it is meant for
//! comes for it (contract.md §8).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use zeroize::Zeroizing;

use super::again::{Bound, Facts};
use super::approval::{Outcome, Standing};
use super::once::{Begun, RequestKey};
use super::secrets::HandoffSecrets;
use super::sign::{Mold, Prepared};
use super::{Ask, Caller, Decided, Denial, IssueDesk, IssueError, first_event};
use crate::server::clients::{Client, ClientScope};
use crate::server::log::{
    CodeRow, Decision, Effect, Event, Grant, GrantStatus, LogError, ReadError, Record, Recorded,
};
use crate::token::{Act, Assurance, Audience, ClientId, GrantId, Scope, Sub};

/// How long a code may be used, seconds (contract.md §8).
const CODE_SECONDS: i64 = 60;

/// S256 of a verifier (RFC 7636 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeChallenge(String);

impl CodeChallenge {
    /// Reads one: 32 bytes in base64url without padding.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == 32).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a code is to be handed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handoff {
    /// Who may redeem it; `None`: the client that mints.
    pub redeem_client: Option<ClientId>,
    /// Set by the product when the code travels through a browser.
    pub code_challenge: Option<CodeChallenge>,
}

/// A grant by code that is in the log.
#[derive(Debug)]
pub struct Handed {
    /// The code.
    pub code: Zeroizing<String>,
    /// Until when it may be used.
    pub code_expires_at: DateTime<Utc>,
    /// Where to take it, with the code in the fragment; or where to post it.
    pub url: Option<Zeroizing<String>>,
    /// The grant.
    pub id: GrantId,
    /// The target.
    pub subject: Sub,
    /// Who acts.
    pub actor: Act,
    /// How he is known.
    pub assurance: Assurance,
    /// What the token will allow.
    pub scope: Scope,
    /// Who it will be for.
    pub aud: Vec<Audience>,
    /// When it will end.
    pub exp: DateTime<Utc>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it came to stand as this answer shows it.
    pub updated_at: DateTime<Utc>,
    /// Whether the code has been used meanwhile.
    pub accepted: bool,
    /// The entry.
    pub index: u64,
    /// Its receipt.
    pub proof: String,
}

impl IssueDesk {
    /// Mints a grant whose token is signed when its code is redeemed, asks a colleague first where the policy says
    /// so, or says why not; recorded either way.
    ///
    /// # Errors
    /// [`IssueError`] when the attempt could not be recorded.
    pub async fn mint_code(
        &self,
        caller: &Caller<'_>,
        ask: Ask,
        handoff: Handoff,
        key: Option<RequestKey>,
    ) -> Result<Result<Outcome<Handed>, Denial>, IssueError> {
        let now = self.clock.now();
        let mut event = first_event(caller, &ask);
        if let Err(denial) = self.not_too_often(caller) {
            return self.refuse(event, denial).await;
        }
        let (_working, again) = match self.begin(caller.client, key.as_ref(), now).await? {
            Begun::Refused(denial) => return self.refuse(event, denial).await,
            Begun::Again(grant) => (None, Some(grant)),
            Begun::First(working) => (Some(working), None),
        };
        let named = match self.named_request(caller, ask.approval.as_ref(), again.as_ref()).await? {
            Ok(named) => named,
            Err(denial) => return self.refuse(event, denial).await,
        };
        let redeemer = match self.redeemer(caller, &handoff) {
            Ok(redeemer) => redeemer,
            Err(denial) => return self.refuse(event, denial).await,
        };
        // a key that was used before names the grant already
        let key = key.as_ref().filter(|_| again.is_none());
        let (decided, actor) = match (self.decide_with_facts(caller, &ask, now, &mut event).await, &again) {
            (Ok(decided), _) => decided,
            (Err(denial), Some(_)) if named.is_none() => {
                return self.refuse(event, Denial::grant_ended_by(&denial)).await;
            }
            (Err(denial), _) => return self.refuse(event, denial).await,
        };
        let decided = match (named, again) {
            (Some(grant), _) => match self.standing(&grant, decided, &mut event) {
                Ok(Standing::Waiting(waiting)) => return Ok(Ok(Outcome::Waiting(waiting))),
                Ok(Standing::Approved(decided)) => *decided,
                Ok(Standing::Released) if !is_by_code(&grant) => {
                    return self.refuse(event, Denial::delivered(false)).await;
                }
                Ok(Standing::Released) => {
                    let handed = self.hand_again(caller, event, &grant.row.id, &handoff).await?;
                    return Ok(handed.map(Outcome::Granted));
                }
                Err(denial) => return self.refuse(event, denial).await,
            },
            (None, Some(_)) if decided.waits() => {
                return self.refuse(event, Denial::grant_ended_by(&Denial::nobody_asked())).await;
            }
            (None, Some(id)) => {
                return Ok(self.hand_again(caller, event, &id, &handoff).await?.map(Outcome::Granted));
            }
            (None, None) if decided.waits() => {
                let waiting = self.ask_a_colleague(caller, &decided, &event, now, key).await?;
                return Ok(waiting.map(|waiting| Outcome::Waiting(Box::new(waiting))));
            }
            (None, None) => decided,
        };
        let facts = Facts::of(&ask, &actor, &decided.target.id, caller.address, now);
        let handed =
            self.record_code(caller, &decided, &facts, event, now, (&redeemer, &handoff), key).await?;
        Ok(handed.map(Outcome::Granted))
    }

    /// The client that may use the code.
    fn redeemer(&self, caller: &Caller<'_>, handoff: &Handoff) -> Result<std::sync::Arc<Client>, Denial> {
        let own = || std::sync::Arc::clone(caller.client);
        match &handoff.redeem_client {
            None => Ok(own()),
            Some(id) if *id == caller.client.id => Ok(own()),
            Some(id) => self
                .clients
                .get(id)
                .filter(|client| client.is_active() && client.may(ClientScope::Redeem))
                .ok_or_else(Denial::redeem_client),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is another part of one record")]
    async fn record_code(
        &self,
        caller: &Caller<'_>,
        decided: &Decided,
        facts: &Facts,
        event: Event,
        now: DateTime<Utc>,
        (redeemer, handoff): (&Client, &Handoff),
        key: Option<&RequestKey>,
    ) -> Result<Result<Handed, Denial>, IssueError> {
        let (mut at, mut waits) = (now, 0);
        loop {
            let Mold { iss, azp, .. } = self.mold(caller.client)?;
            let Prepared { claims, grant, conditions, mut effects } =
                self.prepare(caller, decided, at, (iss, azp), None, key);
            let code = self.secrets.code(&grant.id);
            let code_expires_at = grant.exp.min(at + TimeDelta::seconds(CODE_SECONDS));
            let code_challenge = handoff.code_challenge.as_ref().map(|challenge| challenge.0.clone());
            let bound = Bound {
                redeem_client: redeemer.id.to_string(),
                code_challenge: code_challenge.clone(),
                exp_us: code_expires_at.timestamp_micros(),
            };
            let facts = facts.granting(&grant, bound);
            let plain = Zeroizing::new(serde_json::to_vec(&facts).unwrap_or_default());
            effects.push(Effect::InsertCode(CodeRow {
                grant: grant.id.clone(),
                code_hash: HandoffSecrets::code_hash(&code),
                redeem_client: redeemer.id.clone(),
                code_challenge,
                sealed: self.secrets.seal(&grant.id, &plain, &*self.entropy),
                exp: code_expires_at,
                keep_until: grant.exp,
            }));
            effects.extend(self.facts_kept(&grant, Some(&facts)));
            let mut event = event.clone();
            event.decision = Some(Decision::Granted);
            event.grant = Some(grant.id.clone());
            event.aud.clone_from(&claims.aud);
            event.scope = Some(claims.scope.clone());
            event.iat = Some(claims.iat);
            event.ttl_seconds = u32::try_from((claims.exp - claims.iat).num_seconds()).ok();
            let detail = event.detail.get_or_insert_default();
            detail.insert("delivery".into(), "code".into());
            detail.insert("redeem_client".into(), redeemer.id.as_str().into());
            match self.log.record(Record { conditions, effects, ..Record::of(event) }).await {
                Ok(Recorded { failed: Some(condition), .. }) => {
                    return Ok(Err(Denial::condition(condition.rule())));
                }
                Ok(Recorded { index, time, proof, .. }) => {
                    self.watch.saw(&claims.act, &claims.sub);
                    return Ok(Ok(Handed {
                        url: handed_at(redeemer, &code),
                        code,
                        code_expires_at,
                        id: grant.id,
                        subject: claims.sub,
                        actor: claims.act,
                        assurance: claims.actor_assurance,
                        scope: claims.scope,
                        aud: claims.aud,
                        exp: claims.exp,
                        created_at: grant.created_at,
                        updated_at: decided.updated_at(grant.created_at, time),
                        accepted: false,
                        index,
                        proof,
                    }));
                }
                Err(LogError::NotYet { after }) => at = self.pass(after, &mut waits).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The answer to a mint by code that was sent again: the same code, computed anew.
    async fn hand_again(
        &self,
        caller: &Caller<'_>,
        mut event: Event,
        id: &GrantId,
        handoff: &Handoff,
    ) -> Result<Result<Handed, Denial>, IssueError> {
        event.grant = Some(id.clone());
        let Some(Grant {
            row, status, subject: Some(subject), actor: Some(actor), updated_at, index, ..
        }) = self.live_grant(id).await?
        else {
            return self.refuse(event, Denial::grant_ended()).await;
        };
        let code = self.secrets.code(id);
        let Some(stored) = self.log.handoff_code(&HandoffSecrets::code_hash(&code)).await? else {
            return self.refuse(event, Denial::grant_ended()).await;
        };
        let redeemer =
            self.redeemer(caller, handoff).ok().filter(|client| *client.id.as_str() == *stored.redeem_client);
        let proof = match self.log.proof(index).await {
            Ok(proof) => proof,
            Err(ReadError::Log(error)) => return Err(error.into()),
            // of an epoch before: it cannot be shown to be recorded
            Err(_) => return self.refuse(event, Denial::grant_ended()).await,
        };
        Ok(Ok(Handed {
            url: redeemer.and_then(|redeemer| handed_at(&redeemer, &code)),
            code,
            code_expires_at: DateTime::from_timestamp_micros(stored.exp_us).unwrap_or(row.exp),
            id: row.id,
            subject,
            actor,
            assurance: row.assurance,
            scope: row.scope,
            aud: row.aud,
            exp: row.exp,
            created_at: row.created_at,
            updated_at,
            accepted: status == GrantStatus::Accepted,
            index,
            proof,
        }))
    }
}

/// Whether a grant that was given out was given out by a code: its token is signed, if at all, for whoever redeems it.
pub(super) fn is_by_code(grant: &Grant) -> bool {
    grant.accepted_at.is_some() || grant.row.kid == HandoffSecrets::unsigned_kid()
}

/// Where the product takes the code: in the fragment, which no server sees, or by a form that is posted there.
fn handed_at(redeemer: &Client, code: &str) -> Option<Zeroizing<String>> {
    redeemer.handoff_url.as_ref().map(|template| Zeroizing::new(template.replace("{code}", code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_a_sha_256_and_nothing_else() {
        // RFC 7636, appendix B
        assert!(CodeChallenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM").is_some());
        for bad in [
            "",
            "short",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM",
        ] {
            assert_eq!(CodeChallenge::parse(bad), None, "{bad}");
        }
    }
}
