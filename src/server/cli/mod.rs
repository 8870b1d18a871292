//! The command line: one file a command, errors in one sentence, answers for people or (`--json`) programs.

mod api;
mod audit;
mod client;
pub mod conformance;
mod health;
mod init;
mod key;
mod log;
mod open;
mod output;
pub mod policy;
mod record;
mod revoke;
mod terminal;
mod token;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use super::app::{self, AppError};
use super::clients::ClientError;
use super::config::{Config, ConfigError, Environment, setting_names};
use super::keyring::KeyringError;
use super::log::erase::RemovalError;
use super::log::export::ExportError;
use super::log::verify::PublishedError;
use super::master_key::MasterKeyError;
use super::outbound::chain;
use super::store::StoreError;
use super::telemetry;
use crate::token::SystemClock;

/// The version, and the commit where the build was told which (`BUILD_COMMIT`, set by `scripts/release` and the image).
static VERSION: LazyLock<String> = LazyLock::new(|| match option_env!("BUILD_COMMIT") {
    Some(commit) if !commit.is_empty() => format!("{} ({commit})", env!("CARGO_PKG_VERSION")),
    _ => env!("CARGO_PKG_VERSION").to_owned(),
});

/// What `serve --help` says of settings.
static SETTINGS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "Settings, in stagedoor.toml or as STAGEDOOR_LISTEN, STAGEDOOR_POLICY__PATH … in the environment; what they mean \
         stands in docs/settings.md:\n  {}",
        setting_names().join("\n  ")
    )
});

/// Lets one person act as another: briefly, provably, never unseen.
#[derive(Debug, Parser)]
#[command(name = "stagedoor", version = VERSION.as_str(), propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    everywhere: Everywhere,
    #[command(subcommand)]
    command: Command,
}

