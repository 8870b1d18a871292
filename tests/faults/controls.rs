//! Negative controls: services that answer before the commit is durable. The checks must catch every one of them,
//! or they prove nothing. None of it is in the product: the database lies to it, or the kernel does.

use std::time::Duration;

use tokio::time::sleep;

use crate::kinds::{Injected, dashed, load};
use crate::load::{Load, Mix};
use crate::proxy::Mode;
use crate::rng::Rng;
use crate::site::Site;
use crate::strace::{Order, Tracer, order};

/// When the caller has his answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// PostgreSQL's commit is reported before it happens, then everything dies.
    BeforeCommit,
    /// SQLite's writes are reported and do not happen, then the process dies.
    BeforeWrite,
    /// Not a control: between the last write to the write-ahead log and each answer there is a flush.
    AfterFlush,
    /// The same with flushes that do not happen.
    BeforeFlush,
}

impl Control {
    pub fn name(self) -> String {
        dashed(&self)
    }

    /// Whether the checks must find something.
    pub const fn must_be_caught(self) -> bool {
        !matches!(self, Self::AfterFlush)
    }

    pub async fn inject(self, site: &mut Site, rng: &mut Rng) -> Injected {
        match self {
            Self::BeforeCommit => before_commit(site, rng).await,
            Self::BeforeWrite => before_write(site, rng).await,
            Self::AfterFlush => flushes(site, false, rng).await,
            Self::BeforeFlush => flushes(site, true, rng).await,
        }
    }
}

async fn before_commit(site: &mut Site, rng: &mut Rng) -> Injected {
    let load = load(site, Mix::All, rng);
    sleep(Duration::from_millis(300)).await;
    let proxy = site.proxy.as_ref().expect("PostgreSQL");
    let lies = proxy.cuts();
    proxy.set(Mode::Lie);
    // long enough for several, and to end inside of one
    sleep(rng.millis(900, 1600)).await;
    while proxy.cuts() < lies + 3 {
        sleep(Duration::from_millis(5)).await;
    }
    let last = proxy.cuts();
    while proxy.cuts() == last {
        sleep(Duration::from_millis(2)).await;
    }
    sleep(Duration::from_millis(60)).await;
    proxy.cut_all();
    for replica in &mut site.replicas {
        replica.kill();
    }
    let proxy = site.proxy.as_ref().expect("PostgreSQL");
    proxy.set(Mode::Pass);
    let at = format!("{} lies", proxy.cuts() - lies);
    Injected { at, heard: load.stop().await, ..Injected::default() }
}

async fn before_write(site: &mut Site, rng: &mut Rng) -> Injected {
    let before = load(site, Mix::All, rng);
    sleep(Duration::from_millis(300)).await;
    let mut heard = before.stop().await;
    let wal = site.file("-wal");
    let arguments = ["-P", &wal, "-e", "trace=pwrite64", "-e", "inject=pwrite64:retval=4096"];
    let tracer = Tracer::attach(site.replicas[0].pid(), site.path(), &arguments).await;
    let lying = load(site, Mix::Mints, rng);
    sleep(rng.millis(300, 800)).await;
    site.replicas[0].kill();
    heard.add(lying.stop().await);
    let times = tracer.detach().matches("(INJECTED)").count();
    Injected { at: format!("{times} writes did not happen"), heard, ..Injected::default() }
}

/// One caller, whose every answer has to come after a flush of what was written for it.
async fn flushes(site: &Site, lying: bool, rng: &mut Rng) -> Injected {
    let mut arguments = vec!["-e", "trace=pwrite64,fsync,fdatasync,sendto"];
    if lying {
        arguments.extend(["-e", "inject=fsync,fdatasync:retval=0"]);
    }
    let tracer = Tracer::attach(site.replicas[0].pid(), site.path(), &arguments).await;
    let serial = Load::start(&site.bases(), &site.minter, 1, Mix::All, rng);
    sleep(Duration::from_secs(3)).await;
    let heard = serial.stop().await;
    let Order { answers, unflushed } = order(&tracer.detach());
    let mut violations = Vec::new();
    if answers < 20 {
        violations.push(format!("only {answers} answers were seen"));
    }
    if unflushed > 0 {
        violations.push(format!("{unflushed} of {answers} answers left before their flush"));
    }
    Injected { at: format!("{answers} answers, {unflushed} before their flush"), heard, violations }
}
