//! Faults against the real process, under load, with the log checked after each: see `scripts/faults`.
//!
//! A program, not a test: it takes half an hour and wants root. Cargo builds it with the tests and runs it only
//! when it is named.

#![expect(clippy::disallowed_methods, reason = "a tool: it reads the machine's clock and its own arguments")]

mod book;
mod check;
mod controls;
mod guards;
mod kinds;
mod load;
#[path = "../support/pg.rs"]
mod pg;
mod proxy;
mod rng;
mod site;
mod standby;
mod strace;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use check::{Found, check};
use controls::Control;
use kinds::{Injected, Kind};
use rng::Rng;
use site::{Place, Site};
use standby::Standby;

/// Injects faults into the real service under load, and checks the log after each.
#[derive(Debug, Parser)]
struct Options {
    /// How many runs; the catalogue is gone through again where they are more
    #[arg(long, default_value_t = 220)]
    runs: usize,
    /// Where chance begins; each run's own seed follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only kinds whose name contains one of these, separated by commas
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// Only this database
    #[arg(long, value_parser = ["sqlite", "postgres"])]
    database: Option<String>,
    /// Name the kinds and stop
    #[arg(long)]
    list: bool,
    /// Where the verdicts go
    #[arg(long, default_value = "bench/faults.json")]
    out: PathBuf,
    /// Keep the verdicts that are there, and add to them
    #[arg(long)]
    append: bool,
    /// What `cargo test` hands to every test program
    #[arg(hide = true)]
    _rest: Vec<String>,
}

/// One thing to do.
#[derive(Debug, Clone, Copy)]
enum Run {
    Fault(Kind),
    Control(Control),
    Standby(Standby),
}

impl Run {
    fn name(self) -> String {
        match self {
            Self::Fault(kind) => kind.to_string(),
            Self::Control(control) => format!("control-answered-{}", control.name()),
            Self::Standby(standby) => format!("standby-{}", kinds::dashed(&standby)),
        }
    }
}

/// What can be done, and how often among about two hundred runs.
fn catalogue() -> Vec<(Run, Place, usize)> {
    let mut all: Vec<_> =
        kinds::catalogue().into_iter().map(|(kind, place, n)| (Run::Fault(kind), place, n)).collect();
    all.extend([
        (Run::Control(Control::BeforeCommit), Place::Postgres(1), 2),
        (Run::Control(Control::BeforeCommit), Place::Postgres(3), 2),
        (Run::Control(Control::BeforeWrite), Place::Sqlite, 2),
        (Run::Control(Control::AfterFlush), Place::Sqlite, 3),
        (Run::Control(Control::BeforeFlush), Place::Sqlite, 2),
        (Run::Standby(Standby::Synchronous), Place::Postgres(3), 3),
        (Run::Standby(Standby::SynchronousAway), Place::Postgres(1), 1),
        (Run::Standby(Standby::Asynchronous), Place::Postgres(3), 3),
    ]);
    all
}

/// The runs, in an order that chance makes and the seed repeats.
fn plan(options: &Options) -> Vec<(Run, Place)> {
    let wanted = |run: Run, place: Place| {
        let name = run.name();
        (options.kinds.is_empty() || options.kinds.iter().any(|part| name.contains(part.as_str())))
            && options.database.as_ref().is_none_or(|database| database == place.database())
    };
    let mut once: Vec<_> = catalogue()
        .into_iter()
        .filter(|(run, place, _)| wanted(*run, *place))
        .flat_map(|(run, place, n)| std::iter::repeat_n((run, place), n))
        .collect();
    let mut rng = Rng::new(options.seed);
    for i in (1..once.len()).rev() {
        once.swap(i, usize::try_from(rng.between(0, i as u64)).expect("small"));
    }
    once.into_iter().cycle().take(options.runs).collect()
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for (run, place, n) in catalogue() {
            println!(
                "{:<36} {:<9} {} replicas  {n} of about 200",
                run.name(),
                place.database(),
                place.replicas()
            );
        }
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(all(&options))
}

async fn all(options: &Options) -> ExitCode {
    let foreign = check::foreign_verifier();
    if foreign.is_none() {
        println!(
            "SKIP the foreign verifier: Go's sumdb is not installed (golang-go, golang-golang-x-mod-dev)"
        );
    }
    let plan = plan(options);
    let mut seeds = Rng::new(options.seed ^ 0x5eed);
    let mut sites = HashMap::new();
    let mut verdicts = if options.append { written(&options.out) } else { Vec::new() };
    let (before, mut bad) = (verdicts.len(), verdicts.iter().filter(|verdict| !is_good(verdict)).count());
    for (n, (run, place)) in plan.iter().enumerate() {
        let seed = seeds.next();
        let began = Instant::now();
        let ran = one(*run, *place, &mut sites, foreign.as_deref(), seed);
        let verdict = match std::panic::AssertUnwindSafe(ran).catch_unwind().await {
            Ok(verdict) => verdict,
            Err(_) => {
                sites.remove(place);
                json!({ "verdict": "COULD NOT RUN" })
            }
        };
        let mut line = json!({ "run": before + n + 1, "kind": run.name(), "database": place.database(), "replicas": place.replicas(), "seed": format!("{seed:x}") });
        for (key, value) in verdict.as_object().expect("an object") {
            line[key] = value.clone();
        }
        let good = is_good(&line);
        bad += usize::from(!good);
        println!(
            "{:>3}/{} {:<32} {:<8} x{} {} ({:.1} s) {}",
            n + 1,
            plan.len(),
            run.name(),
            place.database(),
            place.replicas(),
            line["verdict"].as_str().unwrap_or_default(),
            began.elapsed().as_secs_f64(),
            if good { line["at"].to_string() } else { line.to_string() },
        );
        verdicts.push(line);
        write(options, foreign.is_some(), &verdicts, bad);
    }
    drop(sites);
    site::tidy();
    println!("{} runs, {bad} bad; verdicts in {}", plan.len(), options.out.display());
    ExitCode::from(u8::from(bad > 0))
}

