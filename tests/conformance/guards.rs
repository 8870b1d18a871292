//! Both guards over real HTTP: one table, one meaning.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::web;
use axum::Json;
use axum::routing::{get, post};
use serde_json::{Value, json};
use stagedoor::guard::{Action, Admission, Identity, Impersonable, InPerson, actix, axum as tower_guard};
use stagedoor::token::{
    FixedClock, RevocationList, Revocations, Standing, TrustedIssuer, Verified, Verifier,
};

use crate::fixtures::{
    API, ES256, HOME, HOME_KEY, NOW, STAGEDOOR, claims, header, home_claims, issuer, keys, sign, verifier,
    with,
};
use crate::hostile;

stagedoor::action!(Read = "read");
stagedoor::action!(Refund = "billing:write", verified);

fn seen(who: &Identity) -> Value {
    json!({
        "user": who.user.as_str(),
        "actor": who.actor.as_ref().map(|actor| actor.sub.as_str()),
        "impersonated": who.is_impersonated(),
    })
}

fn reports() -> Admission {
    Admission::default().impersonable().actor_scope("read")
}

fn writes() -> Admission {
    Admission::default().impersonable().scope("write")
}

mod on_actix {
    use super::{Action, Identity, Impersonable, InPerson, Value, seen, web};

    pub async fn me(who: Identity) -> web::Json<Value> {
        web::Json(seen(&who))
    }
    pub async fn acting<A: Action + 'static>(who: Impersonable<A>) -> web::Json<Value> {
        web::Json(seen(&who))
    }
    pub async fn in_person(who: InPerson) -> web::Json<Value> {
        web::Json(seen(&who))
    }
}

fn routes(app: &mut web::ServiceConfig) {
    let at = |path: &str| web::scope(path);
    app.route("/me", web::get().to(on_actix::me))
        .route("/orders", web::get().to(on_actix::acting::<Read>))
        .route("/refund", web::post().to(on_actix::acting::<Refund>))
        .route("/any", web::get().to(on_actix::acting::<stagedoor::guard::AnyAction>))
        .route("/password", web::post().to(on_actix::in_person))
        .route("/open", web::get().to(async || "open"))
        .service(
            at("/reports")
                .wrap(actix::Guard::new(reports()))
                .route("/all", web::get().to(on_actix::me))
                .route("/bare", web::get().to(async || "guarded without an argument"))
                .route("/password", web::post().to(on_actix::in_person)),
        )
        .service(
            at("/strict")
                .wrap(actix::Guard::new(Admission::default()))
                .route("/any", web::get().to(on_actix::acting::<stagedoor::guard::AnyAction>)),
        )
        .service(at("/writes").wrap(actix::Guard::new(writes())).route("/all", web::get().to(on_actix::me)));
}

fn serve_actix(verifier: Arc<Verifier>) -> SocketAddr {
    let server = actix_web::HttpServer::new(move || {
        actix_web::App::new().app_data(verifier.clone()).wrap(actix::Guard::observe()).configure(routes)
    })
    .workers(1)
    .disable_signals()
    .bind("127.0.0.1:0")
    .unwrap();
    let address = server.addrs()[0];
    actix_web::rt::spawn(server.run());
    address
}

fn router(verifier: Arc<Verifier>) -> axum::Router {
    async fn me(who: Identity) -> Json<Value> {
        Json(seen(&who))
    }
    async fn acting<A: Action>(who: Impersonable<A>) -> Json<Value> {
        Json(seen(&who))
    }
    async fn in_person(who: InPerson) -> Json<Value> {
        Json(seen(&who))
    }
    let guard = |admission| tower_guard::GuardLayer::new(verifier.clone(), admission);
    let within = |router: axum::Router<Arc<Verifier>>, admission| router.layer(guard(admission));
    let reported = axum::Router::new()
        .route("/all", get(me))
        .route("/bare", get(async || "guarded without an argument"))
        .route("/password", post(in_person));
    let strict = axum::Router::new().route("/any", get(acting::<stagedoor::guard::AnyAction>));
    axum::Router::new()
        .route("/me", get(me))
        .route("/orders", get(acting::<Read>))
        .route("/refund", post(acting::<Refund>))
        .route("/any", get(acting::<stagedoor::guard::AnyAction>))
        .route("/password", post(in_person))
        .route("/open", get(async || "open"))
        .nest("/reports", within(reported, reports()))
        .nest("/strict", within(strict, Admission::default()))
        .nest("/writes", within(axum::Router::new().route("/all", get(me)), writes()))
        .layer(tower_guard::GuardLayer::observe(verifier.clone()))
        .with_state(verifier)
}

