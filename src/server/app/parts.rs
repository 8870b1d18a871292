//! Builds the parts from the settings, each in its own words.

use std::sync::Arc;

use super::AppError;
use crate::server::actors::{Actors, IssuerConfig, KeySource};
use crate::server::config::{self, Config};
use crate::server::console::draft::UsedDrafts;
use crate::server::console::seal::Seals;
use crate::server::console::session::EndedSessions;
use crate::server::console::sign_in::RelyingParty;
use crate::server::console::{Console, SignIn};
use crate::server::directory::{BearerToken, Directory, DirectoryConfig, IdAttribute, ScimConfig};
use crate::server::gates::Gates;
use crate::server::log::Log;
use crate::server::log::witness::CosignatureVerifier;
use crate::server::log::witnessing::{WitnessAt, Witnesses};
use crate::server::master_key::MasterKey;
use crate::server::outbound::{Outbound, OutboundConfig, with_segment};
use crate::server::policy::{Policy, PolicyStore};
use crate::server::webhooks::Webhooks;
use crate::token::AudienceRule;
use crate::token::revocation::Revocations;
use crate::token::{Audience, Clock, Entropy, Issuer, KeySet, TrustedIssuer, Verifier};

/// The one outbound client: every configured destination, and nothing else.
pub fn outbound(config: &Config) -> Result<Outbound, AppError> {
    let mut destinations = Vec::new();
    for issuer in &config.issuers {
        match &issuer.keys {
            config::KeySource::Discovery(url) | config::KeySource::JwksUrl(url) => {
                destinations.push(url.clone());
            }
            config::KeySource::JwksFile(_) => {}
        }
        if let config::KeySource::Discovery(_) = issuer.keys {
            // The key set that the metadata names must live at the issuer itself.
            destinations.push(issuer.iss.to_string());
        }
    }
    if let Some(console) = &config.console {
        // where its metadata is, wherever its keys are from
        destinations.push(console.issuer.to_string());
        destinations.extend(console.token_endpoint.clone());
    }
    if let config::DirectoryConfig::Scim { url, .. } = &config.directory {
        destinations.push(url.clone());
    }
    destinations.extend(config.witnesses.iter().map(|witness| witness.url.clone()));
    destinations.extend(config.ticket.iter().map(|ticket| ticket.url.clone()));
    destinations.extend(config.webhooks.iter().map(|webhook| webhook.url.clone()));
    destinations.extend(config.otlp.iter().map(|otlp| otlp.url.clone()));
    let ca_bundle_pem =
        match &config.outbound.ca_bundle {
            None => None,
            Some(path) => Some(std::fs::read(path).map_err(|e| {
                AppError::Refused(format!("CA_BUNDLE {} cannot be read: {e}", path.display()))
            })?),
        };
    let (mut private_networks, mut private_hosts) = (Vec::new(), Vec::new());
    for allowed in &config.outbound.allow_private_hosts {
        match allowed {
            config::PrivateHost::Net(net) => private_networks.push(*net),
            config::PrivateHost::Name(name) => private_hosts.push(name.clone()),
        }
    }
    Outbound::new(&OutboundConfig {
        destinations,
        private_networks,
        private_hosts,
        allow_http: config.outbound.allow_http,
        ca_bundle_pem,
    })
    .map_err(AppError::failed("the outbound client cannot be set up"))
}

/// Who cosigns the log's checkpoints.
pub fn witnesses(config: &Config, outbound: &Outbound) -> Result<Witnesses, AppError> {
    let list = config.witnesses.iter().map(|witness| {
        let verifier = CosignatureVerifier::parse(&witness.vkey).map_err(|_| {
            AppError::Refused(format!(
                "[[witnesses]] vkey of {} is no cosignature key; copy what `stagedoor audit witness` printed",
                witness.url
            ))
        })?;
        let base = outbound.destination(&witness.url);
        let base = base.map_err(AppError::failed("[[witnesses]] url cannot be called"))?;
        let url = with_segment(&base, "add-checkpoint");
        Ok(WitnessAt { url: url.map_err(AppError::failed("[[witnesses]] url cannot be called"))?, verifier })
    });
    Ok(Witnesses::new(list.collect::<Result<_, AppError>>()?, config.witnesses_required, outbound.clone()))
}

/// Where people are looked up.
pub fn directory(config: &Config, outbound: &Outbound, clock: Arc<dyn Clock>) -> Result<Directory, AppError> {
    let directory = match &config.directory {
        config::DirectoryConfig::None => DirectoryConfig::None,
        config::DirectoryConfig::File { path } => DirectoryConfig::File { path: path.clone() },
        config::DirectoryConfig::Scim { url, token, cache_seconds } => DirectoryConfig::Scim(ScimConfig {
            url: url.clone(),
            token: BearerToken::Text(
                token.as_ref().map(|secret| zeroize::Zeroizing::new(secret.expose().to_owned())).ok_or_else(
                    || {
                        AppError::Refused(
                            "[directory] needs token_file: the SCIM server's bearer token".into(),
                        )
                    },
                )?,
            ),
            cache_seconds: *cache_seconds,
            id_attribute: IdAttribute::default(),
        }),
    };
    Directory::open(directory, outbound, clock).map_err(AppError::failed("the directory cannot be opened"))
}

/// Whose tokens prove who an actor is.
pub fn actors(
    config: &Config,
    own: &Issuer,
    outbound: &Outbound,
    clock: Arc<dyn Clock>,
) -> Result<Actors, AppError> {
    let issuers = config.issuers.iter().map(issuer).collect();
    Actors::new(own, issuers, outbound, clock).map_err(AppError::failed("the trusted issuers cannot be used"))
}

