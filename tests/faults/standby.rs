//! A primary that dies under load, and the standby that takes over from it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::time::sleep;

use crate::book::Heard;
use crate::check::{Found, check};
use crate::kinds::load;
use crate::load::Mix;
use crate::pg::Cluster;
use crate::rng::Rng;
use crate::site::{Place, Site};

/// Whether the primary's commits wait for the standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standby {
    /// They do: nothing that was answered may be missing.
    Synchronous,
    /// They do, and the standby is away for a while: nothing may be answered meanwhile.
    SynchronousAway,
    /// They do not: what is missing has to be noticed.
    Asynchronous,
}

/// What a run at a site of its own came to.
pub struct Outcome {
    pub at: String,
    pub found: Found,
    pub heard: Heard,
}

impl Standby {
    pub async fn run(self, replicas: usize, foreign: Option<&Path>, rng: &mut Rng) -> Outcome {
        let primary = Cluster::own().expect("PostgreSQL");
        let standby = tokio::task::block_in_place(|| primary.standby("standby"));
        if self != Self::Asynchronous {
            admin(&primary, "ALTER SYSTEM SET synchronous_standby_names = 'standby'").await;
            admin(&primary, "SELECT pg_reload_conf()").await;
        }
        let state = if self == Self::Asynchronous { "async" } else { "sync" };
        until_replicating(&primary, state).await;
        let mut site = Site::new(Place::Postgres(replicas), Some(&primary)).await;
        site.start_all().await.expect("the service starts");
        let outcome = match self {
            Self::Synchronous => synchronous(&mut site, &primary, &standby, foreign, rng).await,
            Self::SynchronousAway => away(&mut site, &primary, &standby, foreign, rng).await,
            Self::Asynchronous => asynchronous(&mut site, &primary, &standby, foreign, rng).await,
        };
        drop(site);
        tokio::task::block_in_place(|| {
            standby.crash();
            if self == Self::SynchronousAway {
                primary.crash();
            }
        });
        outcome
    }
}

async fn admin(cluster: &Cluster, sql: &str) {
    let mut admin =
        PgConnection::connect(&cluster.url("postgres", "postgres")).await.expect("the cluster answers");
    admin.execute(AssertSqlSafe(sql.to_owned())).await.expect("it does");
}

