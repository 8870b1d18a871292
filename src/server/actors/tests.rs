use serde_json::{Value, json};

use super::*;
use crate::server::outbound::OutboundConfig;
use crate::token::{FixedClock, KeySet, LocalSigner, Signer, encode_jws};

const NOW: i64 = 1_800_000_000;
const ISS: &str = "https://login.example";

struct Fixture {
    signer: LocalSigner,
    clock: Arc<FixedClock>,
    actors: Actors,
    jwks: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

fn config(jwks: &std::path::Path) -> IssuerConfig {
    IssuerConfig {
        iss: Issuer::try_from(ISS).unwrap(),
        source: KeySource::JwksFile(jwks.to_owned()),
        audiences: vec![Audience::try_from("https://stagedoor.example").unwrap()],
        clients: vec!["support-tool".into(), "second-tool".into()],
        algs: vec![Alg::Es256],
        typ: vec![],
        roles_path: Some("realm_access.roles".into()),
        groups_path: Some("https://login.example/groups".into()),
        org_path: Some("org.id".into()),
        directory_path: None,
        id_token: false,
        max_age_seconds: DEFAULT_MAX_AGE_SECONDS,
    }
}

fn write_keys(path: &std::path::Path, signers: &[&LocalSigner]) {
    let set = KeySet::new(signers.iter().map(|s| s.verifying_key().clone()));
    std::fs::write(path, set.to_jwks().to_string()).unwrap();
}

async fn fixture(change: impl FnOnce(&mut IssuerConfig)) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let jwks = dir.path().join("jwks.json");
    let signer = LocalSigner::generate(Alg::Es256).unwrap();
    write_keys(&jwks, &[&signer]);
    let mut config = config(&jwks);
    change(&mut config);
    let clock = Arc::new(FixedClock::at_seconds(NOW));
    let own = Issuer::try_from("https://stagedoor.example").unwrap();
    let outbound = Outbound::new(&OutboundConfig::default()).unwrap();
    let shared: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
    let actors = Actors::new(&own, vec![config], &outbound, shared).unwrap();
    actors.refresh().await;
    Fixture { signer, clock, actors, jwks, _dir: dir }
}

fn access() -> Value {
    json!({
        "iss": ISS, "sub": "admin_7", "aud": "https://stagedoor.example", "client_id": "support-tool",
        "iat": NOW - 60, "exp": NOW + 240, "jti": "j1", "scope": "act",
        "realm_access": { "roles": ["support", "admin"] }, "https://login.example/groups": "staff",
        "org": { "id": "acme" }, "acr": "gold", "amr": ["pwd", "hwk"], "auth_time": NOW - 70,
    })
}

/// `claims` with the members of `change` put in; `null` takes one out.
fn with(mut claims: Value, change: Value) -> Value {
    let Value::Object(change) = change else { panic!("an object") };
    for (name, value) in change {
        let object = claims.as_object_mut().unwrap();
        if value.is_null() {
            object.remove(&name)
        } else {
            object.insert(name, value)
        };
    }
    claims
}

fn sign(signer: &LocalSigner, typ: &str, claims: &Value) -> String {
    encode_jws(signer, typ, claims).unwrap().into_string()
}

impl Fixture {
    async fn verify(
        &self,
        typ: &str,
        declared: Declared,
        claims: &Value,
    ) -> Result<Arc<VerifiedActor>, Reason> {
        self.verify_text(&sign(&self.signer, typ, claims), declared).await
    }

