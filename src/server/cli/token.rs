//! `stagedoor token …`: minting and reading tokens at a terminal.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::api::Api;
use super::revoke::Revoke;
use super::terminal::{self, Tone, paint};
use super::{CliError, Outcome, output};
use crate::server::config::Environment;

type Object = Map<String, Value>;

/// The longest token that is read, bytes.
const MAX_TOKEN_BYTES: u64 = 16 << 10;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mint an actor token; at a terminal what is missing is asked for, on a pipe the token alone is printed
    Mint(Mint),
    /// The issuance log, as `stagedoor log`
    #[command(subcommand)]
    Log(super::log::Command),
    /// End grants: one, or all of an actor, user, client or key, or everything
    Revoke(Revoke),
    /// Show what is in a token; with --url or `STAGEDOOR_URL`, also whether the server finds it valid
    Inspect {
        /// The token; read from standard input when left out, which keeps it out of the process list
        token: Option<String>,
        /// The running server that says whether it is valid [default: that of `STAGEDOOR_URL`]. Where neither names one
        /// the token is sent nowhere: it may be anybody's
        #[arg(long)]
        url: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct Mint {
    /// The user to act as
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// The person who acts (the client needs `actor_tokens:assert_actor`)
    #[arg(long, value_name = "SUB")]
    actor: Option<String>,
    /// Why
    #[arg(long)]
    reason: Option<String>,
    /// The ticket
    #[arg(long)]
    ticket: Option<String>,
    /// Lifetime in seconds [default: the server's]
    #[arg(long, value_name = "SECONDS")]
    expires_in: Option<u32>,
    /// Who the token is for [default: the client's]
    #[arg(long, num_args = 1.., value_name = "URI")]
    audience: Option<Vec<String>>,
    /// What the token allows, separated by spaces
    #[arg(long)]
    scope: Option<String>,
    /// The running server [default: that of `STAGEDOOR_URL`, else where the configuration has it listen]
    #[arg(long)]
    url: Option<String>,
}

impl Command {
    /// Whether it asks a server that the command line does not name.
    pub const fn asks_a_server(&self) -> bool {
        match self {
            Self::Mint(mint) => mint.url.is_none(),
            Self::Log(log) => log.asks_a_server(),
            Self::Revoke(revoke) => revoke.url.is_none(),
            // a token that is looked at may be anybody's: it goes only where somebody sends it
            Self::Inspect { .. } => false,
        }
    }
}

pub async fn run(command: &Command, environment: &Environment, json: bool) -> Outcome {
    match command {
        Command::Mint(mint) => run_mint(mint, environment, json).await,
        Command::Log(command) => super::log::run(command, environment, json).await,
        Command::Revoke(revoke) => super::revoke::run(revoke, environment, json).await,
        Command::Inspect { token, url } => inspect(token.as_deref(), url.as_deref(), environment, json).await,
    }
}

async fn run_mint(mint: &Mint, environment: &Environment, json: bool) -> Outcome {
    let user = given_or_asked(mint.user.as_deref(), "--user", "Act as which user")?;
    let actor = given_or_asked(mint.actor.as_deref(), "--actor", "Who acts")?;
    // the policy may do without a reason: a script is not made to give one
    let reason = match &mint.reason {
        None if terminal::may_ask() => Some(terminal::ask("Why (the log keeps it)")?),
        given => given.clone(),
    };
    let api = Api::as_client(mint.url.as_deref(), environment)?;
    let mut body = json!({ "user_id": user, "actor": { "sub": actor } });
    let optional = [
        ("reason", reason.map(Value::from)),
        ("ticket", mint.ticket.clone().map(Value::from)),
        ("expires_in_seconds", mint.expires_in.map(Value::from)),
        ("audience", mint.audience.clone().map(Value::from)),
        ("scope", mint.scope.clone().map(Value::from)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    let answer = api.post("/v1/actor_tokens", &body).await?;
    let token = answer["token"].as_str().unwrap_or_default();
    if json {
        output::print_json(&answer)?;
    } else if std::io::stdout().is_terminal() {
        let text = |name: &str| output::plain(answer[name].as_str().unwrap_or("-"));
        output::print(&format!(
            "{}\ngrant     {}\nuser      {}\nactor     {} ({})\nscope     {}\nends      {}\nlogged    entry {}\n\n{}",
            paint(Tone::Good, "minted"),
            text("id"),
            text("user_id"),
            output::plain(answer["actor"]["sub"].as_str().unwrap_or("-")),
            text("actor_assurance"),
            text("scope"),
            when(&answer["expires_at"]),
            answer["audit"]["index"],
            output::plain(token),
        ))?;
    } else {
        output::print(&output::plain(token))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn given_or_asked(given: Option<&str>, option: &str, question: &str) -> Result<String, CliError> {
    match given {
        Some(value) => Ok(value.to_owned()),
        None if terminal::may_ask() => terminal::ask(question),
        None => Err(CliError::Refused(format!("{option} is missing; there is no terminal to ask at"))),
    }
}

fn when(millis: &Value) -> String {
    let time = millis.as_i64().and_then(chrono::DateTime::from_timestamp_millis);
    time.map_or_else(|| "-".to_owned(), |t| t.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}

async fn inspect(token: Option<&str>, url: Option<&str>, environment: &Environment, json: bool) -> Outcome {
    let token = read_token(token)?;
    let (header, claims) = unverified_parts(&token).map_err(|why| {
        CliError::Refused(format!("this is no token in compact form ({why}); give header.payload.signature"))
    })?;
    let verdict = match url.or(environment.url()) {
        None => None,
        Some(url) => {
            let body = json!({ "token": &*token });
            Some(Api::as_client(Some(url), environment)?.post("/v1/actor_tokens/verify", &body).await?)
        }
    };
    let active = verdict.as_ref().map(|v| v["active"] == true);
    if json {
        output::print_json(&json!({
            "unverified": { "header": header, "claims": claims }, "verification": verdict,
        }))?;
    } else {
        let said = match (active, &verdict) {
            (Some(true), _) => paint(Tone::Good, "valid: the server verified it just now"),
            (Some(false), Some(verdict)) => {
                let why = output::plain(verdict["reason"].as_str().unwrap_or("no reason given"));
                paint(Tone::Bad, &format!("NOT valid: {why}"))
            }
            _ => "not verified: anybody could have written this; name a server with --url or STAGEDOOR_URL"
                .to_owned(),
        };
        output::print(&format!(
            "header (unverified)\n{}\nclaims (unverified)\n{}\n{said}",
            output::pretty(&header.into()),
            output::pretty(&claims.into())
        ))?;
    }
    Ok(ExitCode::from(u8::from(active == Some(false))))
}

fn read_token(argument: Option<&str>) -> Result<Zeroizing<String>, CliError> {
    let mut text = Zeroizing::new(String::new());
    match argument {
        Some(token) if token != "-" => text.push_str(token),
        _ => {
            let read = std::io::stdin().take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text);
            read.map_err(|source| CliError::File { path: "standard input".into(), source })?;
        }
    }
    if text.len() as u64 > MAX_TOKEN_BYTES {
        return Err(CliError::Refused(format!(
            "the token is longer than {MAX_TOKEN_BYTES} bytes; give it alone"
        )));
    }
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Header and claims as they stand, believed by nobody.
fn unverified_parts(token: &str) -> Result<(Object, Object), &'static str> {
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("it has not three parts");
    };
    let read = |part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| "a part is not base64url")?;
        serde_json::from_slice(&bytes).map_err(|_| "a part is not a JSON object")
    };
    Ok((read(header)?, read(claims)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_apart_only_in_compact_form() {
        let part = |v: Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let token = format!("{}.{}.sig", part(json!({"alg": "ES256"})), part(json!({"sub": "u"})));
        let (header, claims) = unverified_parts(&token).unwrap();
        assert_eq!((header["alg"].as_str(), claims["sub"].as_str()), (Some("ES256"), Some("u")));
        for bad in ["", "a.b", "a.b.c.d", "!.e30.x", "W10.W10.x"] {
            assert!(unverified_parts(bad).is_err(), "{bad}");
        }
    }
}
