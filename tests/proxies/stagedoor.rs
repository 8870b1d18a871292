//! The real binary, serving with a key that the tests hold; and the conformance kit at its door.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use serde_json::json;
use stagedoor::server::cli::conformance::cases::{Expect, good_set, hostile_set};
use stagedoor::server::cli::conformance::forge::Subject;
use stagedoor::server::cli::conformance::keys::{TestKey, jwks, read_pem};
use stagedoor::server::cli::conformance::{ConformanceArgs, run};
use stagedoor::token::{Alg, Clock as _, SystemClock};

use crate::processes::{Running, free_port};
use crate::raw::ask;

pub const ISSUER: &str = "https://stagedoor.example";
pub const HOME: &str = "https://login.example";
pub const API: &str = "https://api.example.com";

/// A serving Stagedoor: its own issuer signs with the first of the test keys, the home issuer with all of them.
pub struct Stagedoor {
    pub port: u16,
    pub subject: Subject,
    dir: tempfile::TempDir,
    running: Option<Running>,
}

impl Stagedoor {
    pub fn start(alg: Alg) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let others = Alg::SIGNING.into_iter().filter(|other| *other != alg);
        let keys: Vec<TestKey> =
            std::iter::once(alg).chain(others).map(|alg| TestKey::generate(alg).expect("a key")).collect();
        let pem: Vec<String> =
            keys.iter().map(|key| key.to_pem().expect("a key in PEM").to_string()).collect();
        let port = free_port();
        let write =
            |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file is written");
        write("signing.pem", &pem[0]);
        write("keys.pem", &pem.concat());
        write("home.json", &jwks(&keys).to_string());
        write("service.pem", &keys[0].public_pem());
        write("stagedoor.toml", &settings(port));
        let stagedoor = Self { port, subject: subject(keys), dir, running: None };
        stagedoor.ok(&["init"]);
        stagedoor.ok(&["key", "import", "signing.pem"]);
        Self { running: Some(stagedoor.serve()), ..stagedoor }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn stop(&mut self) {
        self.running = None;
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stagedoor"));
        command.args(arguments).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command
    }

    fn ok(&self, arguments: &[&str]) {
        let output = self.command(arguments).output().expect("the binary runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn serve(&self) -> Running {
        let running = Running::start(&mut self.command(&["serve"]));
        until_listening(self.port);
        running
    }

    /// Runs the conformance kit against `target`: its exit code and report.
    pub async fn conformance(&self, target: &str, more: &[&str]) -> (u8, serde_json::Value) {
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            args: ConformanceArgs,
        }
        let key = self.path("keys.pem");
        let key = key.to_str().expect("a path in UTF-8");
        let args = [
            "conformance",
            "--target",
            target,
            "--issuer",
            ISSUER,
            "--home-issuer",
            HOME,
            "--audience",
            API,
            "--key",
            key,
            "--leeway",
            "0",
            "--json",
        ];
        let cli = Cli::try_parse_from(args.iter().chain(more)).expect("the arguments are right");
        let mut out = Vec::new();
        let code = run(cli.args, Arc::new(SystemClock::default()), &mut out).await.expect("somebody answers");
        (code, serde_json::from_slice(&out).expect("a report in JSON"))
    }
}

/// The names of a report's cases with this verdict; of one level, if given.
pub fn names(report: &serde_json::Value, verdict: &str, level: Option<&str>) -> Vec<String> {
    let findings = report["findings"].as_array().expect("findings");
    assert!(findings.len() > 150, "a whole run");
    let named =
        findings.iter().filter(|f| f["verdict"] == verdict && level.is_none_or(|level| f["level"] == level));
    named.map(|f| format!("{} {} ({})", f["id"], f["observed"], f["why"])).collect()
}

fn settings(port: u16) -> String {
    format!(
        r#"
listen = "127.0.0.1:{port}"
issuer = "{ISSUER}"

[[issuers]]
iss = "{HOME}"
jwks_file = "home.json"
audiences = ["{API}"]
clients = ["client_conformance"]
typ = ["at+jwt", "JWT"]

[[gates]]
name = "default"
audience = "{API}"

[[gates]]
name = "orders"
audience = "{API}"
scopes = ["read"]
impersonation = true
"#
    )
}

