//! The faults: what each does to a site under load. What has to hold afterwards stands in `check`.

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::time::sleep;

use crate::book::Heard;
use crate::guards::Taken;
use crate::load::{Load, MINT, Mix, ask, client, post};
use crate::pg::Cluster;
use crate::proxy::Mode;
use crate::rng::Rng;
use crate::site::{FAKETIME, Place, Site};
use crate::strace::{Tracer, last_call};

/// A step at which a process dies: a system call of an append or of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A write into SQLite's write-ahead log.
    WalWrite,
    /// The flush of it.
    WalFlush,
    /// A lock on SQLite's shared memory: begin, publish, end.
    Lock,
    /// A message to a caller or to PostgreSQL.
    Send,
    /// A message from either.
    Receive,
}

/// What the wall clock does while the monotonic one goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    BackAnHour,
    ForwardADay,
    Frozen,
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// kill -9 at an exact system call.
    KillAt(Step),
    /// kill -9 at some moment.
    KillAtRandom,
    /// SIGTERM: what is under way is answered, and the process ends well.
    ToldToStop,
    /// A file system call fails while the process runs.
    Fails { call: &'static str, errno: &'static str },
    /// A file system call fails while the process starts.
    FailsAtStart { call: &'static str, errno: &'static str },
    /// No byte left on the volume, or few.
    DiskFull,
    /// The wall clock is set.
    Clock(Clock),
    /// PostgreSQL stopped with `-m immediate` and started again.
    DatabaseCrash,
    /// Connections ended by an administrator.
    BackendsTerminated,
    /// A connection cut around an append.
    Cut(Mode),
    /// Something is taken from guards.
    Guards(Taken),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillAt(step) => write!(f, "kill-{}", dashed(step)),
            Self::KillAtRandom => f.write_str("kill-random"),
            Self::Fails { call, errno } => write!(f, "{errno}-{call}"),
            Self::FailsAtStart { call, errno } => write!(f, "start-{errno}-{call}"),
            Self::Clock(clock) => write!(f, "clock-{}", dashed(clock)),
            Self::Cut(mode) => f.write_str(&dashed(mode)),
            Self::Guards(taken) => write!(f, "guards-lose-{}", dashed(taken)),
            other => f.write_str(&dashed(other)),
        }
    }
}

