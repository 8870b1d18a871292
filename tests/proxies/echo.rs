//! The service behind a proxy: says what reached it, and how often something did.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::json;

pub struct Echo {
    pub port: u16,
    pub requests: Arc<AtomicUsize>,
}

pub fn start() -> Echo {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let server = HttpServer::new(move || {
        let counted = Arc::clone(&counted);
        App::new().default_service(web::to(move |request: HttpRequest, body: String| {
            counted.fetch_add(1, Ordering::SeqCst);
            let headers: Vec<(String, String)> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect();
            let answer = json!({ "method": request.method().as_str(), "uri": request.uri().to_string(), "body": body, "headers": headers });
            async move { HttpResponse::Ok().json(answer) }
        }))
    })
    .workers(1)
    .disable_signals()
    .bind(("127.0.0.1", 0))
    .expect("the loopback has a free port");
    let port = server.addrs()[0].port();
    tokio::spawn(server.run());
    Echo { port, requests }
}
