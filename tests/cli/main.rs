//! The command line, as a person or a script meets it: the real binary in a directory of its own.
#![cfg(feature = "server")]

mod abuse;
mod audit;
mod deploy;
mod foreign;
#[path = "../support/pg.rs"]
mod pg;
#[path = "../support/recipes.rs"]
mod recipes;
mod replicas;
mod signals;
mod terminal;
mod wrong;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

struct Place {
    dir: tempfile::TempDir,
    /// Settings beside the defaults.
    environment: Vec<(&'static str, String)>,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    /// One on SQLite, and one on PostgreSQL where that is installed; both initialised.
    fn on_both_databases() -> Vec<Self> {
        // the log is named after the issuer, which a free port would change with every start
        let issuer = ("STAGEDOOR_ISSUER", "https://stagedoor.example".to_owned());
        let mut places = vec![Self { environment: vec![issuer.clone()], ..Self::new() }];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        match runtime.block_on(pg::database()) {
            Some(made) => {
                let environment = vec![
                    issuer,
                    ("STAGEDOOR_DATABASE_URL", made.service_url),
                    ("STAGEDOOR_DATABASE_OWNER_URL", made.owner_url),
                ];
                places.push(Self { environment, ..Self::new() });
            }
            None => println!("SKIP {:?}: PostgreSQL is not installed", std::thread::current().name()),
        }
        for place in &places {
            place.ok(&["init"]);
        }
        places
    }

    fn initialised() -> Self {
        let place = Self::new();
        place.ok(&["init"]);
        place
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stagedoor"));
        command.args(arguments).current_dir(self.path()).env_clear().stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs what must succeed, and gives back standard output.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.ok(&all)).unwrap()
    }

