//! GET `/v1/audit/…`: the log as an auditor proves it, with nothing but what is served.

use base64::Engine as _;
use serde_json::{Value, json};
use stagedoor::server::log::note::NoteVerifier;
use stagedoor::server::log::{Checkpoint, proof, tree};
use stagedoor::token::encode_jws;
use stagedoor::token::signer::sha256;

use crate::support::app::{TestApp, mint_body};
use crate::support::contract::Client;

async fn checkpoint(api: &Client) -> Checkpoint {
    let vkey = api.get("/v1/audit/log/vkey").await.text();
    let verifier = NoteVerifier::parse(vkey.trim()).expect("a verifier key");
    let note = api.get("/v1/audit/log/checkpoint").await.text();
    Checkpoint::open(&note, &verifier).expect("signed by that key")
}

/// The bodies in a bundle: each behind its length in two bytes.
fn bodies(bundle: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut out) = (bundle, Vec::new());
    while let [a, b, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*a, *b]));
        out.push(tail[..length].to_vec());
        rest = &tail[length..];
    }
    out
}

on_both_databases! {
    /// Invariant 14's own part: tiles, bundles and checkpoint agree, and every receipt verifies from outside.
    async fn what_is_served_proves_itself(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        for _ in 0..5 {
            client.api.mint(&mint_body()).await.ok();
        }
        let head = checkpoint(&app.api).await;
        let width = head.size;
        let hashes = app.api.get(&format!("/v1/audit/log/tile/0/000.p/{width}")).await;
        assert_eq!(hashes.header("cache-control"), Some("no-store"), "a partial tile still grows");
        let bundle = auditor.api.get(&format!("/v1/audit/log/tile/entries/000.p/{width}")).await;
        let bodies = bodies(&bundle.body);
        assert_eq!((hashes.body.len() as u64, bodies.len() as u64), (32 * width, width));
        let mut frontier = tree::Frontier::default();
        for (hash, body) in hashes.body.chunks(32).zip(&bodies) {
            assert_eq!(hash, tree::leaf_hash(body));
            frontier.push(tree::leaf_hash(body), |_, _, _| {});
        }
        assert_eq!(frontier.root(), head.root);

        let verifier = NoteVerifier::parse(app.api.get("/v1/audit/log/vkey").await.text().trim()).unwrap();
        for (index, body) in bodies.iter().enumerate() {
            let receipt = auditor.api.get(&format!("/v1/audit/entries/{index}/proof")).await.text();
            let (proven, _) = proof::verify(&receipt, body, &verifier).expect("the entry is in the log");
            assert_eq!(proven, index as u64);
            assert!(proof::verify(&receipt, b"{\"typ\":\"forged\"}", &verifier).is_err());
        }
    }

    async fn the_log_only_grew(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        let old = checkpoint(&app.api).await;
        client.api.mint(&mint_body()).await.ok();
        let new = checkpoint(&app.api).await;
        let proof = auditor.api.get(&format!("/v1/audit/consistency?from={}&to={}", old.size, new.size)).await.ok();
        let path: Vec<[u8; 32]> = proof["proof"].as_array().unwrap().iter().map(hash).collect();
        assert!(tree::verify_consistency(old.size, &old.root, new.size, &new.root, &path));
        let mut other = old.root;
        other[0] ^= 1;
        assert!(!tree::verify_consistency(old.size, &other, new.size, &new.root, &path));
        // a tile that can change no more may be kept for good
        let mint = async || client.api.mint(&mint_body()).await;
        let mints = futures_util::future::join_all((0..256).map(|_| mint())).await;
        for minted in mints {
            minted.ok();
        }
        let full = app.api.get("/v1/audit/log/tile/0/000").await;
        assert_eq!(full.header("cache-control"), Some("public, max-age=31536000, immutable"));
        for bad in ["from=5&to=2", "from=0&to=99999999", "from=x", "to=1", "from=1&from=2"] {
            auditor.api.get(&format!("/v1/audit/consistency?{bad}")).await.fails(400, "query_invalid");
        }
    }

    async fn what_is_not_there_is_not_found(app: TestApp) {
        let auditor = app.auditor().await;
        for path in [
            "/v1/audit/entries/99999/proof",
            "/v1/audit/log/tile/0/999",
            "/v1/audit/log/tile/0/000.p/255",
            "/v1/audit/log/tile/7/000",
            "/v1/audit/log/tile/entries/999",
        ] {
            auditor.api.get(path).await.fails(404, "resource_not_found");
        }
        auditor.api.get("/v1/audit/entries/minus-one/proof").await.fails(400, "query_invalid");
        app.minter().await.api.get("/v1/audit/entries/0/proof").await.fails(403, "scope_missing");
    }

    /// A malleated signature or a second one over the same text is no alarm; a token that was made past the log is.
    async fn a_token_is_found_by_what_was_signed(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        let minted = client.api.mint(&mint_body()).await.ok();
        let token = minted["token"].as_str().unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let ask = |token: String| {
            let api = auditor.api.clone();
            async move { api.post("/v1/audit/lookup", &json!({ "token": token })).await.ok() }
        };
        let found = ask(token.to_owned()).await;
        assert_eq!((&found["found"], &found["alarm"], &found["verifies"]), (&json!(true), &json!(false), &json!(true)));
        assert_eq!(found["entry"]["index"], minted["audit"]["index"]);

        // the same text under another signature that verifies as well: the other root, and one more by the key
        let signer = app.signer();
        let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let bytes = base64.decode(signature).unwrap();
        let again = signer.sign(signed.as_bytes()).unwrap();
        assert_ne!(again, bytes, "ES256 signs otherwise each time");
        for copy in [negated(&bytes), again] {
            let found = ask(format!("{signed}.{}", base64.encode(copy))).await;
            assert_eq!((&found["found"], &found["alarm"], &found["verifies"]), (&json!(true), &json!(false), &json!(true)));
        }
        // and under one that does not
        let other = if signature.starts_with('A') { "B" } else { "A" };
        let found = ask(format!("{signed}.{other}{}", &signature[1..])).await;
        assert_eq!((&found["found"], &found["alarm"], &found["verifies"]), (&json!(true), &json!(false), &json!(false)));

        // made with our key past the log
        let mut claims: Value = serde_json::from_slice(&base64.decode(signed.split('.').nth(1).unwrap()).unwrap()).unwrap();
        claims["sub"] = "user_43".into();
        let stolen = encode_jws(&*signer, "at+jwt", &claims).unwrap();
        let found = ask(stolen.as_str().to_owned()).await;
        assert_eq!((&found["found"], &found["alarm"], &found["verifies"]), (&json!(false), &json!(true), &json!(true)));

        let forged = ask("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1c2VyXzQyIn0.c2lnbmF0dXJl".to_owned()).await;
        assert_eq!((&forged["found"], &forged["alarm"], &forged["verifies"]), (&json!(false), &json!(false), &json!(false)));

        let hex: String = sha256(signed.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        let claims = client.api.verify(token).await.ok();
        for query in [format!("signed_sha256={hex}"), format!("jti={}", claims["jti"].as_str().unwrap())] {
            let found = auditor.api.get(&format!("/v1/audit/lookup?{query}")).await.ok();
            assert_eq!(found["entry"]["index"], minted["audit"]["index"], "{query}");
        }
        auditor.api.get("/v1/audit/lookup").await.fails(400, "query_invalid");
        auditor.api.get("/v1/audit/lookup?signed_sha256=zz").await.fails(400, "query_invalid");
    }
}

/// The other `s` under which an ECDSA signature over P-256 holds: the order of the group less it.
fn negated(signature: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (mut out, mut borrow) = (signature.to_vec(), 0);
    for i in (0..32).rev() {
        let digit = i16::from(ORDER[i]) - i16::from(signature[32 + i]) - borrow;
        borrow = i16::from(digit < 0);
        out[32 + i] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    out
}

fn hash(text: &Value) -> [u8; 32] {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
    bytes.try_into().unwrap()
}
