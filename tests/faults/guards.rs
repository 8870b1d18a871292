//! Guards that follow the real process while it, its database or the network goes away: a revocation is in force
//! everywhere, or the guard fails closed, within the bound of contract.md §7.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use stagedoor::guard::remote::{RemoteKeys, RemoteKeysHandle, RemoteRevocations, RevocationsHandle};
use stagedoor::token::feed::KNOWLEDGE_BOUND_SECONDS;
use stagedoor::token::{Invalid, Issuer, TrustedIssuer, Verifier};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::book::{Heard, Released};
use crate::kinds::Injected;
use crate::load::{MINT, ask, client, post, released};
use crate::rng::Rng;
use crate::site::{AUDIENCE, ISSUER, Site, run};

/// What is taken from the guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The replica they follow, by kill -9; another one is asked to revoke.
    Replica,
    /// The database of every replica.
    Database,
    /// The network: the service's end of the link goes down, and nobody is told that it did.
    Network,
}

/// How many guards follow.
const GUARDS: usize = 20;
/// How long a revocation may be unknown to a guard that does not refuse everything.
const BOUND: Duration = Duration::from_secs(KNOWLEDGE_BOUND_SECONDS.unsigned_abs());

struct Guard {
    verifier: Arc<Verifier>,
    _handles: (RemoteKeysHandle, RevocationsHandle),
}

impl Guard {
    async fn of(base: &str, secret: &str) -> Self {
        let issuer: Issuer = ISSUER.parse().expect("an issuer");
        let revocations = RemoteRevocations::of(&issuer, base).expect("a client").client_secret(secret);
        let trusted =
            TrustedIssuer::stagedoor(issuer.clone()).audience(AUDIENCE.parse().expect("an audience"));
        let verifier = Verifier::builder().issuer(trusted).revocations(revocations.knowledge()).build();
        let verifier = Arc::new(verifier.expect("a verifier"));
        let jwks = format!("{base}/.well-known/jwks.json");
        let keys = RemoteKeys::of(&verifier).jwks(&issuer, &jwks).expect("a client");
        let handles = (keys.start().await.expect("keys"), revocations.start().await.expect("a snapshot"));
        Self { verifier, _handles: handles }
    }

    fn verdict(&self, token: &str) -> Result<(), Invalid> {
        self.verifier.verify(token).map(drop)
    }
}

/// What was seen of guards from the moment something was taken from them.
#[derive(Default)]
struct Watch {
    violations: Vec<String>,
    /// When the last guard stopped to accept what was revoked.
    last_accepted: Duration,
}

impl Taken {
    pub async fn inject(self, site: &mut Site, rng: &mut Rng) -> Injected {
        match self {
            Self::Replica => replica_killed(site).await,
            Self::Database => database_gone(site, rng).await,
            Self::Network => network_cut(site).await,
        }
    }
}

async fn mint(site: &Site, base: &str) -> Released {
    let answer = post(&client(), base, &site.minter, MINT, None, &ask("guarded")).await;
    answer.and_then(|(_, body)| released(&body)).expect("a token")
}

async fn guards(base: &str, secret: &str, tokens: [&Released; 2]) -> Vec<Guard> {
    let mut guards = Vec::new();
    for _ in 0..GUARDS {
        guards.push(Guard::of(base, secret).await);
    }
    // streams are up when nobody needs to ask any more
    sleep(Duration::from_secs(2)).await;
    for guard in &guards {
        for released in tokens {
            guard.verdict(&released.token).expect("a fresh token is good");
        }
    }
    guards
}

