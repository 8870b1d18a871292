//! From what was given to a checked [`Config`].

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use ipnet::IpNet;
use reqwest::Url;

use super::duration::duration;
use super::environment::Environment;
use super::error::ConfigError;
use super::layers::{Field, Kind, SecretSource, Section, field};
use super::otlp::{OTLP, otlp};
use super::webhook::{WEBHOOK, webhooks};
use super::{
    AnomalyConfig, Config, ConsoleConfig, DatabaseUrl, DirectoryConfig, GateConfig, IssuerConfig, KeySource,
    LogFormat, OutboundConfig, PrivateHost, Secret, TicketConfig, TlsConfig, WitnessConfig, is_loopback,
};
use crate::token::{Alg, Audience, Issuer, Scope};

const ISSUER: &[Field] = &[
    field("iss", Kind::Text),
    field("discovery", Kind::Text),
    field("jwks_url", Kind::Text),
    field("jwks_file", Kind::Text),
    field("audiences", Kind::List),
    field("clients", Kind::List),
    field("algs", Kind::List),
    field("typ", Kind::List),
    field("roles_path", Kind::Text),
    field("groups_path", Kind::Text),
    field("org_path", Kind::Text),
    field("directory_path", Kind::Text),
    field("id_token", Kind::Boolean),
    field("max_age_seconds", Kind::Integer),
];
const DIRECTORY: &[Field] = &[
    field("kind", Kind::Text),
    field("path", Kind::Text),
    field("url", Kind::Text),
    field("token", Kind::Secret),
    field("cache_seconds", Kind::Integer),
];
const GATE: &[Field] = &[
    field("name", Kind::Text),
    field("audience", Kind::Text),
    field("scopes", Kind::List),
    field("impersonation", Kind::Boolean),
];
const CONSOLE: &[Field] = &[
    field("issuer", Kind::Text),
    field("client_id", Kind::Text),
    field("client_secret", Kind::Secret),
    field("token_endpoint", Kind::Text),
];
const TICKET: &[Field] = &[field("url", Kind::Text), field("token", Kind::Secret)];
const WITNESS: &[Field] = &[field("url", Kind::Text), field("vkey", Kind::Text)];
const ANOMALY: &[Field] = &[field("max_targets", Kind::Integer), field("window_seconds", Kind::Integer)];
const POLICY: &[Field] = &[field("path", Kind::Text), field("on_verify", Kind::Boolean)];

/// Everything that may be set.
pub(super) const TOP: &[Field] = &[
    field("listen", Kind::Text),
    field("tls_cert_file", Kind::Text),
    field("tls_key_file", Kind::Text),
    field("issuer", Kind::Text),
    field("database_url", Kind::Secret),
    field("database_owner_url", Kind::Secret),
    field("data_dir", Kind::Text),
    field("master_key", Kind::Secret),
    field("trusted_proxies", Kind::List),
    field("metrics_listen", Kind::Text),
    field("drain_delay", Kind::Text),
    field("signing_alg", Kind::Text),
    field("issuers", Kind::Tables(ISSUER)),
    field("directory", Kind::Table(DIRECTORY)),
    field("policy", Kind::Table(POLICY)),
    field("gates", Kind::Tables(GATE)),
    field("console", Kind::Table(CONSOLE)),
    field("ticket", Kind::Table(TICKET)),
    field("webhooks", Kind::Tables(WEBHOOK)),
    field("anomaly", Kind::Table(ANOMALY)),
    field("log_max_bytes", Kind::Integer),
    field("actor_retention", Kind::Text),
    field("witnesses", Kind::Tables(WITNESS)),
    field("witnesses_required", Kind::Integer),
    field("witness_deadline", Kind::Text),
    field("key_max_age", Kind::Text),
    field("client_rate", Kind::Integer),
    field("actor_rate", Kind::Integer),
    field("otlp", Kind::Table(OTLP)),
    field("log_format", Kind::Text),
    field("log_level", Kind::Text),
    field("ca_bundle", Kind::Text),
    field("allow_http", Kind::Boolean),
    field("allow_private_hosts", Kind::List),
];

