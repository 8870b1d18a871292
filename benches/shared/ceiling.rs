//! The same server without rule and log: its HTTP stack, its client's secret, its JSON, its signature, and an
//! answer as long as a mint's.

use std::net::SocketAddr;

use actix_web::middleware::from_fn;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::json;
use stagedoor::server::http::caller::authenticate;
use stagedoor::server::http::edge;
use stagedoor::server::http::fields::Fields;
use stagedoor::server::http::problem::Problem;
use stagedoor::server::service::Service;
use stagedoor::token::{Act, ActorClaims, Assurance, GrantId, Jti, Scope, Sub, encode_jws};

/// Serves it.
pub fn start(service: web::Data<Service>) -> (SocketAddr, actix_web::dev::ServerHandle) {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(service.clone())
            .app_data(web::PayloadConfig::new(16 * 1024))
            .wrap(from_fn(edge::edge))
            .default_service(web::to(sign_only))
    })
    .disable_signals()
    .bind("127.0.0.1:0")
    .expect("a free port");
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    (address, handle)
}

async fn sign_only(
    service: web::Data<Service>,
    request: HttpRequest,
    body: web::Bytes,
) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&service, &request)?;
    edge::json_body(&request, &body)?;
    let mut asked = Fields::parse(&body)?;
    let user = asked.id::<Sub>("user_id")?.expect("the load names a user");
    let mut actor = asked.object("actor", "actor.")?.expect("the load names an actor");
    let act = Act { sub: actor.id("sub")?.expect("the load names an actor"), iss: None, act: None };
    let now = service.clock.now();
    let claims = ActorClaims {
        iss: service.desk.issuer.clone(),
        sub: user,
        aud: caller.client.default_audience().into_iter().cloned().collect(),
        exp: now,
        iat: now,
        nbf: now,
        jti: Jti::generate(now, &*service.entropy),
        client_id: caller.client.id.clone(),
        scope: Scope::parse("read").expect("a scope"),
        sid: GrantId::generate(now, &*service.entropy),
        actor_assurance: Assurance::Asserted,
        azp: None,
        break_glass: false,
        act,
    };
    let signer = service.keyring.token_signer().expect("a key");
    let jws = encode_jws(&*signer, "at+jwt", &claims).expect("a signature");
    let at = now.timestamp_millis();
    let answer = json!({
        "object": "actor_token", "id": claims.sid, "status": "pending", "user_id": claims.sub, "actor": claims.act,
        "actor_assurance": "asserted", "token": jws.as_str(), "url": null, "expires_at": at, "created_at": at,
        "updated_at": at, "scope": claims.scope, "audience": claims.aud,
        "audit": { "index": 1, "proof": "x".repeat(1000) },
    });
    Ok(HttpResponse::Ok().content_type("application/json").body(answer.to_string()))
}