/// `BackAnHour` → `back-an-hour`.
pub fn dashed(value: &impl fmt::Debug) -> String {
    let mut out = String::new();
    for c in format!("{value:?}").chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// What a fault did.
#[derive(Debug, Default)]
pub struct Injected {
    /// Where or how, for people.
    pub at: String,
    pub heard: Heard,
    /// What must not have happened during it.
    pub violations: Vec<String>,
}

const CALLERS: usize = 8;

impl Kind {
    /// Does it to `site`, under load.
    pub async fn inject(self, site: &mut Site, rng: &mut Rng) -> Injected {
        match self {
            Self::KillAt(step) => kill_at(site, step, rng).await,
            Self::KillAtRandom => kill_at_random(site, rng).await,
            Self::ToldToStop => told_to_stop(site, rng).await,
            Self::Fails { call, errno } => fails(site, call, errno, rng).await,
            Self::FailsAtStart { call, errno } => fails_at_start(site, call, errno, rng).await,
            Self::DiskFull => disk_full(site, rng).await,
            Self::Clock(clock) => set_clock(site, clock, rng).await,
            Self::DatabaseCrash => crash(site, crate::pg::cluster().expect("PostgreSQL"), rng).await,
            Self::BackendsTerminated => terminate(site, rng).await,
            Self::Cut(mode) => cut(site, mode, rng).await,
            Self::Guards(taken) => taken.inject(site, rng).await,
        }
    }
}

pub fn load(site: &Site, mix: Mix, rng: &mut Rng) -> Load {
    Load::start(&site.bases(), &site.minter, CALLERS, mix, rng)
}

fn victim(site: &Site, rng: &mut Rng) -> usize {
    usize::try_from(rng.next() % site.replicas.len() as u64).expect("small")
}

async fn kill_at(site: &mut Site, step: Step, rng: &mut Rng) -> Injected {
    let victim = victim(site, rng);
    let (calls, most, suffix) = match step {
        Step::WalWrite => ("pwrite64", 160, Some("-wal")),
        Step::WalFlush => ("fsync,fdatasync", 12, Some("-wal")),
        Step::Lock => ("fcntl", 60, Some("-shm")),
        Step::Send => ("sendto", 40, None),
        Step::Receive => ("recvfrom", 40, None),
    };
    let n = rng.between(1, most);
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:signal=KILL:when={n}"));
    let path = suffix.map(|suffix| site.file(suffix));
    let mut arguments = vec!["-e", &trace, "-e", &inject];
    arguments.extend(path.iter().flat_map(|path| ["-P", path.as_str()]));
    let tracer = Tracer::attach(site.replicas[victim].pid(), site.path(), &arguments).await;
    let load = load(site, Mix::All, rng);
    let began = Instant::now();
    let mut reached = true;
    while site.replicas[victim].ended().is_none() {
        if began.elapsed() > Duration::from_secs(8) {
            reached = false;
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    site.replicas[victim].kill();
    // the others go on
    sleep(rng.millis(50, 300)).await;
    let heard = load.stop().await;
    let log = tracer.detach();
    let at = if reached {
        format!("#{n} {}", last_call(&log))
    } else {
        format!("#{n} was not reached: at random")
    };
    Injected { at, heard, ..Injected::default() }
}

async fn kill_at_random(site: &mut Site, rng: &mut Rng) -> Injected {
    let victim = victim(site, rng);
    let load = load(site, Mix::All, rng);
    let after = rng.millis(20, 1200);
    sleep(after).await;
    site.replicas[victim].kill();
    sleep(rng.millis(50, 300)).await;
    Injected {
        at: format!("after {} ms", after.as_millis()),
        heard: load.stop().await,
        ..Injected::default()
    }
}

async fn told_to_stop(site: &mut Site, rng: &mut Rng) -> Injected {
    let victim = victim(site, rng);
    let load = load(site, Mix::All, rng);
    let after = rng.millis(100, 900);
    sleep(after).await;
    let violations = site.replicas[victim].stop().await.err().into_iter().collect();
    sleep(rng.millis(50, 300)).await;
    Injected { at: format!("after {} ms", after.as_millis()), heard: load.stop().await, violations }
}

async fn fails(site: &mut Site, call: &str, errno: &str, rng: &mut Rng) -> Injected {
    let n = rng.between(1, 8);
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={errno}:when={n}+"));
    let files = ["", "-wal", "-shm"].map(|suffix| site.file(suffix));
    let mut arguments = vec!["-e", &trace, "-e", &inject];
    arguments.extend(files.iter().flat_map(|path| ["-P", path.as_str()]));
    let tracer = Tracer::attach(site.replicas[0].pid(), site.path(), &arguments).await;
    let load = load(site, Mix::All, rng);
    sleep(rng.millis(700, 1500)).await;
    let log = tracer.detach();
    sleep(Duration::from_millis(200)).await;
    let heard = load.stop().await;
    let times = log.matches("(INJECTED)").count();
    let mut at = format!("from #{n} on, {times} times");
    // a lock that the kernel would not give back stays with its process: refusing until it ends is right
    if !mints_within(site, Duration::from_secs(8)).await {
        site.replicas[0].kill();
        at += "; refused until it was started again";
    }
    Injected { at, heard, ..Injected::default() }
}

async fn mints_within(site: &Site, time: Duration) -> bool {
    let began = Instant::now();
    let base = &site.replicas[0].base;
    while began.elapsed() < time {
        let answer = post(&client(), base, &site.minter, MINT, None, &ask("mended")).await;
        if answer.is_some_and(|(status, _)| status == 200) {
            return true;
        }
        sleep(Duration::from_millis(100)).await;
    }
    false
}

async fn fails_at_start(site: &mut Site, call: &str, errno: &str, rng: &mut Rng) -> Injected {
    // calls are counted by thread, and most of these are seldom made
    let most = if matches!(call, "pread64" | "pwrite64" | "fcntl") { 24 } else { 3 };
    let (n, times) = (rng.between(1, most), rng.between(1, 4));
    let log = site.path().join("strace.log");
    let mut before: Vec<String> = ["strace", "-D", "-f", "-s", "16", "-o"].map(str::to_owned).into();
    before.push(log.display().to_string());
    for suffix in ["", "-wal", "-shm"] {
        before.extend(["-P".to_owned(), site.file(suffix)]);
    }
    let inject = format!("inject={call}:error={errno}:when={n}..{}", n + times - 1);
    before.extend(["-e".to_owned(), format!("trace={call}"), "-e".into(), inject]);
    site.replicas[0].kill();
    let mut out = Injected::default();
    let started = match site.start(0, &before, &[]).await {
        Ok(()) => {
            let load = load(site, Mix::All, rng);
            sleep(Duration::from_millis(500)).await;
            out.heard = load.stop().await;
            "it started"
        }
        Err(why) if why.contains("panicked") => {
            out.violations.push(why);
            "it panicked"
        }
        Err(_) => "it refused to start",
    };
    site.replicas[0].kill();
    let injected = fs::read_to_string(log).unwrap_or_default().matches("(INJECTED)").count();
    out.at = format!("at #{n}, {injected} times: {started}");
    out
}

async fn disk_full(site: &Site, rng: &mut Rng) -> Injected {
    let left = match rng.between(0, 2) {
        0 => rng.between(0, 64),
        1 => rng.between(64, 512),
        _ => rng.between(4096, 5000),
    };
    let ballast = site.path().join("data/ballast");
    let load = load(site, Mix::All, rng);
    sleep(Duration::from_millis(300)).await;
    let volume = rustix::fs::statvfs(site.path().join("data")).expect("a volume");
    let free = volume.f_bavail * volume.f_frsize;
    let mut file = File::create(&ballast).expect("a file");
    let chunk = vec![1u8; 4096];
    for _ in 0..free.saturating_sub(left * 1024) / 4096 {
        if file.write_all(&chunk).is_err() {
            break;
        }
    }
    drop(file);
    sleep(Duration::from_millis(1500)).await;
    let heard = load.stop().await;
    fs::remove_file(ballast).expect("the ballast goes");
    let mut violations = Vec::new();
    if heard.refused == 0 {
        violations.push("nothing was refused on a full disk".to_owned());
    }
    Injected { at: format!("{left} KiB left"), heard, violations }
}

async fn set_clock(site: &mut Site, clock: Clock, rng: &mut Rng) -> Injected {
    let victim = victim(site, rng);
    let offset = site.path().join("clock");
    fs::write(&offset, "+0").expect("a file");
    let env = [
        ("LD_PRELOAD", FAKETIME.to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", offset.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
    ];
    let mut out = Injected { at: format!("replica {victim}"), ..Injected::default() };
    if let Err(why) = site.start(victim, &[], &env).await {
        out.violations.push(why);
        return out;
    }
    let only = [site.replicas[victim].base.clone()];
    let before = load(site, Mix::All, rng);
    sleep(Duration::from_millis(800)).await;
    out.heard.add(before.stop().await);
    if out.heard.released.is_empty() {
        out.violations.push(format!("nothing was minted before: {}", site.last_words(victim)));
    }
    let now = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now());
    let set = match clock {
        Clock::BackAnHour => "-3600".to_owned(),
        Clock::ForwardADay => "+86400".into(),
        Clock::Frozen => now.format("%Y-%m-%d %H:%M:%S").to_string(),
    };
    fs::write(&offset, set).expect("a file");
    // a frozen clock is within tolerance for two seconds, and reads a second that began before
    sleep(Duration::from_millis(if clock == Clock::Frozen { 3500 } else { 100 })).await;
    let wrong = Load::start(&only, &site.minter, CALLERS, Mix::Mints, rng);
    sleep(Duration::from_millis(3000)).await;
    let wrong = wrong.stop().await;
    if !wrong.released.is_empty() {
        out.violations.push(format!("{} tokens were released under a wrong clock", wrong.released.len()));
    }
    if wrong.refused == 0 {
        out.violations.push("nothing was refused under a wrong clock".into());
    }
    out.heard.add(wrong);
    fs::write(&offset, "+0").expect("a file");
    let began = Instant::now();
    let after = Load::start(&only, &site.minter, 1, Mix::Mints, rng);
    // 10 s of agreement, and slack
    sleep(Duration::from_secs(15)).await;
    let after = after.stop().await;
    if after.released.is_empty() {
        out.violations.push(format!(
            "nothing is minted {} s after the clock was right again",
            began.elapsed().as_secs()
        ));
    }
    out.heard.add(after);
    site.replicas[victim].kill();
    out
}

async fn crash(site: &Site, cluster: &Cluster, rng: &mut Rng) -> Injected {
    let load = load(site, Mix::All, rng);
    let after = rng.millis(100, 900);
    sleep(after).await;
    tokio::task::block_in_place(|| cluster.crash());
    sleep(rng.millis(0, 400)).await;
    tokio::task::block_in_place(|| cluster.up());
    sleep(Duration::from_millis(500)).await;
    Injected {
        at: format!("after {} ms", after.as_millis()),
        heard: load.stop().await,
        ..Injected::default()
    }
}

async fn terminate(site: &Site, rng: &mut Rng) -> Injected {
    let database = site.database.as_ref().expect("PostgreSQL");
    let mut admin = PgConnection::connect(&database.super_url).await.expect("the database answers");
    let load = load(site, Mix::All, rng);
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'",
        database.service_user
    );
    for _ in 0..6 {
        sleep(rng.millis(40, 250)).await;
        admin.execute(AssertSqlSafe(sql.clone())).await.expect("backends end");
    }
    Injected { at: "6 times".into(), heard: load.stop().await, ..Injected::default() }
}

async fn cut(site: &Site, mode: Mode, rng: &mut Rng) -> Injected {
    let proxy = site.proxy.as_ref().expect("PostgreSQL");
    let before = proxy.cuts();
    let load = load(site, Mix::All, rng);
    for _ in 0..6 {
        sleep(rng.millis(40, 250)).await;
        proxy.set(mode);
    }
    sleep(Duration::from_millis(300)).await;
    proxy.set(Mode::Pass);
    let heard = load.stop().await;
    let cuts = proxy.cuts() - before;
    let violations = if cuts == 0 { vec!["no connection was cut".to_owned()] } else { Vec::new() };
    Injected { at: format!("{cuts} cuts"), heard, violations }
}

/// Every fault with the places it happens at, and how often among about two hundred runs.
pub fn catalogue() -> Vec<(Kind, Place, usize)> {
    use {Kind as K, Place::Postgres, Place::SmallDisk, Place::Sqlite};
    let mut all = vec![
        (K::KillAt(Step::WalWrite), Sqlite, 14),
        (K::KillAt(Step::WalFlush), Sqlite, 10),
        (K::KillAt(Step::Lock), Sqlite, 8),
        (K::KillAt(Step::Send), Sqlite, 8),
        (K::KillAt(Step::Receive), Sqlite, 3),
        (K::KillAtRandom, Sqlite, 6),
        (K::ToldToStop, Sqlite, 2),
        (K::DiskFull, SmallDisk, 6),
    ];
    for call in ["pwrite64", "fdatasync", "pread64", "fcntl", "newfstatat"] {
        all.extend(["EIO", "ENOSPC"].map(|errno| (K::Fails { call, errno }, Sqlite, 2)));
    }
    all.push((K::Fails { call: "pwrite64", errno: "EROFS" }, Sqlite, 1));
    for call in [
        "openat",
        "newfstatat",
        "pread64",
        "pwrite64",
        "fdatasync",
        "ftruncate",
        "mmap",
        "fcntl",
        "fchown",
        "unlink",
    ] {
        all.extend(["EIO", "ENOSPC"].map(|errno| (K::FailsAtStart { call, errno }, Sqlite, 1)));
    }
    for place in [Postgres(1), Postgres(3)] {
        all.extend([
            (K::KillAt(Step::Send), place, 14),
            (K::KillAt(Step::Receive), place, 8),
            (K::KillAtRandom, place, 5),
            (K::ToldToStop, place, 2),
            (K::DatabaseCrash, place, 6),
            (K::BackendsTerminated, place, 4),
        ]);
        for mode in [Mode::CutBefore, Mode::CutDuring, Mode::CutAfter, Mode::CutInsert] {
            all.push((K::Cut(mode), place, 3));
        }
    }
    all.extend([
        (K::Guards(Taken::Replica), Postgres(3), 2),
        (K::Guards(Taken::Database), Postgres(1), 1),
        (K::Guards(Taken::Database), Postgres(3), 1),
        (K::Guards(Taken::Network), Sqlite, 3),
    ]);
    for place in [Sqlite, Postgres(1), Postgres(3)] {
        all.extend([Clock::BackAnHour, Clock::ForwardADay, Clock::Frozen].map(|c| (K::Clock(c), place, 1)));
    }
    all
}