/// The names of all settings, as they stand in the file: `listen`, `policy.path`, `issuers[].iss`.
pub(super) fn names() -> Vec<String> {
    let of_table = |table: &Field, between: &str, fields: &[Field]| -> Vec<String> {
        fields.iter().map(|field| format!("{}{between}{}", table.name, field.name)).collect()
    };
    TOP.iter()
        .flat_map(|field| match field.kind {
            Kind::Table(fields) => of_table(field, ".", fields),
            Kind::Tables(fields) => of_table(field, "[].", fields),
            _ => vec![field.name.to_owned()],
        })
        .collect()
}

pub(super) fn config(file: &str, text: &str, environment: &Environment) -> Result<Config, ConfigError> {
    let table = text.parse::<toml::Table>().map_err(|e| {
        let before = text.get(..e.span().map_or(0, |s| s.start)).unwrap_or("");
        ConfigError::Syntax {
            file: file.to_owned(),
            line: before.bytes().filter(|b| *b == b'\n').count() + 1,
            message: e.message().replace('\n', " "),
        }
    })?;
    let mut top = Section::from_file(file, table, TOP)?;
    for (name, value) in environment.settings() {
        top.overlay(name, value, TOP)?;
    }
    assemble(&top)
}

fn assemble(top: &Section) -> Result<Config, ConfigError> {
    let listen = top.parsed("listen", socket)?.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
    let outbound = outbound(top)?;
    let tls = tls(top)?;
    let issuer = own_issuer(top, listen, outbound.allow_http, tls.is_some())?;
    let data_dir = top.file_path("data_dir")?.unwrap_or_else(|| PathBuf::from("./.stagedoor"));
    let (database_url, database_owner_url) = databases(top, &data_dir)?;
    let issuers = issuers(top, outbound.allow_http)?;
    if let Some(ours) = &issuer {
        refuse_ourselves(ours, &issuers)?;
    }
    let console = top.section("console").map(|s| console(s, &issuers, outbound.allow_http)).transpose()?;
    let log_max_bytes = top.integer("log_max_bytes", 1 << 20, i64::MAX.unsigned_abs())?;
    if log_max_bytes.is_some() && database_url.is_sqlite() {
        return Err(ConfigError::invalid(
            top.setting("log_max_bytes"),
            "is for PostgreSQL; leave it out, as SQLite counts the free bytes of its volume",
        ));
    }
    let witnesses = witnesses(top, outbound.allow_http)?;
    Ok(Config {
        listen,
        tls,
        issuer,
        database_url,
        database_owner_url,
        master_key: top
            .secret_source("master_key")?
            .unwrap_or_else(|| SecretSource::File(data_dir.join("master.key"))),
        data_dir,
        trusted_proxies: top.list("trusted_proxies", network)?.unwrap_or_default(),
        metrics_listen: top.parsed("metrics_listen", socket)?,
        drain_delay: top.parsed("drain_delay", drain_delay)?.unwrap_or_default(),
        signing_alg: top.parsed("signing_alg", signing_alg)?.unwrap_or(Alg::Es256),
        issuers,
        directory: top
            .section("directory")
            .map_or(Ok(DirectoryConfig::None), |s| directory(s, outbound.allow_http))?,
        policy_path: top.section("policy").map(|s| s.file_path("path")).transpose()?.flatten(),
        policy_on_verify: top.section("policy").map_or(Ok(false), |s| s.boolean("on_verify", false))?,
        gates: gates(top)?,
        console,
        ticket: top.section("ticket").map(|s| ticket(s, outbound.allow_http)).transpose()?,
        webhooks: webhooks(top, outbound.allow_http)?,
        anomaly: top.section("anomaly").map_or(Ok(AnomalyConfig::default()), anomaly)?,
        log_max_bytes,
        actor_retention: top.parsed("actor_retention", retention)?.unwrap_or(TimeDelta::days(365)),
        witnesses_required: witnesses_required(top, witnesses.len())?,
        witness_deadline: witness_deadline(top, witnesses.len())?,
        witnesses,
        key_max_age: match top.text("key_max_age")? {
            Some(text) if text.value == "never" => None,
            _ => Some(top.parsed("key_max_age", key_max_age)?.unwrap_or(TimeDelta::days(60))),
        },
        client_rate: rate(top, "client_rate")?,
        actor_rate: rate(top, "actor_rate")?,
        otlp: top.section("otlp").map(|s| otlp(s, outbound.allow_http)).transpose()?,
        log_format: top.parsed("log_format", log_format)?.unwrap_or_default(),
        log_level: top.text("log_level")?.map_or_else(|| "info".to_owned(), |t| t.value),
        outbound,
    })
}

