//! The real parts: started on free loopback ports, ended with the test.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use reqwest::{Method, Url};
use serde_json::Value;
use stagedoor::server::outbound::{Outbound, OutboundConfig};
use stagedoor::token::signer::sha256;
use stagedoor::token::{Clock, SystemClock};

const NODE_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node");

/// Whether the node parts can be run; says so once when they cannot.
fn node_is_ready() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        let found =
            |program: &str| Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
        if !found("node") || !found("npm") {
            eprintln!("SKIP: node or npm is not installed, so no OpenID provider and no SCIM server");
            return false;
        }
        install();
        true
    })
}

/// `npm ci`, once for all test binaries: a file lock keeps them from doing it at the same time.
fn install() {
    let dir = Path::new(NODE_DIR);
    let lock = std::fs::File::create(dir.join(".install.lock")).expect("a lock file beside package.json");
    lock.lock().expect("the lock");
    let changed = |path: &str| std::fs::metadata(dir.join(path)).and_then(|m| m.modified()).ok();
    let done = changed("node_modules/.package-lock.json");
    if done.is_some() && done >= changed("package-lock.json") {
        return;
    }
    let npm =
        Command::new("npm").args(["ci", "--ignore-scripts"]).current_dir(dir).output().expect("npm runs");
    assert!(npm.status.success(), "npm ci: {}", String::from_utf8_lossy(&npm.stderr));
}

/// A node program that says on its first line where it listens.
struct Part {
    child: Child,
    /// Kept open: a program that writes to a closed pipe dies of it.
    _stdout: BufReader<ChildStdout>,
    base: String,
}

impl Part {
    fn start(script: &str, member: &str) -> Option<Self> {
        if !node_is_ready() {
            return None;
        }
        let mut child = Command::new("node")
            .arg(script)
            .current_dir(NODE_DIR)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node runs");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        stdout.read_line(&mut line).expect("a line");
        let said: Value =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("{script} said {line:?}: {e}"));
        Some(Self { base: said[member].as_str().expect("an address").to_owned(), child, _stdout: stdout })
    }

    async fn control(&self, method: Method, path: &str) -> Value {
        let origin = Url::parse(&self.base).expect("an address").origin().ascii_serialization();
        let answer =
            http().request(method, format!("{origin}/control/{path}")).send().await.expect("control answers");
        answer.json().await.expect("JSON")
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([])
        .no_proxy()
        .build()
        .expect("a client")
}

/// The company's identity provider.
pub struct Idp(Part);

pub struct Tokens {
    pub access: String,
    pub id: String,
}

impl Idp {
    /// `None` (after a line that begins with SKIP) where node is missing.
    pub fn start() -> Option<Self> {
        Part::start("idp.mjs", "issuer").map(Self)
    }

    pub fn issuer(&self) -> &str {
        &self.0.base
    }

    pub async fn control(&self, path: &str) {
        self.0.control(Method::POST, path).await;
    }

    /// How often `path` was asked for.
    pub async fn count(&self, path: &str) -> u64 {
        self.0.control(Method::GET, "counts").await[path].as_u64().unwrap_or(0)
    }

