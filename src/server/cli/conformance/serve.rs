//! Serves the test keys over HTTP while a run lasts, so that the service under test can be pointed at them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::{Value, json};

use super::keys::{TestKey, jwks};

/// Where the attacker's keys stand: whoever fetches them follows a URL out of a token.
const TRAP: &str = "/attacker/jwks.json";

/// A small server of two issuers (`/` and `/home`) with the same keys. It ends when dropped or stopped.
pub struct KeyServer {
    base: String,
    handle: ServerHandle,
    trapped: Arc<AtomicBool>,
}

struct Documents {
    base: String,
    jwks: Value,
    attacker: Value,
    trapped: Arc<AtomicBool>,
}

impl KeyServer {
    /// Starts on `address`; port 0 picks one.
    pub fn start(address: SocketAddr, keys: &[TestKey], attacker: &TestKey) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        let base = format!("http://{}", listener.local_addr()?);
        let trapped = Arc::new(AtomicBool::new(false));
        let documents = web::Data::new(Documents {
            base: base.clone(),
            jwks: jwks(keys),
            attacker: json!({ "keys": [attacker.jwk()] }),
            trapped: Arc::clone(&trapped),
        });
        let server = HttpServer::new(move || App::new().app_data(documents.clone()).configure(routes))
            .workers(1)
            .disable_signals()
            .listen(listener)?
            .run();
        let handle = server.handle();
        tokio::spawn(server);
        Ok(Self { base, handle, trapped })
    }

    /// The issuer of actor tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.base
    }

    /// The issuer of ordinary tokens.
    #[must_use]
    pub fn home_issuer(&self) -> String {
        format!("{}/home", self.base)
    }

    /// Where the attacker's keys stand.
    #[must_use]
    pub fn attacker_url(&self) -> String {
        format!("{}{TRAP}", self.base)
    }

    /// Whether somebody fetched the attacker's keys.
    #[must_use]
    pub fn was_trapped(&self) -> bool {
        self.trapped.load(Ordering::Relaxed)
    }

    /// Stops at once.
    pub async fn stop(self) {
        self.handle.stop(false).await;
    }
}

fn routes(config: &mut web::ServiceConfig) {
    let jwks = async |documents: web::Data<Documents>| HttpResponse::Ok().json(&documents.jwks);
    for prefix in ["", "/home"] {
        config.route(&format!("{prefix}/.well-known/jwks.json"), web::get().to(jwks));
        for name in ["openid-configuration", "oauth-authorization-server"] {
            let metadata = async move |documents: web::Data<Documents>| metadata(&documents, prefix);
            config.route(&format!("{prefix}/.well-known/{name}"), web::get().to(metadata));
        }
    }
    let trap = async |documents: web::Data<Documents>| {
        documents.trapped.store(true, Ordering::Relaxed);
        HttpResponse::Ok().json(&documents.attacker)
    };
    config.route(TRAP, web::get().to(trap));
}

fn metadata(documents: &Documents, prefix: &str) -> HttpResponse {
    let issuer = format!("{}{prefix}", documents.base);
    HttpResponse::Ok().json(json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "response_types_supported": ["none"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "RS256", "EdDSA"],
    }))
}