fn retention(text: &str) -> Result<TimeDelta, String> {
    let wrong = || "is no length of time; write a number and a unit, as 365d".to_owned();
    duration(text).ok().and_then(|length| TimeDelta::from_std(length).ok()).ok_or_else(wrong)
}

fn key_max_age(text: &str) -> Result<TimeDelta, String> {
    retention(text).ok().filter(|age| *age >= TimeDelta::hours(2)).ok_or_else(|| {
        "must be two hours or more, as 60d; or never: then keys are rotated by command only".to_owned()
    })
}

fn drain_delay(text: &str) -> Result<Duration, String> {
    let wrong = || "is no delay of at most a minute; write seconds, as 5s".to_owned();
    duration(text).ok().filter(|delay| *delay <= Duration::from_mins(1)).ok_or_else(wrong)
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err("is not one of auto, human, json; write one of them".to_owned()),
    }
}

fn outbound(top: &Section) -> Result<OutboundConfig, ConfigError> {
    Ok(OutboundConfig {
        ca_bundle: top.file_path("ca_bundle")?,
        allow_http: top.boolean("allow_http", false)?,
        allow_private_hosts: top.list("allow_private_hosts", private_host)?.unwrap_or_default(),
    })
}

fn private_host(text: &str) -> Result<PrivateHost, String> {
    if let Ok(net) = network(text) {
        return Ok(PrivateHost::Net(net));
    }
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(plain) {
        return Err(
            "is no host name, address or network; write one, such as idp.internal or 10.0.0.0/8".into()
        );
    }
    Ok(PrivateHost::Name(name))
}

/// Certificate and key, both or none.
fn tls(top: &Section) -> Result<Option<TlsConfig>, ConfigError> {
    match (top.file_path("tls_cert_file")?, top.file_path("tls_key_file")?) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(TlsConfig { certificate, key })),
        (Some(_), None) => Err(top.missing("tls_key_file", "write where the certificate's key is, in PEM")),
        (None, Some(_)) => Err(top.missing("tls_cert_file", "write where the key's certificate is, in PEM")),
    }
}

fn own_issuer(
    top: &Section,
    listen: SocketAddr,
    allow_http: bool,
    tls: bool,
) -> Result<Option<Issuer>, ConfigError> {
    let plain_is_fine = !tls && (allow_http || is_loopback(listen.ip()));
    let Some(text) = top.text("issuer")? else {
        if plain_is_fine || (tls && is_loopback(listen.ip())) {
            return Ok(None);
        }
        return Err(ConfigError::NoIssuer { setting: top.setting("issuer"), listen });
    };
    let url = issuer_url(&text.value).map_err(|why| text.invalid(why))?;
    if url.scheme() == "http" && !plain_is_fine {
        return Err(text.invalid(
            "must be https, since TLS is served or the listener is not loopback; or set allow_http = true",
        ));
    }
    id(&text.value).map(Some).map_err(|why| text.invalid(why))
}

/// An issuer that other programs can compare byte for byte and append paths to.
fn issuer_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("is not an address ({e}); write https://host"))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err("must begin with https://".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must have no query and no fragment; leave them out".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no user name or password; leave them out".to_owned());
    }
    if text.ends_with('/') {
        return Err("must not end with a slash; leave it out".to_owned());
    }
    let usual = url.as_str().trim_end_matches('/');
    if usual != text {
        return Err(format!("is not in its usual spelling; write {usual}"));
    }
    Ok(url)
}

