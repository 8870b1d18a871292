//! `/console/audit`: the log for auditors. Whatever shows people is recorded before it is shown.

use actix_web::http::header;
use actix_web::web::Path;
use actix_web::{HttpRequest, HttpResponse};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::form::pairs;
use super::page::{Trouble, log_away};
use super::visit::{Visit, console, visit};
use crate::server::console::figures::{Figures, figures};
use crate::server::console::view::{self, audit::Filled};
use crate::server::http::App;
use crate::server::http::actor_tokens::{json_answer, log_unreadable};
use crate::server::http::audit::{read_filter, row};
use crate::server::http::problem::{Code, Problem};
use crate::server::http::query::Query;
use crate::server::log::read::ReadError;
use crate::server::log::{Cursor, EntryFilter, LogEntry, csv};
use crate::token::GrantId;

/// Rows of a page.
const PAGE: u32 = 50;
/// Rows read at a time.
const CHUNK: u32 = 500;
/// The most attempts that the chart counts.
const MOST_COUNTED: usize = 5_000;
/// The most rows of an export.
const MOST_EXPORTED: usize = 50_000;
/// What the chart shows unless a time is chosen.
const CHART_SPAN: TimeDelta = TimeDelta::hours(24);
const FILTERS: &[&str] = &[
    "actor", "user_id", "client", "decision", "rule", "ticket", "typ", "since", "until", "cursor", "format",
];

/// The filters of an address, as text and as values.
struct Asked {
    filled: Filled,
    query: Result<(Query, EntryFilter), Problem>,
}

impl Asked {
    /// A form sends its empty fields too; they filter nothing.
    fn read(request: &HttpRequest) -> Result<Self, Trouble> {
        let set: Vec<_> =
            pairs(request.query_string())?.into_iter().filter(|(_, v)| !v.trim().is_empty()).collect();
        let encode = crate::server::outbound::percent_encode;
        let text = set
            .iter()
            .map(|(n, v)| format!("{}={}", encode(n), encode(v.trim())))
            .collect::<Vec<_>>()
            .join("&");
        let get = |name: &str| {
            set.iter().find(|(n, _)| n == name).map_or(String::new(), |(_, v)| v.trim().to_owned())
        };
        let filled = Filled {
            actor: get("actor"),
            user_id: get("user_id"),
            ticket: get("ticket"),
            typ: get("typ"),
            decision: get("decision"),
            rule: get("rule"),
            client: get("client"),
            since: get("since"),
            until: get("until"),
        };
        let query = Query::parse(&text, FILTERS).and_then(|query| {
            let filter = read_filter(&query)?;
            Ok((query, filter))
        });
        Ok(Self { filled, query })
    }
}

async fn auditor(app: &App, request: &HttpRequest) -> Result<Visit, Trouble> {
    let visit = visit(app, request).await?;
    visit.require(|may| may.audit)?;
    Ok(visit)
}

/// GET `/console/audit`.
pub async fn list(app: App, request: HttpRequest) -> Result<HttpResponse, Trouble> {
    let visit = auditor(&app, &request).await?;
    let console = console(&app)?;
    let asked = Asked::read(&request)?;
    let shown = async {
        let (query, filter) = asked.query.as_ref().map_err(|problem| problem.detail.to_string())?;
        let cursor = Cursor::read(query.text("cursor"), filter).map_err(|e| format!("`cursor` {e}."))?;
        Ok::<_, String>((filter, cursor))
    };
    let (filter, cursor) = match shown.await {
        Ok(asked) => asked,
        Err(message) => {
            let body = view::audit::list(&asked.filled, None, &[], None, Some(&message));
            return Ok(visit.show(console, "Log", &body, &[]));
        }
    };
    // The chart stands on the first page; older pages are for reading.
    let chart = match cursor {
        None => attempts(&app, filter, visit.now).await?,
        Some(_) => None,
    };
    let page = app.log.entries(filter, cursor, PAGE, true).await.map_err(log_away)?;
    visit.record_view(&app, "log", page.rows.len(), filter.subject.clone()).await?;
    let body = view::audit::list(&asked.filled, chart.as_ref(), &page.rows, page.next.as_deref(), None);
    Ok(visit.show(console, "Log", &body, &[]))
}

/// Counts the attempts that fit the filter; `None` where it asks for other entries.
async fn attempts(app: &App, filter: &EntryFilter, now: DateTime<Utc>) -> Result<Option<Figures>, Trouble> {
    if filter.typ.as_deref().is_some_and(|typ| typ != "issue") {
        return Ok(None);
    }
    let until = filter.until.unwrap_or(now);
    let since = filter.since.or_else(|| until.checked_sub_signed(CHART_SPAN)).unwrap_or(until);
    let counted =
        EntryFilter { typ: Some("issue".into()), since: Some(since), until: filter.until, ..filter.clone() };
    let (rows, cut) = collect(app, &counted, MOST_COUNTED).await?;
    Ok(Some(figures(&rows, since, until, cut)))
}

/// Up to `most` entries, newest first, and whether there are more.
async fn collect(app: &App, filter: &EntryFilter, most: usize) -> Result<(Vec<LogEntry>, bool), Trouble> {
    let (mut rows, mut next) = (Vec::new(), None::<String>);
    loop {
        let cursor = Cursor::read(next.as_deref(), filter)
            .map_err(|_| Trouble::Unavailable("The log changed. Try again."))?;
        let page = app.log.entries(filter, cursor, CHUNK, true).await.map_err(log_away)?;
        rows.extend(page.rows);
        next = page.next;
        if next.is_none() || rows.len() >= most {
            return Ok((rows, next.is_some()));
        }
    }
}