fn is_good(verdict: &Value) -> bool {
    matches!(verdict["verdict"].as_str(), Some("holds" | "caught"))
}

/// The verdicts in a file of an earlier run.
fn written(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("verdicts to add to");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    all["verdicts"].as_array().cloned().unwrap_or_default()
}

async fn one(
    run: Run,
    place: Place,
    sites: &mut HashMap<Place, Site>,
    foreign: Option<&Path>,
    seed: u64,
) -> Value {
    let mut rng = Rng::new(seed);
    match run {
        Run::Standby(standby) => {
            let outcome = standby.run(place.replicas(), foreign, &mut rng).await;
            let injected = Injected { at: outcome.at, heard: outcome.heard, violations: Vec::new() };
            verdict(&injected, &outcome.found, false)
        }
        Run::Control(control) => {
            // a log that was lied to is of no use to anybody else
            let mut site = Site::new(place, None).await;
            site.start_all().await.expect("the service starts");
            let injected = control.inject(&mut site, &mut rng).await;
            judged(&mut site, injected, foreign, control.must_be_caught()).await
        }
        Run::Fault(kind) => {
            let site = match sites.entry(place) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(gap) => gap.insert(Site::new(place, None).await),
            };
            site.start_all().await.expect("the service starts");
            let injected = kind.inject(site, &mut rng).await;
            let verdict = judged(site, injected, foreign, false).await;
            if verdict["verdict"] != "holds" {
                // what is broken would break every run that follows
                sites.remove(&place);
            }
            verdict
        }
    }
}

async fn judged(
    site: &mut Site,
    mut injected: Injected,
    foreign: Option<&Path>,
    must_be_caught: bool,
) -> Value {
    let heard = std::mem::take(&mut injected.heard);
    injected.heard = standby::tally(&heard);
    let twice = site.book.hear(heard);
    injected.violations.extend(twice);
    let found = check(site, foreign).await;
    let verdict = verdict(&injected, &found, must_be_caught);
    site.book.settle();
    verdict
}

fn verdict(injected: &Injected, found: &Found, must_be_caught: bool) -> Value {
    let violations: Vec<&String> = injected.violations.iter().chain(&found.violations).collect();
    let verdict = match (violations.is_empty(), must_be_caught) {
        (true, false) => "holds",
        (false, true) => "caught",
        (true, true) => "NOT CAUGHT",
        (false, false) => "VIOLATED",
    };
    let heard = &injected.heard;
    let mut out = json!({
        "verdict": verdict,
        "at": injected.at,
        "released": heard.released.len(),
        "revoked": heard.revoked.len(),
        "denied": heard.denied,
        "refused": heard.refused,
        "lost": heard.lost,
        "looked_up": found.looked_up,
        "entries": found.entries,
        "foreign": found.foreign,
    });
    if !violations.is_empty() {
        out["violations"] = json!(violations);
    }
    out
}

/// One line a run, so that two files can be compared.
fn write(options: &Options, foreign: bool, verdicts: &[Value], bad: usize) {
    let mut kinds: HashMap<String, u64> = HashMap::new();
    for verdict in verdicts {
        let text = |name: &str| verdict[name].as_str().unwrap_or_default();
        *kinds.entry(format!("{} {}", text("database"), text("verdict"))).or_default() += 1;
    }
    let head = json!({
        "command": format!("scripts/faults --runs {} --seed {}", options.runs, options.seed),
        "made": chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        "foreign_verifier": foreign.then_some("golang.org/x/mod/sumdb (Debian golang-golang-x-mod-dev)"),
        "runs": verdicts.len(),
        "bad": bad,
        "counts": kinds,
    });
    let lines: Vec<String> = verdicts.iter().map(|verdict| format!("    {verdict}")).collect();
    let text = format!("{{\n  \"summary\": {head},\n  \"verdicts\": [\n{}\n  ]\n}}\n", lines.join(",\n"));
    let dir = options.out.parent().filter(|dir| !dir.as_os_str().is_empty());
    if let Some(dir) = dir {
        std::fs::create_dir_all(dir).expect("a directory");
    }
    std::fs::write(&options.out, text).expect("the verdicts are written");
}