pub(super) fn default_issuer(scheme: &str, bound: SocketAddr) -> Result<Issuer, ConfigError> {
    id(&format!("{scheme}://{bound}")).map_err(|why| ConfigError::invalid("`listen`", why))
}

/// Our own issuer, and those under it (profile `clerk`), may not be somebody else's: his keys would then
/// speak for us.
pub(super) fn refuse_ourselves(ours: &Issuer, issuers: &[IssuerConfig]) -> Result<(), ConfigError> {
    let clerk = format!("{ours}/clerk/");
    for (i, other) in issuers.iter().enumerate() {
        let iss = other.iss.as_str();
        if iss.trim_end_matches('/') == ours.as_str() || iss.starts_with(&clerk) {
            return Err(ConfigError::invalid(
                format!("`issuers[{i}].iss`"),
                "is this service's own issuer; leave the entry out, our own tokens are always known",
            ));
        }
    }
    Ok(())
}

fn databases(top: &Section, data_dir: &std::path::Path) -> Result<(DatabaseUrl, DatabaseUrl), ConfigError> {
    let default = || {
        let path = data_dir.join("stagedoor.db").display().to_string();
        Secret::new(format!("sqlite://{}", percent_encoded(&path)))
    };
    let service = database("database_url", top)?.unwrap_or_else(|| DatabaseUrl(default()));
    let owner = database("database_owner_url", top)?;
    if owner.is_some() && service.is_sqlite() {
        return Err(ConfigError::invalid(
            given_secret(top, "database_owner_url"),
            "is for PostgreSQL; leave it out, as SQLite knows no roles",
        ));
    }
    if owner.as_ref().is_some_and(DatabaseUrl::is_sqlite) {
        return Err(ConfigError::invalid(
            given_secret(top, "database_owner_url"),
            "is not the same kind of database as database_url; write postgres://…",
        ));
    }
    let owner = owner.unwrap_or_else(|| service.clone());
    Ok((service, owner))
}

/// How a secret was given, for messages.
fn given_secret(top: &Section, key: &str) -> String {
    let by_file = format!("{key}_file");
    if matches!(top.text(&by_file), Ok(Some(_))) { top.setting(&by_file) } else { top.setting(key) }
}

fn database(key: &str, top: &Section) -> Result<Option<DatabaseUrl>, ConfigError> {
    let Some(secret) = top.secret(key)? else { return Ok(None) };
    let text = secret.expose();
    let invalid = |why| ConfigError::invalid(given_secret(top, key), why);
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = path.trim_start_matches("//");
        if path.is_empty() || path.starts_with('?') || path.starts_with(":memory:") {
            return Err(invalid("names no file; write sqlite://PATH, since a log in memory proves nothing"));
        }
    } else if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(invalid("must begin with sqlite:// or postgres://"));
    }
    Ok(Some(DatabaseUrl(secret)))
}

fn issuers(top: &Section, allow_http: bool) -> Result<Vec<IssuerConfig>, ConfigError> {
    let mut out: Vec<IssuerConfig> = Vec::new();
    for section in top.sections("issuers") {
        let issuer = issuer(section, allow_http)?;
        if out.iter().any(|known| known.iss == issuer.iss) {
            return Err(ConfigError::invalid(section.setting("iss"), "is configured twice; keep one entry"));
        }
        out.push(issuer);
    }
    Ok(out)
}

