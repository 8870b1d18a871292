//! `/v1/actor_tokens`: mint, list, read, verify.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{Bytes, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::{Value, json};

use super::App;
use super::caller::{Caller, authenticate, scope_missing};
use super::fields::{Fields, invalid, missing};
use super::once;
use super::problem::{Code, Problem};
use super::query::{Query, bad};
use crate::server::actors::Declared;
use crate::server::clients::ClientScope;
use crate::server::issue::{
    self, Ask, CodeChallenge, Denial, DenialKind, Handed, Handoff, IssueError, Minted, Outcome, Requested,
    Subject, Waiting,
};
use crate::server::log::{Cursor, EventType, Grant, GrantFilter, GrantStatus, LogError};
use crate::server::policy::Refusal;
use crate::token::{Audience, ClientId, GrantId, Scope, Sub};

/// The longest `actor_token` looked at, bytes.
const MAX_ACTOR_TOKEN_BYTES: usize = 8 * 1024;
/// The longest reason, characters (contract.md §3).
const MAX_REASON: usize = 1000;
/// The longest ticket, characters.
const MAX_TICKET: usize = 100;
/// The most audiences in one request.
const MAX_AUDIENCES: usize = 8;
const MINT_MEMBERS: &[&str] = &[
    "user_id",
    "actor",
    "actor_token",
    "reason",
    "ticket",
    "expires_in_seconds",
    "session_max_duration_in_seconds",
    "audience",
    "scope",
    "delivery",
    "redeem_client",
    "code_challenge",
    "approval",
];

/// What a mint answers (contract.md §5).
#[derive(Serialize)]
struct MintedBody<'a> {
    object: &'static str,
    id: &'a str,
    status: &'static str,
    user_id: &'a str,
    actor: &'a crate::token::Act,
    actor_assurance: &'static str,
    token: &'a str,
    url: Option<&'a str>,
    expires_at: i64,
    created_at: i64,
    updated_at: i64,
    scope: &'a Scope,
    audience: &'a [Audience],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    break_glass: bool,
    audit: AuditBody<'a>,
}

#[derive(Serialize)]
struct AuditBody<'a> {
    index: u64,
    proof: &'a str,
}

/// A grant as it is listed: never the token.
#[derive(Serialize)]
pub struct GrantBody {
    object: &'static str,
    id: String,
    status: &'static str,
    user_id: Option<Sub>,
    actor: Option<crate::token::Act>,
    actor_assurance: &'static str,
    client_id: String,
    scope: Scope,
    audience: Vec<Audience>,
    expires_at: i64,
    created_at: i64,
    updated_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<ApprovalBody>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    break_glass: bool,
    audit: GrantAudit,
}

/// A request that waits, or waited, for a colleague.
#[derive(Serialize)]
struct ApprovalBody {
    state: &'static str,
    lapses_at: i64,
}

#[derive(Serialize)]
struct GrantAudit {
    index: u64,
}

impl GrantBody {
    /// For readers who may not see people.
    pub(super) fn hide_people(&mut self) {
        (self.user_id, self.actor) = (None, None);
    }
}

impl From<Grant> for GrantBody {
    fn from(grant: Grant) -> Self {
        let break_glass = grant.is_break_glass();
        Self {
            approval: grant.approval.filter(|_| !break_glass).map(|approval| ApprovalBody {
                state: approval.state.as_str(),
                lapses_at: approval.lapses_at.timestamp_millis(),
            }),
            break_glass,
            object: "actor_token",
            status: grant.status.as_str(),
            user_id: grant.subject,
            actor: grant.actor,
            actor_assurance: grant.row.assurance.as_str(),
            client_id: grant.row.client.to_string(),
            expires_at: grant.row.exp.timestamp_millis(),
            created_at: grant.row.created_at.timestamp_millis(),
            updated_at: grant.updated_at.timestamp_millis(),
            scope: grant.row.scope,
            audience: grant.row.aud,
            id: grant.row.id.to_string(),
            audit: GrantAudit { index: grant.index },
        }
    }
}

