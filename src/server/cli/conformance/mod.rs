//! `stagedoor conformance`: sends good and hostile tokens to a running service and says what it got wrong.

pub mod cases;
pub mod forge;
pub mod keys;
pub mod report;
pub mod send;
pub mod serve;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use cases::{Case, Expect, Level, Presented, Request, good_set, hostile_set};
use forge::Subject;
use keys::{KeyFileError, TestKey};
use report::{Finding, Report};
use send::{Observed, Target, TargetError};
use serve::{Feed, KeyServer};

use crate::token::{Alg, Clock};

/// Answers in a row that may be missing before the service counts as gone.
const MAX_SILENCE: usize = 3;

/// `stagedoor conformance`: sends good and hostile tokens to a running service and says what it got wrong.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ConformanceArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<RunArgs>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes test keys: a private key file for this program, a JWKS file for the service under test.
    Keygen(KeygenArgs),
}

#[derive(Debug, Args)]
struct KeygenArgs {
    /// The private key file to make (0600); an existing one is not touched.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The public key set to make.
    #[arg(long, value_name = "FILE")]
    jwks: PathBuf,
    /// The algorithm that signs; keys of the other two are published beside it, to be confused with it.
    #[arg(long, value_enum, default_value_t = SigningAlg::Es256)]
    alg: SigningAlg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SigningAlg {
    #[value(name = "ES256")]
    Es256,
    #[value(name = "RS256")]
    Rs256,
    #[value(name = "EdDSA")]
    EdDsa,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Impersonation {
    #[value(name = "200")]
    Admitted,
    #[value(name = "403")]
    Refused,
}

/// What to test.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The route to ask (GET).
    #[arg(long, value_name = "URL")]
    target: String,
    /// The audience that the service takes for its own.
    #[arg(long, value_name = "URI")]
    audience: String,
    /// The issuer of actor tokens as the service knows it; by default the server of `--serve-jwks`.
    #[arg(long, value_name = "ISS", required_unless_present = "serve_jwks")]
    issuer: Option<String>,
    /// The issuer of ordinary tokens, if the service trusts one with the same keys; by default `/home` of the
    /// server of `--serve-jwks` when that is the issuer.
    #[arg(long, value_name = "ISS")]
    home_issuer: Option<String>,
    /// Private keys (PKCS#8 PEM) whose public halves the service has; the first one signs. Made anew when
    /// they are served here.
    #[arg(long, value_name = "FILE", required_unless_present = "serve_jwks")]
    key: Option<PathBuf>,
    /// The `kid` under which the service knows the first key; by default its RFC 7638 thumbprint.
    #[arg(long, value_name = "KID", requires = "key")]
    kid: Option<String>,
    /// Serves the public keys (`/.well-known/jwks.json`, metadata beside it) while the run lasts.
    #[arg(long, value_name = "ADDR")]
    serve_jwks: Option<SocketAddr>,
    /// The service follows the issuer's feed of revocations, which is served too (`/v1/revocations`): tokens that stand
    /// in it are sent as well.
    #[arg(long, requires = "serve_jwks")]
    revocations: bool,
    /// A header that every request carries.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// What the route answers to a good actor token.
    #[arg(long, value_enum, default_value = "200", value_name = "STATUS")]
    allow_impersonation: Impersonation,
    /// The user that good tokens name.
    #[arg(long, default_value = "user_42")]
    user: String,
    /// The actor that good actor tokens name.
    #[arg(long, default_value = "admin_7")]
    actor: String,
    /// The scopes of good tokens.
    #[arg(long, default_value = "read")]
    scope: String,
    /// How many seconds of clock difference the service forgives.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(i64).range(0..=120))]
    leeway: i64,
    /// Laxity without a known attack counts too.
    #[arg(long)]
    strict: bool,
    /// Only cases whose name begins so (`alg-none`, `act`).
    #[arg(long, value_name = "PREFIX")]
    only: Vec<String>,
    /// Waits until the service answers, at most so long.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    wait: u16,
    /// How long one answer may take.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=60))]
    timeout: u16,
    /// Writes `JUnit`'s XML too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// One JSON document in the place of the table.
    #[arg(long)]
    json: bool,
}

/// Why it could not be told whether the service conforms (exit code 2).
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// Neither a subcommand nor a target.
    #[error("nothing to do: give --target and --audience, or `keygen`")]
    Nothing,
    /// The key file.
    #[error("{path}: {source}")]
    Key {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: KeyFileError,
    },
    /// Keys could not be made.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing could be written to the terminal.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
    /// The keys could not be served.
    #[error("cannot serve keys on {0}: {1}")]
    Serve(SocketAddr, #[source] io::Error),
    /// What was asked to be tested.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Nobody answers.
    #[error("{url} does not answer ({what}): start the service first, or give --wait")]
    Down {
        /// The service.
        url: String,
        /// What was seen.
        what: String,
    },
    /// No case has such a name.
    #[error("no case has a name that begins so")]
    NoCase,
}

/// Runs the command. `Ok` is the exit code: 0 nothing wrong, 1 something wrong; `Err` is 2, could not look.
pub async fn run(
    args: ConformanceArgs,
    clock: Arc<dyn Clock>,
    out: &mut (dyn Write + Send),
) -> Result<u8, ConformanceError> {
    match (args.command, args.run) {
        (Some(Command::Keygen(keygen)), _) => make_keys(&keygen, out).map(|()| 0),
        (None, Some(run)) => {
            let report = test(&run, &clock).await?;
            if run.json {
                report.write_json(out)?;
            } else {
                report.write_table(out)?;
            }
            if let Some(path) = &run.junit {
                fs::write(path, report.to_junit()).map_err(|source| file_error(path, source))?;
            }
            Ok(u8::from(!report.holds()))
        }
        (None, None) => Err(ConformanceError::Nothing),
    }
}

fn file_error(path: &Path, source: io::Error) -> ConformanceError {
    ConformanceError::File { path: path.display().to_string(), source }
}

/// Keys of all three kinds, the one that signs first: a service that has only one kind cannot be confused.
fn generate(first: Alg) -> Result<Vec<TestKey>, KeyFileError> {
    let others = Alg::SIGNING.into_iter().filter(|alg| *alg != first);
    std::iter::once(first).chain(others).map(TestKey::generate).collect()
}

fn make_keys(args: &KeygenArgs, out: &mut dyn Write) -> Result<(), ConformanceError> {
    let first = match args.alg {
        SigningAlg::Es256 => Alg::Es256,
        SigningAlg::Rs256 => Alg::Rs256,
        SigningAlg::EdDsa => Alg::EdDsa,
    };
    let keys = generate(first)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.out)
        .map_err(|source| file_error(&args.out, source))?;
    for key in &keys {
        file.write_all(key.to_pem()?.as_bytes()).map_err(|source| file_error(&args.out, source))?;
    }
    let jwks = keys::jwks(&keys).to_string();
    fs::write(&args.jwks, jwks).map_err(|source| file_error(&args.jwks, source))?;
    writeln!(out, "private keys: {}", args.out.display())?;
    writeln!(out, "public keys:  {}", args.jwks.display())?;
    writeln!(
        out,
        "Give the service under test the public keys; never let a service of yours trust them in production."
    )?;
    Ok(())
}

