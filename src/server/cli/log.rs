//! `stagedoor log tail`: the issuance log of a running server, as it grows.

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::api::{Api, ApiError};
use super::output::{self, cut};
use super::terminal::{self, Tone, paint};
use super::{CliError, Outcome};
use crate::server::config::Environment;
use crate::server::outbound::{chain, percent_encode};

/// How often the server is asked whether the log has grown.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries asked for at once.
const PAGE: usize = 200;
/// The largest checkpoint that is read, bytes.
const MAX_CHECKPOINT_BYTES: usize = 16 << 10;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the newest entries, then each new one as it is recorded
    Tail(Tail),
}

/// Which entries, and how.
#[derive(Debug, Args)]
pub struct Tail {
    /// How many of the newest entries to begin with
    #[arg(long, short = 'n', default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=200))]
    lines: u16,
    /// Stop after those
    #[arg(long)]
    no_follow: bool,
    /// Show who, for whom, why and from where (needs `audit:read_personal`; each look is an entry of its own)
    #[arg(long)]
    people: bool,
    /// Only this acting person (needs `audit:read_personal`)
    #[arg(long, value_name = "SUB")]
    actor: Option<String>,
    /// Only this user (needs `audit:read_personal`)
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only this ticket (needs `audit:read_personal`)
    #[arg(long)]
    ticket: Option<String>,
    /// Only what this client asked for
    #[arg(long, value_name = "CLIENT")]
    client: Option<String>,
    /// Only what ended so: granted, denied or pending
    #[arg(long)]
    decision: Option<String>,
    /// Only what this rule decided
    #[arg(long)]
    rule: Option<String>,
    /// Only entries of this type, such as issue, revoke or policy
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// The running server [default: that of `STAGEDOOR_URL`, else where the configuration has it listen]
    #[arg(long)]
    url: Option<String>,
}

