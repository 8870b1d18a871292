//! Tokens made to deceive: each is signed correctly wherever a signature helps, and each has its reason.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use stagedoor::token::verifier::{CLOCK_LEEWAY_SECONDS, VerifierError};
use stagedoor::token::{
    Alg, Audience, AudienceRule, Expect, Invalid, LocalSigner, Role, Signer, TrustedIssuer, Verifier,
    VerifyingKey, encode_jws,
};

use crate::fixtures::{
    API, EDDSA, ES256, HOME, HOME_KEY, NOW, RS256, STAGEDOOR, STRANGER, claims, header, home_claims, issuer,
    keys, sign, sign_text, verifier, with,
};

fn reason(token: &str) -> &'static str {
    match verifier().0.verify(token) {
        Ok(_) => "accepted",
        Err(invalid) => invalid.reason(),
    }
}

fn head(changes: &[(&str, Value)]) -> String {
    sign(&ES256, &with(header(&ES256), changes), &claims())
}

fn body(changes: &[(&str, Value)]) -> String {
    sign(&ES256, &header(&ES256), &with(claims(), changes))
}

fn home(changes: &[(&str, Value)]) -> String {
    sign(&HOME_KEY, &header(&HOME_KEY), &with(home_claims(), changes))
}

/// `act` nested `depth` deep, all different.
fn chain(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, i| {
        let act = json!({ "sub": format!("actor_{i}") });
        if inner.is_null() { act } else { with(act, &[("act", inner)]) }
    })
}

#[test]
fn honest_tokens_are_accepted() {
    for signer in [&*ES256, &*RS256, &*EDDSA] {
        assert_eq!(reason(&sign(signer, &header(signer), &claims())), "accepted");
    }
    for (name, token) in [
        ("ordinary", home(&[])),
        (
            "no kid, one key of the algorithm",
            sign(&HOME_KEY, &json!({"alg":"ES256","typ":"JWT"}), &home_claims()),
        ),
        ("impersonation by the home issuer", home(&[("act", json!({"sub":"admin_7"}))])),
        ("aud as array", body(&[("aud", json!(["https://other.example", API]))])),
        ("four actors", body(&[("act", chain(4))])),
        ("typ in long form and other case", head(&[("typ", json!("application/AT+JWT"))])),
        ("an unknown header member", head(&[("x5t", json!("abc"))])),
        ("fraction in exp", body(&[("exp", json!(1_795_334_001.5))])),
        ("exp beyond every calendar", body(&[("exp", json!(9_007_199_254_740_992u64))])),
        ("iat just within the leeway", body(&[("iat", json!(NOW + CLOCK_LEEWAY_SECONDS))])),
        ("nbf just within the leeway", body(&[("nbf", json!(NOW + CLOCK_LEEWAY_SECONDS))])),
        (
            "Ed25519 under its new name",
            sign(&EDDSA, &with(header(&EDDSA), &[("alg", json!("Ed25519"))]), &claims()),
        ),
        ("unicode kept as it is", body(&[("sub", json!("uѕer_42"))])),
    ] {
        assert_eq!(reason(&token), "accepted", "{name}");
    }
}