/// JSON without a charset, exactly: public SDKs misread others (contract.md §5).
pub(super) fn json_answer(body: &impl Serialize) -> Result<HttpResponse, Problem> {
    let text = serde_json::to_string(body).map_err(|e| Problem::internal(&e))?;
    Ok(HttpResponse::Ok().content_type("application/json").body(text))
}

/// POST `/v1/actor_tokens`.
pub async fn mint(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&app, &request)?;
    super::edge::json_body(&request, &body)?;
    let mut fields = Fields::parse(&body)?;
    let read = read_delivery(&mut fields).and_then(|delivery| {
        let ask = read_ask(fields, &delivery)?;
        Ok((delivery, ask, once::key(&app, &caller.client, &request, &body)?))
    });
    let (delivery, ask, key) = match read {
        Ok(read) => read,
        Err(problem) => return Err(malformed(&app, &caller, EventType::Issue, problem).await),
    };
    let minted = match delivery {
        Delivery::Token => {
            let minted = app.desk.mint(&issue_caller(&caller), ask, key).await.map_err(not_answered)?;
            minted.map(|outcome| match outcome {
                Outcome::Granted(minted) => ("granted", minted_answer(&minted)),
                Outcome::Waiting(waiting) => ("pending", waiting_answer(&waiting)),
            })
        }
        Delivery::Code(handoff) => {
            let caller = issue_caller(&caller);
            let handed = Box::pin(app.desk.mint_code(&caller, ask, handoff, key)).await;
            handed.map_err(not_answered)?.map(|outcome| match outcome {
                Outcome::Granted(handed) => ("granted", handed_answer(&handed)),
                Outcome::Waiting(waiting) => ("pending", waiting_answer(&waiting)),
            })
        }
    };
    match minted {
        Ok((outcome, answer)) => {
            app.metrics.mint(outcome);
            answer
        }
        Err(denial) => {
            app.metrics.mint("denied");
            Err(denied(denial))
        }
    }
}

/// A parsed body that is no attempt (422) is a recorded denial, too (contract.md §3).
pub(super) async fn malformed(app: &App, caller: &Caller, typ: EventType, problem: Problem) -> Problem {
    if problem.code.status() != StatusCode::UNPROCESSABLE_ENTITY {
        return problem;
    }
    match app.desk.refuse_malformed(&issue_caller(caller), typ, problem.code.as_str()).await {
        Ok(Ok(())) => problem.recorded(),
        Ok(Err(denial)) => denied(denial),
        Err(error) => not_answered(error),
    }
}

pub(super) fn issue_caller(caller: &Caller) -> issue::Caller<'_> {
    issue::Caller { client: &caller.client, request: &caller.arrival.id, address: caller.arrival.address }
}

/// How a grant is handed over.
pub(super) enum Delivery {
    Token,
    Code(Handoff),
}

pub(super) fn read_delivery(fields: &mut Fields) -> Result<Delivery, Problem> {
    let delivery = fields.text("delivery", 16)?;
    let redeem_client = fields.id::<ClientId>("redeem_client")?;
    let code_challenge = match fields.text("code_challenge", 64)? {
        None => None,
        Some(text) => Some(CodeChallenge::parse(&text).ok_or_else(|| {
            invalid(
                "code_challenge",
                "must be base64url(SHA-256(code_verifier)), 43 characters (RFC 7636, S256)",
            )
        })?),
    };
    match delivery.as_deref() {
        None | Some("token") if redeem_client.is_some() => {
            Err(invalid("redeem_client", "goes with delivery \"code\" only"))
        }
        None | Some("token") if code_challenge.is_some() => {
            Err(invalid("code_challenge", "goes with delivery \"code\" only"))
        }
        None | Some("token") => Ok(Delivery::Token),
        Some("code") => Ok(Delivery::Code(Handoff { redeem_client, code_challenge })),
        Some(_) => Err(invalid("delivery", "must be \"token\" or \"code\"")),
    }
}

