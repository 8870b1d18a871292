//! The whole set over HTTP at both guards: not one deviation, laxity included.

use std::net::SocketAddr;
use std::sync::Arc;

use stagedoor::guard::{Identity, Impersonable, actix, axum as tower_guard};
use stagedoor::token::{KeySet, TrustedIssuer, Verifier};

use crate::kit::{conformance, keys, names, path};

stagedoor::action!(Read = "read");

const STAGEDOOR: &str = "https://stagedoor.example";
const HOME: &str = "https://login.example";
const API: &str = "https://api.example.com";

fn verifier(jwks: &[u8]) -> Arc<Verifier> {
    let keys = || KeySet::from_jwks_json(jwks).unwrap();
    let stagedoor = TrustedIssuer::stagedoor(STAGEDOOR.parse().unwrap()).audience(API.parse().unwrap());
    let home = TrustedIssuer::home(HOME.parse().unwrap()).audience(API.parse().unwrap());
    let builder = Verifier::builder().issuer_with_keys(stagedoor, keys()).issuer_with_keys(home, keys());
    Arc::new(builder.build().unwrap())
}

fn serve_actix(verifier: Arc<Verifier>) -> SocketAddr {
    use actix_web::{App, HttpServer, web};
    let server = HttpServer::new(move || {
        App::new()
            .app_data(verifier.clone())
            .wrap(actix::Guard::observe())
            .route("/me", web::get().to(async |who: Identity| who.user.to_string()))
            .route("/orders", web::get().to(async |who: Impersonable<Read>| who.user.to_string()))
    })
    .workers(1)
    .bind(("127.0.0.1", 0))
    .unwrap();
    let address = server.addrs()[0];
    tokio::spawn(server.run());
    address
}

async fn serve_axum(verifier: Arc<Verifier>) -> SocketAddr {
    use axum::routing::get;
    let app = axum::Router::new()
        .route("/me", get(async |who: Identity| who.user.to_string()))
        .route("/orders", get(async |who: Impersonable<Read>| who.user.to_string()))
        .layer(tower_guard::GuardLayer::observe(verifier.clone()))
        .with_state(verifier);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Issue 6 §4: "run in our own tests against both guards".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_guards_keep_the_whole_table() {
    for alg in ["ES256", "RS256", "EdDSA"] {
        let dir = keys(alg).await;
        let key = path(&dir, "keys.pem");
        let verifier = verifier(&std::fs::read(dir.path().join("jwks.json")).unwrap());
        for (guard, address) in
            [("actix", serve_actix(verifier.clone())), ("axum", serve_axum(verifier).await)]
        {
            for (route, impersonators) in [("me", "403"), ("orders", "200")] {
                let target = format!("http://{address}/{route}");
                let (code, report) = conformance(&[
                    "--target",
                    &target,
                    "--issuer",
                    STAGEDOOR,
                    "--home-issuer",
                    HOME,
                    "--audience",
                    API,
                    "--key",
                    &key,
                    "--allow-impersonation",
                    impersonators,
                    "--leeway",
                    "0",
                    "--strict",
                    "--json",
                ])
                .await
                .unwrap();
                for verdict in ["wrongly_accepted", "wrongly_refused", "wrong_answer", "broke"] {
                    let wrong = names(&report, verdict, None);
                    assert!(wrong.is_empty(), "{guard} /{route} {alg} {verdict}: {wrong:#?}");
                }
                assert_eq!(code, 0, "{guard} /{route} {alg}");
            }
        }
    }
}
