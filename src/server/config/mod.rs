//! The settings: what may be set, what each means, and what is refused.
//!
//! Every setting is a key of `stagedoor.toml` and a variable `STAGEDOOR_<KEY>` (nested keys joined by
//! `__`, entries of lists of tables numbered: `STAGEDOOR_ISSUERS__0__ISS`); the variable wins. A secret may
//! also come from `<KEY>_FILE`, never both. Relative paths count from the working directory. [`Config`]
//! is the manual: its fields say meaning, default and exclusions.

mod build;
mod duration;
mod environment;
mod error;
mod layers;
mod otlp;
mod secret;
#[cfg(test)]
mod tests;
mod webhook;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::TimeDelta;
use ipnet::IpNet;

pub use duration::duration;
pub use environment::Environment;
pub use error::ConfigError;
pub use layers::SecretSource;
pub use secret::Secret;
pub use webhook::webhook_key;

use crate::token::{Alg, Audience, Issuer, Scope};

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "stagedoor.toml";

/// All settings, checked: a built value is usable.
#[derive(Debug, Clone)]
pub struct Config {
    /// `LISTEN`: where HTTP is served, an IP address and a port. Default `127.0.0.1:8080`; port 0 takes a free
    /// one. `dev` takes loopback only.
    pub listen: SocketAddr,
    /// `TLS_CERT_FILE` (the chain, PEM) and `TLS_KEY_FILE` (PEM): TLS is served by ourselves, and files that
    /// change are taken over. Both or none. Default none: plain HTTP, for loopback or a proxy in front.
    pub tls: Option<TlsConfig>,
    /// `ISSUER`: `iss` of our tokens, byte for byte, without query, fragment or trailing slash. Default
    /// `http://<listen>`, with TLS `https://<listen>` ([`Config::issuer_for`]). `https`, unless `LISTEN` is loopback or `ALLOW_HTTP=true`.
    pub issuer: Option<Issuer>,
    /// `DATABASE_URL` (or `_FILE`): `sqlite://PATH` or `postgres://…`, as the service role. Default
    /// `sqlite://<data_dir>/stagedoor.db`.
    pub database_url: DatabaseUrl,
    /// `DATABASE_OWNER_URL` (or `_FILE`): the role that owns the tables, for `init`, migrations, `erase`,
    /// `prune`. Default: `DATABASE_URL`. On SQLite there are no roles and it must not be set.
    pub database_owner_url: DatabaseUrl,
    /// `DATA_DIR`: the embedded database and the default key file, mode 0700. Default `./.stagedoor`.
    pub data_dir: PathBuf,
    /// `MASTER_KEY` or `MASTER_KEY_FILE`: 32 bytes, base64url; seals what is secret at rest. Default: the file
    /// `<data_dir>/master.key`, which `dev` and `init` make. In production keep the file outside `DATA_DIR`.
    pub master_key: SecretSource,
    /// `TRUSTED_PROXIES`: addresses or networks whose `X-Forwarded-For` is believed, up to the right-most hop
    /// that is not one of them. Default none: the peer's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// `METRICS_LISTEN`: a listener of its own for `/metrics`. Default none: `/metrics` is on the main listener
    /// if that is loopback, else nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// `DRAIN_DELAY`: how long, once told to stop, new requests are still taken while `/readyz` says no, as `5s`, so
    /// that whoever balances load looks away first; at most a minute. Default `0s`.
    pub drain_delay: Duration,
    /// `SIGNING_ALG`: `ES256` (default), `RS256` or `EdDSA`; what `dev` and `init` make the token key for.
    pub signing_alg: Alg,
    /// `[[issuers]]`: whose tokens prove who an actor is. Default none. Never our own issuer.
    pub issuers: Vec<IssuerConfig>,
    /// `[directory]`: who the target users are. Default `kind = "none"`.
    pub directory: DirectoryConfig,
    /// `[policy]` `path`: a policy file or directory. Default none: the shipped policy.
    pub policy_path: Option<PathBuf>,
    /// `[policy]` `on_verify`: whether `verify` and introspection ask the policy again. Default no.
    pub policy_on_verify: bool,
    /// `[[gates]]`: forward-authentication points. Default none.
    pub gates: Vec<GateConfig>,
    /// `[console]`: the pages for people. Default off.
    pub console: Option<ConsoleConfig>,
    /// `[ticket]`: where a policy that demands it has tickets looked up. Default none: such a policy denies.
    pub ticket: Option<TicketConfig>,
    /// `[[webhooks]]`: who is told of what the log records (docs/webhooks.md). Default none.
    pub webhooks: Vec<WebhookConfig>,
    /// `[anomaly]`: from how many different targets on an actor is unusual.
    pub anomaly: AnomalyConfig,
    /// `LOG_MAX_BYTES`: PostgreSQL only: how large the log may grow; its last 5 % is the reserve for
    /// revocation, stop, key and erase entries. Default none: a warning, and no promise. On SQLite the free
    /// bytes of the volume count and it must not be set.
    pub log_max_bytes: Option<u64>,
    /// `ACTOR_RETENTION`: how long nobody's acts can be erased or pruned, as `365d` (default). Counts in the
    /// commands `audit erase --actor` and `audit prune`.
    pub actor_retention: TimeDelta,
    /// `[[witnesses]]`: other teams' witnesses that cosign this log's checkpoints. Default none.
    pub witnesses: Vec<WitnessConfig>,
    /// `WITNESSES_REQUIRED`: how many of them make a checkpoint witnessed. Default: all of them. It blocks
    /// nothing by itself.
    pub witnesses_required: usize,
    /// `WITNESS_DEADLINE`: `/readyz` says no while an entry has waited so long for enough witnesses, as `10m`.
    /// Default none: a metric and an alert.
    pub witness_deadline: Option<TimeDelta>,
    /// `KEY_MAX_AGE`: how long a key signs tokens or the feed before the next one is published, which takes over
    /// ten minutes later, as `60d` (default); `never`: by `stagedoor key rotate` only.
    pub key_max_age: Option<TimeDelta>,
    /// `CLIENT_RATE`: attempts to mint that one client may make in a minute, in each process; more are told to
    /// wait (429) and not evaluated. Default none: no limit.
    pub client_rate: Option<NonZeroU32>,
    /// `ACTOR_RATE`: the same for one actor, by (`iss`, `sub`). Default none.
    pub actor_rate: Option<NonZeroU32>,
    /// `[otlp]`: a collector that is sent traces and metrics. Default none.
    pub otlp: Option<OtlpConfig>,
    /// `LOG_FORMAT`: `auto` (default: human on a terminal, else JSON), `human` or `json`.
    pub log_format: LogFormat,
    /// `LOG_LEVEL`: `info` (default), or a filter such as `warn,stagedoor=debug`.
    pub log_level: String,
    /// `CA_BUNDLE`, `ALLOW_HTTP`, `ALLOW_PRIVATE_HOSTS`: what outbound calls may do.
    pub outbound: OutboundConfig,
}