fn issuer(config: &config::IssuerConfig) -> IssuerConfig {
    IssuerConfig {
        iss: config.iss.clone(),
        source: match &config.keys {
            config::KeySource::Discovery(url) => KeySource::Discovery(url.clone()),
            config::KeySource::JwksUrl(url) => KeySource::JwksUrl(url.clone()),
            config::KeySource::JwksFile(path) => KeySource::JwksFile(path.clone()),
        },
        audiences: config.audiences.clone(),
        clients: config.clients.clone(),
        algs: config.algs.clone(),
        typ: config.typ.clone(),
        roles_path: config.roles_path.clone(),
        groups_path: config.groups_path.clone(),
        org_path: config.org_path.clone(),
        directory_path: config.directory_path.clone(),
        id_token: config.id_token,
        max_age_seconds: config.max_age_seconds,
    }
}

/// The policy in force: the configured one, or the one that is shipped.
pub fn policy(config: &Config, dev: bool) -> Result<PolicyStore, AppError> {
    let policy = match &config.policy_path {
        None if dev => Policy::shipped_dev(),
        None => Policy::shipped_default(),
        Some(path) => Policy::from_path(path).map_err(AppError::failed("the policy cannot be used"))?,
    };
    Ok(PolicyStore::new(policy))
}

/// The forward-authentication points, over a verifier that trusts our own issuer and the company's.
pub fn gates(
    config: &Config,
    own: &Issuer,
    keys: KeySet,
    revocations: Arc<dyn Revocations>,
    clock: Arc<dyn Clock>,
) -> Result<Gates, AppError> {
    let ours = TrustedIssuer::stagedoor(own.clone()).audience_rule(AudienceRule::Any);
    let mut verifier = Verifier::builder().issuer_with_keys(ours, keys).clock(clock).revocations(revocations);
    for issuer in &config.issuers {
        // The gate names its one audience; which client a user's token was issued to is the product's affair.
        verifier = verifier.issuer(TrustedIssuer::home(issuer.iss.clone()).audience_rule(AudienceRule::Any));
    }
    let verifier = verifier.build().map_err(AppError::failed("the gates cannot be set up"))?;
    Ok(Gates::new(Arc::new(verifier), &config.gates))
}

/// Who is told of what the log records. Warns of a policy that promises to tell somebody when nobody is there.
pub async fn webhooks(
    config: &Config,
    own: &Issuer,
    log: &Log,
    outbound: &Outbound,
    machine: (Arc<dyn Clock>, &dyn Entropy),
) -> Result<Webhooks, AppError> {
    Webhooks::open(&config.webhooks, own, super::log_host(own), log, outbound, machine)
        .await
        .map_err(AppError::failed("the webhooks cannot be set up"))
}

/// The pages for people: configured, or the demo's.
pub fn console(
    config: &Config,
    own: &Issuer,
    dev: bool,
    master: &MasterKey,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
) -> Result<Option<Console>, AppError> {
    let sign_in = match &config.console {
        Some(settings) => SignIn::Issuer(Box::new(relying_party(config, settings, own, clock)?)),
        None if dev => {
            let iss = format!("{own}/console/demo");
            let iss =
                Issuer::try_from(iss).map_err(AppError::failed("the demo's sign-in cannot be named"))?;
            SignIn::Local { iss }
        }
        None => return Ok(None),
    };
    let origin = reqwest::Url::parse(own.as_str()).map_err(AppError::failed("ISSUER is no address"))?;
    Ok(Some(Console {
        sign_in,
        seals: Seals::new(master.clone(), entropy),
        used_drafts: UsedDrafts::default(),
        ended: EndedSessions::default(),
        origin: origin.origin().ascii_serialization(),
    }))
}

/// The console as a client of its issuer: the issuer as configured, but for ID tokens of this client alone.
fn relying_party(
    config: &Config,
    settings: &config::ConsoleConfig,
    own: &Issuer,
    clock: Arc<dyn Clock>,
) -> Result<RelyingParty, AppError> {
    let trusted = config.issuers.iter().find(|i| i.iss == settings.issuer);
    let trusted = trusted.ok_or_else(|| {
        AppError::Refused("[console] issuer must be one of [[issuers]]; add it there".into())
    })?;
    let audience = Audience::try_from(settings.client_id.as_str())
        .map_err(|_| AppError::Refused("[console] client_id is no id".into()))?;
    let discovery = match &trusted.keys {
        config::KeySource::Discovery(url) => url.clone(),
        config::KeySource::JwksUrl(_) | config::KeySource::JwksFile(_) => {
            format!("{}/.well-known/openid-configuration", trusted.iss.as_str().trim_end_matches('/'))
        }
    };
    let for_console = IssuerConfig {
        id_token: true,
        clients: vec![settings.client_id.clone()],
        audiences: vec![audience],
        ..issuer(trusted)
    };
    let outbound = outbound(config)?;
    let actors = Actors::new(own, vec![for_console], &outbound, clock)
        .map_err(AppError::failed("the console's issuer cannot be used"))?;
    Ok(RelyingParty {
        issuer: trusted.iss.clone(),
        discovery,
        client_id: settings.client_id.clone(),
        client_secret: settings.client_secret.clone(),
        redirect_uri: format!("{own}/console/callback"),
        actors,
        outbound,
    })
}
