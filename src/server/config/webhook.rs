//! `[[webhooks]]`: who is told of what the log records.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::build::{named, outbound_url};
use super::error::ConfigError;
use super::layers::{Field, Kind, Section, field};
use super::{Secret, WebhookConfig, WebhookEvent, WebhookPersonal};

pub(super) const WEBHOOK: &[Field] = &[
    field("name", Kind::Text),
    field("url", Kind::Text),
    field("secret", Kind::Secret),
    field("previous_secret", Kind::Secret),
    field("events", Kind::List),
    field("personal", Kind::Text),
];

/// How long a key of Standard Webhooks is, bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

impl WebhookEvent {
    /// Every event, in the order of a grant's life.
    pub const ALL: [Self; 5] =
        [Self::GrantRequested, Self::GrantStarted, Self::GrantEnded, Self::GrantDenied, Self::AnomalyRaised];

    /// Its name, as `type` of the event and in `events`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GrantRequested => "grant.requested",
            Self::GrantStarted => "grant.started",
            Self::GrantEnded => "grant.ended",
            Self::GrantDenied => "grant.denied",
            Self::AnomalyRaised => "anomaly.raised",
        }
    }
}

/// The key inside a secret as Standard Webhooks writes it: `whsec_` and base64; the prefix may be left out.
#[must_use]
pub fn webhook_key(secret: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let text = secret.expose();
    let bytes = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok()?;
    Some(Zeroizing::new(bytes)).filter(|key| KEY_BYTES.contains(&key.len()))
}

pub(super) fn webhooks(top: &Section, allow_http: bool) -> Result<Vec<WebhookConfig>, ConfigError> {
    let mut out: Vec<WebhookConfig> = Vec::new();
    for section in top.sections("webhooks") {
        let webhook = webhook(section, allow_http)?;
        if out.iter().any(|known| known.name == webhook.name) {
            return Err(ConfigError::invalid(section.setting("name"), "is configured twice; keep one entry"));
        }
        out.push(webhook);
    }
    Ok(out)
}

fn webhook(section: &Section, allow_http: bool) -> Result<WebhookConfig, ConfigError> {
    let name = section
        .parsed("name", named)?
        .ok_or_else(|| section.missing("name", "write a name; how far it has been told is kept under it"))?;
    let url = section
        .text("url")?
        .ok_or_else(|| section.missing("url", "write the https address that takes the events"))?;
    outbound_url(&url.value, allow_http).map_err(|why| url.invalid(why))?;
    let events = section.list("events", event)?.unwrap_or_else(|| WebhookEvent::ALL.to_vec());
    if events.is_empty() {
        return Err(ConfigError::invalid(section.setting("events"), "is empty; name some, or leave it out"));
    }
    Ok(WebhookConfig {
        name,
        url: url.value,
        secret: secret(section, "secret")?.ok_or_else(|| {
            section.missing(
                "secret_file",
                "write where the secret is; echo whsec_$(openssl rand -base64 32) makes one",
            )
        })?,
        previous_secret: secret(section, "previous_secret")?,
        events,
        personal: section.parsed("personal", personal)?.unwrap_or_default(),
    })
}

fn secret(section: &Section, key: &str) -> Result<Option<Secret>, ConfigError> {
    let Some(secret) = section.secret(key)? else { return Ok(None) };
    if webhook_key(&secret).is_none() {
        let by_file = format!("{key}_file");
        let setting = section.setting(if section.has(&by_file) { &by_file } else { key });
        return Err(ConfigError::invalid(
            setting,
            "is no secret of 24 to 64 bytes in base64; echo whsec_$(openssl rand -base64 32) makes one",
        ));
    }
    Ok(Some(secret))
}

fn event(text: &str) -> Result<WebhookEvent, String> {
    WebhookEvent::ALL.into_iter().find(|event| event.name() == text).ok_or_else(|| {
        format!("is no event; write some of {}", WebhookEvent::ALL.map(WebhookEvent::name).join(", "))
    })
}

fn personal(text: &str) -> Result<WebhookPersonal, String> {
    match text {
        "none" => Ok(WebhookPersonal::None),
        "ids" => Ok(WebhookPersonal::Ids),
        "all" => Ok(WebhookPersonal::All),
        _ => Err("is not one of none, ids, all; write one of them".to_owned()),
    }
}
