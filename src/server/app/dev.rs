//! `stagedoor dev`: everything set up by itself, so that a stranger holds a token within a minute.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{AppError, DEV_STAMP, Running, Setup, StopSignals, refused, start, until_told};
use crate::server::clients::{self, ClientError, ClientForm, ClientScope, SecretKind};
use crate::server::config::{Config, DirectoryConfig, SecretSource, is_loopback};
use crate::server::master_key::MasterKey;
use crate::server::store::{self, Db};
use crate::server::{directory, keyring};
use crate::token::Entropy;

/// The demo client's name; the demo policy permits it to assert actors.
const CLIENT: &str = "dev";
/// Whom demo tokens are for.
const AUDIENCE: &str = "https://api.example.com";
/// Where `cargo run --example product` takes handoff codes.
const PRODUCT: &str = "http://as.localhost:4000/impersonation";
/// Keeps the demo client's secret between runs, beside the demo's other secrets.
const SECRET_FILE: &str = "dev-client.json";

/// `stagedoor dev`: makes what is missing, says what a person needs next, serves.
///
/// # Errors
/// [`AppError`], saying what to do.
pub async fn dev(config: Config) -> Result<(), AppError> {
    let stop = StopSignals::watch()?;
    let (running, client) = ready(config).await?;
    println!("listening on http://{}", running.address);
    print_next(&running, &client).map_err(AppError::failed("standard output cannot be written"))?;
    until_told(running, stop, Duration::ZERO).await
}

/// `stagedoor dev --once`: mints, verifies and shows the entry through real HTTP, then stops.
///
/// # Errors
/// [`AppError`] when any step does not do what it should.
pub async fn dev_once(config: Config) -> Result<(), AppError> {
    let config = Config { listen: SocketAddr::new(config.listen.ip(), 0), issuer: None, ..config };
    let (running, client) = ready(config).await?;
    let shown = show_once(running.address, &client.secret).await;
    running.stop().await?;
    shown
}

struct DevClient {
    id: String,
    secret: String,
}

async fn ready(config: Config) -> Result<(Running, DevClient), AppError> {
    if !is_loopback(config.listen.ip()) {
        return Err(AppError::not_for_dev(config.listen));
    }
    if let Some(metrics) = config.metrics_listen.filter(|metrics| !is_loopback(metrics.ip())) {
        return Err(AppError::Refused(format!(
            "`stagedoor dev` shows its metrics on loopback only, not on {metrics}; leave METRICS_LISTEN out"
        )));
    }
    if config.tls.is_some() {
        return Err(AppError::Refused(
            "`stagedoor dev` serves plain HTTP to this machine alone; leave TLS_CERT_FILE and TLS_KEY_FILE to `stagedoor serve`".into(),
        ));
    }
    let config = with_demo_parts(config)?;
    let mut setup = Setup::new(config);
    setup.dev = true;
    let client = set_up(&setup).await?;
    Ok((start(setup).await?, client))
}

/// The demo directory stands in where none is configured; the policy does by itself.
fn with_demo_parts(mut config: Config) -> Result<Config, AppError> {
    let failed = || AppError::failed("DATA_DIR cannot be written");
    private_directory(&config.data_dir).map_err(failed())?;
    if config.directory == DirectoryConfig::None {
        let path = config.data_dir.join("dev-directory.json");
        if !path.exists() {
            std::fs::write(&path, directory::DEMO_PEOPLE).map_err(failed())?;
        }
        config.directory = DirectoryConfig::File { path };
    }
    Ok(config)
}

