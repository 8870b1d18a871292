//! `stagedoor client …`: API clients and their secrets.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::open::open;
use super::record::{can_record, record, record_ending};
use super::{CliError, Outcome, output};
use crate::server::clients::{self, Client, ClientForm, Created, Profile, SecretKind};
use crate::server::config::{Config, duration};
use crate::server::keyring::{self, KeyPurpose};
use crate::server::log::Event;
use crate::server::log::Selector;
use crate::server::master_key::MasterKey;
use crate::server::policy::{PermitRequest, permit_for_client};
use crate::server::store::Db;
use crate::token::{Alg, ClientId, Clock as _, SystemClock, SystemEntropy};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a client; its secret is printed once
    Create {
        #[command(flatten)]
        form: Form,
        /// Give it an `sk_test_` secret, which `serve` refuses
        #[arg(long)]
        test: bool,
    },
    /// Change a client; what is not named stays, '' clears a list
    Update {
        /// The client
        id: ClientId,
        #[command(flatten)]
        form: Form,
    },
    /// Show the clients
    List,
    /// Disable a client for good: it authenticates no more
    Disable {
        /// The client
        id: ClientId,
    },
    /// Give a client a new secret; it is printed once
    RotateSecret {
        /// The client
        id: ClientId,
        /// How long the old secrets are still accepted: 30s, 15m, 24h, 7d
        #[arg(long, default_value = "24h", value_parser = duration)]
        overlap: Duration,
    },
}

#[derive(Debug, Args)]
pub struct Form {
    /// A name, for people and for `@client` in a policy; no two clients in use have the same
    #[arg(long)]
    name: Option<String>,
    /// What it may call, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "SCOPE")]
    scopes: Option<Vec<String>>,
    /// What it mints and verifies for; the first is its default
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "URI")]
    audience: Option<Vec<String>>,
    /// Actors it may name without proof: SUB or ISS#SUB, where * is any run of characters
    #[arg(long, num_args = 1.., value_name = "PATTERN")]
    may_assert: Option<Vec<String>>,
    /// Algorithm of its assertions (private-key JWT)
    #[arg(long)]
    alg: Option<String>,
    /// File with the public keys of its assertions, a JWK or JWK set
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// Browser origin of its product
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "ORIGIN")]
    origin: Option<Vec<String>>,
    /// Where handoff codes are taken; {code} after the # only
    #[arg(long, value_name = "TEMPLATE")]
    handoff_url: Option<String>,
    /// standard, or clerk for unmodified Clerk SDKs
    #[arg(long)]
    profile: Option<String>,
}

/// The largest key set file, bytes.
const MAX_JWKS_BYTES: u64 = 64 << 10;

impl Form {
    fn read(&self) -> Result<ClientForm, CliError> {
        Ok(ClientForm {
            name: self.name.clone(),
            scopes: self.scopes.clone(),
            audiences: self.audience.clone(),
            may_assert: self.may_assert.clone(),
            alg: self.alg.clone(),
            jwks: self.jwks.as_deref().map(read_json).transpose()?,
            origins: self.origin.clone(),
            handoff_url: self.handoff_url.clone(),
            profile: self.profile.clone(),
        })
    }
}

pub async fn run(command: &Command, config: &Config, json: bool) -> Outcome {
    let (db, master) = open(config).await?;
    let now = SystemClock::default().now();
    if matches!(command, Command::Create { .. } | Command::Update { .. } | Command::RotateSecret { .. }) {
        can_record(&db, &master).await?;
    }
    if let Command::Create { form, .. } | Command::Update { form, .. } = command
        && let Some(name) = &form.name
    {
        let of = if let Command::Update { id, .. } = command { Some(id) } else { None };
        clients::refuse_used_name(&db, &master, name, of).await?;
    }
    match command {
        Command::Create { form, test } => {
            let kind = if *test { SecretKind::Test } else { SecretKind::Live };
            let made = clients::create(&db, &master, &form.read()?, kind, now, &SystemEntropy).await?;
            if made.client.profile == Profile::Clerk {
                clerk_key(&db, &master, &made.client).await?;
            }
            record(config, &db, &master, vec![entry(&made.client, "create")]).await?;
            warn_of_no_audiences(&made.client);
            print_secret(&made, permit(&made.client).as_deref(), json)?;
        }
        Command::Update { id, form } => {
            let client = clients::update(&db, &master, id, &form.read()?).await?;
            record(config, &db, &master, vec![entry(&client, "update")]).await?;
            print_client(&client, "changed", json)?;
        }
        Command::List => print_list(&clients::list(&db, &master).await?, json)?,
        Command::Disable { id } => {
            let client = clients::disable(&db, &master, id, now).await?;
            // its grants and codes end with it
            let ends = Selector::Client(client.id.clone());
            record_ending(config, &db, &master, vec![entry(&client, "disable")], ends).await?;
            print_client(&client, "disabled", json)?;
        }
        Command::RotateSecret { id, overlap } => {
            let made = clients::rotate_secret(&db, &master, id, *overlap, now, &SystemEntropy).await?;
            record(config, &db, &master, vec![entry(&made.client, "rotate_secret")]).await?;
            print_secret(&made, None, json)?;
        }
    }
    db.close().await;
    Ok(ExitCode::SUCCESS)
}

/// A token of profile `clerk` has no audience, every other one has.
fn warn_of_no_audiences(client: &Client) {
    if client.may(clients::ClientScope::Issue)
        && client.profile == Profile::Standard
        && client.audiences.is_empty()
    {
        eprintln!(
            "warning: the client has no audiences and can mint nothing; give it some with `stagedoor client update {} --audience URL`",
            client.id
        );
    }
}

