//! Mutated answers of those that we ask: nothing panics, nobody is taken for another, no stranger's key is believed. See
//! `tests/api/fuzz.rs` for longer runs.

use serde_json::json;
use stagedoor::server::actors::Declared;
use stagedoor::token::{Alg, LocalSigner};

use super::dice::Run;
use super::directory::{list, open, sub, user};
use super::faulty::{Faulty, http};
use super::hostile_issuers::{jwks, token};
use super::issuers::{Stage, config};

#[tokio::test]
async fn scim_answers() {
    let server = Faulty::start(|_| Vec::new()).await;
    let seeds = [user("user_42"), user("user_43"), list(&[user("user_42")])];
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_string().into_bytes()).collect();
    let asked = sub("user_42");
    let mut run = Run::new("SCIM answers", 300);
    while let Some(dice) = run.next() {
        let body = dice.mutate(&seeds);
        let shown = String::from_utf8_lossy(&body).into_owned();
        server.answer_with(move |_| http("200 OK", "application/scim+json", &body));
        // a directory of its own, that remembers nothing
        let (_, directory) = open(&server.base);
        if let Ok(Some(person)) = directory.look_up(&asked).await {
            assert_eq!(person.id.as_ref(), Some(&asked), "{shown}");
        }
        for person in directory.search("ada", 5).await.unwrap_or_default() {
            assert!(person.id.is_some(), "{shown}");
        }
    }
}

#[tokio::test]
async fn issuer_answers() {
    let (trusted, stranger) =
        (LocalSigner::generate(Alg::Es256).unwrap(), LocalSigner::generate(Alg::Es256).unwrap());
    let server = Faulty::start(|_| Vec::new()).await;
    let metadata = json!({ "issuer": server.base, "jwks_uri": format!("{}/jwks", server.base) });
    let (keys, metadata) = (jwks(&trusted).to_string().into_bytes(), metadata.to_string().into_bytes());
    let mut run = Run::new("issuer answers", 300);
    while let Some(dice) = run.next() {
        let (mut found, mut set) = (metadata.clone(), keys.clone());
        if dice.roll(2) == 0 {
            found = dice.mutate(&[metadata.clone(), keys.clone()]);
        } else {
            set = dice.mutate(&[keys.clone(), metadata.clone()]);
        }
        let shown = format!("{} {}", String::from_utf8_lossy(&found), String::from_utf8_lossy(&set));
        server.answer_with(move |asked| {
            http("200 OK", "application/json", if asked.target == "/jwks" { &set } else { &found })
        });
        let stage = Stage::new(config(&server.base), &[&server.base]);
        stage.actors.refresh().await;
        let forged = token(&stranger, &stage, &server.base);
        assert!(stage.verify(&forged, Declared::Jwt).await.is_err(), "{shown}");
    }
}