/// GET `/console/audit/entry/{index}`.
pub async fn entry(app: App, request: HttpRequest, index: Path<String>) -> Result<HttpResponse, Trouble> {
    let visit = auditor(&app, &request).await?;
    let not_there = Trouble::NotThere("The log has no entry of this number, or its body was pruned.");
    let index: u64 = index.parse().map_err(|_| not_there.clone())?;
    let entry = app.log.entry(index, true).await.map_err(log_away)?.ok_or(not_there)?;
    visit.record_view(&app, "entry", 1, None).await?;
    Ok(visit.show(console(&app)?, "Log entry", &view::entry::entry(&entry), &[]))
}

/// GET `/console/audit/grant/{id}`.
pub async fn grant(app: App, request: HttpRequest, id: Path<String>) -> Result<HttpResponse, Trouble> {
    let visit = auditor(&app, &request).await?;
    let not_there = Trouble::NotThere("There is no grant by this id.");
    let id = GrantId::try_from(id.as_str()).map_err(|_| not_there.clone())?;
    let grant = app.log.grant(&id).await.map_err(log_away)?.ok_or(not_there)?;
    let grant = app.revoker.seen(grant);
    let stages = app.log.history(&grant, visit.now, true).await.map_err(log_away)?;
    visit.record_view(&app, "grant", stages.len(), grant.subject.clone()).await?;
    Ok(visit.show(console(&app)?, "Log of a grant", &view::entry::grant(&grant, &stages), &[]))
}

/// GET `/console/audit/entry/{index}/proof`: the entry's proof as a file (c2sp.org/tlog-proof).
pub async fn receipt(app: App, request: HttpRequest, index: Path<String>) -> Result<HttpResponse, Trouble> {
    let visit = auditor(&app, &request).await?;
    let not_there = Trouble::NotThere("The log has no entry of this number.");
    let index: u64 = index.parse().map_err(|_| not_there.clone())?;
    let proof = match app.log.proof(index).await {
        Ok(proof) => proof,
        Err(ReadError::Log(error)) => return Err(log_away(error)),
        Err(ReadError::Range(_) | ReadError::Pruned) => return Err(not_there),
    };
    visit.record_view(&app, "proof", 1, None).await?;
    let name = format!("attachment; filename=\"stagedoor-entry-{index}.tlog-proof\"");
    Ok(HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::CONTENT_DISPOSITION, name))
        .body(proof))
}

/// GET `/console/audit/proof?index=&from=`: what the browser checks by itself.
pub async fn proof(app: App, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let refused = || Problem::new(Code::AuthorizationHeaderMissing, "Sign in to the console as an auditor.");
    let visit = auditor(&app, &request).await.map_err(|_| refused())?;
    let query = Query::parse(request.query_string(), &["index", "from"])?;
    let mut out = json!({ "vkey": app.log.vkey() });
    if let Some(index) = query.number("index")? {
        let not_there = || Problem::not_found("The log has no entry of this number.");
        visit.record_view(&app, "proof", 1, None).await.map_err(|_| {
            Problem::new(Code::LogUnavailable, "The issuance log cannot record at the moment.").retry_after(5)
        })?;
        let entry = app.log.entry(index, true).await.map_err(log_unreadable)?.ok_or_else(not_there)?;
        out["proof"] = app.log.proof(index).await.map_err(unprovable)?.into();
        out["body"] = entry.body_text.into();
        out["disclosures"] = json!(entry.disclosures);
    }
    // Both under one checkpoint, or the two proofs would speak of two logs.
    let checkpoint = match out["proof"].as_str().and_then(|proof| proof.split_once("\n\n")) {
        Some((_, note)) => note.to_owned(),
        None => app.log.checkpoint().await.map_err(log_unreadable)?,
    };
    let size = crate::server::log::Checkpoint::parse_unverified(&checkpoint).map_or(0, |c| c.size);
    // An older size beyond the newest is the browser's finding to make: entries were removed.
    if let Some(from) = query.number("from")?.filter(|from| *from <= size) {
        let grown = app.log.consistency(from, Some(size)).await.map_err(unprovable)?;
        out["consistency"] = json!({ "from": grown.from, "to": grown.to, "hashes": grown.hashes });
    }
    out["checkpoint"] = checkpoint.into();
    json_answer(&out)
}

fn unprovable(error: ReadError) -> Problem {
    match error {
        ReadError::Log(error) => log_unreadable(error),
        ReadError::Range(_) | ReadError::Pruned => Problem::new(Code::ResourceNotFound, error.to_string()),
    }
}

/// GET `/console/audit/export?format=ndjson|csv` with the filters of the page.
pub async fn export(app: App, request: HttpRequest) -> Result<HttpResponse, Trouble> {
    let visit = auditor(&app, &request).await?;
    let asked = Asked::read(&request)?;
    let unusable = |_| Trouble::Form("A filter cannot be used. Go back and correct it.");
    let (query, filter) = asked.query.map_err(unusable)?;
    let format = query.word("format", &["ndjson", "csv"]).map_err(unusable)?;
    let (rows, cut) = collect(&app, &filter, MOST_EXPORTED).await?;
    if cut {
        return Err(Trouble::Form(
            "These are more than 50 000 entries: narrow the time, or use `stagedoor audit export`.",
        ));
    }
    visit.record_view(&app, "export", rows.len(), filter.subject.clone()).await?;
    let (kind, name, header, line): (_, _, _, fn(&LogEntry) -> String) = match format {
        Some("csv") => ("text/csv; charset=utf-8", "stagedoor-log.csv", csv::header() + "\n", csv::line),
        _ => ("application/x-ndjson", "stagedoor-log.ndjson", String::new(), |entry| row(entry).to_string()),
    };
    let text = rows.iter().fold(header, |text, entry| text + &line(entry) + "\n");
    Ok(HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")))
        .body(text))
}
