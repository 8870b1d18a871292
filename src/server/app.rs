//! Wires the parts, serves them, and stops cleanly.

mod background;
mod dev;
mod parts;
mod signals;
mod witness;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use tokio::task::JoinHandle;

pub use super::http::QUIET;
use background::{background, follow_certificate, record_noise, warn_of_untold_glass};
pub use dev::{dev, dev_once};
pub use signals::StopSignals;
use signals::outlive_hangups;
pub use witness::{RunningWitness, WitnessSetup, start_witness, witness};

use super::checker::Checker;
use super::clients::{AcceptedSecrets, Clients};
use super::config::{Config, is_loopback};
use super::http::connections::{self, Connections, HEAD_WITHIN, KEEP_ALIVE};
use super::http::{self, edge};
use super::issue::{HandoffSecrets, InFlight, IssueDesk, TargetWatch};
use super::keyring::Keyring;
use super::limits::{FailureLimit, MintLimits, UsedAssertions};
use super::log::sightings::Sightings;
use super::log::{self, CheckpointSigner, Event, EventType, Log, LogOptions, Record};
use super::master_key::MasterKey;
use super::metrics::{Metrics, Noise};
use super::revoke::{Feed, PlaceLimits, RevocationState, Revoker, RevokerParts};
use super::service::Service;
use super::store::{self, Db, StoreError};
use super::ticket::TicketSystem;
use super::tls::Tls;
use crate::token::{Clock, Entropy, Issuer, SystemClock, SystemEntropy};

/// Stands in a database that `dev` made, which `serve` refuses.
pub(super) const DEV_STAMP: &str = "dev";
/// The name under which the newest epoch's log was served first.
const LOG_NAME: &str = "log_name";
/// The largest request body, bytes (contract.md §3).
const MAX_BODY_BYTES: usize = 16 * 1024;
/// How many new connections the kernel keeps until they are taken (it may keep fewer, `net.core.somaxconn`).
const MOST_TO_BE_TAKEN: i32 = 4096;
/// How often it is looked for connections that take their time.
const LOOK_FOR_SLOW_ONES_EVERY: Duration = Duration::from_secs(1);
/// How long requests under way may take to finish when the process is told to stop, seconds.
const DRAIN_SECONDS: u64 = 30;

/// Why the service does not start, or had to stop. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Something stands in the way; the sentence says what, and what to do.
    #[error("{0}")]
    Refused(String),
    /// A part failed.
    #[error("{0}")]
    Failed(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AppError {
    /// `dev` was told to listen where others reach it.
    #[must_use]
    pub fn not_for_dev(listen: SocketAddr) -> Self {
        Self::Refused(format!(
            "`stagedoor dev` listens on loopback only, not on {listen}; use `stagedoor serve` for other addresses"
        ))
    }

    fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        what: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed(what, source.into())
    }
}

/// What a service is built from; tests bring their own clock and randomness.
pub struct Setup {
    /// The settings.
    pub config: Config,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// `dev`: a stamped database, loopback only, test secrets.
    pub dev: bool,
    /// HTTP worker threads; `None`: one a core.
    pub workers: Option<usize>,
    /// How the log runs; `LOG_MAX_BYTES` is laid over it.
    pub log: LogOptions,
}

impl Setup {
    /// The machine's clock and randomness, for `serve`.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            clock: Arc::new(SystemClock::default()),
            entropy: Arc::new(SystemEntropy),
            dev: false,
            workers: None,
            log: LogOptions::default(),
        }
    }
}

/// What sends telemetry, and what ends it.
#[cfg(feature = "otel")]
type Exporting = (JoinHandle<()>, tokio::sync::oneshot::Sender<()>);

/// A service that answers.
pub struct Running {
    /// Where.
    pub address: SocketAddr,
    /// `http://` or `https://` and that.
    pub url: String,
    /// `iss`.
    pub issuer: Issuer,
    /// Its parts.
    pub service: Data<Service>,
    handles: Vec<ServerHandle>,
    servers: Vec<JoinHandle<std::io::Result<()>>>,
    background: Vec<JoinHandle<()>>,
    /// Ends by itself, once what is under way is kept.
    delivering: JoinHandle<()>,
    /// Ends when it is told, once what is left was sent.
    #[cfg(feature = "otel")]
    exporting: Option<Exporting>,
}

