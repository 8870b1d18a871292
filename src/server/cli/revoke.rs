//! `stagedoor token revoke`: ends grants, against a running server.

use std::process::ExitCode;

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::api::Api;
use super::{CliError, Outcome, output};
use crate::server::config::Environment;
use crate::token::GrantId;

/// What is to end: exactly one of these.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true)))]
pub struct Revoke {
    /// One grant: `act_…`
    #[arg(value_name = "GRANT", group = "what")]
    grant: Option<String>,
    /// Every grant of this actor, wherever he stands in its chain
    #[arg(long, value_name = "SUB", group = "what")]
    actor: Option<String>,
    /// With --actor: only where this issuer names him
    #[arg(long, value_name = "ISS", requires = "actor", conflicts_with_all = ["grant", "user", "client", "kid", "all"])]
    iss: Option<String>,
    /// Every grant to act as this user
    #[arg(long, value_name = "ID", group = "what")]
    user: Option<String>,
    /// Everything issued to this client
    #[arg(long, value_name = "CLIENT", group = "what")]
    client: Option<String>,
    /// Everything this key signed; it signs nothing more
    #[arg(long, value_name = "KID", group = "what")]
    kid: Option<String>,
    /// Everything: the red button
    #[arg(long, group = "what")]
    all: bool,
    /// Why, for the log (needed unless it is one grant)
    #[arg(long)]
    reason: Option<String>,
    /// Refuse new mints for so many seconds too (not for one grant or a key)
    #[arg(long, value_name = "SECONDS")]
    hold: Option<u32>,
    /// The running server [default: that of `STAGEDOOR_URL`, else where the configuration has it listen]
    #[arg(long)]
    pub url: Option<String>,
}

pub async fn run(revoke: &Revoke, environment: &Environment, json: bool) -> Outcome {
    let (path, body) = request(revoke)?;
    let answer = Api::as_client(revoke.url.as_deref(), environment)?.post(&path, &body).await?;
    if json {
        output::print_json(&answer)?;
    } else if revoke.grant.is_some() {
        output::print(&format!("revoked: {}", output::plain(answer["id"].as_str().unwrap_or("-"))))?;
    } else {
        output::print(&format!(
            "in force: {} grants ended, entry {}",
            answer["matched"], answer["audit"]["index"]
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn request(revoke: &Revoke) -> Result<(String, Value), CliError> {
    if let Some(grant) = &revoke.grant {
        let id = GrantId::try_from(grant.as_str())
            .map_err(|_| CliError::Refused("this is no grant; give its id, act_…".into()))?;
        if revoke.hold.is_some() {
            return Err(CliError::Refused(
                "--hold does not go with one grant; name --actor or --user".into(),
            ));
        }
        return Ok((format!("/v1/actor_tokens/{id}/revoke"), json!({ "reason": revoke.reason })));
    }
    let reason = revoke.reason.as_deref().filter(|reason| !reason.trim().is_empty());
    let reason =
        reason.ok_or_else(|| CliError::Refused("--reason is missing; it is what the log keeps".into()))?;
    let mut body = json!({ "reason": reason });
    if let Some(sub) = &revoke.actor {
        body["actor"] = match &revoke.iss {
            Some(iss) => json!({ "sub": sub, "iss": iss }),
            None => json!({ "sub": sub }),
        };
    }
    for (name, value) in [("user_id", &revoke.user), ("client_id", &revoke.client), ("kid", &revoke.kid)] {
        if let Some(value) = value {
            body[name] = value.as_str().into();
        }
    }
    if revoke.all {
        body["all"] = true.into();
    }
    if let Some(seconds) = revoke.hold {
        body["hold_seconds"] = seconds.into();
    }
    Ok(("/v1/revocations".into(), body))
}
