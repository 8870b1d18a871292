//! `/v1/audit`: the entries of the issuance log for people and programs, and its signed head.

use actix_web::http::header::{self, ACCEPT};
use actix_web::web::Path;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};

use super::App;
use super::accept::prefers;
use super::actor_tokens::{GrantBody, json_answer, log_unavailable, log_unreadable};
use super::caller::{Caller, authenticate};
use super::problem::Problem;
use super::query::{Query, bad};
use crate::server::clients::ClientScope;
use crate::server::log::{Cursor, EntryFilter, Event, EventType, LogEntry, Record};
use crate::token::GrantId;

/// Rows of a JSON page when none are asked for, and at the most.
const PAGE: (u32, u32) = (50, 500);
/// Rows of an NDJSON answer when none are asked for, and at the most: a reader goes on with `from`.
const STREAM: (u32, u32) = (1000, 10_000);
const FILTERS: &[&str] = &[
    "actor", "user_id", "client", "decision", "rule", "ticket", "typ", "since", "until", "from", "limit",
    "cursor", "personal",
];

/// GET `/v1/audit/entries`.
pub async fn entries(app: App, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&app, &request)?;
    caller.require(ClientScope::AuditRead)?;
    let query = Query::parse(request.query_string(), FILTERS)?;
    let filter = read_filter(&query)?;
    let personal = shows_people(&caller, &query)?;
    if filter.is_personal() {
        // A filter on a person tells what concerns him, even when his id is not shown.
        caller.require(ClientScope::AuditReadPersonal)?;
    }
    if prefers(request.headers().get(ACCEPT), "application/x-ndjson", false) {
        return ndjson(&app, &caller, &query, &filter, personal).await;
    }
    if query.text("from").is_some() {
        return Err(bad("from", "goes with Accept: application/x-ndjson; page with `cursor` here"));
    }
    let cursor = Cursor::read(query.text("cursor"), &filter).map_err(|e| bad("cursor", &e.to_string()))?;
    let limit = query.limit(PAGE.0, PAGE.1)?;
    let page = app.log.entries(&filter, cursor, limit, personal).await.map_err(log_unreadable)?;
    record_look(&app, &caller, &filter, &page.rows).await?;
    let rows: Vec<Value> = page.rows.iter().map(row).collect();
    json_answer(&json!({ "object": "list", "entries": rows, "next_cursor": page.next }))
}

/// Ascending from `from`, one entry a line: for machines that follow the log.
async fn ndjson(
    app: &App,
    caller: &Caller,
    query: &Query,
    filter: &EntryFilter,
    personal: bool,
) -> Result<HttpResponse, Problem> {
    if query.text("cursor").is_some() {
        return Err(bad("cursor", "belongs to the JSON list; go on with `from` here"));
    }
    let from = query.number("from")?.unwrap_or(0);
    let limit = query.limit(STREAM.0, STREAM.1)?;
    let rows = app.log.entries_from(filter, from, limit, personal).await.map_err(log_unreadable)?;
    record_look(app, caller, filter, &rows).await?;
    let mut text = String::with_capacity(rows.len() * 512);
    for entry in &rows {
        text.push_str(&row(entry).to_string());
        text.push('\n');
    }
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").body(text))
}

/// Whether people are shown: to a client that may see them, unless it asks not to.
fn shows_people(caller: &Caller, query: &Query) -> Result<bool, Problem> {
    let wanted = query.word("personal", &["true", "false"])? != Some("false");
    Ok(wanted && caller.client.may(ClientScope::AuditReadPersonal))
}

pub(super) fn read_filter(query: &Query) -> Result<EntryFilter, Problem> {
    Ok(EntryFilter {
        actor: query.id("actor")?,
        subject: query.id("user_id")?,
        client: query.id("client")?,
        decision: query.word("decision", &["granted", "denied", "pending"])?.map(str::to_owned),
        rule: query.text("rule").map(str::to_owned),
        ticket: query.text("ticket").map(str::to_owned),
        typ: query.word("typ", EventType::WORDS)?.map(str::to_owned),
        since: query.time("since")?,
        until: query.time("until")?,
    })
}

