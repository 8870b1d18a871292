//! Signatures of Standard Webhooks 1.0: HMAC-SHA256 over id, time and body.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::server::config::{Secret, WebhookConfig, webhook_key};

/// The keys of one webhook: the current one, and the one before while a receiver changes over.
pub(super) struct Keys(Vec<hmac::Key>);

impl Keys {
    /// The keys as configured; the settings were checked, so none is left out.
    pub fn of(config: &WebhookConfig) -> Self {
        let secrets = std::iter::once(&config.secret).chain(&config.previous_secret);
        Self(secrets.filter_map(key).collect())
    }

    /// `webhook-signature`: one signature a key, separated by spaces.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut signed = format!("{id}.{timestamp}.").into_bytes();
        signed.extend_from_slice(body);
        let signature = |key| format!("v1,{}", STANDARD.encode(hmac::sign(key, &signed)));
        self.0.iter().map(signature).collect::<Vec<_>>().join(" ")
    }
}

fn key(secret: &Secret) -> Option<hmac::Key> {
    webhook_key(secret).map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn the_published_example_is_met() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into());
        let keys = Keys(vec![key(&secret).unwrap()]);
        let signature = keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