fn issuer(section: &Section, allow_http: bool) -> Result<IssuerConfig, ConfigError> {
    let iss = section.parsed("iss", id::<Issuer>)?.ok_or_else(|| {
        section.missing("iss", "write the issuer exactly as its tokens do, such as https://login.example.com")
    })?;
    let audiences =
        section.list("audiences", id::<Audience>)?.filter(|list| !list.is_empty()).ok_or_else(|| {
            section.missing("audiences", "list the aud values that its tokens must have to be meant for us")
        })?;
    let words = |key: &str, default: &[&str]| {
        let list = section.list(key, |t| Ok(t.to_owned()))?;
        Ok::<_, ConfigError>(list.unwrap_or_else(|| default.iter().map(|&s| s.to_owned()).collect()))
    };
    let typ = words("typ", &["at+jwt"])?;
    let seconds = section.integer("max_age_seconds", 1, 86_400)?.unwrap_or(900);
    Ok(IssuerConfig {
        keys: key_source(section, &iss, allow_http)?,
        iss,
        audiences,
        clients: section.list("clients", |t| Ok(t.to_owned()))?.filter(|list| !list.is_empty()).ok_or_else(
            || section.missing("clients", "list the azp or client_id values whose tokens may prove an actor"),
        )?,
        algs: section.list("algs", known_alg)?.unwrap_or_else(|| Alg::SIGNING.to_vec()),
        typ: typ
            .iter()
            .map(|t| t.to_ascii_lowercase().trim_start_matches("application/").to_owned())
            .collect(),
        roles_path: section.text("roles_path")?.map(|t| t.value),
        groups_path: section.text("groups_path")?.map(|t| t.value),
        org_path: section.text("org_path")?.map(|t| t.value),
        directory_path: section.text("directory_path")?.map(|t| t.value),
        id_token: section.boolean("id_token", false)?,
        max_age_seconds: u32::try_from(seconds).unwrap_or(900),
    })
}

/// Asymmetric algorithms only: with a shared secret, whoever verifies could also sign.
fn known_alg(text: &str) -> Result<Alg, String> {
    let known = || Alg::ALL.map(Alg::name).join(", ");
    Alg::from_name(text).ok_or_else(|| format!("is not accepted; write some of {}", known()))
}

fn signing_alg(text: &str) -> Result<Alg, String> {
    Alg::from_name(text)
        .filter(|alg| Alg::SIGNING.contains(alg))
        .ok_or_else(|| "is not one of ES256, RS256, EdDSA; write one of them".to_owned())
}

fn key_source(section: &Section, iss: &Issuer, allow_http: bool) -> Result<KeySource, ConfigError> {
    const KEYS: [&str; 3] = ["discovery", "jwks_url", "jwks_file"];
    let hint = "write one of discovery = true, jwks_url = \"https://…\", jwks_file = \"PATH\"";
    let discovery = match section.boolean("discovery", false) {
        Ok(false) => section.text("discovery").ok().flatten().filter(|t| t.value != "false"),
        Ok(true) => Some(well_known(iss, section.setting("discovery"))),
        Err(_) => section.text("discovery")?.map(|t| match t.value.as_str() {
            "true" => well_known(iss, t.setting),
            _ => t,
        }),
    };
    let given = [discovery, section.text("jwks_url")?, section.text("jwks_file")?];
    let mut set = given.iter().zip(KEYS).filter(|(value, _)| value.is_some()).map(|(_, key)| key);
    if let (Some(one), Some(other)) = (set.next(), set.next()) {
        return Err(ConfigError::Both { one: section.setting(one), other: section.setting(other) });
    }
    match given {
        [Some(url), _, _] => outbound_url(&url.value, allow_http)
            .map(|()| KeySource::Discovery(url.value.clone()))
            .map_err(|why| url.invalid(why)),
        [_, Some(url), _] => outbound_url(&url.value, allow_http)
            .map(|()| KeySource::JwksUrl(url.value.clone()))
            .map_err(|why| url.invalid(why)),
        [_, _, Some(path)] => Ok(KeySource::JwksFile(path.value.into())),
        _ => Err(section.missing("discovery", hint)),
    }
}

/// `OpenID` Connect Discovery 1.0 §4: the path is appended to the issuer.
fn well_known(iss: &Issuer, setting: String) -> super::layers::Text {
    let base = iss.as_str().trim_end_matches('/');
    super::layers::Text { value: format!("{base}/.well-known/openid-configuration"), setting }
}

/// An address we may call: https, or plain http to loopback where that is allowed.
pub(super) fn outbound_url(text: &str, allow_http: bool) -> Result<(), String> {
    let url = Url::parse(text).map_err(|e| format!("is not an address ({e}); write https://…"))?;
    let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(is_loopback);
    match url.scheme() {
        "https" => Ok(()),
        "http" if allow_http && loopback => Ok(()),
        "http" => Err("must be https; plain http goes to loopback only, with allow_http = true".to_owned()),
        _ => Err("must begin with https://".to_owned()),
    }
}

