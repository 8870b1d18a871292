//! Both identities on every later log line of a guarded service.

use std::io::Write;
use std::sync::{Arc, Mutex};

use actix_web::web;
use axum::routing::get;
use serde_json::json;
use stagedoor::guard::{Impersonable, actix, axum as tower_guard};
use tower::ServiceExt as _;
use tracing_subscriber::fmt::MakeWriter;

use crate::fixtures::{ES256, claims, header, sign, verifier, with};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

async fn handler(who: Impersonable) -> String {
    tokio::task::yield_now().await;
    tracing::info!("order shown");
    who.user.to_string()
}

/// The logged lines of one request, made by `run`.
async fn lines(run: impl AsyncFnOnce(String)) -> String {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(lines.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    run(sign(&ES256, &header(&ES256), &with(claims(), &[("sub", json!("user_42"))]))).await;
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}

fn assert_both(text: &str) {
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["fields"]["message"], "order shown");
    let span = &line["span"];
    assert_eq!((&span["user.id"], &span["actor.id"]), (&json!("user_42"), &json!("admin_7")), "{text}");
    assert_eq!((&span["grant.id"], &span["impersonated"]), (&json!("act_1"), &json!(true)));
    assert!(!text.contains("eyJ"), "no token in a log line");
}

#[actix_web::test]
async fn on_actix_every_line_of_a_handler_names_user_and_actor() {
    let text = lines(async |token: String| {
        let app = actix_web::App::new()
            .app_data(Arc::new(verifier().0))
            .wrap(actix::Guard::observe())
            .route("/", web::get().to(handler));
        let app = actix_web::test::init_service(app).await;
        let request =
            actix_web::test::TestRequest::get().insert_header(("authorization", format!("Bearer {token}")));
        assert_eq!(actix_web::test::call_service(&app, request.to_request()).await.status(), 200);
    })
    .await;
    assert_both(&text);
}

#[actix_web::test]
async fn on_axum_every_line_of_a_handler_names_user_and_actor() {
    let text = lines(async |token: String| {
        let verifier = Arc::new(verifier().0);
        let app = axum::Router::new()
            .route("/", get(handler))
            .layer(tower_guard::GuardLayer::observe(verifier.clone()))
            .with_state(verifier);
        let request = axum::http::Request::get("/").header("authorization", format!("Bearer {token}"));
        let response = app.oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
    })
    .await;
    assert_both(&text);
}