    /// Runs what must fail with `code`, and gives back standard error: one line.
    fn fails(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stdout));
        assert!(output.stdout.is_empty(), "errors go to standard error");
        let error = text(&output.stderr);
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        error
    }

    fn create_client(&self) -> (String, String) {
        let made = self.json(&[
            "client",
            "create",
            "--name",
            "backend",
            "--scopes",
            "actor_tokens:issue,tokens:verify",
        ]);
        (made["client_id"].as_str().unwrap().to_owned(), made["client_secret"].as_str().unwrap().to_owned())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn init_makes_what_is_private_and_says_what_comes_next() {
    let place = Place::new();
    let said = place.ok(&["init"]);
    for expected in
        ["master key file", "token key", "log key", "feed key", "stagedoor client create", "stagedoor serve"]
    {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
    let mode = |name: &str| std::fs::metadata(place.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(".stagedoor"), 0o700);
    assert_eq!((mode(".stagedoor/master.key"), mode(".stagedoor/stagedoor.db")), (0o600, 0o600));
}

#[test]
fn init_never_writes_over_anything() {
    let place = Place::initialised();
    let key = std::fs::read(place.path().join(".stagedoor/master.key")).unwrap();
    let keys = place.json(&["key", "list"]);
    let error = place.fails(&["init"], 1);
    assert!(error.contains("initialised already") && error.contains("stagedoor serve"), "{error}");
    assert_eq!(std::fs::read(place.path().join(".stagedoor/master.key")).unwrap(), key);
    assert_eq!(place.json(&["key", "list"]), keys);
    // without the key file no second one is made beside a database that was sealed under the first
    std::fs::remove_file(place.path().join(".stagedoor/master.key")).unwrap();
    let error = place.fails(&["init"], 1);
    assert!(error.contains("master key file") && error.contains("is not there"), "{error}");
    assert!(!place.path().join(".stagedoor/master.key").exists());
}

#[test]
fn init_takes_the_master_key_it_is_given() {
    let place = Place::new();
    let key = "A".repeat(43);
    let init = place.command(&["init", "--json"]).env("STAGEDOOR_MASTER_KEY", &key).output().unwrap();
    let said: Value = serde_json::from_slice(&init.stdout).unwrap();
    assert_eq!((&said["made_master_key"], said["keys"].as_array().unwrap().len()), (&Value::Bool(false), 3));
    assert!(!place.path().join(".stagedoor/master.key").exists());
    assert!(
        place.command(&["key", "list"]).env("STAGEDOOR_MASTER_KEY", &key).output().unwrap().status.success()
    );
    let bad = place.command(&["init"]).env("STAGEDOOR_MASTER_KEY", "secret").output().unwrap();
    let error = text(&bad.stderr);
    assert!(error.contains("is not 32 bytes in base64url") && !error.contains("secret"), "{error}");
}

#[test]
fn a_client_is_made_changed_listed_rotated_and_disabled() {
    let place = Place::initialised();
    let (id, secret) = place.create_client();
    assert!(secret.starts_with("sk_live_") && id.starts_with("client_"));
    let changed =
        place.json(&["client", "update", &id, "--audience", "https://a.example", "https://b.example"]);
    assert_eq!(changed["audiences"], serde_json::json!(["https://a.example", "https://b.example"]));
    let rotated = place.json(&["client", "rotate-secret", &id, "--overlap", "1h"]);
    assert_ne!(rotated["client_secret"].as_str().unwrap(), secret);
    let listed = place.json(&["client", "list"]);
    let client = &listed["clients"][0];
    assert_eq!(client["secrets"].as_array().unwrap().len(), 2);
    assert_eq!(client["scopes"], serde_json::json!(["actor_tokens:issue", "tokens:verify"]));
    let shown = listed.to_string() + &place.ok(&["client", "list"]);
    assert!(shown.contains("backend") && !shown.contains("sk_live_") && !shown.contains("hash"));
    let disabled = place.json(&["client", "disable", &id]);
    assert!(disabled["disabled_at"].is_i64());
    let error = place.fails(&["client", "rotate-secret", &id], 1);
    assert!(error.contains("is disabled; create another"), "{error}");
}

#[test]
fn a_clerk_client_gets_a_key_of_its_own_and_the_permit_it_needs() {
    let place = Place::initialised();
    let made = place.json(&[
        "client",
        "create",
        "--scopes",
        "actor_tokens:issue,actor_tokens:assert_actor",
        "--may-assert",
        "admin_*",
        "--profile",
        "clerk",
        "--origin",
        "https://app.example.com",
    ]);
    let id = made["client_id"].as_str().unwrap();
    let permit = made["permit"].as_str().unwrap();
    assert!(permit.contains(id) && permit.contains("admin_*"), "{permit}");
    // as printed it is a policy: what it permits is held in tests/policy
    std::fs::write(place.path().join("policy.cedar"), permit).unwrap();
    place.ok(&["policy", "check", "policy.cedar"]);
    let keys = place.json(&["key", "list"]);
    let purpose = format!("clerk:{id}");
    let key = keys["keys"].as_array().unwrap().iter().find(|k| k["purpose"] == purpose.as_str()).unwrap();
    assert_eq!((key["alg"].as_str(), key["state"].as_str()), (Some("RS256"), Some("active")));
}

#[test]
fn keys_rotate_and_are_imported_only_one_at_a_time() {
    let place = Place::initialised();
    let rotated = place.json(&["key", "rotate", "--alg", "EdDSA"]);
    assert_eq!((&rotated["keys"][0]["state"], &rotated["keys"][0]["alg"]), (&"next".into(), &"EdDSA".into()));
    let error = place.fails(&["key", "rotate"], 1);
    assert!(error.contains("signs soon; wait for it"), "{error}");
    std::fs::write(place.path().join("x.pem"), "-----BEGIN RSA PRIVATE KEY-----\n").unwrap();
    let error = place.fails(&["key", "import", "x.pem"], 1);
    assert!(error.contains("openssl pkcs8"), "{error}");
    let error = place.fails(&["key", "retire", "nobody"], 1);
    assert!(error.contains("there is no key nobody"), "{error}");
    let list = place.ok(&["key", "list"]);
    assert!(list.starts_with("KID") && list.contains("next") && list.contains("active"), "{list}");
}

#[test]
fn everything_opens_under_the_new_master_key_after_reseal() {
    let place = Place::initialised();
    let (id, _) = place.create_client();
    let said = place.ok(&["key", "reseal", "--new-key-file", "new.key"]);
    assert!(said.contains("3 keys, 1 clients") && said.contains("MASTER_KEY_FILE"), "{said}");
    let list =
        place.command(&["client", "list"]).env("STAGEDOOR_MASTER_KEY_FILE", "new.key").output().unwrap();
    assert!(text(&list.stdout).contains(&id) && list.stderr.is_empty());
    let old = place.run(&["client", "list"]);
    assert!(text(&old.stderr).contains("not authentic") && !text(&old.stdout).contains(&id));
}

#[test]
fn unknown_settings_are_refused_with_the_nearest_known_one() {
    let place = Place::new();
    std::fs::write(place.path().join("stagedoor.toml"), "data_dri = \"x\"\n").unwrap();
    let error = place.fails(&["client", "list"], 1);
    assert_eq!(error, "error: `data_dri` in stagedoor.toml is not a setting; did you mean `data_dir`?\n");
    let other = place.command(&["init", "--config", "none.toml"]).output().unwrap();
    assert!(text(&other.stderr).contains("none.toml cannot be read"));
    std::fs::remove_file(place.path().join("stagedoor.toml")).unwrap();
    let output = place.command(&["init"]).env("STAGEDOOR_DATABSE_URL", "x").output().unwrap();
    let expected = "error: STAGEDOOR_DATABSE_URL is not a setting; did you mean STAGEDOOR_DATABASE_URL?\n";
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), (expected, Some(1)));
    assert!(!place.path().join(".stagedoor").exists(), "nothing is made with a wrong setting");
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let place = Place::new();
    let error = place.fails(&["client", "list"], 1);
    assert!(error.contains("master key file") && error.contains("stagedoor init"), "{error}");
    let initialised = Place::initialised();
    let error = initialised.fails(&["client", "create", "--scopes", "nonsense"], 1);
    assert!(error.contains("\"nonsense\" is not a scope; write some of actor_tokens:issue"), "{error}");
    let error = initialised.fails(&["client", "disable", "client_nobody"], 1);
    assert!(error.contains("there is no client client_nobody"), "{error}");
    let error = initialised.fails(&["token", "mint", "--user", "u", "--actor", "a"], 1);
    assert!(error.contains("STAGEDOOR_CLIENT_SECRET is missing"), "{error}");
    let error =
        initialised.fails(&["token", "mint", "--user", "u", "--actor", "a", "--url", "http://a.example"], 1);
    assert!(error.contains("must be https"), "{error}");
    assert_eq!(initialised.run(&["clinet"]).status.code(), Some(2));
}