fn directory(section: &Section, allow_http: bool) -> Result<DirectoryConfig, ConfigError> {
    let kind = section.text("kind")?;
    let kind_name = kind.as_ref().map_or("none", |t| t.value.as_str());
    let others: &[&str] = match kind_name {
        "none" => &["path", "url", "token", "token_file", "cache_seconds"],
        "file" => &["url", "token", "token_file", "cache_seconds"],
        "scim" => &["path"],
        _ => {
            let why = "is not one of none, file, scim; write one of them";
            return Err(kind.map_or_else(|| section.missing("kind", why), |t| t.invalid(why)));
        }
    };
    for key in others {
        if section.has(key) {
            let why = format!("does not belong to kind = \"{kind_name}\"; leave it out, or change the kind");
            return Err(ConfigError::invalid(section.setting(key), why));
        }
    }
    match kind_name {
        "file" => Ok(DirectoryConfig::File {
            path: section
                .file_path("path")?
                .ok_or_else(|| section.missing("path", "write where the JSON or CSV file is"))?,
        }),
        "scim" => {
            let url = section
                .text("url")?
                .ok_or_else(|| section.missing("url", "write the SCIM server's base address"))?;
            outbound_url(&url.value, allow_http).map_err(|why| url.invalid(why))?;
            let seconds = section.integer("cache_seconds", 0, 3600)?.unwrap_or(60);
            Ok(DirectoryConfig::Scim {
                url: url.value,
                token: section.secret("token")?,
                cache_seconds: u32::try_from(seconds).unwrap_or(60),
            })
        }
        _ => Ok(DirectoryConfig::None),
    }
}

fn gates(top: &Section) -> Result<Vec<GateConfig>, ConfigError> {
    let mut out: Vec<GateConfig> = Vec::new();
    for section in top.sections("gates") {
        let name = section
            .parsed("name", named)?
            .ok_or_else(|| section.missing("name", "write what follows /v1/forward_auth/"))?;
        if out.iter().any(|known| known.name == name) {
            return Err(ConfigError::invalid(section.setting("name"), "is configured twice; keep one entry"));
        }
        out.push(GateConfig {
            name,
            audience: section
                .parsed("audience", id::<Audience>)?
                .ok_or_else(|| section.missing("audience", "write what a token's aud must hold"))?,
            scopes: gate_scopes(section)?,
            impersonation: section.boolean("impersonation", false)?,
        });
    }
    Ok(out)
}

pub(super) fn named(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    if text.len() <= 64 && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("may hold a-z, 0-9, _ and - only, at most 64; write a shorter or plainer name".to_owned())
    }
}

fn gate_scopes(section: &Section) -> Result<Scope, ConfigError> {
    let one = |t: &str| match Scope::parse(t) {
        Ok(scope) if scope.iter().count() == 1 => Ok(t.to_owned()),
        _ => Err("is not one scope; write each scope apart".to_owned()),
    };
    let words = section.list("scopes", one)?.unwrap_or_default();
    Scope::parse(&words.join(" ")).map_err(|e| ConfigError::invalid(section.setting("scopes"), e.to_string()))
}

fn console(
    section: &Section,
    issuers: &[IssuerConfig],
    allow_http: bool,
) -> Result<ConsoleConfig, ConfigError> {
    let issuer = section
        .parsed("issuer", id::<Issuer>)?
        .ok_or_else(|| section.missing("issuer", "write which of [[issuers]] people sign in with"))?;
    if !issuers.iter().any(|known| known.iss == issuer) {
        return Err(ConfigError::invalid(
            section.setting("issuer"),
            "is not one of [[issuers]]; add it there, or write one that is there",
        ));
    }
    let token_endpoint = section.text("token_endpoint")?;
    if let Some(url) = &token_endpoint {
        outbound_url(&url.value, allow_http).map_err(|why| url.invalid(why))?;
    }
    Ok(ConsoleConfig {
        issuer,
        token_endpoint: token_endpoint.map(|url| url.value),
        client_id: section
            .text("client_id")?
            .ok_or_else(|| section.missing("client_id", "write the console's client id at that issuer"))?
            .value,
        client_secret: section
            .secret("client_secret")?
            .ok_or_else(|| section.missing("client_secret_file", "write where the client's secret is"))?,
    })
}