/// Name, token and reason of tokens with hostile headers.
pub fn header_rows() -> Vec<(&'static str, String, &'static str)> {
    let jwk = STRANGER.verifying_key().to_jwk();
    vec![
        // BP-1, BP-2
        ("alg none", sign_text(&ES256, br#"{"alg":"none","typ":"at+jwt"}"#, b"{}"), "alg_not_accepted"),
        ("alg noNE", head(&[("alg", json!("noNE"))]), "alg_not_accepted"),
        ("alg HS256 (confusion)", head(&[("alg", json!("HS256"))]), "alg_not_accepted"),
        ("alg in lower case", head(&[("alg", json!("es256"))]), "alg_not_accepted"),
        ("alg ES512", head(&[("alg", json!("ES512"))]), "alg_not_accepted"),
        ("alg not the key's", head(&[("alg", json!("RS256"))]), "alg_not_accepted"),
        ("alg not the issuer's", head(&[("alg", json!("PS256"))]), "alg_not_accepted"),
        ("alg missing", head(&[("alg", json!("-"))]), "header_invalid"),
        ("alg a number", head(&[("alg", json!(256))]), "header_invalid"),
        ("alg an array", head(&[("alg", json!(["ES256"]))]), "header_invalid"),
        // BP-6, BP-7, AT-1
        ("typ missing", head(&[("typ", json!("-"))]), "typ_not_accepted"),
        ("typ JWT from our issuer", head(&[("typ", json!("JWT"))]), "typ_not_accepted"),
        ("typ dpop+jwt", head(&[("typ", json!("dpop+jwt"))]), "typ_not_accepted"),
        ("typ secevent+jwt", head(&[("typ", json!("secevent+jwt"))]), "typ_not_accepted"),
        (
            "typ client-authentication+jwt",
            head(&[("typ", json!("client-authentication+jwt"))]),
            "typ_not_accepted",
        ),
        ("typ revocations", head(&[("typ", json!("stagedoor-revocations+jwt"))]), "typ_not_accepted"),
        ("typ with another prefix", head(&[("typ", json!("text/at+jwt"))]), "typ_not_accepted"),
        ("typ null", head(&[("typ", Value::Null)]), "header_invalid"),
        // JW-4, JW-5, JW-11
        ("crit", head(&[("crit", json!(["exp"]))]), "header_member_refused"),
        ("empty crit", head(&[("crit", json!([]))]), "header_member_refused"),
        ("b64 false", head(&[("b64", json!(false))]), "header_member_refused"),
        ("b64 true", head(&[("b64", json!(true))]), "header_member_refused"),
        ("jku", head(&[("jku", json!("https://evil.example/jwks"))]), "header_member_refused"),
        ("x5u", head(&[("x5u", json!("https://evil.example/x"))]), "header_member_refused"),
        ("x5c", head(&[("x5c", json!(["AAAA"]))]), "header_member_refused"),
        ("zip", head(&[("zip", json!("DEF"))]), "header_member_refused"),
        (
            "jwk of the forger",
            sign(&STRANGER, &with(header(&ES256), &[("jwk", jwk)]), &claims()),
            "header_member_refused",
        ),
        // BP-10
        ("kid of nobody", head(&[("kid", json!("nobody"))]), "key_unknown"),
        ("kid a path", head(&[("kid", json!("../../dev/null"))]), "key_unknown"),
        ("kid SQL", head(&[("kid", json!("' OR 1=1 --"))]), "key_unknown"),
        ("kid empty", head(&[("kid", json!(""))]), "header_invalid"),
        ("kid a number", head(&[("kid", json!(1))]), "header_invalid"),
        ("kid too long", head(&[("kid", json!("k".repeat(256)))]), "header_invalid"),
        ("header an array", sign_text(&ES256, b"[]", b"{}"), "header_invalid"),
        ("header not JSON", sign_text(&ES256, b"{", b"{}"), "header_invalid"),
        ("header with BOM", sign_text(&ES256, b"\xef\xbb\xbf{\"alg\":\"ES256\"}", b"{}"), "header_invalid"),
        ("header not UTF-8", sign_text(&ES256, b"{\"alg\":\"ES256\xff\"}", b"{}"), "header_invalid"),
        ("header too deep", sign_text(&ES256, deep_header().as_bytes(), b"{}"), "header_invalid"),
        ("alg twice", sign_text(&ES256, br#"{"alg":"ES256","alg":"none"}"#, b"{}"), "duplicate_member"), // JW-6
        (
            "alg twice, escaped",
            sign_text(&ES256, br#"{"alg":"ES256","\u0061lg":"none"}"#, b"{}"),
            "duplicate_member",
        ),
        // BP-4: keys belong to their issuer.
        ("home's key for our token", sign(&HOME_KEY, &header(&HOME_KEY), &claims()), "key_unknown"),
        ("our key for home's token", sign(&ES256, &header(&ES256), &home_claims()), "key_unknown"),
        ("stranger under our kid", sign(&STRANGER, &header(&ES256), &claims()), "signature_invalid"),
    ]
}

#[test]
fn hostile_headers_are_refused_each_for_its_reason() {
    for (name, token, expected) in header_rows() {
        assert_eq!(reason(&token), expected, "{name}");
    }
}

fn deep_header() -> String {
    format!(r#"{{"alg":"ES256","x":{}1{}}}"#, "[".repeat(40), "]".repeat(40))
}

/// Name, token and reason of tokens with hostile claims.
pub fn claim_rows() -> Vec<(&'static str, String, &'static str)> {
    vec![
        // BP-5
        ("aud of another", body(&[("aud", json!("https://other.example"))]), "audience_mismatch"),
        ("aud a prefix of ours", body(&[("aud", json!("https://api.example.co"))]), "audience_mismatch"),
        ("aud with a slash more", body(&[("aud", json!(format!("{API}/")))]), "audience_mismatch"),
        ("aud missing", body(&[("aud", json!("-"))]), "claim_missing"),
        ("aud a number", body(&[("aud", json!(123))]), "claim_invalid"),
        ("aud an object", body(&[("aud", json!({ API: true }))]), "claim_invalid"),
        ("aud empty array", body(&[("aud", json!([]))]), "claim_invalid"),
        ("aud with a number among", body(&[("aud", json!([API, 1]))]), "claim_invalid"),
        ("aud empty text", body(&[("aud", json!(""))]), "claim_invalid"),
        // BP-4
        ("iss missing", body(&[("iss", json!("-"))]), "claim_missing"),
        ("iss an object", body(&[("iss", json!({}))]), "claim_invalid"),
        ("iss an array", body(&[("iss", json!(["https://evil.example", STAGEDOOR]))]), "claim_invalid"),
        ("iss unknown", body(&[("iss", json!("https://evil.example"))]), "issuer_not_trusted"),
        ("iss with a slash more", body(&[("iss", json!(format!("{STAGEDOOR}/")))]), "issuer_not_trusted"),
        // JW-10
        ("exp missing", body(&[("exp", json!("-"))]), "claim_missing"),
        ("exp as text", body(&[("exp", json!((NOW + 600).to_string()))]), "claim_invalid"),
        ("exp null", body(&[("exp", Value::Null)]), "claim_invalid"),
        ("exp true", body(&[("exp", json!(true))]), "claim_invalid"),
        ("exp negative", body(&[("exp", json!(-1))]), "claim_invalid"),
        ("exp 1e300", body(&[("exp", json!(1e300))]), "claim_invalid"),
        ("exp beyond 2^53", body(&[("exp", json!(9_007_199_254_740_993_u64))]), "claim_invalid"),
        ("exp now", body(&[("exp", json!(NOW))]), "expired"),
        ("exp a fraction past now", body(&[("exp", json!(1_795_334_000.9))]), "expired"),
        ("exp a second ago", body(&[("exp", json!(NOW - 1))]), "expired"),
        ("nbf ahead", body(&[("nbf", json!(NOW + 6))]), "not_yet_valid"),
        ("nbf a fraction beyond the leeway", body(&[("nbf", json!(1_795_334_005.1))]), "not_yet_valid"),
        ("nbf as text", body(&[("nbf", json!("0"))]), "claim_invalid"),
        ("iat ahead", body(&[("iat", json!(NOW + 6))]), "issued_in_future"),
        ("iat as text", body(&[("iat", json!("0"))]), "claim_invalid"),
        ("iat missing from ours", body(&[("iat", json!("-"))]), "claim_missing"),
        ("jti missing from ours", body(&[("jti", json!("-"))]), "claim_missing"),
        ("jti a number", body(&[("jti", json!(7))]), "claim_invalid"),
        ("sid missing from ours", body(&[("sid", json!("-"))]), "claim_missing"),
        ("sub missing", body(&[("sub", json!("-"))]), "claim_missing"),
        ("sub empty", body(&[("sub", json!(""))]), "claim_invalid"),
        ("sub a number", body(&[("sub", json!(42))]), "claim_invalid"),
        ("sub with a control character", body(&[("sub", json!("user\n42"))]), "claim_invalid"),
        ("sub of 10 000 bytes", body(&[("sub", json!("u".repeat(10_000)))]), "too_long"),
        ("sub of 256 bytes", body(&[("sub", json!("u".repeat(256)))]), "claim_invalid"),
        ("scope an array", body(&[("scope", json!(["read"]))]), "claim_invalid"),
        ("scope with quotes", body(&[("scope", json!("read\" write"))]), "claim_invalid"),
        ("client_id a number", body(&[("client_id", json!(1))]), "claim_invalid"),
        ("assurance missing", body(&[("actor_assurance", json!("-"))]), "claim_missing"),
        ("assurance unknown", body(&[("actor_assurance", json!("very"))]), "claim_invalid"),
        ("cnf", body(&[("cnf", json!({ "jkt": "abc" }))]), "key_bound"), // DP-4
        ("cnf from home", home(&[("cnf", json!({ "jkt": "abc" }))]), "key_bound"),
        // TE-7, TE-9
        ("ours without act", body(&[("act", json!("-"))]), "actor_missing"),
        ("act null", body(&[("act", Value::Null)]), "actor_invalid"),
        ("act null from home", home(&[("act", Value::Null)]), "actor_invalid"),
        ("act text", body(&[("act", json!("admin_7"))]), "actor_invalid"),
        ("act array", body(&[("act", json!([{ "sub": "a" }]))]), "actor_invalid"),
        ("act empty", body(&[("act", json!({}))]), "actor_invalid"),
        ("act.sub a number", body(&[("act", json!({ "sub": 7 }))]), "actor_invalid"),
        ("act.sub empty", body(&[("act", json!({ "sub": "" }))]), "actor_invalid"),
        ("act.iss a number", body(&[("act", json!({ "sub": "a", "iss": 7 }))]), "actor_invalid"),
        ("act with exp", body(&[("act", json!({ "sub": "a", "exp": NOW + 9 }))]), "actor_invalid"),
        ("act with nbf", body(&[("act", json!({ "sub": "a", "nbf": NOW }))]), "actor_invalid"),
        ("act with aud", body(&[("act", json!({ "sub": "a", "aud": API }))]), "actor_invalid"),
        (
            "inner act with aud",
            body(&[("act", json!({"sub":"a","act":{"sub":"b","aud":API}}))]),
            "actor_invalid",
        ),
        ("five actors", body(&[("act", chain(5))]), "actor_too_deep"),
        (
            "one actor twice",
            body(&[("act", json!({"sub":"a","act":{"sub":"b","act":{"sub":"a"}}}))]),
            "actor_cycle",
        ),
        ("forty actors", body(&[("act", chain(40))]), "claims_invalid"),
        // Form
        (
            "claim twice",
            sign_text(&ES256, header(&ES256).to_string().as_bytes(), &twice()),
            "duplicate_member",
        ),
        ("payload an array", sign(&ES256, &header(&ES256), &json!([claims()])), "claims_invalid"),
        ("payload empty", sign_text(&ES256, header(&ES256).to_string().as_bytes(), b""), "claims_invalid"),
        (
            "payload not UTF-8",
            sign_text(&ES256, header(&ES256).to_string().as_bytes(), b"{\"a\":\"\xc0\xaf\"}"),
            "claims_invalid",
        ),
        (
            "payload a JWS",
            sign_text(&ES256, header(&ES256).to_string().as_bytes(), body(&[]).as_bytes()),
            "claims_invalid",
        ),
    ]
}

#[test]
fn hostile_claims_are_refused_each_for_its_reason() {
    for (name, token, expected) in claim_rows() {
        assert_eq!(reason(&token), expected, "{name}");
    }
}

/// Honest claims with a second `act`.
fn twice() -> Vec<u8> {
    let text = claims().to_string();
    format!(r#"{},"act":{{"sub":"admin_8"}}}}"#, &text[..text.len() - 1]).into_bytes()
}

/// Name, text and reason of what is no compact JWS (BP-8, BP-9, JW-7, JW-8).
pub fn form_rows() -> Vec<(&'static str, String, &'static str)> {
    // BP-8, BP-9, JW-7, JW-8
    let good = body(&[]);
    let parts: Vec<&str> = good.split('.').collect();
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    let resigned = |bytes: &[u8]| format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode(bytes));
    vec![
        ("nothing", String::new(), "not_compact"),
        ("dots", "..".to_owned(), "not_compact"),
        ("two parts", format!("{}.{}", parts[0], parts[1]), "not_compact"),
        ("four parts", format!("{good}.AAAA"), "not_compact"),
        ("five parts", format!("{good}.AAAA.AAAA"), "encrypted"),
        ("no signature", format!("{}.{}.", parts[0], parts[1]), "not_compact"),
        ("signature cut", resigned(&signature[..63]), "signature_invalid"),
        ("signature longer", resigned(&[&signature[..], &[0]].concat()), "signature_invalid"),
        ("signature of zeros", resigned(&[0; 64]), "signature_invalid"),
        (
            "JSON serialization",
            json!({"payload": parts[1], "protected": parts[0], "signature": parts[2]}).to_string(),
            "not_compact",
        ),
        ("leading space", format!(" {good}"), "not_compact"),
        ("trailing newline", format!("{good}\n"), "not_compact"),
        ("padding", format!("{good}="), "not_compact"),
        ("NUL after it", format!("{good}\0"), "not_compact"),
        ("emoji after it", format!("{good}🎭"), "not_compact"),
        ("percent-encoded", good.replace('.', "%2E"), "not_compact"),
        ("Bearer before it", format!("Bearer {good}"), "not_compact"),
        ("8 193 bytes", "a".repeat(8193), "too_long"),
        ("a megabyte of dots", ".".repeat(1 << 20), "too_long"),
        ("base64 of a single character", format!("{}.A.{}", parts[0], parts[2]), "encoding_invalid"),
    ]
}

#[test]
fn texts_that_are_no_compact_jws_are_refused() {
    for (name, token, expected) in form_rows() {
        assert_eq!(reason(&token), expected, "{name}");
    }
}

#[test]
fn a_der_signature_is_not_one_of_es256() {
    // JW-7: r and s as 64 raw bytes; the same numbers in DER are refused.
    let good = body(&[]);
    let (input, signature) = good.rsplit_once('.').unwrap();
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let integer = |half: &[u8]| {
        let lead = usize::from(half[0] & 0x80 != 0);
        [vec![0x02, u8::try_from(32 + lead).unwrap()], vec![0; lead], half.to_vec()].concat()
    };
    let numbers = [integer(&raw[..32]), integer(&raw[32..])].concat();
    let der = [vec![0x30, u8::try_from(numbers.len()).unwrap()], numbers].concat();
    assert_eq!(reason(&format!("{input}.{}", URL_SAFE_NO_PAD.encode(der))), "signature_invalid");
}

#[test]
fn a_token_without_kid_needs_an_issuer_with_one_such_key() {
    let (verifier, _) = verifier();
    let two = LocalSigner::generate(Alg::Es256).unwrap();
    verifier.set_keys(&issuer(STAGEDOOR), keys(&[&ES256, &two]));
    let token = head(&[("kid", json!("-"))]);
    assert_eq!(verifier.verify(&token).unwrap_err(), Invalid::KeyAmbiguous);
    verifier.set_keys(&issuer(STAGEDOOR), keys(&[&ES256, &RS256]));
    assert!(verifier.verify(&token).is_ok());
}

#[test]
fn an_act_from_any_issuer_is_an_impersonation_and_only_our_word_is_assurance() {
    let (verifier, _) = verifier();
    let token = home(&[("act", json!({ "sub": "admin_7" })), ("actor_assurance", json!("verified"))]);
    let homes = verifier.verify(&token).unwrap();
    assert!(homes.is_impersonation());
    assert_eq!((homes.role, homes.assurance), (Role::Home, None));
    let ours = verifier.verify(&body(&[])).unwrap();
    assert_eq!(ours.actor.as_ref().unwrap().sub.as_str(), "admin_7");
    assert_eq!(ours.claims["act"]["iss"], "https://staff.example");
}

#[test]
fn issuers_without_keys_yet_are_not_the_tokens_fault() {
    let audience: Audience = API.parse().unwrap();
    let ours = TrustedIssuer::stagedoor(issuer(STAGEDOOR)).audience(audience);
    let verifier = Verifier::builder().issuer(ours).build().unwrap();
    assert!(!verifier.is_ready());
    let error = verifier.verify(&body(&[])).unwrap_err();
    assert!(error == Invalid::KeysUnavailable && error.is_ours());
}

#[test]
fn clients_can_be_restricted_and_profile_clerk_stands_apart() {
    let clock = verifier().1;
    let web_only = TrustedIssuer::home(issuer(HOME)).audience(API.parse().unwrap()).clients(&["web"]);
    let clerk = issuer("https://stagedoor.example/clerk/client_a");
    let verifier = Verifier::builder()
        .issuer_with_keys(web_only, keys(&[&HOME_KEY]))
        .issuer_with_keys(TrustedIssuer::clerk(clerk.clone()), keys(&[&RS256]))
        .clock(clock)
        .build()
        .unwrap();
    let verdict = |token: String| verifier.verify(&token).map_or_else(Invalid::reason, |_| "accepted");
    assert_eq!(verdict(home(&[("azp", json!("web"))])), "accepted");
    assert_eq!(verdict(home(&[])), "client_not_accepted");
    assert_eq!(verdict(home(&[("client_id", json!("web")), ("azp", json!("evil"))])), "client_not_accepted");
    let jwt = with(header(&RS256), &[("typ", json!("JWT"))]);
    let of_clerk =
        [("iss", json!(clerk.as_str())), ("aud", json!("-")), ("azp", json!("https://app.example"))];
    let token = sign(&RS256, &jwt, &with(claims(), &of_clerk));
    assert_eq!(verdict(token.clone()), "accepted");
    let audience: Vec<Audience> = vec![API.parse().unwrap()];
    let demanded = verifier.verify_with(&token, Expect { audiences: Some(&audience) });
    assert_eq!(demanded.unwrap_err(), Invalid::Audience, "a caller with an audience takes no token without");
    let with_aud = sign(&RS256, &jwt, &with(claims(), &[of_clerk[0].clone()]));
    assert_eq!(verdict(with_aud), "audience_mismatch");
    let elsewhere = crate::fixtures::verifier().0.verify(&token);
    assert_eq!(elsewhere.unwrap_err(), Invalid::Issuer, "refused unless configured");
}

#[test]
fn a_caller_may_demand_his_own_audience() {
    let (verifier, _) = verifier();
    let token = body(&[("aud", json!([API, "https://billing.example"]))]);
    for (audience, verdict) in
        [("https://billing.example", true), (API, true), ("https://other.example", false)]
    {
        let demanded: Vec<Audience> = vec![audience.parse().unwrap()];
        let expect = Expect { audiences: Some(&demanded) };
        assert_eq!(verifier.verify_with(&token, expect).is_ok(), verdict, "{audience}");
    }
    assert!(verifier.verify_with(&token, Expect { audiences: Some(&[]) }).is_err());
}

#[test]
fn nonsense_configurations_are_refused() {
    let ours = || TrustedIssuer::stagedoor(issuer(STAGEDOOR)).audience(API.parse().unwrap());
    let twice = TrustedIssuer::home(issuer(STAGEDOOR)).audience(API.parse().unwrap());
    let refused =
        |builder: stagedoor::token::verifier::VerifierBuilder| builder.build().map(|_| ()).unwrap_err();
    assert_eq!(
        refused(Verifier::builder().issuer(ours()).issuer(twice)),
        VerifierError::DuplicateIssuer(issuer(STAGEDOOR)),
        "our own issuer is not also a foreign one"
    );
    assert_eq!(
        refused(Verifier::builder().issuer(TrustedIssuer::home(issuer(HOME)))),
        VerifierError::NoAudience(issuer(HOME))
    );
    assert_eq!(refused(Verifier::builder()), VerifierError::NoIssuer);
    let any = ours().audience_rule(AudienceRule::Any);
    assert!(Verifier::builder().issuer(any).build().is_ok());
}

#[test]
fn a_token_of_one_kind_is_refused_at_every_other_door() {
    // BP-7: every `typ` we or our neighbours sign, against a door for each.
    let kinds = [
        "at+jwt",
        "JWT",
        "stagedoor-revocations+jwt",
        "client-authentication+jwt",
        "dpop+jwt",
        "secevent+jwt",
        "token-introspection+jwt",
        "statuslist+jwt",
        "txntoken+jwt",
    ];
    for door in kinds {
        let ours = TrustedIssuer::stagedoor(issuer(STAGEDOOR)).audience(API.parse().unwrap()).typ(&[door]);
        let verifier =
            Verifier::builder().issuer_with_keys(ours, keys(&[&ES256])).clock(verifier().1).build().unwrap();
        for kind in kinds {
            let token = encode_jws(&*ES256, kind, &claims()).unwrap();
            assert_eq!(
                verifier.verify(token.as_str()).is_ok(),
                kind == door,
                "{kind} at the door for {door}"
            );
        }
    }
}

#[test]
fn an_hmac_over_the_public_key_is_no_signature() {
    // The classic confusion: the key set cannot even hold such a key.
    let public = ES256.verifying_key().to_jwk().to_string();
    let secret = json!({ "kty": "oct", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(public) });
    assert!(VerifyingKey::from_jwk(&secret).is_err());
}