    async fn verify_text(&self, token: &str, declared: Declared) -> Result<Arc<VerifiedActor>, Reason> {
        match self.actors.verify_actor_token(token, declared, self.clock.now()).await {
            Ok(actor) => Ok(actor),
            Err(ActorTokenError::NotAcceptable(reason)) => Err(reason),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_good_access_token_gives_the_actor_with_all_he_is() {
    let fixture = fixture(|_| {}).await;
    let actor = fixture.verify("at+jwt", Declared::AccessToken, &access()).await.unwrap();
    let facts = &actor.facts;
    assert_eq!((facts.act.sub.as_str(), facts.act.iss.as_ref().unwrap().as_str()), ("admin_7", ISS));
    assert_eq!(facts.assurance, crate::token::Assurance::Verified);
    assert_eq!(facts.roles, ["support", "admin"]);
    assert_eq!(facts.groups, ["staff"]);
    assert_eq!(facts.org.as_deref(), Some("acme"));
    assert_eq!((facts.acr.as_deref(), facts.amr.len()), (Some("gold"), 2));
    assert_eq!(facts.auth_time.unwrap().timestamp(), NOW - 70);
    assert_eq!((actor.client_id.as_str(), actor.kind), ("support-tool", TokenKind::Access));
    assert!(!actor.acts_for_others && actor.may_act.is_none());
    assert!(fixture.verify("application/AT+JWT", Declared::Jwt, &access()).await.is_ok(), "BP-6");
}

#[tokio::test]
async fn every_claim_that_must_hold_is_held_to_it() {
    // TE-4, AT-3, BP-4, BP-5, BP-6, JW-10, DP-4, field.md traps 2, 15, 16.
    let fixture = fixture(|_| {}).await;
    let nested = |depth: usize| {
        (0..depth).fold(json!(null), |act, n| {
            let sub = json!(format!("a{n}"));
            if act.is_null() { json!({ "sub": sub }) } else { json!({ "sub": sub, "act": act }) }
        })
    };
    let invalid = Reason::Invalid;
    let table = [
        (json!({"iss": "https://other.example"}), invalid(Invalid::Issuer)),
        (json!({"iss": "https://login.example/"}), invalid(Invalid::Issuer)),
        (json!({"iss": ["https://login.example"]}), invalid(Invalid::ClaimMissing("iss"))),
        (json!({"iss": null}), invalid(Invalid::ClaimMissing("iss"))),
        (json!({"aud": "https://other.example"}), invalid(Invalid::Audience)),
        (json!({"aud": null}), invalid(Invalid::ClaimMissing("aud"))),
        (json!({"aud": 7}), invalid(Invalid::ClaimInvalid("aud"))),
        (json!({"aud": []}), invalid(Invalid::ClaimInvalid("aud"))),
        (json!({"client_id": "low-value-app"}), invalid(Invalid::Client)),
        (json!({"azp": "low-value-app"}), invalid(Invalid::Client)),
        (json!({"cid": "low-value-app"}), invalid(Invalid::Client)),
        (json!({"appid": "low-value-app"}), invalid(Invalid::Client)),
        (json!({"client_id": null}), invalid(Invalid::ClaimMissing("client_id"))),
        (json!({"client_id": ["support-tool"]}), invalid(Invalid::ClaimInvalid("client_id"))),
        (json!({"exp": NOW}), invalid(Invalid::Expired)),
        (json!({"exp": NOW - 1}), invalid(Invalid::Expired)),
        (json!({"exp": null}), invalid(Invalid::ClaimMissing("exp"))),
        (json!({"exp": "1800000240"}), invalid(Invalid::ClaimInvalid("exp"))),
        (json!({"iat": NOW + 6}), invalid(Invalid::IssuedInFuture)),
        (json!({"iat": NOW - 901}), Reason::TooOld),
        (json!({"iat": null}), invalid(Invalid::ClaimMissing("iat"))),
        (json!({"nbf": NOW + 6}), invalid(Invalid::NotYetValid)),
        (json!({"sub": null}), invalid(Invalid::ClaimMissing("sub"))),
        (json!({"sub": ""}), invalid(Invalid::ClaimInvalid("sub"))),
        (json!({"sub": "a\u{0}b"}), invalid(Invalid::ClaimInvalid("sub"))),
        (json!({"cnf": {"jkt": "x"}}), invalid(Invalid::KeyBound)),
        (json!({"act": "admin_9"}), invalid(Invalid::ActorInvalid)),
        (json!({"act": {"sub": "a", "exp": 1}}), invalid(Invalid::ActorInvalid)),
        (json!({"act": {"sub": "admin_7"}}), invalid(Invalid::ActorCycle)),
        (json!({"act": {"sub": "admin_7", "iss": ISS}}), invalid(Invalid::ActorCycle)),
        (json!({"act": nested(4)}), invalid(Invalid::ActorTooDeep)),
        (json!({"act": nested(5)}), invalid(Invalid::ActorTooDeep)),
        (json!({"may_act": "admin_9"}), invalid(Invalid::ClaimInvalid("may_act"))),
        (json!({"may_act": {"sub": 9}}), invalid(Invalid::ClaimInvalid("may_act"))),
        (json!({"realm_access": {"roles": {"a": 1}}}), Reason::Path("roles")),
        (json!({"realm_access": {"roles": ["a", 1]}}), Reason::Path("roles")),
        (json!({"org": {"id": ["a", "b"]}}), Reason::Path("organisation")),
        (json!({"acr": 3}), invalid(Invalid::ClaimInvalid("acr"))),
        (json!({"amr": [3]}), invalid(Invalid::ClaimInvalid("amr"))),
        (json!({"auth_time": "yesterday"}), invalid(Invalid::ClaimInvalid("auth_time"))),
    ];
    for (change, reason) in table {
        let got = fixture.verify("at+jwt", Declared::Jwt, &with(access(), change.clone())).await;
        assert_eq!(got, Err(reason), "{change}");
    }
    for change in [json!({"exp": NOW + 1}), json!({"iat": NOW - 900}), json!({"iat": NOW + 5})] {
        let got = fixture.verify("at+jwt", Declared::Jwt, &with(access(), change.clone())).await;
        assert!(got.is_ok(), "{change}: {got:?}");
    }
}

#[tokio::test]
async fn only_the_configured_types_and_kinds_are_taken() {
    use Declared::{AccessToken, IdToken, Jwt};
    use TokenKind::{Access, Id};
    // TE-4, BP-6, BP-7: an ID token at the access token's door and the other way round.
    let id = || {
        let base = json!({"iss": ISS, "sub": "admin_7", "aud": "support-tool", "iat": NOW, "exp": NOW + 60});
        with(base, json!({"nonce": "n"}))
    };
    let plain_id = || with(id(), json!({"nonce": null}));
    let strict = fixture(|_| {}).await;
    let bare = fixture(|c| c.typ = vec!["at+jwt".into(), "JWT".into()]).await;
    let ids = fixture(|c| c.id_token = true).await;
    let (typ, is_id, no_id) =
        (Err(Reason::Invalid(Invalid::Type)), Err(Reason::IdToken), Err(Reason::NotAnIdToken));
    let both = |claims: Value| with(claims, json!({"aud": ["https://stagedoor.example", "support-tool"]}));
    let table = [
        (&strict, "JWT", Jwt, access(), typ),
        (&strict, "secevent+jwt", Jwt, access(), typ),
        (&strict, "JWT", Jwt, id(), is_id),
        (&strict, "JWT", AccessToken, id(), is_id),
        (&strict, "at+jwt", IdToken, access(), no_id),
        (&bare, "jwt", AccessToken, access(), Ok(Access)),
        (&bare, "JWT", Jwt, with(access(), json!({"typ": "Bearer"})), Ok(Access)),
        (&bare, "JWT", Jwt, with(access(), json!({"typ": "ID"})), is_id),
        (&bare, "JWT", Jwt, with(access(), json!({"at_hash": "x"})), is_id),
        (&bare, "JWT", Jwt, both(with(access(), json!({"scope": null}))), is_id),
        (&bare, "JWT", Jwt, plain_id(), is_id),
        (&bare, "other+jwt", Jwt, access(), typ),
        (&ids, "JWT", Jwt, id(), Ok(Id)),
        (&ids, "JWT", IdToken, plain_id(), Ok(Id)),
        (&ids, "JWT", AccessToken, id(), is_id),
        (&ids, "logout+jwt", IdToken, id(), typ),
        (
            &ids,
            "JWT",
            IdToken,
            with(id(), json!({"aud": "low-value-app"})),
            Err(Reason::Invalid(Invalid::Audience)),
        ),
        (
            &ids,
            "JWT",
            IdToken,
            with(id(), json!({"azp": "low-value-app"})),
            Err(Reason::Invalid(Invalid::Client)),
        ),
        (
            &ids,
            "JWT",
            IdToken,
            with(id(), json!({"aud": ["support-tool", "x"]})),
            Err(Reason::Invalid(Invalid::ClaimMissing("azp"))),
        ),
        (
            &ids,
            "JWT",
            IdToken,
            with(id(), json!({"aud": ["support-tool", "x"], "azp": "support-tool"})),
            Ok(Id),
        ),
        (&ids, "at+jwt", Jwt, access(), Ok(Access)),
    ];
    for (i, (fixture, typ, declared, claims, want)) in table.into_iter().enumerate() {
        let got = fixture.verify(typ, declared, &claims).await.map(|actor| actor.kind);
        assert_eq!(got, want, "row {i}: {claims}");
    }
}

#[tokio::test]
async fn a_token_that_acts_already_keeps_its_whole_chain_for_the_policy() {
    // Field trap 2: A acts as B must not become B alone.
    let fixture = fixture(|_| {}).await;
    let act = json!({"sub": "a1", "act": {"sub": "a2", "iss": "https://elsewhere.example"}});
    let may_act = json!({"sub": "admin_8", "iss": ISS});
    let claims = with(access(), json!({"act": act, "may_act": may_act}));
    let actor = fixture.verify("at+jwt", Declared::Jwt, &claims).await.unwrap();
    assert!(actor.acts_for_others);
    let chain: Vec<_> =
        actor.facts.act.chain().map(|a| (a.sub.as_str(), a.iss.as_ref().unwrap().as_str())).collect();
    assert_eq!(chain, [("admin_7", ISS), ("a1", ISS), ("a2", "https://elsewhere.example")]);
    assert_eq!(actor.may_act.as_ref().unwrap().sub.as_ref().unwrap().as_str(), "admin_8");
}

#[tokio::test]
async fn a_remembered_token_still_expires_ages_and_dies_with_its_key() {
    let fixture = fixture(|c| c.max_age_seconds = 100).await;
    let token = sign(&fixture.signer, "at+jwt", &access());
    let first = fixture.verify_text(&token, Declared::Jwt).await.unwrap();
    let again = fixture.verify_text(&token, Declared::Jwt).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again), "the claims verified then");
    let other_kind = fixture.verify_text(&token, Declared::IdToken).await;
    assert_eq!(other_kind, Err(Reason::NotAnIdToken), "remembered for the kind it was shown as");
    // Malleated or re-encoded text is another token: it is verified by itself, and refused.
    let padded = format!("{token}=");
    assert_eq!(fixture.verify_text(&padded, Declared::Jwt).await, Err(Reason::Invalid(Invalid::NotCompact)));

    fixture.clock.advance(Duration::from_secs(41));
    assert_eq!(fixture.verify_text(&token, Declared::Jwt).await, Err(Reason::TooOld));
    fixture.clock.jump_to(DateTime::from_timestamp(NOW, 0).unwrap());
    assert!(fixture.verify_text(&token, Declared::Jwt).await.is_ok());

    let other = LocalSigner::generate(Alg::Es256).unwrap();
    write_keys(&fixture.jwks, &[&other]);
    fixture.clock.advance(Duration::from_secs(REFRESH_SECONDS));
    fixture.clock.jump_to(DateTime::from_timestamp(NOW, 0).unwrap());
    fixture.actors.refresh().await;
    assert_eq!(fixture.verify_text(&token, Declared::Jwt).await, Err(Reason::Invalid(Invalid::KeyUnknown)));
}

#[tokio::test]
async fn forged_and_mangled_tokens_are_refused() {
    // BP-1, BP-2, BP-9, JW-4, JW-8.
    let fixture = fixture(|_| {}).await;
    let stranger = LocalSigner::generate(Alg::Es256).unwrap();
    let good = sign(&fixture.signer, "at+jwt", &access());
    let [header, payload, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let forged = sign(&stranger, "at+jwt", &access());
    let foreign_signature = forged.rsplit('.').next().unwrap();
    let b64 = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text);
    let kid = fixture.signer.kid();
    let head = |rest: &str| b64(&format!(r#"{{"typ":"at+jwt","kid":"{kid}",{rest}}}"#));
    let table = [
        (forged.clone(), Invalid::KeyUnknown),
        (format!("{header}.{payload}.{foreign_signature}"), Invalid::Signature),
        (
            format!("{header}.{}.{signature}", b64(&with(access(), json!({"sub": "ceo"})).to_string())),
            Invalid::Signature,
        ),
        (format!("{}.{payload}.{signature}", head(r#""alg":"none""#)), Invalid::Algorithm),
        (format!("{}.{payload}.{signature}", head(r#""alg":"HS256""#)), Invalid::Algorithm),
        (format!("{}.{payload}.{signature}", head(r#""alg":"RS256""#)), Invalid::Algorithm),
        (
            format!("{}.{payload}.{signature}", head(r#""alg":"ES256","crit":["x"]"#)),
            Invalid::HeaderMember("crit"),
        ),
        (
            format!("{}.{payload}.{signature}", head(r#""alg":"ES256","jku":"https://evil.example""#)),
            Invalid::HeaderMember("jku"),
        ),
        (format!("{header}.{payload}."), Invalid::NotCompact),
        (format!("{good}.x.y"), Invalid::Encrypted),
        ("opaque-token".to_owned(), Invalid::NotCompact),
        ("a".repeat(MAX_TOKEN_BYTES + 1), Invalid::TooLong),
        (String::new(), Invalid::NotCompact),
    ];
    for (token, why) in table {
        let got = fixture.verify_text(&token, Declared::Jwt).await;
        assert_eq!(got, Err(Reason::Invalid(why)), "{token:.60}");
    }
}

#[test]
fn our_own_issuer_is_never_a_foreign_one_and_open_doors_are_refused() {
    let own = Issuer::try_from("https://stagedoor.example").unwrap();
    let make = |change: &dyn Fn(&mut IssuerConfig)| {
        let mut config = config("/nowhere".as_ref());
        change(&mut config);
        let outbound = Outbound::new(&OutboundConfig::default()).unwrap();
        let clock = Arc::new(FixedClock::at_seconds(NOW));
        Actors::new(&own, vec![config.clone(), config], &outbound, clock).map(|_| ())
    };
    let iss = |text: &str| Issuer::try_from(text).unwrap();
    for ours in [
        "https://stagedoor.example",
        "https://stagedoor.example/",
        "https://stagedoor.example/clerk/client_1",
    ] {
        let got = make(&|c| c.iss = iss(ours));
        assert_eq!(got, Err(IssuersError::Ourselves(iss(ours))), "{ours}");
    }
    let empty = |what| Err(IssuersError::Empty { iss: iss(ISS), what });
    assert_eq!(make(&|c| c.audiences.clear()), empty("audiences"));
    assert_eq!(make(&|c| c.clients.clear()), empty("clients"));
    assert_eq!(make(&|c| c.algs.clear()), empty("algs"));
    assert_eq!(make(&|_| {}), Err(IssuersError::Twice(iss(ISS))));
    let unlisted = make(&|c| c.source = KeySource::JwksUrl("https://unlisted.example/jwks".into()));
    assert!(matches!(unlisted, Err(IssuersError::Source { .. })));
}

#[tokio::test]
async fn without_keys_it_cannot_be_told_and_stale_keys_are_no_keys() {
    let fixture = fixture(|_| {}).await;
    let token = sign(&fixture.signer, "at+jwt", &with(access(), json!({"iat": NOW, "exp": NOW + 100_000})));
    std::fs::remove_file(&fixture.jwks).unwrap();
    for _ in 0..KEEP_SECONDS / 100 {
        fixture.clock.advance(Duration::from_secs(100));
        fixture.actors.refresh().await;
    }
    let at = DateTime::from_timestamp(NOW, 0).unwrap();
    assert!(fixture.actors.verify_actor_token(&token, Declared::Jwt, at).await.is_ok(), "kept for an hour");
    let status = fixture.actors.status().remove(0).1;
    assert!(status.last_error.is_some() && status.keys == Some(1), "{status:?}");
    fixture.clock.advance(Duration::from_secs(1));
    let got = fixture.actors.verify_actor_token(&token, Declared::Jwt, at).await;
    assert_eq!(got, Err(ActorTokenError::Unreachable { issuer: Issuer::try_from(ISS).unwrap() }));
    write_keys(&fixture.jwks, &[&fixture.signer]);
    fixture.clock.advance(Duration::from_secs(MIN_FETCH_INTERVAL_SECONDS));
    assert!(fixture.actors.verify_actor_token(&token, Declared::Jwt, at).await.is_ok(), "back again");
}

#[tokio::test]
async fn tokens_shaped_as_docs_integrate_md_says_are_taken_with_the_settings_it_gives() {
    struct Provider {
        name: &'static str,
        header_typ: Option<&'static str>,
        accepted_typ: &'static str,
        claims: Value,
        roles: Option<&'static str>,
        groups: Option<&'static str>,
        org: Option<&'static str>,
    }
    let base = || json!({ "iss": ISS, "iat": NOW, "exp": NOW + 3600, "aud": "https://stagedoor.example" });
    let providers = [
        Provider {
            name: "Keycloak",
            header_typ: Some("JWT"),
            accepted_typ: "JWT",
            claims: json!({
                "sub": "f1c4f64e", "typ": "Bearer", "azp": "support-tool", "scope": "openid profile", "acr": "1",
                "aud": ["https://stagedoor.example", "account"], "realm_access": { "roles": ["support"] },
                "groups": ["/support"], "org": "acme", "sid": "s", "auth_time": NOW - 5,
            }),
            roles: Some("realm_access.roles"),
            groups: Some("groups"),
            org: Some("org"),
        },
        Provider {
            name: "Auth0, RFC 9068 profile",
            header_typ: Some("at+jwt"),
            accepted_typ: "at+jwt",
            claims: json!({
                "sub": "auth0|6553da60", "client_id": "support-tool", "scope": "openid", "org_id": "org_1", "jti": "j",
                "aud": ["https://stagedoor.example", "https://acme.eu.auth0.com/userinfo"],
                "https://stagedoor.example.com/roles": ["support"],
            }),
            roles: Some("https://stagedoor.example.com/roles"),
            groups: None,
            org: Some("org_id"),
        },
        Provider {
            name: "Auth0, its own profile",
            header_typ: Some("JWT"),
            accepted_typ: "JWT",
            claims: json!({
                "sub": "auth0|6553da60", "azp": "support-tool", "scope": "openid profile", "gty": "password",
                "https://stagedoor.example.com/roles": ["support"],
            }),
            roles: Some("https://stagedoor.example.com/roles"),
            groups: None,
            org: Some("org_id"),
        },
        Provider {
            name: "Okta",
            header_typ: None,
            accepted_typ: "",
            claims: json!({
                "ver": 1, "jti": "AT.1", "sub": "ada@example.com", "cid": "support-tool", "uid": "00u1",
                "scp": ["openid", "act"], "auth_time": NOW - 5, "groups": ["support"],
            }),
            roles: Some("groups"),
            groups: Some("groups"),
            org: None,
        },
        Provider {
            name: "Entra ID v2",
            header_typ: Some("JWT"),
            accepted_typ: "JWT",
            claims: json!({
                "sub": "pairwise", "oid": "0000", "tid": "tenant", "azp": "support-tool", "azpacr": "1", "scp": "act",
                "roles": ["support"], "ver": "2.0", "nbf": NOW, "uti": "u", "aio": "a", "rh": "r",
            }),
            roles: Some("roles"),
            groups: Some("groups"),
            org: Some("tid"),
        },
    ];
    for provider in providers {
        let fixture = fixture(|config| {
            config.typ = vec![provider.accepted_typ.to_owned()];
            config.roles_path = provider.roles.map(str::to_owned);
            config.groups_path = provider.groups.map(str::to_owned);
            config.org_path = provider.org.map(str::to_owned);
        })
        .await;
        let claims = with(base(), provider.claims);
        let token = match provider.header_typ {
            Some(typ) => sign(&fixture.signer, typ, &claims),
            None => sign_without_typ(&fixture.signer, &claims),
        };
        let got = fixture.verify_text(&token, Declared::AccessToken).await;
        let actor = got.unwrap_or_else(|error| panic!("{}: {error}", provider.name));
        assert_eq!(actor.facts.roles, ["support"], "{}", provider.name);
        assert_eq!(actor.client_id, "support-tool", "{}", provider.name);
    }
}

fn sign_without_typ(signer: &LocalSigner, claims: &Value) -> String {
    let b64 = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
    let header = json!({ "alg": "ES256", "kid": signer.kid().as_str() });
    let input = format!("{}.{}", b64(header.to_string().as_bytes()), b64(claims.to_string().as_bytes()));
    let signature = signer.sign(input.as_bytes()).unwrap();
    format!("{input}.{}", b64(&signature))
}