async fn test(args: &RunArgs, clock: &Arc<dyn Clock>) -> Result<Report, ConformanceError> {
    let timeout = Duration::from_secs(args.timeout.into());
    let target = Target::new(&args.target, &args.headers, timeout)?;
    let keys = match &args.key {
        None => generate(Alg::Es256)?,
        Some(path) => read_keys(path, args.kid.as_deref())?,
    };
    let attacker = TestKey::generate(keys[0].alg())?;
    let feed = args.revocations.then(|| TestKey::generate(Alg::Es256)).transpose()?;
    let feed = feed.map(|key| Feed { key, clock: Arc::clone(clock) });
    let server = match args.serve_jwks {
        None => None,
        Some(address) => Some(
            KeyServer::start(address, &keys, &attacker, feed)
                .map_err(|error| ConformanceError::Serve(address, error))?,
        ),
    };
    let issuing = server.as_ref().filter(|_| args.issuer.is_none());
    let subject = Subject {
        issuer: args.issuer.clone().or(issuing.map(|s| s.issuer().to_owned())).unwrap_or_default(),
        home_issuer: args.home_issuer.clone().or(issuing.map(KeyServer::home_issuer)),
        audience: args.audience.clone(),
        user: args.user.clone(),
        actor: args.actor.clone(),
        scope: args.scope.clone(),
        admits_impersonation: args.allow_impersonation == Impersonation::Admitted,
        keys,
        attacker,
        // Port 9 discards: nobody publishes keys there.
        attacker_url: server
            .as_ref()
            .map_or("http://127.0.0.1:9/jwks.json".to_owned(), KeyServer::attacker_url),
        serves_feed: args.revocations,
        now: clock.now(),
        leeway_seconds: args.leeway,
    };
    wait_for(&target, Duration::from_secs(args.wait.into())).await?;
    if args.revocations
        && let Some(server) = &server
    {
        wait_for_reader(server).await;
    }
    // Waiting may have taken long: the tokens' present is the moment of sending.
    let subject = Subject { now: clock.now(), ..subject };
    let mut cases: Vec<Case> = good_set(&subject).into_iter().chain(hostile_set(&subject)).collect();
    if !args.only.is_empty() {
        cases.retain(|case| args.only.iter().any(|prefix| case.id.starts_with(prefix)));
    }
    if cases.is_empty() {
        return Err(ConformanceError::NoCase);
    }
    let mut findings = probe(&target, &cases).await?;
    if let Some(server) = server {
        findings.push(trap_finding(&server));
        server.stop().await;
    }
    Ok(Report { target: target.url().to_owned(), strict: args.strict, findings })
}