async fn serve_axum(verifier: Arc<Verifier>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    actix_web::rt::spawn(async move { axum::serve(listener, router(verifier)).await });
    address
}

/// What a caller sees of an answer.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    headers: BTreeMap<&'static str, String>,
    body: Value,
}

async fn ask(client: &reqwest::Client, at: SocketAddr, path: &str, authorization: &[&str]) -> Answer {
    let (method, path) = path.split_once(' ').unwrap();
    let mut request = client.request(method.parse().unwrap(), format!("http://{at}{path}"));
    for value in authorization {
        request = request.header("authorization", *value);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = [
        "www-authenticate",
        "content-type",
        "cache-control",
        "retry-after",
        "impersonated",
        "x-stagedoor-user",
        "x-stagedoor-actor",
    ];
    let headers = headers
        .into_iter()
        .filter_map(|name| Some((name, response.headers().get(name)?.to_str().unwrap().to_owned())))
        .filter(|(name, _)| status != 200 || !name.starts_with("content"))
        .collect();
    let text = response.text().await.unwrap();
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

struct Both {
    client: reqwest::Client,
    actix: SocketAddr,
    axum: SocketAddr,
}

impl Both {
    async fn serving(verifier: Verifier) -> Self {
        let verifier = Arc::new(verifier);
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Self { client, actix: serve_actix(verifier.clone()), axum: serve_axum(verifier).await }
    }

    /// The answer, which must be the same from both.
    async fn ask(&self, path: &str, authorization: &[&str]) -> Answer {
        let one = ask(&self.client, self.actix, path, authorization).await;
        let other = ask(&self.client, self.axum, path, authorization).await;
        assert_eq!(one, other, "{path}: actix and axum differ");
        one
    }
}

fn user() -> String {
    format!("Bearer {}", sign(&HOME_KEY, &header(&HOME_KEY), &home_claims()))
}

fn acting(changes: &[(&str, Value)]) -> String {
    format!("Bearer {}", sign(&ES256, &header(&ES256), &with(claims(), changes)))
}

/// One that trusts the same issuers and is for another audience.
fn elsewhere() -> Arc<Verifier> {
    let at = |issuer: TrustedIssuer| issuer.audience("https://elsewhere.example".parse().unwrap());
    let other = Verifier::builder()
        .issuer(at(TrustedIssuer::stagedoor(issuer(STAGEDOOR))))
        .clock(Arc::new(FixedClock::at_seconds(NOW)))
        .build()
        .unwrap();
    assert!(other.set_keys(&issuer(STAGEDOOR), keys(&[&ES256])));
    Arc::new(other)
}

#[actix_web::test]
async fn no_guard_further_out_vouches_for_a_verifier_that_was_not_asked() {
    use actix_web::test::{TestRequest, call_service, init_service};
    use tower::ServiceExt as _;

    async fn me(who: Impersonable<Read>) -> Json<Value> {
        Json(seen(&who))
    }
    let (ours, other) = (Arc::new(verifier().0), elsewhere());
    let app = init_service(
        actix_web::App::new()
            .app_data(ours.clone())
            .wrap(actix::Guard::observe())
            .route("/orders", web::get().to(on_actix::acting::<Read>))
            .service(
                web::scope("/b")
                    .app_data(other.clone())
                    .route("/orders", web::get().to(on_actix::acting::<Read>)),
            )
            .service(
                web::scope("/guarded")
                    .app_data(other.clone())
                    .wrap(actix::Guard::new(reports()))
                    .route("/all", web::get().to(on_actix::me)),
            )
            .service(
                web::scope("/both")
                    .app_data(web::Data::from(other.clone()))
                    .route("/orders", web::get().to(on_actix::acting::<Read>)),
            ),
    )
    .await;
    for (path, status) in [("/orders", 200), ("/b/orders", 401), ("/guarded/all", 401), ("/both/orders", 500)]
    {
        let request = TestRequest::get().uri(path).insert_header(("authorization", acting(&[]))).to_request();
        assert_eq!(call_service(&app, request).await.status().as_u16(), status, "actix {path}");
    }

    let inner =
        |verifier: &Arc<Verifier>| axum::Router::new().route("/orders", get(me)).with_state(verifier.clone());
    let router = axum::Router::new()
        .nest("/a", inner(&ours))
        .nest("/b", inner(&other))
        .nest("/guarded", inner(&ours).layer(tower_guard::GuardLayer::new(other.clone(), reports())))
        .layer(tower_guard::GuardLayer::observe(ours.clone()));
    for (path, status) in [("/a/orders", 200), ("/b/orders", 401), ("/guarded/orders", 401)] {
        let request = axum::http::Request::get(path).header("authorization", acting(&[]));
        let request = request.body(axum::body::Body::empty()).unwrap();
        assert_eq!(router.clone().oneshot(request).await.unwrap().status().as_u16(), status, "axum {path}");
    }
}

/// Whatever stands between two guards may put another credential in place: it is read anew.
#[actix_web::test]
async fn a_guard_further_out_speaks_for_the_credential_that_it_read() {
    use actix_web::test::{TestRequest, call_service, init_service};
    use tower::ServiceExt as _;

    async fn me(who: Impersonable<Read>) -> Json<Value> {
        Json(seen(&who))
    }
    let ours = Arc::new(verifier().0);
    for (put, status) in [(None, 401), (Some(user()), 200), (Some("Bearer x".to_owned()), 401)] {
        let header = put.clone();
        let app = init_service(
            actix_web::App::new()
                .app_data(ours.clone())
                .wrap(actix_web::middleware::from_fn(
                    move |mut request: actix_web::dev::ServiceRequest,
                          next: actix_web::middleware::Next<_>| {
                        let headers = request.headers_mut();
                        headers.remove("authorization");
                        if let Some(value) = &header {
                            headers.insert("authorization".parse().unwrap(), value.parse().unwrap());
                        }
                        next.call(request)
                    },
                ))
                .wrap(actix::Guard::observe())
                .route("/orders", web::get().to(on_actix::acting::<Read>)),
        )
        .await;
        let request = TestRequest::get().uri("/orders").insert_header(("authorization", acting(&[])));
        let answer = call_service(&app, request.to_request()).await;
        assert_eq!(answer.status().as_u16(), status, "actix {put:?}");

        let header = put.clone();
        let router = axum::Router::new()
            .route("/orders", get(me))
            .with_state(ours.clone())
            .layer(tower::util::MapRequestLayer::new(move |mut request: axum::extract::Request| {
                request.headers_mut().remove("authorization");
                if let Some(value) = &header {
                    request.headers_mut().insert("authorization", value.parse().unwrap());
                }
                request
            }))
            .layer(tower_guard::GuardLayer::observe(ours.clone()));
        let request = axum::http::Request::get("/orders").header("authorization", acting(&[]));
        let request = request.body(axum::body::Body::empty()).unwrap();
        assert_eq!(router.oneshot(request).await.unwrap().status().as_u16(), status, "axum {put:?}");
    }
}

#[actix_web::test]
async fn a_route_lets_in_whom_its_one_visible_word_lets_in() {
    let both = Both::serving(verifier().0).await;
    let user = user();
    let read = acting(&[]);
    let bill = acting(&[("scope", json!("billing:write write"))]);
    let asserted = acting(&[("scope", json!("billing:write")), ("actor_assurance", json!("asserted"))]);
    let homes = format!(
        "Bearer {}",
        sign(&HOME_KEY, &header(&HOME_KEY), &with(home_claims(), &[("act", json!({"sub":"x"}))]))
    );
    let refused = "impersonation_refused";
    for (path, authorization, status, reason) in [
        ("GET /me", &user, 200, ""),
        ("GET /me", &read, 403, refused),
        ("GET /me", &homes, 403, refused),
        ("GET /orders", &user, 200, ""),
        ("GET /orders", &read, 200, ""),
        ("GET /orders", &homes, 200, ""),
        ("GET /orders", &bill, 403, "scope_missing"),
        ("POST /refund", &user, 200, ""),
        ("POST /refund", &bill, 200, ""),
        ("POST /refund", &read, 403, "scope_missing"),
        ("POST /refund", &asserted, 403, "actor_not_verified"),
        ("POST /refund", &homes, 403, "actor_not_verified"),
        ("GET /any", &bill, 200, ""),
        ("POST /password", &user, 200, ""),
        ("POST /password", &read, 403, refused),
        // Guards around routes: the argument `Identity` follows them, `InPerson` does not.
        ("GET /reports/all", &user, 200, ""),
        ("GET /reports/all", &read, 200, ""),
        ("GET /reports/all", &bill, 403, "scope_missing"),
        ("GET /reports/bare", &bill, 403, "scope_missing"),
        ("GET /reports/bare", &read, 200, ""),
        ("POST /reports/password", &user, 200, ""),
        ("POST /reports/password", &read, 403, refused),
        // Guards stack: each must admit.
        ("GET /strict/any", &user, 200, ""),
        ("GET /strict/any", &read, 403, refused),
        ("GET /writes/all", &user, 200, ""),
        ("GET /writes/all", &bill, 200, ""),
        ("GET /writes/all", &read, 403, "scope_missing"),
        ("GET /open", &read, 200, ""),
    ] {
        let answer = both.ask(path, &[authorization]).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        if status == 403 {
            assert_eq!(answer.body["reason"], reason, "{path}");
            assert_eq!(answer.body["error"], "insufficient_scope");
            let challenge = &answer.headers["www-authenticate"];
            assert!(
                challenge.starts_with(r#"Bearer realm="stagedoor", error="insufficient_scope""#),
                "{challenge}"
            );
        }
    }
}

#[actix_web::test]
async fn a_refused_impersonator_is_told_how_the_route_could_opt_in() {
    let both = Both::serving(verifier().0).await;
    let answer = both.ask("GET /me", &[&acting(&[])]).await;
    assert_eq!(answer.status, 403);
    assert!(answer.body["hint"].as_str().unwrap().contains("Impersonable<"));
    let answer = both.ask("GET /orders", &[&acting(&[("scope", json!("x"))])]).await;
    assert!(answer.headers["www-authenticate"].ends_with(r#", scope="read""#), "BE-5");
}

#[actix_web::test]
async fn challenges_are_those_of_rfc_6750() {
    let both = Both::serving(verifier().0).await;
    let good = user();
    let lower = good.replacen("Bearer", "bearer", 1);
    let wrong = format!("{good}A");
    let basic = "Basic YTpi";
    let expired = acting(&[("exp", json!(NOW - 1))]);
    for (name, authorization, status, challenge) in [
        ("BE-1", vec![lower.as_str()], 200, None),
        ("BE-2", vec![], 401, Some(r#"Bearer realm="stagedoor""#)),
        ("BE-2, other scheme", vec![basic], 401, Some(r#"Bearer realm="stagedoor""#)),
        (
            "BE-3",
            vec![expired.as_str()],
            401,
            Some(r#"Bearer realm="stagedoor", error="invalid_token", error_description="expired""#),
        ),
        (
            "BE-3, forged",
            vec![wrong.as_str()],
            401,
            Some(r#"Bearer realm="stagedoor", error="invalid_token", error_description="signature_invalid""#),
        ),
        (
            "BE-4, two headers",
            vec![good.as_str(), good.as_str()],
            400,
            Some(
                r#"Bearer realm="stagedoor", error="invalid_request", error_description="authorization_malformed""#,
            ),
        ),
        (
            "BE-4, empty",
            vec!["Bearer"],
            400,
            Some(
                r#"Bearer realm="stagedoor", error="invalid_request", error_description="authorization_malformed""#,
            ),
        ),
    ] {
        let answer = both.ask("GET /me", &authorization).await;
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.headers.get("www-authenticate").map(String::as_str), challenge, "{name}");
        if status != 200 {
            assert_eq!(answer.headers["cache-control"], "no-store");
            assert_eq!(answer.headers["content-type"], "application/json");
        }
    }
    let token = good.strip_prefix("Bearer ").unwrap();
    assert_eq!(both.ask(&format!("GET /me?access_token={token}"), &[]).await.status, 401, "BE-6");
    assert_eq!(both.ask("GET /open", &[]).await.status, 200, "an open route asks nobody");
    assert_eq!(both.ask("GET /open", &["Bearer x"]).await.status, 200);
}

#[actix_web::test]
async fn the_hostile_set_gets_one_and_the_same_verdict_from_both() {
    let both = Both::serving(verifier().0).await;
    let rows = [hostile::header_rows(), hostile::claim_rows(), hostile::form_rows()].concat();
    let mut asked = 0;
    for (name, token, reason) in rows {
        let authorization = format!("Bearer {token}");
        // A header cannot carry control characters, spaces before a token are HTTP's (BE-1), and one of half
        // a megabyte is the server's affair.
        if token.len() > 16_000
            || token.starts_with(' ')
            || reqwest::header::HeaderValue::from_str(&authorization).is_err()
        {
            continue;
        }
        let answer = both.ask("GET /any", &[&authorization]).await;
        assert!(
            (answer.status == 401 && answer.body["reason"] == reason)
                || (answer.status == 400 && answer.body["reason"] == "authorization_malformed"),
            "{name}: {answer:?}"
        );
        asked += 1;
    }
    assert!(asked > 120, "{asked}");
}

#[actix_web::test]
async fn answers_carry_both_identities_and_the_mark() {
    let both = Both::serving(verifier().0).await;
    let answer = both.ask("GET /orders", &[&acting(&[("sub", json!("user/42"))])]).await;
    assert_eq!(answer.body, json!({ "user": "user/42", "actor": "admin_7", "impersonated": true }));
    assert_eq!(answer.headers["impersonated"], "?1");
    assert_eq!(answer.headers["x-stagedoor-actor"], "admin_7");
    assert_eq!(answer.headers["x-stagedoor-user"], "user%2F42");
    let answer = both.ask("GET /me", &[&user()]).await;
    assert_eq!(answer.headers["impersonated"], "?0");
    assert_eq!(answer.headers["x-stagedoor-actor"], "-");
    let answer = both.ask("GET /me", &[&acting(&[])]).await;
    assert_eq!((answer.status, answer.headers["impersonated"].as_str()), (403, "?1"), "also on refusals");
    assert_eq!(both.ask("GET /open", &[]).await.headers.get("impersonated"), None);
}

struct AlwaysStale;

impl Revocations for AlwaysStale {
    fn standing(&self, _: &Verified, _: chrono::DateTime<chrono::Utc>) -> Standing {
        Standing::Stale
    }
}

fn with_revocations(revocations: Arc<dyn Revocations>) -> Verifier {
    let audience: stagedoor::token::Audience = API.parse().unwrap();
    Verifier::builder()
        .issuer_with_keys(
            TrustedIssuer::stagedoor(issuer(STAGEDOOR)).audience(audience.clone()),
            keys(&[&ES256]),
        )
        .issuer_with_keys(TrustedIssuer::home(issuer(HOME)).audience(audience), keys(&[&HOME_KEY]))
        .revocations(revocations)
        .clock(Arc::new(FixedClock::at_seconds(NOW)))
        .build()
        .unwrap()
}

#[actix_web::test]
async fn without_fresh_revocations_actor_tokens_wait_and_users_do_not() {
    let both = Both::serving(with_revocations(Arc::new(AlwaysStale))).await;
    let answer = both.ask("GET /orders", &[&acting(&[])]).await;
    assert_eq!((answer.status, &answer.body["reason"]), (503, &json!("revocations_stale")));
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(both.ask("GET /orders", &[&user()]).await.status, 200);

    let tolerant = Admission::default().impersonable().tolerate_stale_revocations();
    let verifier = with_revocations(Arc::new(AlwaysStale));
    let authorization = acting(&[]);
    let who = stagedoor::guard::identify(&verifier, [authorization.as_bytes()]).unwrap();
    assert!(tolerant.check(&who).is_ok() && Admission::default().impersonable().check(&who).is_err());
}

#[actix_web::test]
async fn a_revoked_grant_is_refused_at_once() {
    let revoked = RevocationList { sids: ["act_1".to_owned()].into(), ..Default::default() };
    let both = Both::serving(with_revocations(Arc::new(revoked))).await;
    let answer = both.ask("GET /orders", &[&acting(&[])]).await;
    assert_eq!((answer.status, &answer.body["reason"]), (401, &json!("revoked")));
}

#[actix_web::test]
async fn a_forgotten_verifier_is_the_services_mistake() {
    let app = actix_web::App::new().route("/me", web::get().to(on_actix::me));
    let app = actix_web::test::init_service(app).await;
    let request = actix_web::test::TestRequest::get().uri("/me").to_request();
    let response = actix_web::test::call_service(&app, request).await;
    assert_eq!(response.status(), 500);
    let body: Value = actix_web::test::read_body_json(response).await;
    assert_eq!(body["reason"], "misconfigured");
    let text = body.to_string();
    assert!(!text.contains("app_data"), "the hint is for the log: {text}");
}

#[actix_web::test]
async fn a_verifier_in_web_data_is_found_too() {
    let data = web::Data::new(verifier().0);
    let app = actix_web::App::new().app_data(data).route("/me", web::get().to(on_actix::me));
    let app = actix_web::test::init_service(app).await;
    let request = actix_web::test::TestRequest::get().uri("/me").insert_header(("authorization", user()));
    assert_eq!(actix_web::test::call_service(&app, request.to_request()).await.status(), 200);
}

#[actix_web::test]
async fn huge_headers_are_refused_and_break_nothing() {
    let both = Both::serving(verifier().0).await;
    let huge = format!("Bearer {}", "a".repeat(64 * 1024));
    for at in [both.actix, both.axum] {
        let answer = ask(&both.client, at, "GET /me", &[&huge]).await;
        assert!((400..500).contains(&answer.status), "{answer:?}");
        assert_eq!(ask(&both.client, at, "GET /me", &[&user()]).await.status, 200);
    }
}
