//! What is asked of the desk, and the ways it can be refused.

use crate::server::actors::Declared;
use crate::server::clients::{Client, ClientScope};
use crate::server::limits::seconds_to_wait;
use crate::server::policy::{ActorFacts, Refusal, builtin};
use crate::token::{Audience, GrantId, Scope, Sub};

/// How the request names the actor.
#[derive(Clone, PartialEq, Eq)]
pub enum Requested {
    /// By a client that may name people who did not prove themselves.
    Asserted(Sub),
    /// By his own token from a trusted issuer; `claimed` must agree when it was sent too.
    Proven {
        /// The token's text.
        token: String,
        /// `actor.sub`, if sent.
        claimed: Option<Sub>,
        /// Which kind of token the caller says it is.
        declared: Declared,
    },
    /// By his own sign-in at our console, which verified him.
    SignedIn(Box<ActorFacts>),
    /// By nobody: the client itself wants to act, as a service.
    TheClient,
}

impl std::fmt::Debug for Requested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Asserted(_) => "Asserted(..)",
            Self::Proven { .. } => "Proven([redacted])",
            Self::SignedIn(_) => "SignedIn(..)",
            Self::TheClient => "TheClient",
        })
    }
}

/// How the request names the target user.
#[derive(Clone, PartialEq, Eq)]
pub enum Subject {
    /// By his id.
    Id(Sub),
    /// By a JWT that the client signed with a key of its own.
    SignedByClient(String),
    /// By an actor token of ours, to be acted on with (delegation).
    ActorToken(String),
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Id(_) => "Id(..)",
            Self::SignedByClient(_) => "SignedByClient([redacted])",
            Self::ActorToken(_) => "ActorToken([redacted])",
        })
    }
}

/// A request to mint, checked for form.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The target user.
    pub subject: Subject,
    /// Who wants to act.
    pub actor: Requested,
    /// Why.
    pub reason: Option<String>,
    /// The ticket.
    pub ticket: Option<String>,
    /// How long, seconds.
    pub expires_in_seconds: Option<u32>,
    /// For whom; `None`: the client's default.
    pub audience: Option<Vec<Audience>>,
    /// To do what; `None`: what the policy grants.
    pub scope: Option<Scope>,
    /// The request about which a colleague was asked, to go on with.
    pub approval: Option<GrantId>,
    /// Handed over by code: no token in anybody's hands but the redeemer's.
    pub by_code: bool,
}

/// Why an attempt was refused: what kind, which rule, and a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The rule, as it stands in the log.
    pub rule: String,
    /// What happened and what to do.
    pub message: String,
    /// What kind of refusal.
    pub kind: DenialKind,
}

/// What kind of refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DenialKind {
    /// The client lacks a scope.
    Scope(ClientScope),
    /// A member of the request cannot be used.
    Parameter(&'static str),
    /// The audience is not this client's.
    Audience,
    /// The policy decided.
    Policy(Refusal),
    /// Somebody who has to be asked cannot be reached.
    Unreachable,
    /// Too many attempts; not recorded, only counted.
    RateLimited {
        /// When to try again, seconds.
        retry_after_seconds: u32,
    },
    /// Something changed between the decision and the record.
    Condition,
    /// The same idempotency key is being worked on.
    InFlight,
    /// The idempotency key was used with another body.
    KeyReused,
    /// The grant made under this idempotency key is over.
    GrantEnded,
    /// There is no such code for this client to use.
    NoSuchCode,
    /// There is no such request to decide on.
    NoSuchRequest,
    /// The request waits for nobody any more.
    NotWaiting,
}

impl Denial {
    /// The client lacks a scope.
    pub fn scope(permission: ClientScope) -> Self {
        Self {
            rule: "scope_missing".into(),
            message: format!("This client needs the scope `{permission}`."),
            kind: DenialKind::Scope(permission),
        }
    }

    /// The actor's token is not acceptable.
    pub fn actor_token(reason: &str) -> Self {
        Self {
            rule: "actor_token_not_acceptable".into(),
            message: format!("The actor token is not acceptable: {reason}."),
            kind: DenialKind::Parameter("actor_token"),
        }
    }

