//! The real parts, each a process of its own that ends with its test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser");
const NODE_PARTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node");
const STAGEDOOR: &str = env!("CARGO_BIN_EXE_stagedoor");

/// Shows that node, Chromium and the npm packages are there.
#[derive(Clone, Copy)]
pub struct Tools(());

/// `None`, after a line that begins with SKIP, where something is missing.
pub fn ready() -> Option<Tools> {
    static READY: OnceLock<Option<Tools>> = OnceLock::new();
    *READY.get_or_init(|| {
        let there =
            |program: &str| Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
        for program in ["node", "npm", "chromium"] {
            if !there(program) {
                eprintln!("SKIP: {program} is not installed, so no browser test runs");
                return None;
            }
        }
        install(Path::new(HERE));
        install(Path::new(NODE_PARTS));
        build_product();
        Some(Tools(()))
    })
}

/// `npm ci`, once for all test binaries: a file lock keeps them from doing it at the same time.
fn install(dir: &Path) {
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

fn product_binary() -> PathBuf {
    Path::new(STAGEDOOR).with_file_name("examples").join("product")
}

/// `cargo test` builds examples, `cargo test --test browser` does not.
fn build_product() {
    if product_binary().exists() {
        return;
    }
    let cargo =
        Command::new(env!("CARGO")).args(["build", "--example", "product"]).output().expect("cargo runs");
    assert!(cargo.status.success(), "the example product: {}", String::from_utf8_lossy(&cargo.stderr));
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a loopback port").port()
}

/// A process that is killed when its test ends.
struct Running {
    child: Child,
    /// Kept open: a program that writes to a closed pipe dies of it.
    stdout: BufReader<ChildStdout>,
    stdin: Option<ChildStdin>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { stdin: child.stdin.take(), child, stdout }
    }

    /// The rest of the first line that begins with `start`.
    fn line(&mut self, start: &str) -> String {
        let mut line = String::new();
        while self.stdout.read_line(&mut line).expect("its output") > 0 {
            if let Some(rest) = line.trim_end().strip_prefix(start) {
                return rest.to_owned();
            }
            line.clear();
        }
        panic!("it ended without saying {start:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stagedoor itself.
pub struct Stagedoor {
    /// Where it answers.
    pub url: String,
    data: TempDir,
    client: String,
    running: Running,
}

impl Stagedoor {
    fn command(data: &Path) -> Command {
        let mut command = Command::new(STAGEDOOR);
        command.current_dir(data).env("STAGEDOOR_DATA_DIR", data).env("STAGEDOOR_LOG_LEVEL", "warn");
        command.stderr(Stdio::inherit());
        command
    }

    /// `stagedoor dev` on a free port.
    pub fn dev() -> Self {
        Self::dev_in(tempfile::tempdir().expect("a directory"), None)
    }

    /// The same under another policy.
    pub fn dev_with_policy(policy: &str) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let path = data.path().join("policy.cedar");
        std::fs::write(&path, policy).expect("a file");
        Self::dev_in(data, Some(&path))
    }

    fn dev_in(data: TempDir, policy: Option<&Path>) -> Self {
        let mut command = Self::command(data.path());
        command.envs(policy.map(|path| ("STAGEDOOR_POLICY__PATH", path)));
        let mut running = Running::start(command.arg("dev").env("STAGEDOOR_LISTEN", "127.0.0.1:0"));
        let url = running.line("listening on ");
        let kept = std::fs::read_to_string(data.path().join("dev-client.json")).expect("the demo's client");
        let client: Value = serde_json::from_str(&kept).expect("JSON");
        Self { url, client: client["client_id"].as_str().expect("an id").to_owned(), data, running }
    }

    /// `stagedoor serve` with the shipped policy, a permit for the product, and people at `issuer`.
    pub fn serve(port: u16, issuer: &str, product_port: u16) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let dir = data.path();
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("a file");
        write("stagedoor.toml", &settings(port, issuer));
        write("people.json", PEOPLE);
        let shipped = include_str!("../../src/server/policy/shipped/default.cedar");
        write("policy.cedar", &format!("{shipped}{PRODUCT_PERMIT}"));
        let run = |words: &[&str]| {
            let output = Self::command(dir).args(words).output().expect("stagedoor runs");
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
            String::from_utf8(output.stdout).expect("text")
        };
        run(&["init"]);
        let handoff = format!("http://as.localhost:{product_port}/impersonation");
        let made = run(&[
            "client",
            "create",
            "--name",
            "shop",
            "--audience",
            "https://api.example.com",
            "--may-assert",
            "*",
            "--scopes",
            "actor_tokens:issue,actor_tokens:assert_actor,actor_tokens:redeem,tokens:verify",
            "--handoff-url",
            &handoff,
            "--json",
        ]);
        write("dev-client.json", &made);
        let client: Value = serde_json::from_str(&made).expect("JSON");
        let mut running = Running::start(Self::command(dir).arg("serve"));
        let url = running.line("listening on ");
        Self { url, client: client["client_id"].as_str().expect("an id").to_owned(), data, running }
    }

    /// The secret of the product's client.
    pub fn client_secret(&self) -> String {
        let text = std::fs::read_to_string(self.data.path().join("dev-client.json")).expect("the client");
        let client: Value = serde_json::from_str(&text).expect("JSON");
        client["client_secret"].as_str().expect("a secret").to_owned()
    }

    /// Puts another policy in force, as whoever edits the file does.
    pub fn set_policy(&self, policy: &str) {
        std::fs::write(self.data.path().join("policy.cedar"), policy).expect("a file");
        // read anew within a second (docs/policy.md)
        std::thread::sleep(Duration::from_millis(1500));
    }

    /// It is gone, without a word.
    pub fn stop(&mut self) {
        self.running.child.kill().expect("it runs");
        self.running.child.wait().expect("it ended");
    }

    /// Changes a sealed row behind the service's back, as whoever owns the file can.
    pub fn change_row(&self, index: u64) {
        let path = self.data.path().join("stagedoor.db");
        let run = async move {
            let url = format!("sqlite://{}", path.display());
            let pool = sqlx::SqlitePool::connect(&url).await.expect("the database");
            sqlx::query("DROP TRIGGER audit_entry_no_update").execute(&pool).await.expect("no trigger");
            let changed = sqlx::query(
                "UPDATE audit_entry SET body = CAST(replace(CAST(body AS TEXT), '\"granted\"', '\"denied\"') AS BLOB) \
                 WHERE idx & 0xffffffffff = $1",
            )
            .bind(index.cast_signed())
            .execute(&pool)
            .await
            .expect("a change");
            assert_eq!(changed.rows_affected(), 1);
        };
        tokio::runtime::Runtime::new().expect("a runtime").block_on(run);
    }
}

fn settings(port: u16, issuer: &str) -> String {
    format!(
        r#"
listen = "127.0.0.1:{port}"
allow_http = true
[[issuers]]
iss = "{issuer}"
discovery = "{issuer}/.well-known/openid-configuration"
audiences = ["https://stagedoor.example"]
clients = ["support-console"]
roles_path = "realm_access.roles"
org_path = "org"
[directory]
kind = "file"
path = "people.json"
[policy]
path = "policy.cedar"
[console]
issuer = "{issuer}"
client_id = "console"
client_secret = "console-secret"
"#
    )
}

const PRODUCT_PERMIT: &str = r#"
@id("shop-names-its-admins")
@client("shop")
@asserted("allow")
@scope("read")
permit (principal in Role::"admin", action == Action::"impersonate", resource)
when { principal.known && resource.known };
"#;

const PEOPLE: &str = r#"{ "people": [
  { "id": "agent_1", "display_name": "Ada, support at Acme", "active": true, "roles": ["support"], "org": "acme" },
  { "id": "admin_7", "display_name": "Alan, admin at Acme", "active": true, "roles": ["admin"], "org": "acme" },
  { "id": "auditor_1", "display_name": "Annie, auditor", "active": true, "roles": ["auditor"], "org": "acme" },
  { "id": "officer_1", "display_name": "Olga, security", "active": true, "roles": ["security"], "org": "acme" },
  { "id": "user_42", "display_name": "Mary, customer of Acme", "active": true, "roles": ["customer"], "org": "acme" },
  { "id": "user_43", "display_name": "Ken, customer of Acme", "active": true, "roles": ["customer"], "org": "acme" },
  { "id": "user_99", "display_name": "Vera, whom nobody may impersonate", "active": true, "roles": ["customer", "protected"], "org": "acme" }
] }"#;

