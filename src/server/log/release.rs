//! The rule in types: a token leaves the service only with the record that seals it.
//!
//! [`UnreleasedToken`] has no way to its text. Only [`Log::release`] consumes one, together with the event
//! derived from it, and gives back a [`ReleasedToken`] once the record is durable.
//!
//! A token cannot be read before:
//!
//! ```compile_fail,E0599
//! fn send(token: stagedoor::server::log::UnreleasedToken) -> String {
//!     token.into_text()
//! }
//! ```
//! ```
//! fn send(token: stagedoor::server::log::ReleasedToken) -> String {
//!     token.into_text()
//! }
//! ```
//!
//! A released token cannot be made by hand:
//!
//! ```compile_fail,E0451
//! fn forge(
//!     token: stagedoor::server::log::ReleasedToken,
//!     recorded: stagedoor::server::log::Recorded,
//! ) -> stagedoor::server::log::ReleasedToken {
//!     stagedoor::server::log::ReleasedToken { recorded, ..token }
//! }
//! ```
//! ```
//! fn keep(
//!     token: stagedoor::server::log::ReleasedToken,
//!     _recorded: stagedoor::server::log::Recorded,
//! ) -> stagedoor::server::log::ReleasedToken {
//!     token
//! }
//! ```
//!
//! Nor can the record be skipped:
//!
//! ```compile_fail,E0308
//! fn skip(token: stagedoor::server::log::UnreleasedToken) -> stagedoor::server::log::ReleasedToken {
//!     token
//! }
//! ```
//!
//! And one token is released once:
//!
//! ```compile_fail,E0382
//! # use stagedoor::server::log::*;
//! async fn twice(log: &Log, token: UnreleasedToken) {
//!     let event = Event::new(EventType::Issue);
//!     let _ = log.release(token, event.clone(), vec![], vec![]).await;
//!     let _ = log.release(token, event, vec![], vec![]).await;
//! }
//! ```
//! ```
//! # use stagedoor::server::log::*;
//! async fn once(log: &Log, token: UnreleasedToken) {
//!     let event = Event::new(EventType::Issue);
//!     let _ = log.release(token, event, vec![], vec![]).await;
//! }
//! ```

use std::fmt;

use super::record::{Condition, Decision, Effect, Event, Record};
use super::{Log, LogEntry, LogError, ReadError, Recorded};
use crate::token::signer::SignError;
use crate::token::{ActorClaims, Kid, SignedJws, Signer, encode_jws};

/// A signed token nobody has seen. Dropped, it never existed.
pub struct UnreleasedToken {
    jws: SignedJws,
    kid: Kid,
    claims: ActorClaims,
}

/// A token whose record is durable: it may be handed out.
pub struct ReleasedToken {
    jws: SignedJws,
    claims: ActorClaims,
    recorded: Recorded,
}

/// A refusal whose record is durable: it may be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedDenial {
    rule: String,
    recorded: Recorded,
}

impl UnreleasedToken {
    /// Signs `claims` in memory, with the header type `typ`.
    ///
    /// # Errors
    /// The signer could not.
    pub fn sign(signer: &dyn Signer, typ: &str, claims: ActorClaims) -> Result<Self, SignError> {
        let jws = encode_jws(signer, typ, &claims)?;
        Ok(Self { jws, kid: signer.kid().clone(), claims })
    }

    /// What the token says.
    #[must_use]
    pub const fn claims(&self) -> &ActorClaims {
        &self.claims
    }

    /// `template` with everything that describes this token filled in from the token itself, so that record
    /// and token cannot disagree. The template adds type, request, rule, policy, reason, ticket, address.
    fn describe(&self, template: Event) -> Event {
        let claims = &self.claims;
        let lifetime = (claims.exp - claims.iat).num_seconds();
        let mut event = template;
        event.decision = Some(Decision::Granted);
        event.client = Some(claims.client_id.clone());
        event.grant = Some(claims.sid.clone());
        event.jti = Some(claims.jti.clone());
        event.signed_sha256 = Some(self.jws.signed_sha256());
        event.kid = Some(self.kid.clone());
        event.aud.clone_from(&claims.aud);
        event.scope = Some(claims.scope.clone());
        event.iat = Some(claims.iat);
        event.ttl_seconds = Some(u32::try_from(lifetime).unwrap_or(0));
        event.assurance = Some(claims.actor_assurance);
        event.personal.actor = Some(claims.act.clone());
        event.personal.subject = Some(claims.sub.clone());
        event
    }
}

