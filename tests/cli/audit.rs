//! `stagedoor audit …` as an auditor or an operator types it, on both databases.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Output;

use serde_json::{Value, json};
use sqlx::Connection as _;
use stagedoor::server::store::{Db, cosig};

use super::{Place, Server, text};

/// One request with a client's secret; status and body.
fn request(server: &Server, secret: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    send(server.url.strip_prefix("http://").unwrap(), secret, method, path, body)
}

pub fn send(address: &str, secret: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {secret}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn get(server: &Server, path: &str) -> String {
    let (status, body) = request(server, "", "GET", path, "");
    assert_eq!(status, 200, "{body}");
    body
}

/// A client that may mint for anybody and read the log, known to the server.
fn client(place: &Place, server: &Server) -> String {
    auditor(place, server.url.strip_prefix("http://").unwrap())
}

/// The same, for a server at an address.
pub fn auditor(place: &Place, address: &str) -> String {
    let made = place.json(&[
        "client",
        "create",
        "--scopes",
        "actor_tokens:issue,actor_tokens:assert_actor,audit:read",
        "--audience",
        "https://api.example.com",
        "--may-assert",
        "*",
    ]);
    let secret = made["client_secret"].as_str().unwrap().to_owned();
    for _ in 0..200 {
        if send(address, &secret, "GET", "/v1/audit/entries?limit=1", "").0 == 200 {
            return secret;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("a running server sees a new client within a second");
}

/// An attempt on `user`: refused by the shipped policy, and recorded with everybody in it.
fn attempt(server: &Server, secret: &str, user: &str) {
    attempt_at(server.url.strip_prefix("http://").unwrap(), secret, user);
}

/// The same, at an address.
pub fn attempt_at(address: &str, secret: &str, user: &str) {
    let body =
        json!({ "user_id": user, "actor": { "sub": "admin_7" }, "reason": "Ticket 4711: invoice missing" });
    let (status, answer) = send(address, secret, "POST", "/v1/actor_tokens", &body.to_string());
    assert_eq!(status, 403, "{answer}");
}

fn on_sqlite(place: &Place) -> bool {
    !place.environment.iter().any(|(name, _)| *name == "STAGEDOOR_DATABASE_URL")
}

fn with_secret(place: &Place, secret: &str, arguments: &[&str]) -> Output {
    place.command(arguments).env("STAGEDOOR_CLIENT_SECRET", secret).output().unwrap()
}

/// Issue 3 §3: against URL or exported directory, with the key from elsewhere, as somebody outside.
#[test]
fn the_log_is_verified_from_outside() {
    for place in Place::on_both_databases() {
        let server = Server::start(&place);
        let secret = client(&place, &server);
        for i in 0..300 {
            attempt(&server, &secret, &format!("user_{i}"));
        }
        let file = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
        file("vkey", &get(&server, "/v1/audit/log/vkey"));
        file("kept", &get(&server, "/v1/audit/log/checkpoint"));
        attempt(&server, &secret, "user_x");

        let verify =
            ["audit", "verify", "--json", "--url", &server.url, "--vkey", "vkey", "--checkpoint", "kept"];
        let hashes = place.run(&verify);
        let said: Value = serde_json::from_slice(&hashes.stdout).unwrap();
        assert_eq!((&said["holds"], &said["bodies_unseen"]), (&json!(true), &said["entries"]), "{said}");
        assert!(said["entries"].as_u64().unwrap() > 300 && hashes.stderr.is_empty());
        let bodies = with_secret(&place, &secret, &verify);
        let said: Value = serde_json::from_slice(&bodies.stdout).unwrap();
        assert_eq!((&said["holds"], &said["bodies_unseen"]), (&json!(true), &json!(0)), "{said}");
        let wrong = with_secret(&place, "sk_live_wrong", &verify);
        assert_eq!(wrong.status.code(), Some(2), "a secret that is refused is said, not passed over");
        assert!(
            text(&wrong.stderr).contains("tile/entries/000 could not be read"),
            "{}",
            text(&wrong.stderr)
        );

        place.ok(&["audit", "export", "--format", "tiles", "--out", "log"]);
        let said = place.ok(&["audit", "verify", "--dir", "log", "--checkpoint", "kept"]);
        assert!(said.starts_with("the log holds: 3") && said.contains("1 checkpoints continued"), "{said}");
        let unasked = place.run(&["audit", "verify", "--dir", "log"]);
        assert!(text(&unasked.stderr).contains("not whose it is"), "{}", text(&unasked.stderr));

        // a key of somebody else, a forged checkpoint, a forged entry
        file("other", "other.example/audit/1+00000000+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n");
        let error = place.fails(&["audit", "verify", "--dir", "log", "--vkey", "other"], 2);
        assert!(error.contains("holds no verifier key"), "{error}");
        let log = place.path().join("log");
        let bundle = log.join("tile/entries/000");
        let whole = std::fs::read(&bundle).unwrap();
        let mut forged = whole.clone();
        forged[20] ^= 1;
        std::fs::write(&bundle, forged).unwrap();
        let said = place.run(&["audit", "verify", "--dir", "log", "--vkey", "vkey"]);
        assert_eq!(said.status.code(), Some(1));
        assert!(
            text(&said.stdout).contains("entry 0: its body is not what was hashed"),
            "{}",
            text(&said.stdout)
        );
        std::fs::write(&bundle, whole).unwrap();
        let checkpoint = std::fs::read_to_string(log.join("checkpoint")).unwrap();
        std::fs::write(log.join("checkpoint"), checkpoint.replacen("\n3", "\n2", 1)).unwrap();
        let said = place.run(&["audit", "verify", "--dir", "log", "--vkey", "vkey"]);
        assert_eq!(said.status.code(), Some(1));
        assert!(text(&said.stdout).contains("does NOT hold: its checkpoint"), "{}", text(&said.stdout));
        let error = place.fails(&["audit", "verify", "--dir", "nowhere", "--vkey", "vkey"], 2);
        assert!(error.contains("--dir nowhere is no directory that is there"), "{error}");
        let error = place.fails(&["audit", "verify", "--vkey", "vkey"], 2);
        assert!(error.contains("go with --url or --dir"), "{error}");
    }
}

/// A program that prints an address and serves until the test ends.
pub struct Serving {
    child: std::process::Child,
    /// What it said until then.
    pub said: Vec<String>,
}

impl Serving {
    /// Starts it and reads standard output up to the line with its address.
    pub fn start(mut command: std::process::Command) -> Self {
        use std::io::BufRead as _;
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut said = Vec::new();
        for line in std::io::BufReader::new(child.stdout.take().unwrap()).lines() {
            said.push(line.unwrap());
            if said.last().unwrap().starts_with("listening on ") {
                break;
            }
        }
        Self { child, said }
    }

    pub fn url(&self) -> &str {
        self.said.last().unwrap().strip_prefix("listening on ").expect("the address is printed")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Issue 3 §4: another team's witness cosigns what `serve` shows, and an auditor demands that it did.
#[test]
fn a_witness_of_another_team_cosigns_and_its_word_is_demanded() {
    for place in Place::on_both_databases() {
        // the key is known before the service runs: from an export
        place.ok(&["audit", "export", "--format", "tiles", "--out", "first"]);
        let theirs = Place::new();
        std::fs::copy(place.path().join("first/vkey"), theirs.path().join("log.vkey")).unwrap();
        let arguments =
            ["audit", "witness", "--name", "witness.example/w1", "--log", "log.vkey", "--state", "w"];
        let mut command = theirs.command(&arguments);
        command.args(["--listen", "127.0.0.1:0"]);
        let witness = Serving::start(command);
        let vkey = witness.said[0].strip_prefix("vkey ").expect("the key is printed").to_owned();
        let again = theirs.fails(&arguments, 2);
        assert!(again.contains("another witness uses this --state directory"), "{again}");

        let settings = [
            ("STAGEDOOR_LISTEN", "127.0.0.1:0"),
            ("STAGEDOOR_ALLOW_HTTP", "true"),
            ("STAGEDOOR_WITNESSES__0__URL", witness.url()),
            ("STAGEDOOR_WITNESSES__0__VKEY", &vkey),
            ("STAGEDOOR_LOG_FORMAT", "json"),
            ("STAGEDOOR_WITNESS_DEADLINE", "1s"),
        ];
        let mut command = place.command(&["serve"]);
        command.envs(settings);
        let lines = place.path().join("lines");
        command.stderr(std::fs::File::create(&lines).unwrap());
        let serving = Serving::start(command);
        let server = &serving.url().replace("http://", "");
        // the first round begins with the service
        let mut witnessed = (0, String::new());
        for _ in 0..500 {
            witnessed = send(server, "", "GET", "/v1/audit/log/witnessed", "");
            if witnessed.0 == 200 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(witnessed.1.contains("\u{2014} witness.example/w1 "), "{witnessed:?}");
        assert_eq!(send(server, "", "GET", "/readyz", "").0, 200);
        let metrics = send(server, "", "GET", "/metrics", "").1;
        assert!(metrics.contains("stagedoor_witness_refuses{witness=\"witness.example/w1\"} 0"), "{metrics}");
        assert!(metrics.contains("stagedoor_log_unwitnessed_seconds 0"), "{metrics}");
        let said = std::fs::read_to_string(&lines).unwrap();
        let line =
            said.lines().find(|line| line.contains("signed checkpoint")).expect("it goes to the log stream");
        let line: Value = serde_json::from_str(line).unwrap();
        let note = line["fields"]["checkpoint"].as_str().or(line["checkpoint"].as_str()).unwrap();
        assert!(note.starts_with("stagedoor.example/audit/1\n"), "{note}");

        let url = serving.url();
        let verify = ["audit", "verify", "--url", url, "--vkey", "first/vkey", "--witness"];
        let said = place.ok(&[&verify[..], &[&vkey]].concat());
        assert!(said.starts_with("the log holds"), "{said}");
        let stranger = "witness.example/w2+3b0ef0f6+BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let error = place.fails(&[&verify[..], &[stranger]].concat(), 2);
        assert!(error.contains("holds no witness's key"), "{error}");
        place.ok(&["audit", "export", "--format", "tiles", "--out", "log"]);
        let verify = ["audit", "verify", "--dir", "log", "--vkey", "first/vkey", "--witness", &vkey];
        place.ok(&verify);
        let forged = place.path().join("log/witnessed");
        let note = std::fs::read_to_string(&forged).unwrap();
        let (keep, line) = note.trim_end().rsplit_once(' ').unwrap();
        let other = if &line[40..41] == "A" { "B" } else { "A" };
        std::fs::write(&forged, format!("{keep} {}{other}{}\n", &line[..40], &line[41..])).unwrap();
        let output = place.run(&verify);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stdout).contains("is not cosigned by witness.example/w1"), "{output:?}");

        // without its witness the service goes on, but says that it is not ready once the deadline has passed
        drop(serving);
        let mut command = place.command(&["serve"]);
        command.envs(settings).stderr(std::process::Stdio::null());
        drop(witness);
        let serving = Serving::start(command);
        let server = &serving.url().replace("http://", "");
        let mut ready = (200, String::new());
        for _ in 0..500 {
            ready = send(server, "", "GET", "/readyz", "");
            if ready.0 == 503 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(ready.1.contains("has waited"), "{ready:?}");
    }
}

/// Issue 3, bad input: export to a full disk leaves no partial file under its final name.
#[test]
fn an_export_is_whole_or_not_there() {
    for place in Place::on_both_databases() {
        let server = Server::start(&place);
        let secret = client(&place, &server);
        for i in 0..90 {
            attempt(&server, &secret, &format!("user_{i}"));
        }
        let counted = place.json(&["audit", "export", "--format", "ndjson", "--out", "a.ndjson"]);
        let lines = std::fs::read_to_string(place.path().join("a.ndjson")).unwrap();
        assert_eq!(counted["entries"], lines.lines().count());
        assert!(!lines.contains("user_1"), "without --personal nobody stands in it");
        let error = place.fails(&["audit", "export", "--format", "csv", "--out", "a.ndjson"], 2);
        assert!(error.contains("is there already"), "{error}");
        place.ok(&["audit", "export", "--format", "csv", "--out", "a.csv", "--personal"]);
        assert!(std::fs::read_to_string(place.path().join("a.csv")).unwrap().contains("user_1"));
        let views = request(&server, &secret, "GET", "/v1/audit/entries?typ=view", "").1;
        assert!(views.contains("\"export\":\"csv\""), "reading people is recorded: {views}");
        place.ok(&["audit", "export", "--format", "ocsf", "--out", "a.ocsf"]);
        let error = place.fails(&["audit", "export", "--format", "tiles", "--out", "t", "--personal"], 2);
        assert!(error.contains("--personal does not go with tiles"), "{error}");
        assert_eq!(place.run(&["audit", "export", "--format", "xml", "--out", "x"]).status.code(), Some(2));

        // no file may grow beyond 40 KiB: what a full disk is to a writer
        let arguments =
            ["-c", "trap '' XFSZ; ulimit -f 80; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_stagedoor")];
        let mut limited = std::process::Command::new("sh");
        limited.args(arguments).args(["audit", "export", "--format", "ndjson", "--out", "full.ndjson"]);
        limited.current_dir(place.path()).envs(place.environment.iter().map(|(name, value)| (*name, value)));
        let output = limited.output().unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("full.ndjson could not be written, and nothing is left of it"), "{error}");
        let left = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("full")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Issue 3 §5; invariant 13 at the command line: erased while the service runs, found nowhere, every proof holds.
#[test]
fn a_person_is_erased_and_the_log_holds() {
    for place in Place::on_both_databases() {
        let server = Server::start(&place);
        let secret = client(&place, &server);
        for i in 0..20 {
            attempt(&server, &secret, if i % 2 == 0 { "user_forgetme_4711" } else { "user_stays" });
        }
        let file = place.path().join("kept");
        std::fs::write(&file, get(&server, "/v1/audit/log/checkpoint")).unwrap();
        let said = place.json(&["audit", "erase", "--subject", "user_forgetme_4711"]);
        assert_eq!((&said["entries"], &said["too_young"]), (&json!(10), &json!(0)));
        let again = place.json(&["audit", "erase", "--subject", "user_forgetme_4711"]);
        assert_eq!(again["entries"], 0);
        attempt(&server, &secret, "user_stays");
        place.ok(&["audit", "export", "--format", "ndjson", "--out", "all", "--personal"]);
        let all = std::fs::read_to_string(place.path().join("all")).unwrap();
        assert!(all.contains("user_stays") && !all.contains("forgetme"));
        place.ok(&["audit", "verify", "--checkpoint", "kept"]);
        if on_sqlite(&place) {
            for name in ["stagedoor.db", "stagedoor.db-wal"] {
                let bytes = std::fs::read(place.path().join(".stagedoor").join(name)).unwrap_or_default();
                assert!(!bytes.windows(18).any(|window| window == b"user_forgetme_4711"), "{name}");
            }
        }

        // nobody erases or prunes his own trail
        let young = place.run(&["audit", "erase", "--actor", "admin_7", "--basis", "art-17"]);
        assert_eq!(young.status.code(), Some(1));
        assert!(
            text(&young.stdout).contains("younger than ACTOR_RETENTION (365 days)"),
            "{}",
            text(&young.stdout)
        );
        let mut short =
            place.command(&["audit", "erase", "--actor", "admin_7", "--basis", "art-17", "--json"]);
        let short = short.env("STAGEDOOR_ACTOR_RETENTION", "0s").output().unwrap();
        assert_eq!(short.status.code(), Some(0), "{}", text(&short.stderr));
        place.ok(&["audit", "verify", "--checkpoint", "kept"]);
        assert_eq!(
            place.run(&["audit", "erase", "--actor", "admin_7"]).status.code(),
            Some(2),
            "--basis is needed"
        );
        assert_eq!(place.run(&["audit", "erase"]).status.code(), Some(2));
        let error = place.fails(&["audit", "erase", "--actor", "a", "--basis", "his own wish"], 2);
        assert!(error.contains("--basis must be a short word"), "{error}");
        let error = place.fails(&["audit", "prune", "--before", "2999-01-01"], 2);
        assert!(error.contains("at least 365 days back"), "{error}");
        assert_eq!(place.json(&["audit", "prune", "--before", "2020-01-01T00:00:00Z"])["entries"], 0);
        assert_eq!(place.run(&["audit", "prune", "--before", "yesterday"]).status.code(), Some(2));
        if !on_sqlite(&place) {
            let mut service = place.command(&["audit", "erase", "--subject", "user_stays"]);
            let output = service.env_remove("STAGEDOOR_DATABASE_OWNER_URL").output().unwrap();
            assert!(
                text(&output.stderr).contains("`database_owner_url` is missing"),
                "{}",
                text(&output.stderr)
            );
        }
    }
}

/// Who checks a log knows its name: under another it would look forged to him.
#[test]
fn a_log_keeps_its_name_until_a_new_epoch_has_another() {
    let place = Place::initialised();
    let serve = |issuer: &str| {
        let mut command = place.command(&["serve"]);
        command.env("STAGEDOOR_ISSUER", issuer).env("STAGEDOOR_LISTEN", "127.0.0.1:0");
        command
    };
    drop(Server::run(serve("https://one.example")));
    let renamed = serve("https://two.example").output().unwrap();
    let error = text(&renamed.stderr);
    assert!(error.contains("known as one.example/audit/1") && error.contains("--reason renamed"), "{error}");
    drop(Server::run(serve("https://one.example")));
    let mut epoch = place.command(&["audit", "epoch", "--reason", "renamed", "--no-checkpoint"]);
    let begun = epoch.env("STAGEDOOR_ISSUER", "https://two.example").output().unwrap();
    assert!(text(&begun.stdout).contains("two.example/audit/2"), "{}", text(&begun.stderr));
    drop(Server::run(serve("https://two.example")));
}

/// Invariants 9 and 10 at the command line: after a restore the old log is not continued, and what was lost is named.
#[test]
fn a_new_epoch_names_the_last_known_checkpoint() {
    for place in Place::on_both_databases() {
        let server = Server::start(&place);
        std::fs::write(place.path().join("kept"), get(&server, "/v1/audit/log/checkpoint")).unwrap();
        drop(server);
        let epoch = |arguments: &[&str]| {
            let mut command = place.command(&["audit", "epoch", "--reason", "restored"]);
            command.args(arguments).output().unwrap()
        };
        let nothing = epoch(&[]);
        assert_eq!(nothing.status.code(), Some(2), "a checkpoint, or the word that there is none");
        assert!(text(&nothing.stderr).contains("--no-checkpoint"), "{}", text(&nothing.stderr));
        std::fs::write(place.path().join("nonsense"), "x").unwrap();
        let forged = epoch(&["--checkpoint", "nonsense"]);
        assert!(
            text(&forged.stderr).contains("holds neither a checkpoint nor a receipt"),
            "{}",
            text(&forged.stderr)
        );
        let begun = epoch(&["--checkpoint", "kept", "--json"]);
        let begun: Value = serde_json::from_slice(&begun.stdout).unwrap();
        assert_eq!(begun["origin"], "stagedoor.example/audit/2");
        let server = Server::start(&place);
        let checkpoint = get(&server, "/v1/audit/log/checkpoint");
        assert!(checkpoint.lines().next().unwrap().ends_with("/audit/2"), "{checkpoint}");
        let said = place.json(&["audit", "verify", "--checkpoint", "kept"]);
        assert_eq!(said["epochs"].as_array().unwrap().len(), 2);
        let secret = client(&place, &server);
        let first = request(&server, &secret, "GET", "/v1/audit/entries?typ=epoch", "").1;
        let first: Value = serde_json::from_str(&first).unwrap();
        let detail = &first["entries"][0]["body"]["detail"];
        assert_eq!(detail["reason"], "restored");
        assert!(detail["continues"]["size"].as_u64().unwrap() > 0, "{detail}");
    }
}

/// What an export shows as witnessed is what enough of the configured witnesses signed, not whatever one of them did last.
#[test]
fn an_export_shows_the_newest_checkpoint_that_enough_witnesses_cosigned() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for place in Place::on_both_databases() {
        let size = |out: &str, file: &str| {
            let note = std::fs::read_to_string(place.path().join(out).join(file)).unwrap();
            note.lines().nth(1).unwrap().parse::<i64>().unwrap()
        };
        place.create_client();
        place.ok(&["audit", "export", "--format", "tiles", "--out", "early"]);
        place.ok(&["client", "create", "--scopes", "tokens:verify"]);
        place.ok(&["audit", "export", "--format", "tiles", "--out", "late"]);
        let (early, late) = (size("early", "checkpoint"), size("late", "checkpoint"));
        assert!(0 < early && early < late);
        runtime.block_on(async {
            let file = format!("sqlite://{}", place.path().join(".stagedoor/stagedoor.db").display());
            let set = place.environment.iter().find(|(name, _)| *name == "STAGEDOOR_DATABASE_URL");
            let db = Db::connect(set.map_or(&file, |(_, url)| url)).await.unwrap();
            for (size, name) in [(early, "w.example/1"), (early, "w.example/2"), (late, "w.example/1")] {
                cosig::add(&db, size, name, &format!("\u{2014} {name} AAAA")).await.unwrap();
            }
            db.close().await;
        });
        let export = |out: &str, settings: &[(&str, &str)]| {
            let mut command = place.command(&["audit", "export", "--format", "tiles", "--out", out]);
            let output = command.envs(settings.iter().copied()).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            size(out, "witnessed")
        };
        let both = [
            ("STAGEDOOR_WITNESSES__0__URL", "https://1.example"),
            ("STAGEDOOR_WITNESSES__0__VKEY", "w.example/1+00000001+AAAA"),
            ("STAGEDOOR_WITNESSES__1__URL", "https://2.example"),
            ("STAGEDOOR_WITNESSES__1__VKEY", "w.example/2+00000002+AAAA"),
        ];
        assert_eq!(export("both", &both), early, "all that are configured are required");
        let one_is_enough = [&both[..], &[("STAGEDOOR_WITNESSES_REQUIRED", "1")]].concat();
        assert_eq!(export("one", &one_is_enough), late);
        let with_another = [
            ("STAGEDOOR_WITNESSES__2__URL", "https://3.example"),
            ("STAGEDOOR_WITNESSES__2__VKEY", "w.example/3+00000003+AAAA"),
        ];
        assert_eq!(
            export("new", &[&both[..], &with_another].concat()),
            early,
            "two of three is the most there is"
        );
        assert_eq!(export("none", &[]), late, "who names no witness is shown what anybody signed");
    }
}

/// Told to stop, it takes away what it had written: that may be everybody's personal data.
#[test]
fn an_export_that_is_told_to_stop_leaves_nothing_behind() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for place in Place::on_both_databases() {
        // only there can a reader be made to wait
        let owner = place.environment.iter().find(|(name, _)| *name == "STAGEDOOR_DATABASE_OWNER_URL");
        let Some((_, owner)) = owner else { continue };
        let held = runtime.block_on(async {
            let mut held = sqlx::PgConnection::connect(owner).await.unwrap();
            sqlx::raw_sql("BEGIN; LOCK TABLE audit_head IN ACCESS EXCLUSIVE MODE")
                .execute(&mut held)
                .await
                .unwrap();
            held
        });
        let of_export = || -> Vec<_> {
            let names = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().starts_with("log")).collect()
        };
        let mut command = place.command(&["audit", "export", "--format", "ndjson", "--out", "log"]);
        let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        for _ in 0..500 {
            if !of_export().is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(of_export().len(), 1, "it has begun");
        let told =
            std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(told.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains("the export was stopped"), "{output:?}");
        assert_eq!(of_export(), Vec::<std::ffi::OsString>::new());
        drop(held);
    }
}