/// Options every command takes.
#[derive(Debug, Clone, Args)]
struct Everywhere {
    /// Configuration file [default: ./stagedoor.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve on this machine alone, with nothing to set up: for trying things out
    Dev {
        /// Mint, verify and show one token over real HTTP, then stop
        #[arg(long)]
        once: bool,
    },
    /// Make the database, the keys and the master key file, or migrate the database; never writes over anything
    Init(init::Init),
    /// Serve
    #[command(after_help = SETTINGS.as_str())]
    Serve,
    /// API clients and their secrets
    #[command(subcommand)]
    Client(client::Command),
    /// Signing keys
    #[command(subcommand)]
    Key(key::Command),
    /// The issuance log
    #[command(subcommand)]
    Audit(audit::Command),
    /// The policy, looked at before it is used
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Actor tokens, against a running server
    #[command(subcommand)]
    Token(token::Command),
    /// The issuance log of a running server
    #[command(subcommand)]
    Log(log::Command),
    /// Send good and hostile tokens to a running service and say what it wrongly accepts
    Conformance(conformance::ConformanceArgs),
    /// Ask the configured listener whether it is alive; for container health checks
    Health,
    /// Print a script that completes commands and options in a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Why a command failed. The whole chain is printed, on one line.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Store(StoreError),
    /// The database did not answer.
    #[error("the database cannot be used; check DATABASE_URL, that it runs, and what its role may do")]
    Database(#[source] StoreError),
    #[error(transparent)]
    Conformance(#[from] conformance::ConformanceError),
    #[error(transparent)]
    Policy(#[from] policy::PolicyCommandError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Api(#[from] api::ApiError),
    /// What was done is not in the log.
    #[error("the change is made, but the log could not record it; run `stagedoor audit verify`")]
    Unrecorded(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing was done.
    #[error(
        "nothing was changed, as this is not the master key of the database: set MASTER_KEY_FILE to that of the server"
    )]
    OtherKey(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The log cannot be written or read.
    #[error("the issuance log cannot do it; `stagedoor audit verify` tells whether it holds")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Published(#[from] PublishedError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Removal(#[from] RemovalError),
    /// A file could not be used.
    #[error("{} cannot be used; check that it is there and may be read or written", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// Standard output went away.
    #[error("the answer could not be written")]
    Output(#[source] std::io::Error),
    /// No thread or file descriptor left.
    #[error("the process could not start its work; check the limits of this machine")]
    Runtime(#[source] std::io::Error),
    /// Anything else, in one sentence with what to do.
    #[error("{0}")]
    Refused(String),
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Database(error),
            // these say themselves what to do
            other => Self::Store(other),
        }
    }
}

/// What a command leaves behind.
type Outcome = Result<ExitCode, CliError>;

/// Runs one command. Exit codes: 0 done, 1 failed, 2 not understood (or, `audit verify`, could not look).
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // help and version are answers, the rest goes to standard error; a closed pipe changes nothing
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let could_not_look =
        matches!(arguments.command, Command::Audit(_) | Command::Conformance(_) | Command::Policy(_));
    match dispatch(arguments) {
        Ok(code) => code,
        // `… | head` closes the pipe early: that is no failure of ours
        Err(CliError::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let lines = chain(&error);
            eprintln!("error: {}", lines.lines().map(output::plain).collect::<Vec<_>>().join("\n"));
            ExitCode::from(match &error {
                CliError::Policy(error) => error.exit_code(),
                _ if could_not_look => 2,
                _ => 1,
            })
        }
    }
}

fn dispatch(arguments: Arguments) -> Outcome {
    let Arguments { everywhere, command } = arguments;
    let environment = Environment::from_process()?;
    // A command at a terminal says what is wrong, and nothing of what is normal.
    let quiet = |config: &mut Config| {
        if config.log_level == "info" {
            "warn".clone_into(&mut config.log_level);
        }
    };
    let serves = matches!(command, Command::Serve);
    let load = || -> Result<Config, ConfigError> {
        let mut config = Config::load(everywhere.config.as_deref(), &environment)?;
        if !serves {
            quiet(&mut config);
        }
        telemetry::init(&config, app::QUIET)?;
        if config.database_url.is_sqlite() && Environment::has_bare_database_url() {
            tracing::warn!(
                "DATABASE_URL is set and not read, so the database is SQLite: call it STAGEDOOR_DATABASE_URL"
            );
        }
        Ok(config)
    };
    match command {
        Command::Conformance(args) => waiting(async {
            let clock = Arc::new(SystemClock::default());
            Ok(ExitCode::from(conformance::run(args, clock, &mut std::io::stdout()).await?))
        }),
        Command::Dev { once } => {
            let config = load().map_err(|error| match error {
                // it would not help to write an issuer
                ConfigError::NoIssuer { listen, .. } => AppError::not_for_dev(listen).into(),
                other => CliError::from(other),
            })?;
            if once { serving(app::dev_once(config)) } else { serving(app::dev(config)) }
        }
        Command::Serve => serving(app::serve(load()?)),
        Command::Init(args) => waiting(init::run(&args, &load()?, everywhere.json)),
        Command::Client(command) => waiting(client::run(&command, &load()?, everywhere.json)),
        Command::Key(command) => waiting(key::run(&command, &load()?, everywhere.json)),
        Command::Audit(command) => at_work(audit::run(&command, &load()?, &environment, everywhere.json)),
        Command::Policy(command) => {
            let config = load()?;
            let configured = config.policy_path.as_deref();
            let (clock, mut input) = (SystemClock::default(), std::io::stdin());
            let mut out = std::io::stdout();
            match policy::run(&command, everywhere.json, configured, &clock, &mut input, &mut out) {
                Ok(code) => Ok(ExitCode::from(code)),
                Err(policy::PolicyCommandError::Output(error)) => Err(CliError::Output(error)),
                Err(error) => Err(error.into()),
            }
        }
        Command::Health => waiting(health::run(&load()?)),
        Command::Token(command) => {
            let environment = asking(command.asks_a_server(), environment.clone(), load)?;
            waiting(token::run(&command, &environment, everywhere.json))
        }
        Command::Log(command) => {
            let environment = asking(command.asks_a_server(), environment.clone(), load)?;
            waiting(log::run(&command, &environment, everywhere.json))
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "stagedoor", &mut script);
            output::print(String::from_utf8_lossy(&script).trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Where the server is when nobody says: where the configuration has it, as a secret goes there.
fn asking(
    nobody_says: bool,
    environment: Environment,
    load: impl FnOnce() -> Result<Config, ConfigError>,
) -> Result<Environment, CliError> {
    if !nobody_says || environment.url().is_some() {
        return Ok(environment);
    }
    let config = load()?;
    let url = format!("{}://{}", config.scheme(), health::reachable(config.listen)?);
    Ok(environment.with_url(url))
}

/// Runs what serves, on as many threads as there are processors.
fn serving(work: impl Future<Output = Result<(), AppError>>) -> Outcome {
    at_work(async {
        work.await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Runs a long command, on as many threads as there are processors.
fn at_work(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)?;
    runtime.block_on(work)
}

/// Runs a short command.
fn waiting(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
    runtime.block_on(work)
}