fn rate(top: &Section, key: &str) -> Result<Option<NonZeroU32>, ConfigError> {
    let per_minute = top.integer(key, 1, 10_000_000)?;
    Ok(per_minute.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new))
}

fn ticket(section: &Section, allow_http: bool) -> Result<TicketConfig, ConfigError> {
    let url = section
        .text("url")?
        .ok_or_else(|| section.missing("url", "write where a ticket can be asked about (docs/policy.md)"))?;
    outbound_url(&url.value, allow_http).map_err(|why| url.invalid(why))?;
    Ok(TicketConfig { url: url.value, token: section.secret("token")? })
}

fn witnesses(top: &Section, allow_http: bool) -> Result<Vec<WitnessConfig>, ConfigError> {
    let mut out: Vec<WitnessConfig> = Vec::new();
    for section in top.sections("witnesses") {
        let url = section
            .text("url")?
            .ok_or_else(|| section.missing("url", "write what its add-checkpoint stands under"))?;
        outbound_url(&url.value, allow_http).map_err(|why| url.invalid(why))?;
        let vkey = section
            .text("vkey")?
            .ok_or_else(|| section.missing("vkey", "write the key that `stagedoor audit witness` printed"))?;
        if out.iter().any(|known| known.vkey == vkey.value) {
            return Err(vkey.invalid("is configured twice; keep one entry"));
        }
        out.push(WitnessConfig { url: url.value, vkey: vkey.value });
    }
    Ok(out)
}

fn witnesses_required(top: &Section, configured: usize) -> Result<usize, ConfigError> {
    let required = top.integer("witnesses_required", 1, 100)?;
    let required = required.map_or(configured, |n| usize::try_from(n).unwrap_or(usize::MAX));
    if required > configured {
        let why =
            format!("is more than the {configured} that are configured; lower it, or add [[witnesses]]");
        return Err(ConfigError::invalid(top.setting("witnesses_required"), why));
    }
    Ok(required)
}

/// Without witnesses nothing ever waits for them, and the deadline would promise what it does not do.
fn witness_deadline(top: &Section, configured: usize) -> Result<Option<TimeDelta>, ConfigError> {
    let deadline = top.parsed("witness_deadline", retention)?;
    if deadline.is_some() && configured == 0 {
        let why = "is for a log with witnesses, and none are configured; leave it out, or add [[witnesses]]";
        return Err(ConfigError::invalid(top.setting("witness_deadline"), why));
    }
    Ok(deadline)
}

fn anomaly(section: &Section) -> Result<AnomalyConfig, ConfigError> {
    let default = AnomalyConfig::default();
    let whole = |key, least, most, default| {
        Ok::<_, ConfigError>(
            section.integer(key, least, most)?.and_then(|n| u32::try_from(n).ok()).unwrap_or(default),
        )
    };
    Ok(AnomalyConfig {
        max_targets: whole("max_targets", 0, 100_000, default.max_targets)?,
        window_seconds: whole("window_seconds", 60, 86_400, default.window_seconds)?,
    })
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an IP address and a port; write it as 127.0.0.1:8080".to_owned())
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "is no address or network; write it as 10.0.0.0/8 or 10.1.2.3".to_owned())
}

fn id<T>(text: &str) -> Result<T, String>
where
    T: for<'a> TryFrom<&'a str>,
    for<'a> <T as TryFrom<&'a str>>::Error: Display,
{
    T::try_from(text).map_err(|e| e.to_string())
}

/// What would end the path of a `sqlite://` address early.
fn percent_encoded(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3F").replace('#', "%23")
}

pub(super) fn percent_decoded(path: &str) -> String {
    path.replace("%3F", "?").replace("%3f", "?").replace("%23", "#").replace("%25", "%")
}