fn subject(keys: Vec<TestKey>) -> Subject {
    let attacker = TestKey::generate(keys[0].alg()).expect("a key");
    Subject {
        issuer: ISSUER.to_owned(),
        home_issuer: Some(HOME.to_owned()),
        audience: API.to_owned(),
        user: "user_42".to_owned(),
        actor: "admin_7".to_owned(),
        scope: "read".to_owned(),
        admits_impersonation: true,
        keys,
        attacker,
        attacker_url: "http://127.0.0.1:9/jwks.json".to_owned(),
        serves_feed: false,
        now: SystemClock::default().now(),
        leeway_seconds: 0,
    }
}

/// Waits until somebody listens.
#[expect(clippy::disallowed_methods, reason = "waits for another process, in the machine's time")]
pub fn until_listening(port: u16) {
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "nobody listens on port {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_key_file_of_a_test_is_read_back_by_the_kit() {
    let key = TestKey::generate(Alg::Es256).expect("a key");
    let read = read_pem(&key.to_pem().expect("PEM")).expect("a key file");
    assert_eq!(read[0].kid(), key.kid());
    assert!(Path::new(env!("CARGO_BIN_EXE_stagedoor")).exists());
}

/// Issue 6 §4: "forward-auth": the whole set, laxity included; and only 200, 401 and 403 (contract.md §4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_authentication_keeps_the_whole_table_and_answers_nothing_but_200_401_and_403() {
    let stagedoor = Stagedoor::start(Alg::Es256);
    for (gate, impersonators) in [("default", "403"), ("orders", "200")] {
        let target = format!("http://127.0.0.1:{}/v1/forward_auth/{gate}", stagedoor.port);
        let (code, report) =
            stagedoor.conformance(&target, &["--strict", "--allow-impersonation", impersonators]).await;
        for verdict in ["wrongly_accepted", "wrongly_refused", "wrong_answer", "broke"] {
            let wrong = names(&report, verdict, None);
            assert!(wrong.is_empty(), "{gate} {verdict}: {wrong:#?}");
        }
        assert_eq!(code, 0, "{gate}");
        let unread = |id: &serde_json::Value| {
            id.as_str().is_some_and(|id| id.contains("64k") || id.ends_with("endless"))
        };
        for finding in report["findings"].as_array().expect("findings").iter().filter(|f| !unread(&f["id"])) {
            let status = &finding["observed"]["status"];
            let allowed = status.is_null() || [200, 401, 403].iter().any(|s| status == s);
            assert!(allowed, "{gate}: {finding}");
        }
    }
}

/// Issue 6, "Bad input": verify and introspection give every token the verdict that forward-auth and guards give it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_and_introspection_keep_the_whole_table() {
    let stagedoor = Stagedoor::start(Alg::Es256);
    let made = stagedoor
        .command(&["client", "create", "--scopes", "tokens:verify", "--audience", API, "--json"])
        .output();
    let made: serde_json::Value =
        serde_json::from_slice(&made.expect("the binary runs").stdout).expect("a client");
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    let (id, secret) = (text("client_id"), text("client_secret"));
    let (bearer, basic) =
        (format!("Bearer {secret}"), format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))));
    until_known(stagedoor.port, &bearer);
    let mut wrong = Vec::new();
    for case in good_set(&stagedoor.subject).into_iter().chain(hostile_set(&stagedoor.subject)) {
        let Some(token) = case.token() else { continue };
        let json = json!({ "token": token }).to_string();
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let verified = ask(stagedoor.port, "POST", "/v1/actor_tokens/verify", &headers, &json);
        let form: String = token.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let headers =
            [("Authorization", basic.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
        let introspected =
            ask(stagedoor.port, "POST", "/oauth/introspect", &headers, &format!("token={form}"));
        // The home issuer's tokens are not this service's: it says nothing about them.
        let ours = !case.id.starts_with("good-ordinary") && case.expect == Expect::Accept;
        for (door, answer) in [("verify", verified), ("introspect", introspected)] {
            let active = answer.status == 200 && answer.body.contains(r#""active":true"#);
            if answer.status >= 500 || answer.status == 0 || (case.expect != Expect::Either && active != ours)
            {
                wrong.push(format!("{door} {}: {} {}", case.id, answer.status, answer.body));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
}

/// A running server sees a new client within a second (contract.md §2).
fn until_known(port: u16, bearer: &str) {
    for _ in 0..40 {
        let headers = [("Authorization", bearer), ("Content-Type", "application/json")];
        if ask(port, "POST", "/v1/actor_tokens/verify", &headers, r#"{"token":"x"}"#).status == 200 {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the new client stays unknown");
}