/// GET `/v1/audit/grants/{id}`: the life of one grant.
pub async fn grant(app: App, request: HttpRequest, id: Path<String>) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&app, &request)?;
    caller.require(ClientScope::AuditRead)?;
    let personal = shows_people(&caller, &Query::parse(request.query_string(), &["personal"])?)?;
    let unknown = || Problem::not_found("There is no grant by this id.");
    let id = GrantId::try_from(id.as_str()).map_err(|_| unknown())?;
    let now = app.clock.now();
    let grant = app.log.grant(&id).await.map_err(log_unreadable)?.ok_or_else(unknown)?;
    let stages = app.log.history(&grant, now, personal).await.map_err(log_unreadable)?;
    record_view(&app, &caller, personal, stages.len()).await?;
    let steps: Vec<Value> = stages
        .iter()
        .map(|stage| {
            json!({
                "step": stage.step.as_str(),
                "at": stage.at.timestamp_millis(),
                "entry": stage.entry.as_ref().map(row),
            })
        })
        .collect();
    let mut body = GrantBody::from(app.revoker.seen(grant));
    if !personal {
        body.hide_people();
    }
    json_answer(&json!({ "object": "grant_history", "grant": body, "steps": steps }))
}

/// A filter on a person tells about him even where nobody is named: that look is recorded too.
async fn record_look(
    app: &App,
    caller: &Caller,
    filter: &EntryFilter,
    rows: &[LogEntry],
) -> Result<(), Problem> {
    record_view(app, caller, filter.is_personal() || rows.iter().any(tells), rows.len()).await
}

/// Whether `entry` as it was read tells of somebody. From where a program read the log is all that its `view` tells: were
/// that a look again, each page that is read would make another one.
pub(super) fn tells(entry: &LogEntry) -> bool {
    let Some(personal) = &entry.personal else { return false };
    let view = entry.body.as_ref().is_some_and(|body| body["typ"] == EventType::View.as_str());
    let told = |name: &&str| personal.get(name).is_some();
    ["act", "sub", "reason", "ticket"].iter().any(told) || told(&"addr") && !view
}

/// Reading personal data is an entry of its own, recorded before the data leaves.
pub(super) async fn record_view(
    app: &App,
    caller: &Caller,
    personal: bool,
    rows: usize,
) -> Result<(), Problem> {
    if !personal || rows == 0 {
        return Ok(());
    }
    let mut detail = Map::new();
    detail.insert("entries".into(), json!(rows));
    let mut event = Event {
        client: Some(caller.client.id.clone()),
        req: Some(caller.arrival.id.clone()),
        detail: Some(detail),
        ..Event::new(EventType::View)
    };
    event.personal.address = caller.arrival.address;
    app.log.record(Record::of(event)).await.map_err(log_unavailable)?;
    Ok(())
}

/// One entry: the sealed body as it was hashed, and beside it what may be disclosed.
pub(super) fn row(entry: &LogEntry) -> Value {
    let mut out = Map::new();
    out.insert("index".into(), json!(entry.index));
    out.insert("time".into(), json!(entry.time.timestamp_millis()));
    out.insert("leaf".into(), json!(entry.leaf_hex()));
    out.insert("body".into(), entry.body.clone().unwrap_or(Value::Null));
    if let Some(personal) = &entry.personal {
        out.insert("personal".into(), personal.to_json());
        out.insert("disclosures".into(), json!(entry.disclosures));
    }
    Value::Object(out)
}

/// GET `/v1/audit/log/checkpoint`: the newest durable head, a C2SP signed note, with the cosignatures there
/// are of it.
pub async fn checkpoint(app: App) -> Result<HttpResponse, Problem> {
    let note = app.log.checkpoint().await.map_err(log_unreadable)?;
    Ok(text(app.witnesses.cosigned(&app.log, note).await.map_err(log_unreadable)?))
}

/// GET `/v1/audit/log/witnessed`: the newest head that enough witnesses cosigned.
pub async fn witnessed(app: App) -> Result<HttpResponse, Problem> {
    let none = || Problem::not_found("No checkpoint of this log has the cosignatures that are required.");
    let note = app.witnesses.witnessed(&app.log).await.map_err(log_unreadable)?;
    Ok(text(note.ok_or_else(none)?))
}

/// GET `/v1/audit/log/vkey`: the key that checkpoints verify under, in note form.
pub async fn vkey(app: App) -> HttpResponse {
    text(format!("{}\n", app.log.vkey()))
}

fn text(body: String) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8")).body(body)
}