/// What outbound calls of every kind may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboundConfig {
    /// `CA_BUNDLE`: PEM file of the only authorities that are trusted. Default none: the system's.
    pub ca_bundle: Option<PathBuf>,
    /// `ALLOW_HTTP`: plain http to loopback hosts, and for our own `ISSUER`. Default false.
    pub allow_http: bool,
    /// `ALLOW_PRIVATE_HOSTS`: host names (whose private addresses are then accepted), addresses or networks.
    /// Default none: private and loopback addresses are refused.
    pub allow_private_hosts: Vec<PrivateHost>,
}

/// An exception to the rule that private addresses are not called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrivateHost {
    /// A host by its name, lower case.
    Name(String),
    /// An address or network.
    Net(IpNet),
}

/// An issuer whose tokens prove who an actor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// `iss`, compared byte for byte. Required, once only.
    pub iss: Issuer,
    /// `discovery` (true, or a URL), `jwks_url` or `jwks_file`: exactly one.
    pub keys: KeySource,
    /// `audiences`: accepted `aud`. Required, not empty.
    pub audiences: Vec<Audience>,
    /// `clients`: accepted `azp` or `client_id`. Required, not empty: a low-value client
    /// must not replay the login tokens of admins.
    pub clients: Vec<String>,
    /// `algs`: accepted signature algorithms. Default `ES256`, `RS256`, `EdDSA`.
    pub algs: Vec<Alg>,
    /// `typ`: accepted header `typ`, lower case without `application/`; `""` accepts its absence. Default
    /// `at+jwt` (RFC 9068): an ID token looks like the others.
    pub typ: Vec<String>,
    /// `roles_path`: where roles are, as `realm_access.roles`. Default none.
    pub roles_path: Option<String>,
    /// `groups_path`: where groups are. Default none.
    pub groups_path: Option<String>,
    /// `org_path`: where the organisation is. Default none.
    pub org_path: Option<String>,
    /// `directory_path`: the claim with the id under which the directory knows the person, as `employee_id`. Default
    /// none: his `sub` is that id.
    pub directory_path: Option<String>,
    /// `id_token`: whether ID tokens are accepted as proof. Default false.
    pub id_token: bool,
    /// `max_age_seconds`: how old `iat` may be. Default 900, at most 86 400.
    pub max_age_seconds: u32,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The address of its metadata.
    Discovery(String),
    /// The address of its key set.
    JwksUrl(String),
    /// A file with its key set.
    JwksFile(PathBuf),
}

