//! What must hold of every token: whatever is issued verifies, whatever is changed does not.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use chrono::DateTime;
use proptest::prelude::*;
use stagedoor::token::verifier::CLOCK_LEEWAY_SECONDS;
use stagedoor::token::{
    Act, ActorClaims, Assurance, Audience, Invalid, LocalSigner, Scope, Signer, Verifier, encode_jws,
};

use crate::fixtures::{API, EDDSA, ES256, NOW, RS256, STAGEDOOR, issuer, verifier};

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| verifier().0);

fn signer(index: usize) -> &'static LocalSigner {
    [&*ES256, &*RS256, &*EDDSA][index % 3]
}

/// Any id that may be written into a token: no control characters, not empty, at most 255 bytes.
fn id() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{1,60}".prop_filter("at most 255 bytes", |id| id.len() <= 255)
}

prop_compose! {
    fn actor_claims()(
        sub in id(),
        actors in prop::collection::hash_set(id(), 1..=4),
        scopes in prop::collection::vec("[!#-\\[\\]-~]{1,20}", 0..6),
        more in prop::collection::vec(id(), 0..3),
        lifetime in 1i64..3600,
        age in 0i64..3600,
        verified: bool,
    ) -> ActorClaims {
        let act = actors.into_iter().fold(None, |inner: Option<Box<Act>>, actor| {
            Some(Box::new(Act { sub: actor.parse().unwrap(), iss: None, act: inner }))
        });
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let mut aud: Vec<Audience> = vec![API.parse().unwrap()];
        aud.extend(more.iter().map(|aud| aud.parse().unwrap()));
        ActorClaims {
            iss: issuer(STAGEDOOR),
            sub: sub.parse().unwrap(),
            aud,
            exp: at(NOW + lifetime),
            iat: at(NOW - age),
            nbf: at(NOW - age),
            jti: "01j0000000000000000000000a".parse().unwrap(),
            client_id: "client_a".parse().unwrap(),
            scope: Scope::parse(&scopes.join(" ")).unwrap(),
            sid: "act_1".parse().unwrap(),
            actor_assurance: if verified { Assurance::Verified } else { Assurance::Asserted },
            azp: None,
            break_glass: false,
            act: *act.unwrap(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_is_issued_verifies_and_says_what_was_signed(claims in actor_claims(), which in 0usize..3) {
        let token = encode_jws(signer(which), "at+jwt", &claims).unwrap();
        let verified = VERIFIER.verify(token.as_str()).unwrap();
        prop_assert_eq!(&verified.sub, &claims.sub);
        prop_assert_eq!(verified.actor.as_ref(), Some(&claims.act));
        // TE-11: what verify and introspection show (`Verified::claims`, through `Checker::check`) is what the token says
        let payload = token.as_str().split('.').nth(1).unwrap();
        let said: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        prop_assert_eq!(verified.claims.get("act"), said.get("act"));
        prop_assert_eq!(&verified.aud, &claims.aud);
        prop_assert_eq!(&verified.scope, &claims.scope);
        prop_assert_eq!(verified.exp, claims.exp);
        prop_assert_eq!(verified.assurance, Some(claims.actor_assurance));
        prop_assert_eq!(&verified.kid, signer(which).kid());
    }

    #[test]
    fn a_token_holds_from_its_beginning_to_its_end_whatever_the_clock_did_before(
        claims in actor_claims(),
        clock in prop::collection::vec(-4000i64..4000, 1..6),
    ) {
        let token = encode_jws(&*ES256, "at+jwt", &claims).unwrap();
        let (verifier, now) = verifier();
        for offset in clock {
            // forwards, backwards: what was accepted before is remembered, and its times are not
            let at = DateTime::from_timestamp(NOW + offset, 0).unwrap();
            now.jump_to(at);
            let leeway = chrono::TimeDelta::seconds(CLOCK_LEEWAY_SECONDS);
            let wanted = match () {
                () if at >= claims.exp => Err(Invalid::Expired),
                () if claims.nbf > at + leeway => Err(Invalid::NotYetValid),
                () => Ok(()),
            };
            prop_assert_eq!(verifier.verify(token.as_str()).map(drop), wanted, "at {}", offset);
        }
    }

    #[test]
    fn any_changed_byte_is_refused(claims in actor_claims(), which in 0usize..3, at: prop::sample::Index, to: u8) {
        let token = encode_jws(signer(which), "at+jwt", &claims).unwrap().into_string();
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        if let Ok(changed) = String::from_utf8(bytes) {
            prop_assert!(VERIFIER.verify(&changed).is_err(), "byte {} changed to {:#x}", at, to);
        }
    }

    #[test]
    fn any_cut_or_insertion_is_refused(claims in actor_claims(), at: prop::sample::Index, what in "[ -~]{1,3}") {
        let token = encode_jws(&*ES256, "at+jwt", &claims).unwrap().into_string();
        let at = at.index(token.len());
        prop_assert!(VERIFIER.verify(&token[..at]).is_err());
        let longer = format!("{}{what}{}", &token[..at], &token[at..]);
        prop_assert!(VERIFIER.verify(&longer).is_err(), "{:?} inserted at {}", what, at);
    }

    #[test]
    fn any_other_encoding_of_the_same_token_is_refused(claims in actor_claims(), which in 0usize..3) {
        let token = encode_jws(signer(which), "at+jwt", &claims).unwrap().into_string();
        let parts: Vec<&str> = token.split('.').collect();
        let decoded: Vec<Vec<u8>> = parts
            .iter()
            .map(|part| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap())
            .collect();
        let mut others = vec![
            format!("{token}\n"),
            format!("\t{token}"),
            token.replace('.', " ."),
            token.replace('.', "\n."),
            serde_json::json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] }).to_string(),
            serde_json::json!(token).to_string(),
        ];
        for engine in [&URL_SAFE, &STANDARD, &STANDARD_NO_PAD] {
            for changed in 0..3 {
                let mut parts: Vec<String> = parts.iter().map(|&part| part.to_owned()).collect();
                parts[changed] = engine.encode(&decoded[changed]);
                others.push(parts.join("."));
            }
        }
        for changed in 0..3 {
            // The last character's unused bits: the same bytes, spelt differently.
            let mut parts: Vec<String> = parts.iter().map(|&part| part.to_owned()).collect();
            if parts[changed].len().is_multiple_of(4) {
                continue;
            }
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let last = parts[changed].pop().unwrap();
            let place = alphabet.iter().position(|c| char::from(*c) == last).unwrap();
            parts[changed].push(char::from(alphabet[place | 1]));
            others.push(parts.join("."));
        }
        for other in others.into_iter().filter(|other| *other != token) {
            prop_assert!(VERIFIER.verify(&other).is_err(), "{}", other);
        }
        prop_assert!(VERIFIER.verify(&token).is_ok());
    }

    #[test]
    fn no_text_is_too_strange_to_be_refused(text in "\\PC{0,200}") {
        prop_assert!(VERIFIER.verify(&text).is_err());
    }
}