#[test]
fn audit_verify_says_holds_by_exit_code() {
    let place = Place::initialised();
    let said = place.json(&["audit", "verify"]);
    assert_eq!(
        (&said["holds"], &said["entries"]),
        (&Value::Bool(true), &3.into()),
        "init recorded three keys"
    );
    let (id, _) = place.create_client();
    place.ok(&["client", "disable", &id]);
    place.ok(&["key", "rotate"]);
    let said = place.ok(&["audit", "verify"]);
    assert_eq!(said, "the log holds: 6 entries recomputed\n", "every change is an entry");
    let error = Place::new().fails(&["audit", "verify"], 2);
    assert!(error.contains("stagedoor init"), "{error}");
}

#[test]
fn a_token_is_inspected_offline_and_labelled_unverified() {
    let place = Place::new();
    // {"alg":"none"} . {"sub":"user_42"}
    let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1c2VyXzQyIn0.AA";
    let said = place.ok(&["token", "inspect", token]);
    assert!(
        said.contains("claims (unverified)") && said.contains("user_42") && said.contains("not verified"),
        "{said}"
    );
    let error = place.fails(&["token", "inspect", "nonsense"], 1);
    assert!(error.contains("no token in compact form") && !error.contains("nonsense"), "{error}");
}

#[test]
fn the_health_check_fails_where_nobody_listens_and_passes_where_somebody_does() {
    use std::io::{Read as _, Write as _};
    let place = Place::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        for status in ["200 OK", "503 Service Unavailable"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).unwrap();
            assert!(request[..n].starts_with(b"GET /healthz HTTP/1.1\r\n"));
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        }
    });
    let health =
        || place.command(&["health"]).env("STAGEDOOR_LISTEN", &address).output().unwrap().status.code();
    assert_eq!(health(), Some(0));
    assert_eq!(health(), Some(1));
    server.join().unwrap();
    assert_eq!(health(), Some(1));
}