/// Starts the service: everything that can refuse does so before the first request is answered.
///
/// # Errors
/// [`AppError`], saying what to do.
pub async fn start(setup: Setup) -> Result<Running, AppError> {
    let config = &setup.config;
    let tls = config.tls.as_ref().map(Tls::open).transpose();
    let tls = tls.map_err(AppError::failed("TLS cannot be served"))?.map(Arc::new);
    let db = open_database(config, setup.dev).await?;
    let listener = TcpListener::bind(config.listen).map_err(|e| {
        AppError::Refused(format!(
            "cannot listen on {}: {e}; choose another address with STAGEDOOR_LISTEN",
            config.listen
        ))
    })?;
    let metrics = config.metrics_listen.map(|address| {
        TcpListener::bind(address)
            .map_err(|e| AppError::Refused(format!("cannot listen on {address} for metrics: {e}")))
    });
    let metrics = metrics.transpose()?;
    let address = listener.local_addr().map_err(AppError::failed("cannot read the listener's address"))?;
    let issuer = config.issuer_for(address).map_err(|e| AppError::Refused(e.to_string()))?;
    let service = Data::new(assemble(&setup, db, &issuer).await?);
    #[cfg(feature = "otel")]
    let exporting = export(config, &service)?;
    // who restarts a service whose log is full needs its red button
    let record = Record::of(Event::new(EventType::Start)).from_the_reserve();
    service.log.record(record).await.map_err(AppError::failed("the log cannot record the start"))?;

    let mut running = Running {
        address,
        url: format!("{}://{address}", config.scheme()),
        issuer,
        service: service.clone(),
        handles: Vec::new(),
        servers: Vec::new(),
        background: background(&service, config),
        #[cfg(feature = "otel")]
        exporting,
        delivering: tokio::spawn({
            let service = service.clone();
            async move { service.webhooks.run().await }
        }),
    };
    warn_of_untold_glass(&service);
    running.serve(listener, setup.workers, tls.as_deref(), false)?;
    running.background.extend(tls.map(|tls| tokio::spawn(follow_certificate(tls))));
    if let Some(metrics) = metrics {
        running.serve(metrics, Some(1), None, true)?;
    }
    Ok(running)
}

async fn open_database(config: &Config, dev: bool) -> Result<Db, AppError> {
    let db = Db::connect(config.database_url.expose()).await.map_err(refused)?;
    store::check_migrated(&db).await.map_err(refused)?;
    store::check_service_role(&db).await.map_err(refused)?;
    match (db.meta(DEV_STAMP).await.map_err(refused)?.is_some(), dev) {
        (true, false) => Err(AppError::Refused(
            "this database was made by `stagedoor dev`, and `serve` does not take it; run `stagedoor init` on an empty one".into(),
        )),
        (false, true) => Err(AppError::Refused(
            "this database was not made by `stagedoor dev`; give dev a DATA_DIR of its own".into(),
        )),
        _ => Ok(db),
    }
}

/// What the database said, with its causes: the operator has to act on it.
fn refused(error: StoreError) -> AppError {
    AppError::Refused(http::problem::chain(&error))
}

async fn assemble(setup: &Setup, db: Db, issuer: &Issuer) -> Result<Service, AppError> {
    let Setup { config, clock, entropy, dev, .. } = setup;
    let master =
        MasterKey::load(&config.master_key).map_err(AppError::failed("the master key cannot be read"))?;
    let keyring = Keyring::load(&db, &master, clock.clone()).await;
    let keyring = Arc::new(keyring.map_err(AppError::failed("the keys cannot be used"))?);
    let accepted = if *dev { AcceptedSecrets::LiveAndTest } else { AcceptedSecrets::LiveOnly };
    let console = parts::console(config, issuer, *dev, &master, entropy.clone(), clock.clone())?;
    let clients = Clients::load(&db, &master, accepted).await.map_err(refused)?;
    let log = open_log(setup, &db, &keyring, issuer).await?;
    let outbound = parts::outbound(config)?;
    let state = RevocationState::load(db.clone(), clock.clone(), log.epoch(), None).await;
    let revocations = Arc::new(state.map_err(refused)?);
    let feed = Feed::new(issuer.clone(), revocations.clone(), keyring.clone(), PlaceLimits::default());
    let gates = parts::gates(config, issuer, keyring.token_keys(), revocations.clone(), clock.clone())?;
    let checker = Checker::new(issuer.clone(), keyring.token_keys(), revocations.clone(), clock.clone());
    let checker = Arc::new(checker.map_err(AppError::failed("our own tokens cannot be verified"))?);
    let clients = Arc::new(clients);
    let secrets = HandoffSecrets::new(&master);
    let limits = Arc::new(MintLimits::per_minute(config.client_rate, config.actor_rate));
    let revoker = Arc::new(Revoker::new(RevokerParts {
        log: log.clone(),
        state: revocations.clone(),
        issuer: issuer.clone(),
        clients: clients.clone(),
        keyring: keyring.clone(),
        limits: limits.clone(),
        keys_changed: Box::new({
            let (checker, gates, issuer) = (checker.clone(), gates.verifier().clone(), issuer.clone());
            move |keyring| {
                checker.set_keys(keyring.token_keys());
                gates.set_keys(&issuer, keyring.token_keys());
            }
        }),
        master,
        clock: clock.clone(),
        entropy: entropy.clone(),
    }));
    let webhooks = parts::webhooks(config, issuer, &log, &outbound, (clock.clone(), &**entropy)).await?;
    let desk = IssueDesk {
        clock: clock.clone(),
        entropy: entropy.clone(),
        issuer: issuer.clone(),
        actors: Arc::new(parts::actors(config, issuer, &outbound, clock.clone())?),
        directory: Arc::new(parts::directory(config, &outbound, clock.clone())?),
        policy: Arc::new(parts::policy(config, *dev)?),
        keyring: keyring.clone(),
        log: log.clone(),
        checker: checker.clone(),
        people: revoker.people().clone(),
        clients: clients.clone(),
        revocations: revocations.clone(),
        revoker: revoker.clone(),
        secrets,
        in_flight: InFlight::default(),
        limits,
        watch: TargetWatch::new(config.anomaly, log.clone(), clock.clone()),
        notified: webhooks.tell_of_grants(),
        on_verify: config.policy_on_verify,
        tickets: config.ticket.as_ref().map(|ticket| TicketSystem::new(ticket, outbound.clone())),
    };
    Ok(Service {
        sightings: Sightings::default(),
        witnesses: parts::witnesses(config, &outbound)?,
        witness_deadline: config.witness_deadline,
        clock: clock.clone(),
        entropy: entropy.clone(),
        db,
        clients,
        keyring,
        log,
        desk,
        checker,
        revocations,
        revoker,
        feed: Arc::new(feed),
        gates,
        webhooks,
        assertions: UsedAssertions::default(),
        draining: AtomicBool::new(false),
        metrics: Metrics::default(),
        noise: Noise::default(),
        failures: FailureLimit::default(),
        trusted_proxies: config.trusted_proxies.clone(),
        loopback_hosts_only: *dev,
        console,
        metrics_here: config.metrics_listen.is_none() && is_loopback(config.listen.ip()),
    })
}

