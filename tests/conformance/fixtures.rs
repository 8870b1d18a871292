//! Vectors from outside, and tokens made on purpose.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use stagedoor::token::{Alg, FixedClock, Issuer, KeySet, LocalSigner, Signer, TrustedIssuer, Verifier};

/// The vectors' folder: `STAGEDOOR_VECTORS`, else `shared/vectors` beside or above the project.
pub fn vectors(test: &str) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "tests find their vectors through the environment")]
    let from_env = std::env::var("STAGEDOOR_VECTORS").ok().map(PathBuf::from);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let near = ["../shared/vectors", "../../shared/vectors"].map(|path| root.join(path));
    let dir = from_env.into_iter().chain(near).find(|path| path.join("wycheproof").is_dir());
    if dir.is_none() {
        // Written past the test harness, which swallows what passing tests print.
        let _ = writeln!(std::io::stderr(), "SKIP {test}: vectors not found");
    }
    dir
}

/// One JSON file of the vectors.
pub fn vector_file(test: &str, path: &str) -> Option<Value> {
    let bytes = std::fs::read(vectors(test)?.join(path)).unwrap();
    Some(serde_json::from_slice(&bytes).unwrap())
}

/// When the made tokens are looked at.
pub const NOW: i64 = 1_795_334_000;
/// The product's issuer in these tests.
pub const STAGEDOOR: &str = "https://stagedoor.example";
/// The company's own issuer in these tests.
pub const HOME: &str = "https://login.example";
/// The audience in these tests.
pub const API: &str = "https://api.example.com";

/// Keys are made once: RSA takes a while.
pub static ES256: LazyLock<LocalSigner> = LazyLock::new(|| LocalSigner::generate(Alg::Es256).unwrap());
pub static RS256: LazyLock<LocalSigner> = LazyLock::new(|| LocalSigner::generate(Alg::Rs256).unwrap());
pub static EDDSA: LazyLock<LocalSigner> = LazyLock::new(|| LocalSigner::generate(Alg::EdDsa).unwrap());
pub static HOME_KEY: LazyLock<LocalSigner> = LazyLock::new(|| LocalSigner::generate(Alg::Es256).unwrap());
pub static STRANGER: LazyLock<LocalSigner> = LazyLock::new(|| LocalSigner::generate(Alg::Es256).unwrap());

pub fn issuer(text: &str) -> Issuer {
    text.parse().unwrap()
}

pub fn keys(signers: &[&LocalSigner]) -> KeySet {
    KeySet::new(signers.iter().map(|signer| signer.verifying_key().clone()))
}

/// A verifier that trusts [`STAGEDOOR`] (three keys) and [`HOME`] (one key), and its clock.
pub fn verifier() -> (Verifier, Arc<FixedClock>) {
    let clock = Arc::new(FixedClock::at_seconds(NOW));
    let audience: stagedoor::token::Audience = API.parse().unwrap();
    let verifier = Verifier::builder()
        .issuer_with_keys(
            TrustedIssuer::stagedoor(issuer(STAGEDOOR)).audience(audience.clone()),
            keys(&[&ES256, &RS256, &EDDSA]),
        )
        .issuer_with_keys(TrustedIssuer::home(issuer(HOME)).audience(audience), keys(&[&HOME_KEY]))
        .clock(clock.clone())
        .build()
        .unwrap();
    (verifier, clock)
}

/// The header of an honest actor token of `signer`.
pub fn header(signer: &LocalSigner) -> Value {
    json!({ "alg": signer.alg().name(), "typ": "at+jwt", "kid": signer.kid().as_str() })
}

/// The claims of an honest actor token.
pub fn claims() -> Value {
    json!({
        "iss": STAGEDOOR, "sub": "user_42", "aud": API, "exp": NOW + 600, "iat": NOW, "nbf": NOW,
        "jti": "01j0000000000000000000000a", "client_id": "client_a", "scope": "read", "sid": "act_1",
        "actor_assurance": "verified", "act": { "sub": "admin_7", "iss": "https://staff.example" }
    })
}

/// The claims of an honest ordinary token of the company's issuer.
pub fn home_claims() -> Value {
    json!({ "iss": HOME, "sub": "user_42", "aud": API, "exp": NOW + 600, "scope": "read write" })
}

/// Signs any header and payload, however wrong, correctly.
pub fn sign_text(signer: &LocalSigner, header: &[u8], payload: &[u8]) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = signer.sign(input.as_bytes()).unwrap();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// As [`sign_text`], of JSON values.
pub fn sign(signer: &LocalSigner, header: &Value, payload: &Value) -> String {
    sign_text(signer, header.to_string().as_bytes(), payload.to_string().as_bytes())
}

/// `base` with members set, or taken out where the value is the string `"-"`.
pub fn with(mut base: Value, changes: &[(&str, Value)]) -> Value {
    let object = base.as_object_mut().unwrap();
    for (name, value) in changes {
        if value == "-" {
            object.remove(*name);
        } else {
            object.insert((*name).to_owned(), value.clone());
        }
    }
    base
}
