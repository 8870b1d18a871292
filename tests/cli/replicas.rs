//! Replicas that are replaced while they serve, a schema that grows meanwhile, and a backup that is put back.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};

use super::audit::{attempt_at, auditor, send};
use super::{Place, Server, get, terminal, text};

fn setting<'p>(place: &'p Place, name: &str) -> Option<&'p str> {
    place.environment.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// What a migration of a later version leaves behind, as far as this one can see.
fn apply_later_migration(place: &Place, version: i64, name: &str) {
    run(async {
        let url = setting(place, "STAGEDOOR_DATABASE_OWNER_URL").unwrap();
        let mut owner = PgConnection::connect(url).await.unwrap();
        for statement in [
            format!("CREATE TABLE later_{version} (id BIGINT PRIMARY KEY)"),
            "ALTER TABLE actor_grant ADD COLUMN IF NOT EXISTS later TEXT NOT NULL DEFAULT ''".to_owned(),
            format!(
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES ({version}, '{name}', true, ''::bytea, 0)"
            ),
        ] {
            owner.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        }
    });
}

/// One of several `serve` over one database, always at the same address.
struct Replica {
    address: String,
    child: Mutex<Child>,
    ready: AtomicBool,
}

impl Replica {
    fn start(place: &Place, address: &str) -> Child {
        let mut command = place.command(&["serve"]);
        command
            .env("STAGEDOOR_LOG_LEVEL", "error")
            .env("STAGEDOOR_LISTEN", address)
            .env("STAGEDOOR_DRAIN_DELAY", "2s");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on "), "{line}");
        child
    }

    fn new(place: &Place) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let child = Mutex::new(Self::start(place, &address));
        Self { address, child, ready: AtomicBool::new(true) }
    }

    /// SIGTERM, wait, start again.
    fn replace(&self, place: &Place) {
        let mut child = self.child.lock().unwrap();
        let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(told.success());
        assert!(child.wait().unwrap().success(), "a clean stop");
        *child = Self::start(place, &self.address);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// One HTTP/1.1 connection that is kept as long as the server keeps it.
struct Kept(BufReader<TcpStream>);

impl Kept {
    /// Sends one request; the status, and whether the connection may be used again.
    fn send(&mut self, request: &str) -> std::io::Result<(u16, bool)> {
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length, mut keep) = (0, 0, true);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(n) = line.strip_prefix("content-length: ") {
                length = n.parse().unwrap();
            } else if line == "connection: close" {
                keep = false;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, keep))
    }
}