async fn open_log(setup: &Setup, db: &Db, keyring: &Keyring, issuer: &Issuer) -> Result<Log, AppError> {
    let seed = keyring.log_seed().map_err(AppError::failed("the log's key cannot be used"))?;
    let epoch = log::current_epoch(db).await.map_err(refused)?;
    let signer = CheckpointSigner::from_seed(&seed, log_host(issuer), epoch)
        .map_err(AppError::failed("the log's key cannot be used"))?;
    let options = LogOptions {
        replica: std::process::id().to_string(),
        max_bytes: setup.config.log_max_bytes,
        ..setup.log.clone()
    };
    let log = Log::open(db.clone(), signer, setup.clock.clone(), setup.entropy.clone(), options)
        .await
        .map_err(AppError::failed("the log cannot be used; run `stagedoor audit verify` to see why"))?;
    same_name(setup, db, &log).await?;
    Ok(log)
}

/// A log keeps the name that its auditors know: under another its checkpoints would look forged to them. `dev` has none,
/// and an address that nobody chose is no name.
async fn same_name(setup: &Setup, db: &Db, log: &Log) -> Result<(), AppError> {
    if setup.dev || (setup.config.issuer.is_none() && setup.config.listen.port() == 0) {
        return Ok(());
    }
    let (name, of_this_epoch) = (log.origin(), format!("/audit/{}", log.epoch()));
    match db.meta(LOG_NAME).await.map_err(refused)? {
        Some(known) if known == name => Ok(()),
        Some(known) if known.ends_with(&of_this_epoch) => Err(AppError::Refused(format!(
            "the log is known as {known}, and with this ISSUER it would be {name}: set ISSUER (or LISTEN, where it is not set) as it \
             was, or begin a new epoch under the new name with `stagedoor audit epoch --reason renamed`"
        ))),
        _ => db.set_meta(LOG_NAME, name).await.map_err(refused),
    }
}

/// The log's name begins with the issuer's host and path, without the scheme.
pub fn log_host(issuer: &Issuer) -> &str {
    issuer.as_str().split_once("://").map_or(issuer.as_str(), |(_, rest)| rest)
}