#[test]
fn version_and_help_are_answers() {
    let place = Place::new();
    let commit = option_env!("BUILD_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map_or_else(String::new, |commit| format!(" ({commit})"));
    assert_eq!(place.ok(&["--version"]), format!("stagedoor {}{commit}\n", env!("CARGO_PKG_VERSION")));
    assert!(place.ok(&["client", "create", "--help"]).contains("--may-assert"));
}

/// A running `serve` on a free port, stopped with the test.
struct Server {
    child: std::process::Child,
    url: String,
}

impl Server {
    fn start(place: &Place) -> Self {
        let mut command = place.command(&["serve"]);
        command.env("STAGEDOOR_LISTEN", "127.0.0.1:0");
        Self::run(command)
    }

    fn run(mut command: std::process::Command) -> Self {
        use std::io::BufRead as _;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").expect("the address is printed").to_owned();
        Self { child, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// contract.md §2: a running server sees a change made by the command line within a second.
#[test]
fn a_running_server_sees_a_new_and_a_disabled_client_within_a_second() {
    let place = Place::initialised();
    let server = Server::start(&place);
    let (id, secret) = place.create_client();
    let inspect = || {
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1In0.AA";
        place
            .command(&["token", "inspect", token, "--url", &server.url])
            .env("STAGEDOOR_CLIENT_SECRET", &secret)
            .output()
            .unwrap()
    };
    let known = sooner_or_later(inspect, |seen| text(&seen.stdout).contains("NOT valid: "));
    let said = text(&known.stdout);
    assert!(
        said.contains("NOT valid: "),
        "the server verified it for a known client: {said}{}",
        text(&known.stderr)
    );
    assert_eq!(known.status.code(), Some(1), "a token that is not valid is a failure");
    place.ok(&["client", "disable", &id]);
    let refused = sooner_or_later(inspect, |seen| text(&seen.stderr).contains("refused (401)"));
    let error = text(&refused.stderr);
    assert!(error.contains("refused (401)"), "{error}");
    assert!(!error.contains(&secret) && refused.stdout.is_empty());
}

/// What is seen once it is as wished, or after five seconds: a running server sees a change within one.
fn sooner_or_later<T>(look: impl Fn() -> T, wished: impl Fn(&T) -> bool) -> T {
    for _ in 0..50 {
        let seen = look();
        if wished(&seen) {
            return seen;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    look()
}

/// Grants end at the terminal, and a client's or a key's end with it.
#[test]
fn grants_end_at_the_terminal_and_with_their_client_and_their_key() {
    let place = Place::initialised();
    let server = Server::start(&place);
    let made = place.json(&[
        "client",
        "create",
        "--name",
        "dev",
        "--scopes",
        "actor_tokens:revoke,tokens:verify,admin",
    ]);
    let secret = made["client_secret"].as_str().unwrap();
    let run = |arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().copied().chain(["--url", &server.url]).collect();
        place.command(&all).env("STAGEDOOR_CLIENT_SECRET", secret).output().unwrap()
    };
    let unknown = sooner_or_later(
        || run(&["token", "revoke", "act_0", "--reason", "Drill"]),
        |seen| !text(&seen.stderr).contains("refused (401)"),
    );
    assert!(text(&unknown.stderr).contains("refused (404)"), "{}", text(&unknown.stderr));
    let all = run(&["token", "revoke", "--all", "--reason", "Drill"]);
    assert!(text(&all.stdout).starts_with("in force: 0 grants ended, entry "), "{}", text(&all.stderr));
    let actor = run(&["token", "revoke", "--actor", "admin_7", "--hold", "600", "--reason", "Left"]);
    assert!(actor.status.success(), "{}", text(&actor.stderr));
    for wrong in [
        &["token", "revoke"][..],
        &["token", "revoke", "act_0", "--all"],
        &["token", "revoke", "--iss", "x", "act_0"],
        &["token", "revoke", "--iss", "x", "--user", "user_42", "--reason", "Drill"],
    ] {
        assert!(!run(wrong).status.success(), "{wrong:?}");
    }
    let silent = run(&["token", "revoke", "--all"]);
    assert!(text(&silent.stderr).contains("--reason is missing"), "{}", text(&silent.stderr));
    let id = made["client_id"].as_str().unwrap();
    place.ok(&["client", "disable", id]);
    let keys = place.json(&["key", "list"]);
    let token_key = keys["keys"].as_array().unwrap().iter().find(|key| key["purpose"] == "token").unwrap();
    place.ok(&["key", "retire", token_key["kid"].as_str().unwrap(), "--now"]);
    let feed = sooner_or_later(
        || feed(&server.url),
        |feed| feed["kids"] == serde_json::json!([token_key["kid"]]) && !feed["clients"][id].is_null(),
    );
    assert_eq!(feed["kids"], serde_json::json!([token_key["kid"]]));
    assert!(feed["clients"][made["client_id"].as_str().unwrap()].is_i64(), "{feed}");
    assert!(feed["all"].is_i64());
    drop(server);
    let held = place.fails(&["key", "reseal", "--new-key-file", "new.key"], 1);
    assert!(held.contains("nothing was changed: 1 hold") && held.contains("--end-holds"), "{held}");
    assert!(!place.path().join("new.key").exists(), "nothing was made either");
    let said = place.ok(&["key", "reseal", "--new-key-file", "new.key", "--end-holds"]);
    assert!(said.contains("then hold those people again"), "{said}");
}

/// What a server's feed says; not verified here.
fn feed(url: &str) -> Value {
    use base64::Engine as _;
    use std::io::{Read as _, Write as _};
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /v1/revocations HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let payload = answer.split_once("\r\n\r\n").unwrap().1.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap())
        .unwrap()
}

#[test]
fn a_test_secret_is_refused_by_serve() {
    let place = Place::initialised();
    let made = place.json(&["client", "create", "--scopes", "tokens:verify", "--test"]);
    let secret = made["client_secret"].as_str().unwrap();
    assert!(secret.starts_with("sk_test_"));
    let server = Server::start(&place);
    let output = place
        .command(&["token", "inspect", "e30.e30.AA", "--url", &server.url])
        .env("STAGEDOOR_CLIENT_SECRET", secret)
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("refused (401)"), "{}", text(&output.stderr));
}

/// What a script runs before each start.
#[test]
fn init_if_needed_makes_and_then_leaves_as_it_is() {
    let place = Place::new();
    assert!(place.ok(&["init", "--if-needed"]).starts_with("made: database"));
    assert!(place.ok(&["init", "--if-needed"]).starts_with("nothing to do: database"));
    assert_eq!(place.json(&["init", "--if-needed"])["did"], "nothing");
    let error = place.fails(&["init"], 1);
    assert!(error.contains("is initialised already"), "{error}");
    let unread =
        place.command(&["init", "--if-needed"]).env("DATABASE_URL", "postgres://db/x").output().unwrap();
    assert!(text(&unread.stderr).contains("call it STAGEDOOR_DATABASE_URL"), "{}", text(&unread.stderr));
}

/// Nobody could use, and nobody could take away, what another master key wrote.
#[test]
fn with_another_master_key_nothing_is_added() {
    let place = Place::initialised();
    let other = Place::initialised();
    let key = std::fs::read(place.path().join(".stagedoor/stagedoor.db")).unwrap();
    let file = other.path().join(".stagedoor/master.key");
    for arguments in
        [&["client", "create", "--name", "x", "--scopes", "tokens:verify"][..], &["key", "rotate"]]
    {
        let refused = place.command(arguments).env("STAGEDOOR_MASTER_KEY_FILE", &file).output().unwrap();
        let error = text(&refused.stderr);
        assert!(error.contains("nothing was changed, as this is not the master key"), "{error}");
    }
    assert_eq!(std::fs::read(place.path().join(".stagedoor/stagedoor.db")).unwrap(), key);
    assert_eq!(place.json(&["client", "list"])["not_authentic"], serde_json::json!([]));
}

/// A secret goes where the configuration says, and to nobody else who happens to listen.
#[test]
fn a_command_asks_the_server_of_its_configuration() {
    let place = Place::initialised();
    let server = Server::start(&place);
    let address = server.url.strip_prefix("http://").unwrap();
    std::fs::write(place.path().join("other.toml"), format!("listen = \"{address}\"\n")).unwrap();
    let run = |config: &str| {
        let mut command =
            place.command(&["--config", config, "token", "revoke", "--all", "--reason", "Drill"]);
        command.env_remove("STAGEDOOR_LISTEN").env("STAGEDOOR_CLIENT_SECRET", "sk_live_0").output().unwrap()
    };
    let error = text(&run("other.toml").stderr);
    assert!(error.contains(&format!("{}/ refused (401)", server.url)), "{error}");
    let help = place.ok(&["serve", "--help"]);
    assert!(help.contains("policy.path") && help.contains("issuers[].iss"), "{help}");
}

#[test]
fn a_port_that_is_taken_leaves_nothing_in_the_log() {
    let place = Place::initialised();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = taken.local_addr().unwrap().to_string();
    let mut serve = place.command(&["serve"]);
    serve.env("STAGEDOOR_LISTEN", "127.0.0.1:0").env("STAGEDOOR_METRICS_LISTEN", metrics);
    let output = serve.output().unwrap();
    assert!(text(&output.stderr).contains("for metrics"), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty(), "it never answered: {}", text(&output.stdout));
    place.ok(&["audit", "export", "--format", "ndjson", "--out", "log"]);
    let log = std::fs::read_to_string(place.path().join("log")).unwrap();
    assert!(!log.contains(r#""typ":"start""#), "{log}");
}

#[test]
fn dev_shows_nothing_beyond_loopback() {
    let place = Place::new();
    let output = place.command(&["dev"]).env("STAGEDOOR_METRICS_LISTEN", "0.0.0.0:0").output().unwrap();
    assert!(text(&output.stderr).contains("shows its metrics on loopback only"), "{}", text(&output.stderr));
}

#[test]
fn init_says_that_a_database_of_dev_is_not_for_serving() {
    let place = Place::new();
    place.ok(&["dev", "--once"]);
    let error = place.fails(&["init"], 1);
    assert!(error.contains("belongs to `stagedoor dev`"), "{error}");
}

/// A checkpoint kept elsewhere is what a rewritten log cannot get past.
#[test]
fn audit_verify_compares_with_checkpoints_kept_from_earlier() {
    let place = Place::initialised();
    let server = Server::start(&place);
    let address = server.url.strip_prefix("http://").unwrap();
    let checkpoint = get(address, "/v1/audit/log/checkpoint");
    drop(server);
    std::fs::write(place.path().join("kept"), &checkpoint).unwrap();
    let said = place.ok(&["audit", "verify", "--checkpoint", "kept"]);
    assert!(said.contains("1 checkpoints continued"), "{said}");
    // one that claims more than this log ever had is not this key's any more
    let (origin, rest) = checkpoint.split_once('\n').unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    std::fs::write(place.path().join("forged"), format!("{origin}\n999\n{rest}")).unwrap();
    let error = place.fails(&["audit", "verify", "--checkpoint", "forged"], 2);
    assert!(error.contains("another key signed, or that was changed"), "{error}");
}

fn get(address: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The database restored from an older copy: the log is shorter than somebody saw it.
#[test]
fn a_database_restored_from_an_older_copy_is_a_rollback() {
    let place = Place::initialised();
    let copy = place.path().join("copy.db");
    let database = place.path().join(".stagedoor/stagedoor.db");
    std::fs::copy(&database, &copy).unwrap();
    place.create_client();
    let server = Server::start(&place);
    let checkpoint = get(server.url.strip_prefix("http://").unwrap(), "/v1/audit/log/checkpoint");
    drop(server);
    std::fs::write(place.path().join("kept"), checkpoint).unwrap();
    for leftover in ["stagedoor.db-wal", "stagedoor.db-shm"] {
        let _ = std::fs::remove_file(place.path().join(".stagedoor").join(leftover));
    }
    std::fs::copy(&copy, &database).unwrap();
    let output = place.run(&["audit", "verify", "--checkpoint", "kept"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("ROLLBACK"), "{}", text(&output.stdout));
}
