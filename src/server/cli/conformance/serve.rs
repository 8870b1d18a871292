//! Serves the test keys over HTTP while a run lasts, so that the service under test can be pointed at them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::{Value, json};

use super::forge::{b64, sign_parts};
use super::keys::{TestKey, jwks};
use crate::token::feed::{FEED_TYP, FeedDocument, FeedKind};
use crate::token::{Clock, Issuer};

/// Where the attacker's keys stand: whoever fetches them follows a URL out of a token.
const TRAP: &str = "/attacker/jwks.json";
/// The grant that the served feed revokes.
pub const REVOKED_GRANT: &str = "act_conformance_revoked";
/// The client whose tokens the served feed cuts off.
pub const CUT_OFF_CLIENT: &str = "client_conformance_revoked";

/// A small server of two issuers (`/` and `/home`) with the same keys. It ends when dropped or stopped.
pub struct KeyServer {
    base: String,
    handle: ServerHandle,
    trapped: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

/// What signs the feed of revocations, and by which clock.
pub struct Feed {
    /// Its own key.
    pub key: TestKey,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Feed {
    /// A snapshot as of now (contract.md §7).
    fn snapshot(&self, issuer: &str) -> Option<String> {
        let now = self.clock.now();
        let document = FeedDocument {
            iss: Issuer::try_from(issuer).ok()?,
            iat: now.timestamp_millis().div_euclid(1000),
            read_ms: now.timestamp_millis(),
            exp: now.timestamp() + 300,
            next_update: now.timestamp() + 1,
            kind: FeedKind::Snapshot,
            epoch: 1,
            seq: 1,
            prev: None,
            kids: Vec::new(),
            clients: BTreeMap::from([(CUT_OFF_CLIENT.to_owned(), now.timestamp())]),
            all: None,
            sids: vec![REVOKED_GRANT.to_owned()],
        };
        let header = json!({ "alg": self.key.alg().name(), "typ": FEED_TYP, "kid": self.key.kid() });
        let payload = serde_json::to_vec(&document).ok()?;
        Some(sign_parts(&self.key, &b64(header.to_string()), &b64(payload)))
    }
}

struct Documents {
    base: String,
    jwks: Value,
    attacker: Value,
    trapped: Arc<AtomicBool>,
    feed: Option<Feed>,
    asked: Arc<AtomicU32>,
}

impl KeyServer {
    /// Starts on `address`; port 0 picks one.
    pub fn start(
        address: SocketAddr,
        keys: &[TestKey],
        attacker: &TestKey,
        feed: Option<Feed>,
    ) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        let base = format!("http://{}", listener.local_addr()?);
        let trapped = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicU32::new(0));
        let documents = web::Data::new(Documents {
            base: base.clone(),
            jwks: jwks(keys),
            attacker: json!({ "keys": [attacker.jwk()] }),
            trapped: Arc::clone(&trapped),
            feed,
            asked: Arc::clone(&asked),
        });
        let server = HttpServer::new(move || App::new().app_data(documents.clone()).configure(routes))
            .workers(1)
            .disable_signals()
            .listen(listener)?
            .run();
        let handle = server.handle();
        tokio::spawn(server);
        Ok(Self { base, handle, trapped, asked })
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

    /// How often the feed of revocations was fetched.
    #[must_use]
    pub fn feed_was_asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
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
    let keys = async |documents: web::Data<Documents>| match &documents.feed {
        Some(feed) => HttpResponse::Ok().json(json!({ "keys": [feed.key.jwk()] })),
        None => HttpResponse::NotFound().finish(),
    };
    config.route("/v1/revocations/jwks", web::get().to(keys));
    let snapshot = async |documents: web::Data<Documents>| {
        let Some(text) = documents.feed.as_ref().and_then(|feed| feed.snapshot(&documents.base)) else {
            return HttpResponse::NotFound().finish();
        };
        documents.asked.fetch_add(1, Ordering::Relaxed);
        HttpResponse::Ok().content_type("application/jwt").body(text)
    };
    config.route("/v1/revocations", web::get().to(snapshot));
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