impl Running {
    fn serve(
        &mut self,
        listener: TcpListener,
        workers: Option<usize>,
        tls: Option<&Tls>,
        metrics_only: bool,
    ) -> Result<(), AppError> {
        let service = self.service.clone();
        // the standard library asks for 128; what comes beyond waits for a second and asks again
        rustix::net::listen(&listener, MOST_TO_BE_TAKEN)
            .map_err(AppError::failed("the listener cannot be used"))?;
        let connections = Connections::new(service.clock.clone());
        self.background.push(tokio::spawn({
            let connections = Arc::clone(&connections);
            async move {
                loop {
                    tokio::time::sleep(LOOK_FOR_SLOW_ONES_EVERY).await;
                    connections.end_slow_ones();
                }
            }
        }));
        let workers =
            workers.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
        let server = HttpServer::new(move || {
            App::new()
                .app_data(service.clone())
                .app_data(web::PayloadConfig::new(MAX_BODY_BYTES))
                .wrap(from_fn(edge::edge))
                .configure(if metrics_only { http::configure_metrics } else { http::configure })
                .default_service(web::to(http::no_such_path))
        })
        .disable_signals()
        .shutdown_timeout(DRAIN_SECONDS)
        .on_connect(move |io, data| connections.opened(io, data))
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_WITHIN)
        .workers(workers)
        .max_connections(connections::most(workers));
        let server = match tls {
            None => server.listen(listener),
            Some(tls) => {
                let tls = tls.server_config().map_err(AppError::failed("TLS cannot be served"))?;
                server.listen_rustls_0_23(listener, tls)
            }
        };
        let server = server.map_err(AppError::failed("the listener cannot be used"))?.run();
        self.handles.push(server.handle());
        self.servers.push(tokio::spawn(server));
        Ok(())
    }

    /// Resolves when the log had to stop: what it holds is not what this process saw committed.
    pub async fn fatal(&self) -> String {
        self.service.log.fatal().await.to_string()
    }

    /// Lets requests under way finish, writes the `stop` entry, closes the log.
    ///
    /// # Errors
    /// [`AppError`] when the log could not record the stop.
    pub async fn stop(self) -> Result<(), AppError> {
        // streams never end by themselves
        self.service.feed.close();
        for handle in &self.handles {
            handle.stop(true).await;
        }
        for server in self.servers {
            let _ = server.await;
        }
        self.service.webhooks.close();
        let _ = self.delivering.await;
        #[cfg(feature = "otel")]
        if let Some((exporting, close)) = self.exporting {
            let _ = close.send(());
            let _ = exporting.await;
        }
        for task in &self.background {
            task.abort();
        }
        record_noise(&self.service).await;
        let stop = Record::of(Event::new(EventType::Stop)).from_the_reserve();
        self.service.log.record(stop).await.map_err(AppError::failed("the log cannot record the stop"))?;
        self.service.log.close().await;
        Ok(())
    }
}

/// Sends traces and metrics to the collector, where one is configured.
#[cfg(feature = "otel")]
fn export(config: &Config, service: &Data<Service>) -> Result<Option<Exporting>, AppError> {
    let Some(otlp) = &config.otlp else { return Ok(None) };
    let exporter =
        super::telemetry::otlp::Exporter::new(otlp, parts::outbound(config)?, service.clock.clone());
    let (close, closed) = tokio::sync::oneshot::channel();
    let service = service.clone();
    let exporting = tokio::spawn(async move {
        let render = || service.metrics.render(&service.observed());
        let closed = async {
            let _ = closed.await;
        };
        exporter.run(render, closed).await;
    });
    Ok(Some((exporting, close)))
}

/// `stagedoor serve`.
///
/// # Errors
/// [`AppError`], saying what to do.
pub async fn serve(config: Config) -> Result<(), AppError> {
    connections::allow_many();
    if config.key_beside_database() {
        tracing::warn!(
            "master key and database share a directory: one theft takes both; set MASTER_KEY_FILE to a file outside DATA_DIR"
        );
    }
    let no_reserve = !config.database_url.is_sqlite() && config.log_max_bytes.is_none();
    let (stop, drain_delay) = (StopSignals::watch()?, config.drain_delay);
    let running = start(Setup::new(config)).await?;
    if no_reserve {
        tracing::warn!(
            "LOG_MAX_BYTES is not set, so no space is kept for revocations: a disk that is full stops them, too; set it to how large the log may grow"
        );
    }
    println!("listening on {}", running.url);
    until_told(running, stop, drain_delay).await
}

/// Serves until a signal comes or the log had to stop. For `drain_delay` after a signal new requests are still taken,
/// while `/readyz` says no. A second signal changes nothing: it is stopping already.
async fn until_told(running: Running, mut stop: StopSignals, drain_delay: Duration) -> Result<(), AppError> {
    tokio::spawn(outlive_hangups());
    let fatal = tokio::select! {
        () = stop.told() => None,
        why = running.fatal() => Some(why),
    };
    match fatal {
        None => {
            running.service.draining.store(true, Ordering::Relaxed);
            tokio::time::sleep(drain_delay).await;
            running.stop().await
        }
        Some(why) => Err(AppError::Refused(format!(
            "the issuance log is not what this process saw committed ({why}); nothing more is issued. \
             Run `stagedoor audit verify`, restore the database or begin a new epoch with `stagedoor audit epoch`"
        ))),
    }
}