/// Database, keys and the demo client, unless a former run made them.
async fn set_up(setup: &Setup) -> Result<DevClient, AppError> {
    let config = &setup.config;
    let fresh = config.database_url.sqlite_path().is_some_and(|path| !path.exists());
    let db = Db::create(config.database_url.expose()).await.map_err(refused)?;
    if fresh {
        store::migrate(&db, None).await.map_err(refused)?;
        db.set_meta(DEV_STAMP, "1").await.map_err(refused)?;
    } else if db.meta(DEV_STAMP).await.map_err(refused)?.is_none() {
        return Err(AppError::Refused(
            "this database was not made by `stagedoor dev`; give dev a DATA_DIR of its own".into(),
        ));
    }
    let (now, entropy) = (setup.clock.now(), &*setup.entropy);
    let master = master_key(config, entropy)?;
    keyring::make_initial(&db, &master, config.signing_alg, now, entropy)
        .await
        .map_err(AppError::failed("the keys cannot be made"))?;
    let path = config.data_dir.join(SECRET_FILE);
    if let Some(kept) = kept_client(&path) {
        return Ok(kept);
    }
    let failed = || AppError::failed("the demo client cannot be made");
    let form = ClientForm {
        name: Some(CLIENT.into()),
        scopes: Some(ClientScope::ALL.iter().map(|s| s.as_str().to_owned()).collect()),
        audiences: Some(vec![AUDIENCE.into()]),
        may_assert: Some(vec!["*".into()]),
        handoff_url: Some(PRODUCT.into()),
        ..ClientForm::default()
    };
    let made = match clients::refuse_used_name(&db, &master, CLIENT, None).await {
        Ok(()) => clients::create(&db, &master, &form, SecretKind::Test, now, entropy).await,
        // the file with its secret is gone
        Err(ClientError::NameInUse { id, .. }) => {
            clients::rotate_secret(&db, &master, &id, Duration::ZERO, now, entropy).await
        }
        Err(error) => Err(error),
    };
    let made = made.map_err(failed())?;
    db.close().await;
    let client = DevClient { id: made.client.id.to_string(), secret: made.secret.expose().to_owned() };
    let kept = json!({ "client_id": client.id, "client_secret": client.secret });
    write_private(&path, &kept.to_string()).map_err(AppError::failed("DATA_DIR cannot be written"))?;
    Ok(client)
}

fn master_key(config: &Config, entropy: &dyn Entropy) -> Result<MasterKey, AppError> {
    let failed = AppError::failed("the master key cannot be read");
    match &config.master_key {
        SecretSource::File(path) if !path.exists() => MasterKey::create(path, entropy).map_err(failed),
        source => MasterKey::load(source).map_err(failed),
    }
}

/// The demo client of a former run.
fn kept_client(path: &Path) -> Option<DevClient> {
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    Some(DevClient { id: kept["client_id"].as_str()?.into(), secret: kept["client_secret"].as_str()?.into() })
}

/// Writes a file that only its owner reads.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn private_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What a person needs next, and nothing else.
fn print_next(running: &Running, client: &DevClient) -> std::io::Result<()> {
    let url = format!("http://{}", running.address);
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\nclient id      {id}\nclient secret  {secret}\n\n\
         A support agent acts as a user:\n\n  \
         curl -s {url}/v1/actor_tokens \\\n    \
         -H 'Authorization: Bearer {secret}' \\\n    \
         -H 'Content-Type: application/json' \\\n    \
         -d '{body}'\n\n\
         What the log says of it:\n\n  \
         curl -s '{url}/v1/audit/entries?limit=1' -H 'Authorization: Bearer {secret}'\n\n\
         The same for people, with sign-in, log and red button:\n\n  \
         {url}/console\n\n\
         A product to act in, under a banner (then open http://localhost:4000):\n\n  \
         cargo run --example product -- {url}\n\n\
         A service that reads both identities:\n\n  \
         cargo run --example downstream_actix -- {url}\n\n\
         Stop with Ctrl-C. `stagedoor dev` keeps its data in DATA_DIR; `stagedoor serve` does not take it.",
        id = client.id,
        secret = client.secret,
        body = mint_body(),
    )
}

fn mint_body() -> Value {
    json!({
        "user_id": "user_42",
        "actor": { "sub": "admin_7" },
        "reason": "Ticket 4711: invoice missing",
        "ticket": "4711",
    })
}

async fn show_once(address: SocketAddr, secret: &str) -> Result<(), AppError> {
    let url = format!("http://{address}");
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .map_err(AppError::failed("the HTTP client cannot be made"))?;
    let failed = || AppError::failed("the running server cannot be asked");
    let ask = |request: reqwest::RequestBuilder| async move {
        let response = request.bearer_auth(secret).send().await.map_err(failed())?;
        let (status, body) = (response.status(), response.json::<Value>().await.map_err(failed())?);
        if status.is_success() {
            Ok(body)
        } else {
            Err(AppError::Refused(format!(
                "the server answered {status}: {}",
                body["detail"].as_str().unwrap_or("")
            )))
        }
    };
    let minted = ask(http.post(format!("{url}/v1/actor_tokens")).json(&mint_body())).await?;
    let verified =
        ask(http.post(format!("{url}/v1/actor_tokens/verify")).json(&json!({ "token": minted["token"] })))
            .await?;
    let listed = ask(http.get(format!("{url}/v1/audit/entries?limit=1&typ=issue"))).await?;
    let shown = json!({ "minted": minted, "verified": verified, "logged": listed["entries"][0] });
    println!("{shown:#}");
    if verified["active"] != true || listed["entries"][0]["index"] != minted["audit"]["index"] {
        return Err(AppError::Refused("the token does not verify, or is not in the log".into()));
    }
    Ok(())
}