    /// The subject's token is not acceptable.
    pub fn subject_token(reason: &str) -> Self {
        Self {
            rule: "subject_token_not_acceptable".into(),
            message: format!("The subject token is not acceptable: {reason}."),
            kind: DenialKind::Parameter("subject_token"),
        }
    }

    /// The subject token says who may act, and it is not this actor (TE-10).
    pub fn may_act() -> Self {
        Self { rule: "may_act".into(), ..Self::subject_token("its may_act does not name this actor") }
    }

    /// A delegated token may not be for more than its parent.
    pub fn wider_audience() -> Self {
        Self {
            rule: "delegation_wider".into(),
            message: "A delegated token cannot be for an audience that its parent is not for.".into(),
            kind: DenialKind::Audience,
        }
    }

    /// `actor.sub` and the actor's token name two people.
    pub fn actor_mismatch() -> Self {
        Self {
            rule: "actor_mismatch".into(),
            message: "`actor.sub` is not the person whom `actor_token` proves. Leave `actor` out.".into(),
            kind: DenialKind::Parameter("actor.sub"),
        }
    }

    /// Somebody who has to be asked cannot be reached.
    pub fn unreachable(who: &str) -> Self {
        Self {
            rule: "authority_unreachable".into(),
            message: format!(
                "{who} cannot be asked at the moment. Try again shortly.",
                who = capitalised(who)
            ),
            kind: DenialKind::Unreachable,
        }
    }

    /// The same request is under way.
    pub fn in_flight() -> Self {
        Self {
            rule: "idempotency_in_flight".into(),
            message: "The same Idempotency-Key is being worked on. Ask again in a second.".into(),
            kind: DenialKind::InFlight,
        }
    }

    /// The same key came with another body.
    pub fn key_reused() -> Self {
        Self {
            rule: "idempotency_key_reused".into(),
            message: "This Idempotency-Key was used with another body. Take a new key for a new request."
                .into(),
            kind: DenialKind::KeyReused,
        }
    }

    /// What was answered under the key is over.
    pub fn grant_ended() -> Self {
        Self {
            rule: "idempotency_grant_ended".into(),
            message: "The grant made under this Idempotency-Key is over. Take a new key to ask anew.".into(),
            kind: DenialKind::GrantEnded,
        }
    }

    /// What was answered under the key would not be granted now; the log keeps by which rule.
    pub fn grant_ended_by(denial: &Self) -> Self {
        Self { rule: denial.rule.clone(), ..Self::grant_ended() }
    }

    /// The code cannot be used; which of the reasons, only the log knows.
    pub fn code(rule: &'static str) -> Self {
        Self {
            rule: rule.into(),
            message: "No code like this can be used by this client. Codes live a minute and work once."
                .into(),
            kind: DenialKind::NoSuchCode,
        }
    }

    /// Challenge and verifier do not belong together.
    pub fn code_verifier(why: &str) -> Self {
        Self {
            rule: "code_verifier".into(),
            message: format!("`code_verifier` {why}."),
            kind: DenialKind::Parameter("code_verifier"),
        }
    }

    /// Nobody by that id may redeem codes.
    pub fn redeem_client() -> Self {
        Self {
            rule: "redeem_client".into(),
            message: "`redeem_client` names no client that may redeem codes (scope actor_tokens:redeem)."
                .into(),
            kind: DenialKind::Parameter("redeem_client"),
        }
    }

    /// Something changed between the decision and the record, found under the log's lock.
    pub fn condition(rule: &str) -> Self {
        let message = match rule {
            "client_disabled" => "The client was disabled a moment ago.",
            "grant_ended" => "The grant that this rests on is over.",
            "on_hold" => "Acting as this user, or by this actor or client, is stopped for the time being.",
            "targets_per_hour" => {
                "This actor has had as many different targets in the last hour as the policy allows."
            }
            "approval_not_waiting" => {
                "This request waits for nobody any more: somebody decided, or it lapsed."
            }
            _ => "What this rests on changed a moment ago. Ask again.",
        };
        let kind = match rule {
            "idempotency_in_flight" => return Self::in_flight(),
            // somebody came for the same approved request at the same moment: the next try gets his answer
            "approval_not_given" => DenialKind::InFlight,
            "approval_not_waiting" => DenialKind::NotWaiting,
            _ => DenialKind::Condition,
        };
        Self { rule: rule.into(), message: message.into(), kind }
    }