/// 202: no token exists until a colleague has approved, and the same is asked again.
fn waiting_answer(waiting: &Waiting) -> Result<HttpResponse, Problem> {
    let created_at = waiting.created_at.timestamp_millis();
    let lapses_at = waiting.lapses_at.timestamp_millis();
    let body = json!({
        "object": "actor_token",
        "id": waiting.id,
        "status": "pending",
        "user_id": waiting.subject,
        "actor": waiting.actor,
        "actor_assurance": waiting.assurance,
        "token": null,
        "url": null,
        "expires_at": lapses_at,
        "created_at": created_at,
        "updated_at": created_at,
        "scope": waiting.scope,
        "audience": waiting.aud,
        "approval": { "state": "waiting", "lapses_at": lapses_at },
        "audit": { "index": waiting.index },
    });
    let mut answer = json_answer(&body)?;
    *answer.status_mut() = StatusCode::ACCEPTED;
    if let Ok(location) = HeaderValue::try_from(format!("/v1/actor_tokens/{}", waiting.id)) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    Ok(answer)
}

fn handed_answer(handed: &Handed) -> Result<HttpResponse, Problem> {
    json_answer(&json!({
        "object": "actor_token",
        "id": handed.id,
        "status": if handed.accepted { "accepted" } else { "pending" },
        "user_id": handed.subject,
        "actor": handed.actor,
        "actor_assurance": handed.assurance,
        "token": null,
        "code": handed.code.as_str(),
        "code_expires_at": handed.code_expires_at.timestamp_millis(),
        "url": handed.url.as_ref().map(|url| url.as_str()),
        "expires_at": handed.exp.timestamp_millis(),
        "created_at": handed.created_at.timestamp_millis(),
        "updated_at": handed.updated_at.timestamp_millis(),
        "scope": handed.scope,
        "audience": handed.aud,
        "audit": { "index": handed.index, "proof": handed.proof },
    }))
}

pub(super) fn minted_answer(minted: &Minted) -> Result<HttpResponse, Problem> {
    let (claims, audit) = (minted.token.claims(), minted.token.audit());
    json_answer(&MintedBody {
        object: "actor_token",
        id: claims.sid.as_str(),
        status: if minted.accepted { "accepted" } else { "pending" },
        user_id: claims.sub.as_str(),
        actor: &claims.act,
        actor_assurance: claims.actor_assurance.as_str(),
        token: minted.token.as_str(),
        url: None,
        expires_at: claims.exp.timestamp_millis(),
        created_at: minted.created_at.timestamp_millis(),
        updated_at: minted.updated_at.timestamp_millis(),
        scope: &claims.scope,
        audience: &claims.aud,
        break_glass: claims.break_glass,
        audit: AuditBody { index: audit.index, proof: &audit.proof },
    })
}

/// Turns the members of a mint's body into an [`Ask`].
pub(super) fn read_ask(mut fields: Fields, delivery: &Delivery) -> Result<Ask, Problem> {
    let user_id = fields.id::<Sub>("user_id")?;
    let token = fields.text("actor_token", MAX_ACTOR_TOKEN_BYTES)?;
    let mut reason = fields.prose("reason", MAX_REASON)?;
    let mut ticket = read_ticket(&mut fields)?;
    let claimed = match fields.object("actor", "actor.")? {
        None => None,
        Some(mut actor) => {
            // Public SDKs have no field for these elsewhere; what else they send in `actor` is dropped.
            reason = actor.prose("reason", MAX_REASON)?.or(reason);
            ticket = read_ticket(&mut actor)?.or(ticket);
            actor.id::<Sub>("sub")?
        }
    };
    let expires = fields.positive("expires_in_seconds")?;
    let session = fields.positive("session_max_duration_in_seconds")?;
    let audience = read_audience(&mut fields)?;
    let scope = match fields.text("scope", 16 * 1024)? {
        None => None,
        Some(text) => Some(Scope::parse(&text).map_err(|e| invalid("scope", &e.to_string()))?),
    };
    let approval = fields.id::<GrantId>("approval")?;
    fields.finish(MINT_MEMBERS)?;
    let user_id = user_id.ok_or_else(|| missing("user_id", "Name the user whom the actor will act as."))?;
    let actor = match (token, claimed) {
        (Some(token), claimed) => Requested::Proven { token, claimed, declared: Declared::Jwt },
        (None, Some(sub)) => Requested::Asserted(sub),
        (None, None) => {
            return Err(missing("actor", "Send `actor_token`, the actor's own token, or `actor.sub`."));
        }
    };
    let expires_in_seconds = match (expires, session) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    Ok(Ask {
        subject: Subject::Id(user_id),
        actor,
        reason,
        ticket,
        expires_in_seconds,
        audience,
        scope,
        approval,
        by_code: matches!(delivery, Delivery::Code(_)),
    })
}