async fn until_replicating(primary: &Cluster, state: &str) {
    let mut admin =
        PgConnection::connect(&primary.url("postgres", "postgres")).await.expect("the cluster answers");
    let began = Instant::now();
    loop {
        let sql = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'";
        let now: Option<String> =
            sqlx::query_scalar(sql).fetch_optional(&mut admin).await.expect("an answer");
        if now.as_deref() == Some(state) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "the standby is {now:?}, not {state}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The primary is gone, the standby is promoted, and whoever connects reaches it.
fn fail_over(site: &Site, primary: &Cluster, standby: &Cluster) {
    tokio::task::block_in_place(|| {
        primary.crash();
        standby.promote();
    });
    let _primary = site.proxy.as_ref().expect("PostgreSQL").lead_to(&standby.host());
}

async fn synchronous(
    site: &mut Site,
    primary: &Cluster,
    standby: &Cluster,
    foreign: Option<&Path>,
    rng: &mut Rng,
) -> Outcome {
    let load = load(site, Mix::All, rng);
    sleep(rng.millis(700, 1500)).await;
    fail_over(site, primary, standby);
    sleep(Duration::from_millis(1500)).await;
    let heard = load.stop().await;
    let mut found = Found::default();
    // the very processes that served before go on against the standby
    for i in 0..site.replicas.len() {
        if let Some(ended) = site.replicas[i].ended() {
            found.violations.push(format!("replica {i} ended ({ended}): {}", site.last_words(i)));
        }
    }
    let (at, told) = (format!("{} tokens", heard.released.len()), tally(&heard));
    found.violations.extend(site.book.hear(heard));
    let mut checked = check(site, foreign).await;
    checked.violations.extend(found.violations);
    Outcome { at, found: checked, heard: told }
}

async fn away(
    site: &mut Site,
    primary: &Cluster,
    standby: &Cluster,
    foreign: Option<&Path>,
    rng: &mut Rng,
) -> Outcome {
    let before = load(site, Mix::All, rng);
    sleep(rng.millis(500, 900)).await;
    let mut heard = before.stop().await;
    tokio::task::block_in_place(|| standby.crash());
    let meanwhile = load(site, Mix::All, rng);
    sleep(Duration::from_secs(4)).await;
    let meanwhile = meanwhile.stop().await;
    let at = format!("{} tokens before, {} refused meanwhile", heard.released.len(), meanwhile.refused);
    let mut violations = Vec::new();
    if meanwhile.released.len() + meanwhile.revoked.len() > 0 {
        violations.push(format!(
            "{} answers without the standby",
            meanwhile.released.len() + meanwhile.revoked.len()
        ));
    }
    heard.add(meanwhile);
    tokio::task::block_in_place(|| standby.up());
    until_replicating(primary, "sync").await;
    let told = tally(&heard);
    violations.extend(site.book.hear(heard));
    let mut found = check(site, foreign).await;
    found.violations.extend(violations);
    Outcome { at, found, heard: told }
}

/// Entries are lost with the primary: every process that saw them committed stops, none starts again as if nothing
/// had been, and the way out is a new epoch that names the last known checkpoint.
async fn asynchronous(
    site: &mut Site,
    primary: &Cluster,
    standby: &Cluster,
    foreign: Option<&Path>,
    rng: &mut Rng,
) -> Outcome {
    let mut violations = Vec::new();
    let before = load(site, Mix::All, rng);
    sleep(rng.millis(500, 1000)).await;
    // the standby hears no more
    admin(standby, "ALTER SYSTEM SET primary_conninfo = ''").await;
    admin(standby, "SELECT pg_reload_conf()").await;
    sleep(rng.millis(700, 1200)).await;
    fail_over(site, primary, standby);
    // nobody's call may be answered as if nothing had been
    sleep(Duration::from_secs(6)).await;
    let heard = before.stop().await;
    let (newest, told) = (heard.released.iter().max_by_key(|r| r.index).cloned(), tally(&heard));
    let newest = newest.expect("tokens were released");
    violations.extend(site.book.hear(heard));
    for i in 0..site.replicas.len() {
        match site.replicas[i].ended() {
            Some(_) if site.last_words(i).contains("ROLLBACK") || site.last_words(i).contains("FORK") => {}
            ended => violations.push(format!("replica {i} did not notice: {ended:?} {}", site.last_words(i))),
        }
    }
    let receipt = site.path().join("newest.receipt");
    fs::write(&receipt, &newest.proof).expect("a file");
    let receipt = receipt.display().to_string();
    let verified = site.output(&["audit", "verify", "--json", "--checkpoint", &receipt]).await;
    let report = String::from_utf8_lossy(&verified.stdout).into_owned();
    if verified.status.code() != Some(1) || !report.contains("ROLLBACK") {
        violations.push(format!("audit verify with the last receipt does not say ROLLBACK: {report}"));
    }
    match site.start(0, &[], &[]).await {
        Err(why) if why.contains("audit epoch") => {}
        Err(why) => violations.push(format!("the refusal to start does not name the way out: {why}")),
        Ok(()) => violations.push("a process started as if nothing had been".into()),
    }
    for replica in &mut site.replicas {
        replica.kill();
    }
    if let Err(why) = site.cli(&["audit", "epoch", "--reason", "restored", "--checkpoint", &receipt]).await {
        violations.push(format!("audit epoch: {why}"));
    }
    // what the old epoch lost is lost: from here on the new one has to hold
    site.book = crate::book::Book::default();
    if let Err(why) = site.start_all().await {
        violations.push(format!("after the new epoch: {why}"));
    } else {
        let after = load(site, Mix::All, rng);
        sleep(Duration::from_millis(500)).await;
        violations.extend(site.book.hear(after.stop().await));
    }
    let mut found = check(site, foreign).await;
    found.violations.extend(violations);
    Outcome { at: format!("{} indexes were seen committed", newest.index + 1), found, heard: told }
}

/// The counts of what was heard.
pub fn tally(heard: &Heard) -> Heard {
    Heard {
        released: heard.released.clone(),
        revoked: heard.revoked.clone(),
        denied: heard.denied,
        refused: heard.refused,
        lost: heard.lost,
        ..Heard::default()
    }
}