    /// The access token of a service, by client credentials.
    pub async fn service_token(&self, resource: &str) -> String {
        let form = [("grant_type", "client_credentials"), ("resource", resource), ("scope", "act")];
        let answer = http()
            .post(format!("{}/token", self.issuer()))
            .basic_auth("billing-bot", Some("billing-bot-secret"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form_encode(&form))
            .send()
            .await
            .expect("the provider answers");
        let body: Value = answer.json().await.expect("JSON");
        body["access_token"].as_str().unwrap_or_else(|| panic!("no token: {body}")).to_owned()
    }

    /// A person signs in in a browser: authorization code with PKCE, through the provider's own forms.
    /// Without `resource` the access token is an opaque one.
    pub async fn sign_in(&self, client_id: &str, login: &str, resource: Option<&str>) -> Tokens {
        const VERIFIER: &str = "a-verifier-that-only-this-test-knows-0123456789";
        const CALLBACK: &str = "https://console.example/callback";
        let challenge = URL_SAFE_NO_PAD.encode(sha256(VERIFIER.as_bytes()));
        let mut query = vec![
            ("client_id", client_id),
            ("response_type", "code"),
            ("redirect_uri", CALLBACK),
            ("scope", if resource.is_some() { "openid act" } else { "openid" }),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("nonce", "n-0S6_WzA2Mj"),
        ];
        query.extend(resource.map(|resource| ("resource", resource)));
        let mut browser =
            Browser { base: Url::parse(self.issuer()).expect("an address"), cookies: BTreeMap::new() };
        let mut next = browser.get(&format!("/auth?{}", form_encode(&query))).await;
        let code = loop {
            let location = next.location.unwrap_or_else(|| panic!("no redirect: {}", next.body));
            if let Some(answer) = location.strip_prefix(CALLBACK) {
                let url = Url::parse(&format!("{CALLBACK}{answer}")).expect("the callback");
                let code =
                    url.query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned());
                break code.unwrap_or_else(|| panic!("no code: {answer}"));
            }
            next = browser.get(&location).await;
            if next.location.is_none() {
                let prompt = if next.body.contains("value=\"login\"") { "login" } else { "consent" };
                let form = [("prompt", prompt), ("login", login), ("password", "any")];
                next = browser.post(&location, &form).await;
            }
        };
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", CALLBACK),
            ("client_id", client_id),
            ("code_verifier", VERIFIER),
        ];
        let answer = browser.post("/token", &form).await;
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        let member =
            |name: &str| body[name].as_str().unwrap_or_else(|| panic!("no {name}: {body}")).to_owned();
        Tokens { access: member("access_token"), id: member("id_token") }
    }
}

/// What a browser keeps between pages.
struct Browser {
    base: Url,
    cookies: BTreeMap<String, String>,
}

struct Page {
    location: Option<String>,
    body: String,
}

impl Browser {
    async fn get(&mut self, path: &str) -> Page {
        self.visit(Method::GET, path, None).await
    }

    async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Page {
        self.visit(Method::POST, path, Some(form_encode(form))).await
    }

    async fn visit(&mut self, method: Method, path: &str, form: Option<String>) -> Page {
        let url = self.base.join(path).expect("a path");
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = http().request(method, url).header("cookie", cookies.join("; "));
        if let Some(form) = form {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        }
        let answer = request.send().await.expect("the provider answers");
        for cookie in answer.headers().get_all("set-cookie") {
            let pair = cookie.to_str().expect("text").split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').expect("a cookie");
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        let location = answer.headers().get("location").map(|l| l.to_str().expect("text").to_owned());
        Page { location, body: answer.text().await.expect("text") }
    }
}

fn form_encode(pairs: &[(&str, &str)]) -> String {
    let encode = stagedoor::server::outbound::percent_encode;
    pairs.iter().map(|(n, v)| format!("{}={}", encode(n), encode(v))).collect::<Vec<_>>().join("&")
}

/// The company's directory.
pub struct Scim(Part);

impl Scim {
    pub fn start() -> Option<Self> {
        Part::start("scim.mjs", "url").map(Self)
    }

    pub fn url(&self) -> &str {
        &self.0.base
    }

    pub async fn control(&self, path: &str) {
        self.0.control(Method::POST, path).await;
    }

    /// How many questions were asked.
    pub async fn count(&self) -> u64 {
        self.0.control(Method::GET, "counts").await["users"].as_u64().expect("a number")
    }
}

/// An outbound client for these destinations on loopback.
pub fn outbound(destinations: &[&str]) -> Outbound {
    let destinations = destinations.iter().map(|d| (*d).to_owned()).collect();
    Outbound::new(&OutboundConfig { destinations, allow_http: true, ..OutboundConfig::default() })
        .expect("a client")
}

/// The machine's clock, whose monotonic half can be pushed on, so that nobody waits a minute for a rate limit.
#[derive(Default)]
pub struct PushedClock {
    machine: SystemClock,
    pushed: Mutex<Duration>,
}

impl PushedClock {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn push(&self, seconds: u64) {
        *self.pushed.lock().expect("the lock") += Duration::from_secs(seconds);
    }
}

impl Clock for PushedClock {
    fn now(&self) -> DateTime<Utc> {
        self.machine.now()
    }

    fn monotonic(&self) -> Duration {
        self.machine.monotonic() + *self.pushed.lock().expect("the lock")
    }
}