/// The company's identity provider, which knows the console.
pub struct Idp {
    /// `iss`.
    pub issuer: String,
    _running: Running,
}

impl Idp {
    /// Sends people back to `callback`.
    pub fn start(callback: &str) -> Option<Self> {
        let mut command = Command::new("node");
        command
            .arg("idp.mjs")
            .current_dir(NODE_PARTS)
            .env("CONSOLE_CALLBACK", callback)
            .stderr(Stdio::null());
        let mut running = Running::start(&mut command);
        let said: Value = serde_json::from_str(&format!("{{{}", running.line("{"))).ok()?;
        Some(Self { issuer: said["issuer"].as_str()?.to_owned(), _running: running })
    }
}

/// The example product.
pub struct Product {
    /// Its port, on `localhost` and `as.localhost`.
    pub port: String,
    /// The front end on another port that it lets in; nobody listens there yet.
    pub front_end: String,
    _running: Running,
}

impl Product {
    /// The product that `stagedoor`'s client opens.
    pub fn beside(stagedoor: &Stagedoor, port: Option<u16>) -> Self {
        let port = port.unwrap_or_else(free_port);
        let handoff = format!("http://as.localhost:{port}/impersonation");
        let mut update = Stagedoor::command(stagedoor.data.path());
        let updated =
            update.args(["client", "update", &stagedoor.client, "--handoff-url", &handoff]).output();
        let updated = updated.expect("stagedoor runs");
        assert!(updated.status.success(), "{}", String::from_utf8_lossy(&updated.stderr));
        // A running server sees a change made by the CLI within a second (contract.md §2).
        std::thread::sleep(Duration::from_millis(1200));
        let mut command = Command::new(product_binary());
        command.arg(&stagedoor.url).args(["--listen", &format!("127.0.0.1:{port}"), "--client-file"]);
        command.arg(stagedoor.data.path().join("dev-client.json"));
        let front_end = format!("http://localhost:{}", free_port());
        command.args(["--front-end", &front_end]);
        let mut running = Running::start(&mut command);
        running.line("the product: ");
        Self { port: port.to_string(), front_end, _running: running }
    }
}

/// A script in node; fails the test when the script fails.
pub struct Script(Running);

/// Starts `script` with these variables.
pub fn node(_tools: Tools, script: &str, env: &[(&str, &str)]) -> Script {
    let mut command = Command::new("node");
    command.arg(script).current_dir(HERE).envs(env.iter().copied());
    Script(Running::start(&mut command))
}

impl Script {
    /// The rest of the line that begins with `start`.
    pub fn wait_for(&mut self, start: &str) -> String {
        self.0.line(start)
    }

    /// Lets a script go on that waits for a line.
    pub fn go_on(&mut self) {
        let stdin = self.0.stdin.as_mut().expect("its input");
        stdin.write_all(b"go on\n").expect("its input is open");
    }

    /// Shows what the script says and waits for its end.
    pub fn finish(mut self) {
        let mut line = String::new();
        while self.0.stdout.read_line(&mut line).expect("its output") > 0 {
            print!("{line}");
            line.clear();
        }
        let status = self.0.child.wait().expect("its end");
        assert!(status.success(), "the script failed; what it said stands above");
    }
}