/// Where target users are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryConfig {
    /// `kind = "none"`: nobody is known.
    None,
    /// `kind = "file"`: JSON or CSV.
    File {
        /// `path`. Required.
        path: PathBuf,
    },
    /// `kind = "scim"`: a SCIM 2.0 server.
    Scim {
        /// `url`: its base address. Required.
        url: String,
        /// `token` or `token_file`: bearer token.
        token: Option<Secret>,
        /// `cache_seconds`: how long an answer is kept. Default 60, at most 3600; 0 keeps none.
        cache_seconds: u32,
    },
}

/// A forward-authentication point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateConfig {
    /// `name`: `[a-z0-9_-]`, at most 64, once only; `default` serves the bare path. Required.
    pub name: String,
    /// `audience`: what a token's `aud` must hold. Required.
    pub audience: Audience,
    /// `scopes`: what a token must allow. Default none.
    pub scopes: Scope,
    /// `impersonation`: whether actor tokens are let in. Default false.
    pub impersonation: bool,
}

/// A witness of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessConfig {
    /// `url`: the address that its `add-checkpoint` stands under. Required.
    pub url: String,
    /// `vkey`: its cosignature key, `name+id+key`, as `stagedoor audit witness` prints it. Required.
    pub vkey: String,
}

/// The ticket system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketConfig {
    /// `url`: what answers about a ticket (docs/policy.md). Required.
    pub url: String,
    /// `token` or `token_file`: bearer token. Default none.
    pub token: Option<Secret>,
}

/// Who is told of what the log records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// `name`: `[a-z0-9_-]`, at most 64, once only; how far it has been told is kept under it. Required.
    pub name: String,
    /// `url`: where events are posted to. Required.
    pub url: String,
    /// `secret` or `secret_file`: what events are signed with, `whsec_` and 24 to 64 bytes in base64. Required.
    pub secret: Secret,
    /// `previous_secret` or `previous_secret_file`: signs too while the receiver changes over. Default none.
    pub previous_secret: Option<Secret>,
    /// `events`: which. Default all.
    pub events: Vec<WebhookEvent>,
    /// `personal`: what is told of people. Default `ids`.
    pub personal: WebhookPersonal,
}

/// What a webhook can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookEvent {
    /// A colleague has to approve; no token yet.
    GrantRequested,
    /// A token was given out.
    GrantStarted,
    /// Grants ended before their time.
    GrantEnded,
    /// An attempt was refused.
    GrantDenied,
    /// An actor does what actors do not usually do.
    AnomalyRaised,
}

/// What a webhook is told of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum WebhookPersonal {
    /// Nobody's id.
    None,
    /// Who acts for whom.
    #[default]
    Ids,
    /// That, and reason, ticket and address.
    All,
}

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// `TLS_CERT_FILE`: PEM, the server's certificate first, then those that lead to its authority.
    pub certificate: PathBuf,
    /// `TLS_KEY_FILE`: PEM, not encrypted.
    pub key: PathBuf,
}