impl Tail {
    fn filters(&self) -> Vec<(&'static str, String)> {
        let given = [
            ("actor", &self.actor),
            ("user_id", &self.user),
            ("ticket", &self.ticket),
            ("client", &self.client),
            ("decision", &self.decision),
            ("rule", &self.rule),
            ("typ", &self.r#type),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

impl Command {
    /// Whether it asks a server that the command line does not name.
    pub const fn asks_a_server(&self) -> bool {
        let Self::Tail(tail) = self;
        tail.url.is_none()
    }
}

pub async fn run(command: &Command, environment: &Environment, json: bool) -> Outcome {
    let Command::Tail(tail) = command;
    let api = Api::as_client(tail.url.as_deref(), environment)?;
    let mut follower =
        Follower { api: &api, filters: tail.filters(), people: tail.people, json, shown: HashSet::new() };
    // read before the newest entries are: what is recorded between the two is shown once all the same
    let mut next = size(&api).await?;
    follower.newest(usize::from(tail.lines)).await?;
    if tail.no_follow {
        return Ok(ExitCode::SUCCESS);
    }
    let mut away = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match follower.follow(next).await {
            Ok(now) => {
                (next, away) = (now, false);
            }
            // a server that restarts comes back; one that refuses does not change its mind
            Err(CliError::Api(error)) if error.passes() => {
                if !away {
                    eprintln!("warning: {}; trying again", output::plain(&chain(&error)));
                }
                away = true;
            }
            Err(error) => return Err(error),
        }
    }
}

/// How many entries the log's epoch has: the second line of the checkpoint, which is public and costs nothing.
async fn size(api: &Api) -> Result<u64, ApiError> {
    let checkpoint = api.get("/v1/audit/log/checkpoint", MAX_CHECKPOINT_BYTES, false).await?;
    let checkpoint = String::from_utf8(checkpoint.unwrap_or_default()).map_err(|_| api.not_ours())?;
    checkpoint.lines().nth(1).and_then(|line| line.parse().ok()).ok_or_else(|| api.not_ours())
}

struct Follower<'a> {
    api: &'a Api,
    filters: Vec<(&'static str, String)>,
    people: bool,
    json: bool,
    /// Leaf hashes of what the first look showed.
    shown: HashSet<String>,
}

impl Follower<'_> {
    /// Shows the newest entries, oldest first.
    async fn newest(&mut self, lines: usize) -> Result<(), CliError> {
        self.head()?;
        if lines == 0 {
            return Ok(());
        }
        let query = self.query(lines, self.people, None);
        let page = self.api.read(&query, "application/json").await?;
        let page: Value = serde_json::from_str(&page).map_err(|_| self.api.not_ours())?;
        let rows = page["entries"].as_array().ok_or_else(|| self.api.not_ours())?;
        for row in rows.iter().rev() {
            self.show(row)?;
            self.shown.extend(row["leaf"].as_str().map(str::to_owned));
        }
        Ok(())
    }

    /// Shows what was recorded from index `from` on; the index to go on with.
    async fn follow(&mut self, from: u64) -> Result<u64, CliError> {
        let size = size(self.api).await?;
        if size == from {
            return Ok(from);
        }
        let mut next = from;
        if size < from {
            eprintln!("warning: the log has begun anew, a new epoch; following from its first entry");
            next = 0;
        }
        loop {
            let rows = self.page(next).await?;
            for row in &rows {
                if !row["leaf"].as_str().is_some_and(|leaf| self.shown.contains(leaf)) {
                    self.show(row)?;
                }
            }
            let last = rows.last().and_then(|row| row["index"].as_u64());
            next = last.map_or(next, |last| last + 1);
            if rows.len() < PAGE {
                // what is beyond the last row and below the size does not match
                return Ok(next.max(size));
            }
        }
    }

    /// Entries from an index on. People are only asked for where there are any: looking at them is an entry, and
    /// a look at the entry of a look would go on for ever.
    async fn page(&self, from: u64) -> Result<Vec<Value>, CliError> {
        let rows = self.lines(from, false).await?;
        if self.people && rows.iter().any(|row| row["body"]["typ"] != "view") {
            return self.lines(from, true).await;
        }
        Ok(rows)
    }

    async fn lines(&self, from: u64, people: bool) -> Result<Vec<Value>, CliError> {
        let text = self.api.read(&self.query(PAGE, people, Some(from)), "application/x-ndjson").await?;
        let rows = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        Ok(rows.map_err(|_| self.api.not_ours())?)
    }

    fn query(&self, limit: usize, people: bool, from: Option<u64>) -> String {
        let mut path = format!("/v1/audit/entries?limit={limit}&personal={people}");
        for (name, value) in &self.filters {
            path.push_str(&format!("&{name}={}", percent_encode(value)));
        }
        if let Some(from) = from {
            path.push_str(&format!("&from={from}"));
        }
        path
    }

    fn head(&self) -> Result<(), CliError> {
        if self.json || terminal::columns().is_none() {
            return Ok(());
        }
        output::print(&paint(Tone::Aside, &line("TIME", "ENTRY", "WHAT", "DECISION", "DETAIL")))
    }

    fn show(&self, row: &Value) -> Result<(), CliError> {
        if self.json {
            return output::print(&output::compact(row));
        }
        let text = describe(row);
        output::print(&match terminal::columns() {
            None => text,
            Some(columns) => {
                let text = cut(&text, columns);
                match row["body"]["decision"].as_str() {
                    Some(word @ "denied") => text.replacen(word, &paint(Tone::Bad, word), 1),
                    Some(word @ "granted") => text.replacen(word, &paint(Tone::Good, word), 1),
                    _ => text,
                }
            }
        })
    }
}

fn line(time: &str, index: &str, what: &str, decision: &str, detail: &str) -> String {
    format!("{time:<20} {index:>8} {what:<10} {decision:<8} {detail}")
}

/// One entry on one line, what a reader looks for first standing first.
fn describe(row: &Value) -> String {
    let (body, people) = (&row["body"], &row["personal"]);
    let time = row["time"].as_i64().and_then(DateTime::from_timestamp_millis);
    let time = time.map_or_else(|| "-".to_owned(), |at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
    let word = |value: &Value| output::plain(value.as_str().unwrap_or("-"));
    let mut detail = Vec::new();
    if people["act"].is_object() || people["sub"].is_string() {
        detail.push(format!("{} as {}", word(&people["act"]["sub"]), word(&people["sub"])));
    }
    for (name, value) in [
        ("", &people["reason"]),
        ("ticket", &people["ticket"]),
        ("rule", &body["rule"]),
        ("grant", &body["grant"]),
        ("client", &body["client"]),
        ("from", &people["addr"]),
    ] {
        match value.as_str() {
            Some(text) if name.is_empty() => detail.push(format!("“{}”", output::plain(text))),
            Some(text) => detail.push(format!("{name} {}", output::plain(text))),
            None => {}
        }
    }
    if let Some(more) = body["detail"].as_object() {
        let more = more.iter().map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name}={text}"),
            None => format!("{name}={value}"),
        });
        detail.extend(more.map(|text| output::plain(&text)));
    }
    let index = row["index"].to_string();
    line(&time, &index, &word(&body["typ"]), &word(&body["decision"]), &detail.join(" · "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_is_one_line_that_no_name_in_it_can_break() {
        let row = json!({
            "index": 7, "time": 1_795_333_985_000_i64, "leaf": "00",
            "body": { "typ": "issue", "decision": "denied", "rule": "r", "client": "client_1" },
            "personal": { "act": { "sub": "a\nb" }, "sub": "\u{202e}x", "reason": "\u{1b}[2J" },
        });
        let text = describe(&row);
        assert_eq!(
            text,
            "2026-11-22T07:53:05Z        7 issue      denied   a\\u{a}b as \\u{202e}x · “\\u{1b}[2J” · rule r · client client_1"
        );
        assert!(!describe(&json!({})).contains('\n'), "what is no entry does no harm");
    }
}