/// Looks until every guard refuses `token`: nobody may accept it `BOUND` after `since`.
async fn all_refuse(guards: &[Guard], token: &str, since: Instant) -> Watch {
    let mut watch = Watch::default();
    while since.elapsed() < BOUND + Duration::from_secs(2) {
        let mut accepting = 0;
        for guard in guards {
            let before = since.elapsed();
            if guard.verdict(token).is_ok() {
                accepting += 1;
                watch.last_accepted = before;
                if before > BOUND {
                    watch.violations.push(format!("accepted {before:?} after it was revoked"));
                }
            }
        }
        if accepting == 0 && since.elapsed() > BOUND {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    watch.violations.truncate(3);
    watch
}

/// Waits until the guards accept what was never revoked, and refuse what was.
async fn come_back(guards: &[Guard], kept: &Released, ended: Option<&Released>) -> Result<Duration, String> {
    let began = Instant::now();
    loop {
        let mut last = None;
        for guard in guards {
            if let Err(why) = guard.verdict(&kept.token) {
                last = Some(format!("a good token: {why:?}"));
            }
            let verdict = ended.map(|ended| guard.verdict(&ended.token));
            if verdict.as_ref().is_some_and(|verdict| *verdict != Err(Invalid::Revoked)) {
                last = Some(format!("a revoked token: {verdict:?}"));
            }
        }
        match last {
            None => return Ok(began.elapsed()),
            Some(last) if began.elapsed() > Duration::from_secs(20) => {
                return Err(format!("20 s after all was well again: {last}"));
            }
            Some(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

fn told(watch: Watch, back: Result<Duration, String>, heard: Vec<Released>) -> Injected {
    let mut violations = watch.violations;
    let at = format!(
        "{GUARDS} guards: revoked or closed after {} ms; back after {}",
        watch.last_accepted.as_millis(),
        back.as_ref().map_or_else(Clone::clone, |back| format!("{} ms", back.as_millis())),
    );
    violations.extend(back.err());
    Injected { at, heard: Heard { released: heard, ..Heard::default() }, violations }
}

async fn revoke(site: &Site, base: &str, released: &Released) {
    let path = format!("{MINT}/{}/revoke", released.grant);
    let answer = post(&client(), base, &site.minter, &path, None, &json!({})).await;
    assert!(matches!(&answer, Some((status, _)) if *status == 200), "a revocation: {answer:?}");
}

async fn replica_killed(site: &mut Site) -> Injected {
    let (followed, other) = (site.replicas[0].base.clone(), site.replicas[1].base.clone());
    let (kept, ended) = (mint(site, &followed).await, mint(site, &followed).await);
    let guards = guards(&followed, &site.minter, [&kept, &ended]).await;
    site.replicas[0].kill();
    revoke(site, &other, &ended).await;
    let watch = all_refuse(&guards, &ended.token, Instant::now()).await;
    // the replica is back where it was
    let address = followed.strip_prefix("http://").expect("an address").to_owned();
    let back = match site.start(0, &[], &[("STAGEDOOR_LISTEN", address)]).await {
        Ok(()) => come_back(&guards, &kept, Some(&ended)).await,
        Err(why) => Err(why),
    };
    let mut out = told(watch, back, vec![kept, ended.clone()]);
    out.heard.revoked.push(ended.token);
    out
}

async fn database_gone(site: &mut Site, rng: &mut Rng) -> Injected {
    let base = site.replicas[usize::try_from(rng.next()).unwrap_or(0) % site.replicas.len()].base.clone();
    let (kept, other) = (mint(site, &base).await, mint(site, &base).await);
    let guards = guards(&base, &site.minter, [&kept, &other]).await;
    let proxy = site.proxy.as_ref().expect("PostgreSQL");
    let target = proxy.lead_to("127.0.0.1:9");
    // whatever is revoked from now on is revoked elsewhere: nothing may be believed for longer than the bound
    let watch = all_refuse(&guards, &kept.token, Instant::now()).await;
    let _nowhere = proxy.lead_to(&target);
    let back = come_back(&guards, &kept, None).await;
    told(watch, back, vec![kept, other])
}

/// A network namespace with the service in it, and the one link into it.
struct Namespace;

const INSIDE: &str = "10.213.0.2";

impl Namespace {
    fn make() -> Self {
        Self::remove();
        ip(&["netns", "add", "stagedoor-faults"]);
        ip(&["link", "add", "sd-faults-out", "type", "veth", "peer", "name", "sd-faults-in"]);
        ip(&["link", "set", "sd-faults-in", "netns", "stagedoor-faults"]);
        ip(&["addr", "add", "10.213.0.1/30", "dev", "sd-faults-out"]);
        ip(&["link", "set", "sd-faults-out", "up"]);
        ip(&["-n", "stagedoor-faults", "addr", "add", "10.213.0.2/30", "dev", "sd-faults-in"]);
        ip(&["-n", "stagedoor-faults", "link", "set", "lo", "up"]);
        Self::link("up");
        Self
    }

    fn link(state: &str) {
        ip(&["-n", "stagedoor-faults", "link", "set", "sd-faults-in", state]);
    }

    fn remove() {
        for what in [["link", "del", "sd-faults-out"], ["netns", "del", "stagedoor-faults"]] {
            let _ = Command::new("ip").args(what).output();
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        Self::remove();
    }
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

/// A guard calls loopback or https only: what it connects to here goes on over the link.
async fn forward(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let here = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    format!("http://{here}")
}

async fn network_cut(site: &mut Site) -> Injected {
    let _namespace = Namespace::make();
    let before = ["ip", "netns", "exec", "stagedoor-faults"].map(str::to_owned);
    let listen = [("STAGEDOOR_LISTEN", "0.0.0.0:8080".to_owned())];
    if let Err(why) = site.start(0, &before, &listen).await {
        return Injected { at: "in a namespace".into(), violations: vec![why], ..Injected::default() };
    }
    let base = forward(format!("{INSIDE}:8080")).await;
    let (kept, ended) = (mint(site, &base).await, mint(site, &base).await);
    let guards = guards(&base, &site.minter, [&kept, &ended]).await;
    Namespace::link("down");
    // whoever is inside still reaches it
    let path = format!("http://127.0.0.1:8080{MINT}/{}/revoke", ended.grant);
    let bearer = format!("authorization: Bearer {}", site.minter);
    run(Command::new("ip").args([
        "netns",
        "exec",
        "stagedoor-faults",
        "curl",
        "-sSf",
        "-X",
        "POST",
        &path,
        "-H",
        &bearer,
    ]));
    let watch = all_refuse(&guards, &ended.token, Instant::now()).await;
    Namespace::link("up");
    let back = come_back(&guards, &kept, Some(&ended)).await;
    site.replicas[0].kill();
    let mut out = told(watch, back, vec![kept, ended.clone()]);
    out.heard.revoked.push(ended.token);
    out
}