fn entry(client: &Client, change: &str) -> Event {
    super::record::client(&client.id, change, client.version)
}

/// Profile `clerk`: a key of the client's own.
async fn clerk_key(db: &Db, master: &MasterKey, client: &Client) -> Result<(), CliError> {
    let purpose = KeyPurpose::Clerk(client.id.clone());
    keyring::create(db, master, purpose, Alg::Rs256, client.created_at, &SystemEntropy).await?;
    Ok(())
}

/// What the operator has to append to the policy before this client may name anybody.
fn permit(client: &Client) -> Option<String> {
    let may_assert: Vec<String> = client.may_assert.iter().map(|p| p.as_str().to_owned()).collect();
    client.may(clients::ClientScope::AssertActor).then(|| {
        permit_for_client(&PermitRequest {
            client_id: &client.id,
            may_assert: &may_assert,
            clerk: client.profile == Profile::Clerk,
            max_lifetime_seconds: None,
        })
    })
}

fn print_secret(made: &Created, permit: Option<&str>, json: bool) -> Result<(), CliError> {
    let (id, secret) = (made.client.id.as_str(), made.secret.expose());
    if json {
        let mut answer = json!({ "client_id": id, "client_secret": secret });
        if let Some(permit) = permit {
            answer["permit"] = permit.into();
        }
        return output::print_json(&answer);
    }
    let mut text = format!(
        "client_id      {id}\nclient_secret  {secret}\n\nThe secret is not shown again; keep it where secrets are kept."
    );
    if made.client.may(clients::ClientScope::AssertActor) && made.client.may_assert.is_empty() {
        text.push_str("\nIt may assert no actor yet; add patterns with `stagedoor client update ID --may-assert PATTERN`.");
    }
    if let Some(permit) = permit {
        // a generated text: what came from outside stands in it escaped, as Cedar demands
        text.push_str("\n\nNobody may be named before the policy permits it. Append this to the file of [policy] path (where none is set, begin with \
             the shipped one: `stagedoor policy show > policy.cedar`):\n\n");
        text.push_str(permit.trim_end());
    }
    output::print(&text)
}

fn print_client(client: &Client, did: &str, json: bool) -> Result<(), CliError> {
    if json {
        return output::print_json(&as_json(client));
    }
    output::print(&format!("{did}: {} ({})", client.id, output::plain(&client.name)))
}

fn print_list((clients, ignored): &(Vec<Client>, Vec<String>), json: bool) -> Result<(), CliError> {
    if !ignored.is_empty() {
        let ids: Vec<String> = ignored.iter().map(|id| output::plain(id)).collect();
        eprintln!(
            "warning: ignored, as not authentic: {}; restore these rows, or the master key they were written under",
            ids.join(", ")
        );
    }
    if json {
        let list: Vec<Value> = clients.iter().map(as_json).collect();
        return output::print_json(&json!({ "object": "list", "clients": list, "not_authentic": ignored }));
    }
    if clients.is_empty() {
        return output::print("no clients yet; make one with `stagedoor client create`");
    }
    let rows: Vec<Vec<String>> = clients
        .iter()
        .map(|c| {
            let scopes: Vec<&str> = c.scopes.iter().map(clients::ClientScope::as_str).collect();
            let state = match (c.is_active(), c.kind) {
                (false, _) => "disabled",
                (true, SecretKind::Live) => "live",
                (true, SecretKind::Test) => "test",
            };
            vec![c.id.to_string(), c.name.clone(), state.to_owned(), scopes.join(",")]
        })
        .collect();
    output::print(&output::table(&["ID", "NAME", "STATE", "SCOPES"], &rows))
}

/// A client without anything secret: not even the hashes.
fn as_json(client: &Client) -> Value {
    let secret = |s: &clients::StoredSecret| {
        json!({
            "created_at": s.created_at.timestamp_millis(),
            "expires_at": s.expires_at.map(|t| t.timestamp_millis()),
        })
    };
    json!({
        "object": "client",
        "id": client.id,
        "name": client.name,
        "scopes": client.scopes.iter().map(clients::ClientScope::as_str).collect::<Vec<_>>(),
        "audiences": client.audiences,
        "may_assert": client.may_assert.iter().map(clients::AssertPattern::as_str).collect::<Vec<_>>(),
        "alg": client.alg.map(Alg::name),
        "jwks": client.jwks,
        "origins": client.origins,
        "handoff_url": client.handoff_url,
        "profile": client.profile.as_str(),
        "live": client.kind == SecretKind::Live,
        "secrets": client.secrets.iter().map(secret).collect::<Vec<_>>(),
        "created_at": client.created_at.timestamp_millis(),
        "disabled_at": client.disabled_at.map(|t| t.timestamp_millis()),
    })
}

fn read_json(path: &Path) -> Result<Value, CliError> {
    use std::io::Read as _;
    let failed = |source| CliError::File { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_JWKS_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    let name = path.display();
    if text.len() as u64 > MAX_JWKS_BYTES {
        return Err(CliError::Refused(format!(
            "{name} is larger than {MAX_JWKS_BYTES} bytes; give the key set alone"
        )));
    }
    serde_json::from_str(&text)
        .map_err(|e| CliError::Refused(format!("{name} is not JSON ({e}); give a JWK or a JWK set")))
}
