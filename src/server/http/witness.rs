//! POST `/add-checkpoint` (C2SP tlog-witness): all that `stagedoor audit witness` serves.

use std::sync::{Arc, Mutex, PoisonError};

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{self, Bytes, Data, ServiceConfig};

use crate::server::log::witness::{MAX_REQUEST_BYTES, Refused, Witness};
use crate::token::Clock;

/// A witness that answers.
#[derive(Clone)]
pub struct Seat {
    witness: Arc<Mutex<Witness>>,
    clock: Arc<dyn Clock>,
}

impl Seat {
    /// Seats `witness`, who reads the time of `clock`.
    pub fn new(witness: Witness, clock: Arc<dyn Clock>) -> Self {
        Self { witness: Arc::new(Mutex::new(witness)), clock }
    }
}

/// Mounts what a witness answers.
pub fn configure(config: &mut ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(MAX_REQUEST_BYTES))
        .route("/add-checkpoint", web::post().to(add_checkpoint));
}

async fn add_checkpoint(seat: Data<Seat>, body: Bytes) -> HttpResponse {
    let seat = Seat::clone(&seat);
    // one at a time: what was seen is on disk before the next is looked at
    let answer = web::block(move || {
        let body = std::str::from_utf8(&body).map_err(|_| Refused::Malformed)?;
        let mut witness = seat.witness.lock().unwrap_or_else(PoisonError::into_inner);
        witness.add_checkpoint(body, seat.clock.now())
    })
    .await;
    let refused = match answer {
        Ok(Ok(line)) => return HttpResponse::Ok().insert_header(TEXT).body(line),
        Ok(Err(refused)) => refused,
        Err(_) => return HttpResponse::InternalServerError().finish(),
    };
    let status = StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match &refused {
        Refused::Conflict(size) => {
            tracing::warn!(size, "refused: {refused}");
            HttpResponse::build(status)
                .insert_header((CONTENT_TYPE, "text/x.tlog.size"))
                .body(format!("{size}\n"))
        }
        Refused::Inconsistent | Refused::State(_) => {
            tracing::error!(error = &refused as &dyn std::error::Error, "refused");
            HttpResponse::build(status).insert_header(TEXT).body(format!("{refused}\n"))
        }
        Refused::Malformed | Refused::UnknownLog | Refused::Signature => {
            tracing::warn!("refused: {refused}");
            HttpResponse::build(status).insert_header(TEXT).body(format!("{refused}\n"))
        }
    }
}

const TEXT: (actix_web::http::header::HeaderName, &str) = (CONTENT_TYPE, "text/plain; charset=utf-8");