fn read_keys(path: &Path, kid: Option<&str>) -> Result<Vec<TestKey>, ConformanceError> {
    let text = zeroize::Zeroizing::new(fs::read_to_string(path).map_err(|source| file_error(path, source))?);
    let mut keys = keys::read_pem(&text)
        .map_err(|source| ConformanceError::Key { path: path.display().to_string(), source })?;
    if let Some(kid) = kid {
        let first = keys.remove(0).named(kid);
        keys.insert(0, first);
    }
    Ok(keys)
}

/// Waits until the feed was fetched a second time, so that the first answer was taken; for a while only: whoever does
/// not fetch it is told so by the cases.
async fn wait_for_reader(server: &KeyServer) {
    for _ in 0..200 {
        if server.feed_was_asked() > 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends every case in order and judges the answers.
///
/// # Errors
/// The service is gone: it left several requests in a row without an answer.
pub async fn probe(target: &Target, cases: &[Case]) -> Result<Vec<Finding>, ConformanceError> {
    let mut findings = Vec::with_capacity(cases.len());
    let mut silence = 0;
    for case in cases {
        let observed = target.send(case).await;
        silence = match &observed {
            Observed::NoAnswer(_) if case.expect != Expect::RefuseUnread => silence + 1,
            _ => 0,
        };
        if let Observed::NoAnswer(what) = &observed
            && silence == MAX_SILENCE
        {
            return Err(ConformanceError::Down {
                url: target.url().to_owned(),
                what: format!("{what}, since {}", case.id),
            });
        }
        findings.push(Finding::of(case, observed));
    }
    Ok(findings)
}

/// Asks without a token until something answers.
async fn wait_for(target: &Target, at_most: Duration) -> Result<(), ConformanceError> {
    const PAUSE: Duration = Duration::from_millis(200);
    let hello = Case {
        group: "request",
        id: "hello".to_owned(),
        why: String::new(),
        expect: Expect::Either,
        level: Level::Should,
        presented: Presented::Request(Request::default()),
    };
    let mut waited = Duration::ZERO;
    loop {
        match target.send(&hello).await {
            Observed::NoAnswer(what) if waited >= at_most => {
                return Err(ConformanceError::Down { url: target.url().to_owned(), what });
            }
            Observed::NoAnswer(_) => {
                tokio::time::sleep(PAUSE).await;
                waited += PAUSE;
            }
            _ => return Ok(()),
        }
    }
}

/// Whether the service fetched keys from where a token told it to.
fn trap_finding(server: &KeyServer) -> Finding {
    let case = Case {
        group: "header",
        id: "header-keys-fetched".to_owned(),
        why: "the service fetched the key set that a token's `jku`, `x5u` or `kid` named".to_owned(),
        expect: Expect::Refuse,
        level: Level::Must,
        presented: Presented::Request(Request::default()),
    };
    let status = if server.was_trapped() { 200 } else { 401 };
    Finding::of(&case, Observed::Status(status))
}