/// An empty one would stand in the log as a ticket.
fn read_ticket(fields: &mut Fields) -> Result<Option<String>, Problem> {
    let ticket = fields.prose("ticket", MAX_TICKET)?;
    match &ticket {
        Some(text) if text.trim().is_empty() => {
            Err(invalid(fields.name("ticket"), "must not be empty; leave it out where there is none"))
        }
        _ => Ok(ticket),
    }
}

/// `audience`: a text or a list of texts; an empty one is an error, not "any".
fn read_audience(fields: &mut Fields) -> Result<Option<Vec<Audience>>, Problem> {
    let Some(value) = fields.take("audience") else { return Ok(None) };
    let list = match value {
        Value::String(one) => vec![Value::String(one)],
        Value::Array(many) => many,
        _ => return Err(invalid("audience", "must be a string or a list of strings")),
    };
    if list.is_empty() {
        return Err(invalid(
            "audience",
            "must name at least one audience; leave it out for the client's default",
        ));
    }
    if list.len() > MAX_AUDIENCES {
        return Err(invalid("audience", &format!("must name at most {MAX_AUDIENCES} audiences")));
    }
    let mut out: Vec<Audience> = Vec::with_capacity(list.len());
    for value in list {
        let Value::String(text) = value else { return Err(invalid("audience", "must hold strings only")) };
        let audience = Audience::try_from(text).map_err(|e| invalid("audience", &e.to_string()))?;
        if !out.contains(&audience) {
            out.push(audience);
        }
    }
    Ok(Some(out))
}

/// A recorded denial becomes an answer; nothing else maps one.
pub(super) fn denied(denial: Denial) -> Problem {
    let Denial { rule, message, kind } = denial;
    let problem = match kind {
        // The one refusal that is counted instead of recorded.
        DenialKind::RateLimited { retry_after_seconds } => {
            return Problem::new(Code::TooManyRequests, message).retry_after(retry_after_seconds);
        }
        DenialKind::Scope(permission) => scope_missing(permission),
        DenialKind::Parameter(name) => Problem::new(Code::FormParamValueInvalid, message).param(name),
        DenialKind::Unreachable => Problem::new(Code::AuthorityUnavailable, message).retry_after(5),
        DenialKind::Condition | DenialKind::Audience | DenialKind::Policy(Refusal::Denied) => {
            Problem::new(Code::PolicyDenied, message)
        }
        DenialKind::InFlight => Problem::new(Code::IdempotencyInFlight, message).retry_after(1),
        DenialKind::KeyReused => Problem::new(Code::IdempotencyKeyReused, message),
        DenialKind::GrantEnded => Problem::new(Code::IdempotencyGrantEnded, message),
        // which of the reasons it was would tell a thief what he has
        DenialKind::NoSuchCode => {
            return Problem::new(Code::ResourceNotFound, message).param("code").recorded();
        }
        DenialKind::NoSuchRequest => {
            return Problem::new(Code::ResourceNotFound, message).recorded();
        }
        DenialKind::NotWaiting => Problem::new(Code::ApprovalNotWaiting, message),
        DenialKind::Policy(Refusal::Error) => Problem::new(Code::PolicyError, message),
        DenialKind::Policy(Refusal::UnknownTarget) => {
            Problem::new(Code::ResourceNotFound, message).param("user_id")
        }
        DenialKind::Policy(Refusal::StepUp(step_up)) => {
            Problem::new(Code::PolicyDenied, message).step_up(step_up)
        }
    };
    problem.rule(rule).recorded()
}