/// A collector that speaks OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpConfig {
    /// `url`: its address; `/v1/traces` and `/v1/metrics` are added. Required.
    pub url: String,
    /// `authorization` or `authorization_file`: the whole header, such as `Bearer …`. Default none.
    pub authorization: Option<Secret>,
    /// `sample_percent`: of how many traces in a hundred spans are kept, 1 to 100. Default 100.
    pub sample_percent: u32,
    /// `interval_seconds`: how often metrics are sent, 1 to 3600. Default 60.
    pub interval_seconds: u32,
}

/// When an actor is unusual; an entry, a webhook and a metric say so, and the policy may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnomalyConfig {
    /// `max_targets`: more different targets of one actor in the window are unusual. Default 30; 0: never.
    pub max_targets: u32,
    /// `window_seconds`: 60 to 86 400. Default 3600.
    pub window_seconds: u32,
}

/// The names of all settings, as they stand in the file.
#[must_use]
pub fn setting_names() -> Vec<String> {
    build::names()
}

impl Default for AnomalyConfig {
    fn default() -> Self {
        Self { max_targets: 30, window_seconds: 3600 }
    }
}

/// Sign-in of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleConfig {
    /// `issuer`: one of `[[issuers]]`. Required.
    pub issuer: Issuer,
    /// `client_id` at that issuer. Required.
    pub client_id: String,
    /// `client_secret` or `client_secret_file`. Required.
    pub client_secret: Secret,
    /// `token_endpoint` that its metadata names, where that is on another host than the issuer.
    pub token_endpoint: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Human on a terminal, else JSON.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Where the database is; may hold a password, so it prints without.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Secret);

impl DatabaseUrl {
    /// The address with everything in it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The database file, when it is SQLite's.
    #[must_use]
    pub fn sqlite_path(&self) -> Option<PathBuf> {
        let rest = self.expose().strip_prefix("sqlite:")?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        Some(build::percent_decoded(rest.split('?').next().unwrap_or(rest)).into())
    }

    /// Whether it is SQLite.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.expose().starts_with("sqlite:")
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_sqlite() { self.expose() } else { "postgres://[redacted]" })
    }
}

impl Config {
    /// Reads the file at `path` (default: `STAGEDOOR_CONFIG`, then `./stagedoor.toml` if it is there) and lays
    /// the environment over it.
    ///
    /// # Errors
    /// Whatever is wrong first, in one sentence with what to do.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        let named = path.or(environment.config_path().map(Path::new));
        let default = Path::new(DEFAULT_FILE);
        let (path, text) = match named {
            Some(path) => (path, layers::read_limited(path, layers::MAX_FILE_BYTES)?),
            None if default.exists() => (default, layers::read_limited(default, layers::MAX_FILE_BYTES)?),
            None => (default, zeroize::Zeroizing::default()),
        };
        Self::parse(&path.display().to_string(), &text, environment)
    }

    /// Reads a file's text, called `file` in messages, and lays the environment over it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: &str, text: &str, environment: &Environment) -> Result<Self, ConfigError> {
        build::config(file, text, environment)
    }

    /// Our `iss`, now that the listener's address is known: `ISSUER`, or the address itself.
    ///
    /// # Errors
    /// It is also configured as somebody else's.
    pub fn issuer_for(&self, bound: SocketAddr) -> Result<Issuer, ConfigError> {
        let ours = match &self.issuer {
            Some(issuer) => issuer.clone(),
            None => build::default_issuer(self.scheme(), bound)?,
        };
        build::refuse_ourselves(&ours, &self.issuers)?;
        Ok(ours)
    }

    /// What the main listener speaks: `https` or `http`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Whether the default key file and the embedded database stand in one directory, where one theft takes
    /// both: lock and key.
    #[must_use]
    pub fn key_beside_database(&self) -> bool {
        let SecretSource::File(key) = &self.master_key else { return false };
        let Some(database) = self.database_url.sqlite_path() else { return false };
        let parent = |p: &Path| {
            let parent =
                p.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
            parent.canonicalize().unwrap_or(parent)
        };
        parent(key) == parent(&database)
    }
}

/// Whether an address is this machine's own.
#[must_use]
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