/// Mints until told to stop, at whichever replica is ready, as a load balancer would have it: kept connections, and
/// another replica only where a connection was refused, so that nothing was sent. Every other fault is a failure.
fn mint_until(stop: &AtomicBool, replicas: &[Replica], secret: &str, first: usize) -> (u64, Vec<String>) {
    let body = r#"{"user_id":"user_42","actor":{"sub":"admin_7"},"reason":"Ticket 4711: invoice missing"}"#;
    let (mut minted, mut failures, mut at) = (0, Vec::new(), first);
    let mut kept: Option<Kept> = None;
    while !stop.load(Ordering::Relaxed) {
        let replica = &replicas[at % replicas.len()];
        if kept.is_none() {
            at += 1;
            if !replica.ready.load(Ordering::Relaxed) {
                std::thread::yield_now();
                continue;
            }
            match TcpStream::connect(&replica.address) {
                Ok(stream) => {
                    stream.set_nodelay(true).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    kept = Some(Kept(BufReader::new(stream)));
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => failures.push(format!("connect: {error}")),
            }
            continue;
        }
        let connection = kept.as_mut().unwrap();
        let request = format!(
            "POST /v1/actor_tokens HTTP/1.1\r\nhost: stagedoor.example\r\nauthorization: Bearer {secret}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        match connection.send(&request) {
            Ok((200, keep)) => {
                minted += 1;
                if !keep {
                    kept = None;
                }
            }
            Ok((status, _)) => failures.push(format!("status {status}")),
            Err(error) => {
                failures.push(format!("request: {error}"));
                kept = None;
            }
        }
    }
    (minted, failures)
}

/// Issue 8 §5: a rolling restart under load, a migration in the middle of it, and not one failed request.
#[test]
fn replicas_are_replaced_under_load_while_the_schema_grows_without_one_failed_request() {
    let Some(place) = Place::on_both_databases().into_iter().nth(1) else { return };
    std::fs::write(place.path().join("policy.cedar"), terminal::POLICY).unwrap();
    std::fs::write(place.path().join("stagedoor.toml"), "[policy]\npath = \"policy.cedar\"\n").unwrap();
    let secret = terminal::minter(&place);
    let replicas: Vec<Replica> = (0..3).map(|_| Replica::new(&place)).collect();
    let (stop, minted) = (AtomicBool::new(false), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for first in 0..4 {
            let (stop, replicas, secret, minted, failures) = (&stop, &replicas, &secret, &minted, &failures);
            scope.spawn(move || {
                let (n, failed) = mint_until(stop, replicas, secret, first);
                minted.fetch_add(n, Ordering::Relaxed);
                failures.lock().unwrap().extend(failed);
            });
        }
        // the balancer's health check
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for replica in &replicas {
                    replica.ready.store(is_ready(&replica.address), Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let work = || {
            apply_later_migration(&place, 9001, "expand_later");
            for replica in &replicas {
                replica.replace(&place);
                while !is_ready(&replica.address) {
                    std::thread::yield_now();
                }
            }
        };
        // whatever happens, the threads are told to end
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
    });
    let (minted, failures) = (minted.into_inner(), failures.into_inner().unwrap());
    assert!(
        failures.is_empty(),
        "{} failed beside {minted}: {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    assert!(minted > 50, "there was load: {minted}");
    drop(replicas);
    let said = place.json(&["audit", "verify"]);
    assert_eq!(said["holds"], true, "{said}");
    assert!(said["entries"].as_u64().unwrap() >= minted, "{said}");

    // what does more than add is not served under
    apply_later_migration(&place, 9002, "contract_later");
    let error = place.fails(&["serve"], 1);
    assert!(error.contains("9002 (contract_later) is newer than this program"), "{error}");
}

fn is_ready(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let asked =
        write!(stream, "GET /readyz HTTP/1.1\r\nhost: stagedoor.example\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

/// Takes a backup of a database in use; gives what puts it back, once nothing uses it.
fn back_up(place: &Place) -> Box<dyn FnOnce()> {
    let copy = place.path().join("backup");
    let Some(url) = setting(place, "STAGEDOOR_DATABASE_OWNER_URL").map(str::to_owned) else {
        let database = place.path().join(".stagedoor/stagedoor.db");
        run(async {
            let mut db =
                SqliteConnection::connect(&format!("sqlite://{}", database.display())).await.unwrap();
            let statement = format!("VACUUM INTO '{}'", copy.display());
            db.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        });
        return Box::new(move || {
            for old in ["stagedoor.db", "stagedoor.db-wal", "stagedoor.db-shm"] {
                let _ = std::fs::remove_file(database.with_file_name(old));
            }
            std::fs::copy(&copy, &database).unwrap();
        });
    };
    let tool = |name: &str, arguments: &[&str]| {
        let done = Command::new(bin().join(name)).args(arguments).output().unwrap();
        assert!(done.status.success(), "{name}: {}", text(&done.stderr));
    };
    let file = copy.display().to_string();
    tool("pg_dump", &["-Fc", "-f", &file, &url]);
    Box::new(move || {
        tool("pg_restore", &["--clean", "--if-exists", "--single-transaction", "-d", &url, &file]);
    })
}

fn bin() -> PathBuf {
    let mut all: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("pg_dump").is_file())
        .collect();
    all.sort();
    all.pop().expect("PostgreSQL's programs")
}

/// docs/operate.md, "Backup and restore", step by step.
#[test]
fn a_restored_backup_is_noticed_and_a_new_epoch_goes_on() {
    for place in Place::on_both_databases() {
        let server = Server::start(&place);
        let address = server.url.strip_prefix("http://").unwrap().to_owned();
        let secret = auditor(&place, &address);
        attempt_at(&address, &secret, "user_1");
        let put_back = back_up(&place);
        attempt_at(&address, &secret, "user_2");
        std::fs::write(place.path().join("kept"), get(&address, "/v1/audit/log/checkpoint")).unwrap();
        drop(server);
        put_back();
        let looked = place.run(&["audit", "verify", "--checkpoint", "kept"]);
        assert_eq!(looked.status.code(), Some(1), "{}", text(&looked.stderr));
        assert!(text(&looked.stdout).contains("ROLLBACK"), "{}", text(&looked.stdout));
        place.ok(&["audit", "epoch", "--reason", "restored", "--checkpoint", "kept"]);
        let server = Server::start(&place);
        let address = server.url.strip_prefix("http://").unwrap();
        attempt_at(address, &secret, "user_3");
        let entries = send(address, &secret, "GET", "/v1/audit/entries?typ=issue", "").1;
        assert_eq!(
            entries.matches("\"typ\":\"issue\"").count(),
            2,
            "what the backup had, and what came since: {entries}"
        );
        drop(server);
        let said = place.json(&["audit", "verify"]);
        assert_eq!((&said["holds"], said["epochs"].as_array().unwrap().len()), (&true.into(), 2), "{said}");
    }
}