/// Nothing could be recorded, or nothing signed.
pub(super) fn not_answered(error: IssueError) -> Problem {
    match error {
        IssueError::Log(error) => log_unavailable(error),
        // of a keyring that was read, only a clock that was set leaves nothing that signs
        IssueError::NoKey(_) => {
            tracing::error!(error = %super::problem::chain(&error), "nothing signs tokens");
            let detail = "No key signs tokens at the moment, so nothing was issued. Try again shortly.";
            Problem::new(Code::AuthorityUnavailable, detail).retry_after(10)
        }
        IssueError::NoClerkKey | IssueError::Sign(_) => Problem::internal(&error),
    }
}

/// The log could not record: no token, no denial, only this.
pub(super) fn log_unavailable(error: LogError) -> Problem {
    if matches!(error, LogError::Overloaded) {
        // the log says once in a while how many there were: a line for each would be load of its own
        tracing::debug!("refused, as the log has too much to do");
    } else {
        tracing::error!(error = %super::problem::chain(&error), "the log could not record");
    }
    Problem::new(
        Code::LogUnavailable,
        "The issuance log cannot record at the moment, so nothing was issued. Try again shortly.",
    )
    .retry_after(error.retry_after_seconds())
}

/// The log could not be read.
pub(super) fn log_unreadable(error: LogError) -> Problem {
    tracing::error!(error = %super::problem::chain(&error), "the log could not be read");
    Problem::new(Code::LogUnavailable, "The issuance log cannot be read at the moment. Try again shortly.")
        .retry_after(error.retry_after_seconds())
}

/// GET `/v1/actor_tokens`.
pub async fn list(app: App, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&app, &request)?;
    caller.require(ClientScope::Read)?;
    let query =
        Query::parse(request.query_string(), &["user_id", "actor", "actors", "status", "limit", "cursor"])?;
    let status = query
        .word("status", GrantStatus::WORDS)?
        .map(|word| GrantStatus::parse(word).ok_or_else(|| bad("status", "is not known")))
        .transpose()?;
    let filter = GrantFilter {
        client: (!caller.is_admin()).then(|| caller.client.id.clone()),
        subject: query.id("user_id")?,
        actor: query.id("actor")?,
        status,
    };
    let pseudonymous = asks_for_pseudonyms(&query)?;
    if pseudonymous && filter.actor.is_some() {
        return Err(bad("actor", "would tell who is behind a pseudonym"));
    }
    let cursor = Cursor::read(query.text("cursor"), &filter).map_err(|e| bad("cursor", &e.to_string()))?;
    let limit = query.limit(50, 200)?;
    let page = app.log.grants(&filter, cursor, limit, app.clock.now()).await.map_err(log_unreadable)?;
    let grants: Vec<GrantBody> =
        page.rows.into_iter().map(|grant| shown(&app, grant, pseudonymous)).collect();
    json_answer(&json!({ "object": "list", "actor_tokens": grants, "next_cursor": page.next }))
}

fn asks_for_pseudonyms(query: &Query) -> Result<bool, Problem> {
    Ok(query.word("actors", &["named", "pseudonymous"])? == Some("pseudonymous"))
}

/// A grant as it stands now, its actor by name or by pseudonym.
fn shown(app: &App, mut grant: Grant, pseudonymous: bool) -> GrantBody {
    if pseudonymous {
        let customer = grant.subject.as_ref();
        grant.actor = customer.zip(grant.actor).map(|(of, act)| app.revoker.people().pseudonym(of, &act));
    }
    app.revoker.seen(grant).into()
}

/// GET `/v1/actor_tokens/{id}`.
pub async fn read(app: App, request: HttpRequest, id: Path<String>) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&app, &request)?;
    caller.require(ClientScope::Read)?;
    let pseudonymous = asks_for_pseudonyms(&Query::parse(request.query_string(), &["actors"])?)?;
    let unknown = || Problem::not_found("No grant by this id belongs to this client.");
    let id = GrantId::try_from(id.as_str()).map_err(|_| unknown())?;
    let grant = app.log.grant(&id).await.map_err(log_unreadable)?.ok_or_else(unknown)?;
    if grant.row.client != caller.client.id && !caller.is_admin() {
        return Err(unknown());
    }
    json_answer(&shown(&app, grant, pseudonymous))
}
