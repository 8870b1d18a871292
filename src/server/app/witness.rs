//! `stagedoor audit witness`: a witness of other people's logs, run by a team that does not run the logs.

use std::fs::{DirBuilder, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use tokio::task::JoinHandle;

use super::AppError;
use crate::server::config::SecretSource;
use crate::server::http::witness::{Seat, configure};
use crate::server::log::note::NoteVerifier;
use crate::server::log::witness::{CosignatureVerifier, Cosigner, Witness};
use crate::server::master_key::{MasterKey, MasterKeyError, Purpose};
use crate::token::{Clock, Entropy};

/// What the cosigning key is derived for.
const COSIGNER: Purpose = Purpose::new("witness-cosigner.v1");

/// What a witness is started with.
#[derive(Debug)]
pub struct WitnessSetup {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its name, as cosignature lines carry it: a host and a path, without a scheme.
    pub name: String,
    /// The logs it knows, each by the key of one epoch.
    pub logs: Vec<NoteVerifier>,
    /// A directory of its own: its key, and the size and root of each log.
    pub state: PathBuf,
}

/// A witness that answers.
pub struct RunningWitness {
    /// Where.
    pub address: SocketAddr,
    /// The key others verify with.
    pub verifier: CosignatureVerifier,
    handle: ServerHandle,
    server: JoinHandle<std::io::Result<()>>,
    _lock: File,
}

impl RunningWitness {
    /// Lets requests under way finish.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        let _ = self.server.await;
    }
}

/// Starts a witness; makes its directory and key if they are not there.
///
/// # Errors
/// [`AppError`], saying what to do.
pub fn start_witness(
    setup: WitnessSetup,
    clock: Arc<dyn Clock>,
    entropy: &dyn Entropy,
) -> Result<RunningWitness, AppError> {
    let WitnessSetup { listen, name, logs, state } = setup;
    let unusable = || AppError::failed("the witness's --state directory cannot be used");
    DirBuilder::new().recursive(true).mode(0o700).create(&state).map_err(unusable())?;
    // two witnesses over one state could each sign one side of a fork
    let lock = File::create(state.join("lock")).map_err(unusable())?;
    lock.try_lock().map_err(|_| {
        AppError::Refused(
            "another witness uses this --state directory; stop it, or give this one its own".into(),
        )
    })?;
    let path = state.join("witness.key");
    let key = match MasterKey::load(&SecretSource::File(path.clone())) {
        Err(MasterKeyError::Missing(_)) => MasterKey::create(&path, entropy),
        loaded => loaded,
    };
    let key = key.map_err(AppError::failed("the witness's key cannot be used"))?;
    let cosigner = Cosigner::from_seed(&key.mac(COSIGNER, b"ed25519"), &name)
        .map_err(|_| AppError::Refused("--name must not be empty nor contain spaces or +".into()))?;
    let verifier = cosigner.verifier().clone();
    let listener = TcpListener::bind(listen)
        .map_err(|e| AppError::Refused(format!("cannot listen on {listen}: {e}; choose another --listen")))?;
    let address = listener.local_addr().map_err(AppError::failed("cannot read the listener's address"))?;
    let seat = Data::new(Seat::new(Witness::new(cosigner, logs, state), clock));
    let server = HttpServer::new(move || App::new().app_data(seat.clone()).configure(configure))
        .workers(1)
        .disable_signals()
        .listen(listener)
        .map_err(AppError::failed("the listener cannot be used"))?
        .run();
    let handle = server.handle();
    Ok(RunningWitness { address, verifier, handle, server: tokio::spawn(server), _lock: lock })
}

/// Serves as a witness until a signal comes; `ready` is told when it answers.
///
/// # Errors
/// [`AppError`], saying what to do.
pub async fn witness(
    setup: WitnessSetup,
    clock: Arc<dyn Clock>,
    entropy: &dyn Entropy,
    ready: impl FnOnce(&RunningWitness),
) -> Result<(), AppError> {
    let mut stop = super::StopSignals::watch()?;
    let running = start_witness(setup, clock, entropy)?;
    ready(&running);
    stop.told().await;
    running.stop().await;
    Ok(())
}