impl ReleasedToken {
    /// The token's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.jws.as_str()
    }

    /// The token's text, handed over.
    #[must_use]
    pub fn into_text(self) -> String {
        self.jws.into_string()
    }

    /// What the token says.
    #[must_use]
    pub const fn claims(&self) -> &ActorClaims {
        &self.claims
    }

    /// Where it is recorded, with the receipt.
    #[must_use]
    pub const fn audit(&self) -> &Recorded {
        &self.recorded
    }
}

impl RecordedDenial {
    /// The rule that refused, or the condition that no longer held.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Where it is recorded, with the receipt.
    #[must_use]
    pub const fn audit(&self) -> &Recorded {
        &self.recorded
    }
}

impl fmt::Debug for UnreleasedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnreleasedToken({} [redacted])", self.claims.jti)
    }
}

impl fmt::Debug for ReleasedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReleasedToken({} [redacted], index {})", self.claims.jti, self.recorded.index)
    }
}

impl Log {
    /// Records `token` and releases it. When a condition no longer holds under the log's lock, the attempt
    /// is recorded as a denial instead and the token is dropped.
    ///
    /// # Errors
    /// Not known to be recorded: the token is dropped, and nothing but 503 may be answered. It may have been
    /// recorded all the same ("may have been delivered"); the reverse never happens.
    pub fn release(
        &self,
        token: UnreleasedToken,
        template: Event,
        conditions: Vec<Condition>,
        effects: Vec<Effect>,
    ) -> impl Future<Output = Result<Result<ReleasedToken, RecordedDenial>, LogError>> + Send {
        let event = token.describe(template);
        let recorded = self.record(Record { conditions, effects, ..Record::of(event) });
        async move {
            let recorded = recorded.await?;
            Ok(match &recorded.failed {
                Some(condition) => Err(RecordedDenial { rule: condition.rule().to_owned(), recorded }),
                None => Ok(ReleasedToken { jws: token.jws, claims: token.claims, recorded }),
            })
        }
    }

    /// Releases a token that was released before: the same claims, signed anew, and only if what is signed is
    /// what the log says. `None`: it is not. Nothing is recorded; the entry is there.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn release_again(&self, token: UnreleasedToken) -> Result<Option<ReleasedToken>, LogError> {
        let found = match self.find_signed(&token.jws.signed_sha256(), false).await {
            Ok(found) => found,
            Err(ReadError::Log(error)) => return Err(error),
            // pruned, or of an epoch before: it cannot be shown to be recorded
            Err(_) => None,
        };
        let jti = |entry: &LogEntry| Some(entry.body.as_ref()?.get("jti")?.as_str()?.to_owned());
        Ok(found.filter(|found| jti(&found.entry).as_deref() == Some(token.claims.jti.as_str())).map(
            |found| {
                let LogEntry { index, epoch, time, .. } = found.entry;
                let recorded = Recorded { index, epoch, time, proof: found.proof, failed: None, matched: 0 };
                ReleasedToken { jws: token.jws, claims: token.claims, recorded }
            },
        ))
    }

    /// Records a refusal by `rule`.
    ///
    /// # Errors
    /// Not known to be recorded: nothing but 503 may be answered.
    pub fn deny(
        &self,
        event: Event,
        rule: &str,
    ) -> impl Future<Output = Result<RecordedDenial, LogError>> + Send {
        let recorded = self.record(Record::of(event.denied(rule)));
        async move { Ok(RecordedDenial { rule: rule.to_owned(), recorded: recorded.await? }) }
    }
}