    /// An approved request is gone on with in another way than it was answered.
    pub fn delivered(by_code: bool) -> Self {
        let message = if by_code {
            "This request was answered with a code: send `delivery: \"code\"` as then, or ask anew."
        } else {
            "This request was answered with a token: leave `delivery` out as then, or ask anew."
        };
        Self {
            rule: "delivery_of_another_kind".into(),
            message: message.into(),
            kind: DenialKind::Parameter("delivery"),
        }
    }

    /// The policy asks for a colleague, and nobody was asked.
    pub fn nobody_asked() -> Self {
        Self::by_rule("approval_required", "A colleague has to approve this first. Ask anew.")
    }

    /// There is nothing to ask the policy again with.
    pub fn nothing_known() -> Self {
        Self::by_rule("facts_unknown", "Nothing is kept of this grant that the policy could be asked with.")
    }

    /// The glass stays whole where nobody would hear it break.
    pub fn untold() -> Self {
        Self::by_rule(
            "break_glass_untold",
            "Breaking the glass is always told to somebody, and no webhook takes grant.started. An operator has to configure one.",
        )
    }

    /// An audience, asked for where a token can name none.
    pub fn clerk_audience() -> Self {
        Self::by_rule(
            builtin::CLERK_FULL_ACCESS,
            "A token of profile clerk is for nobody in particular: leave `audience` out.",
        )
    }

    /// Too many attempts by `whom`.
    pub fn rate_limited(whom: &str, wait: std::time::Duration) -> Self {
        let retry_after_seconds = seconds_to_wait(wait);
        Self {
            rule: "rate_limited".into(),
            message: format!("Too many attempts by {whom}. Wait, then try again."),
            kind: DenialKind::RateLimited { retry_after_seconds },
        }
    }

    /// Refused by a rule outside the policy's text that the policy called in.
    pub fn by_rule(rule: &str, message: &str) -> Self {
        Self { rule: rule.into(), message: message.into(), kind: DenialKind::Policy(Refusal::Denied) }
    }

    fn audience(rule: &str, message: &str) -> Self {
        Self { rule: rule.into(), message: message.into(), kind: DenialKind::Parameter("audience") }
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// The audiences asked for, or the client's default; only ever the client's own.
pub fn audience(client: &Client, asked: Option<&[Audience]>) -> Result<Vec<Audience>, Denial> {
    if client.audiences.is_empty() {
        return Err(no_audiences(asked.is_some()));
    }
    let asked = match asked {
        None => client.default_audience().map(|a| vec![a.clone()]).unwrap_or_default(),
        Some(list) => list.to_vec(),
    };
    if asked.is_empty() {
        return Err(Denial::audience(
            "audience_missing",
            "Name an `audience`, or leave it out for the client's default.",
        ));
    }
    if asked.iter().any(|a| !client.owns_audience(a)) {
        return Err(Denial {
            kind: DenialKind::Audience,
            ..Denial::audience(
                "audience_not_of_client",
                "This client may not ask for this audience. An operator gives it with `stagedoor client update ID --audience URL`, \
                 naming all that the client is to have.",
            )
        });
    }
    Ok(asked)
}

/// Whatever such a client asks for: it is told at once who can help.
fn no_audiences(named_one: bool) -> Denial {
    let rule = if named_one { "audience_not_of_client" } else { "audience_missing" };
    let denial = Denial::audience(
        rule,
        "This client has no audiences, so it can mint for nobody. An operator gives it some with \
         `stagedoor client update ID --audience URL`.",
    );
    if named_one { Denial { kind: DenialKind::Audience, ..denial } } else { denial }
}
