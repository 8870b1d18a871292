//! A temporary PostgreSQL cluster for tests: one a test binary, one database and two roles a test.
//!
//! Used through `#[path = "../support/pg.rs"] mod pg;`. The cluster is stopped and removed when the test
//! process ends, however it ends.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// A running cluster.
pub struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
    as_user: Option<String>,
}

/// One test's database: empty, owned by a role of its own, with a second role for the service.
#[derive(Debug, Clone)]
pub struct TestDatabase {
    /// For `Db::connect` as the service.
    pub service_url: String,
    /// For migrations.
    pub owner_url: String,
    /// The superuser, for tampering.
    pub super_url: String,
    /// The service role's name.
    pub service_user: String,
}

// Not every test binary uses everything here.
const _: fn(&Cluster) = Cluster::crash;
const _: fn() -> Option<Cluster> = Cluster::own;
const _: fn(&Cluster, &str) -> Cluster = Cluster::standby;
const _: fn(&Cluster) = Cluster::promote;
const _: fn(&Cluster) -> String = Cluster::host;
const _: fn(&TestDatabase) -> [&String; 4] =
    |d| [&d.service_url, &d.owner_url, &d.super_url, &d.service_user];

static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(1);

/// The cluster of this process, started on first use; `None` (and a printed `SKIPPED`) without PostgreSQL.
pub fn cluster() -> Option<&'static Cluster> {
    CLUSTER
        .get_or_init(|| {
            let bin = find_bin();
            if bin.is_none() {
                eprintln!("SKIPPED: PostgreSQL is not installed, so its half of the tests did not run");
            }
            bin.map(Cluster::start)
        })
        .as_ref()
}

/// A fresh database in the cluster of this process.
pub async fn database() -> Option<TestDatabase> {
    Some(cluster()?.database().await)
}

fn find_bin() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").is_file())
        .collect();
    versions.sort();
    versions.pop()
}

impl Cluster {
    /// A cluster of a test's own, to be stopped and started at will; `None` without PostgreSQL.
    pub fn own() -> Option<Self> {
        cluster()?;
        find_bin().map(Self::start)
    }

    /// A fresh database with an owner and a service role.
    pub async fn database(&self) -> TestDatabase {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let (name, owner, service) = (format!("t{n}"), format!("owner{n}"), format!("service{n}"));
        let admin = PgConnection::connect(&self.url("postgres", "postgres")).await;
        let mut admin = admin.expect("the cluster answers");
        for statement in [
            format!("CREATE ROLE {owner} LOGIN"),
            format!("CREATE ROLE {service} LOGIN"),
            format!("CREATE DATABASE {name} OWNER {owner}"),
        ] {
            admin.execute(AssertSqlSafe(statement)).await.expect("a role and a database");
        }
        TestDatabase {
            service_url: self.url(&service, &name),
            owner_url: self.url(&owner, &name),
            super_url: self.url("postgres", &name),
            service_user: service,
        }
    }

    /// A standby that follows this cluster, by the name the primary knows it under.
    pub fn standby(&self, name: &str) -> Self {
        let standby = Self::place(self.bin.clone());
        let primary = format!("host=127.0.0.1 port={} user=postgres application_name={name}", self.port);
        run(standby
            .command("pg_basebackup")
            .args(["-R", "-X", "stream", "-c", "fast", "-d", &primary, "-D"])
            .arg(standby.data()));
        standby.up();
        standby.watch();
        standby
    }

    /// Makes a standby a primary.
    pub fn promote(&self) {
        run(self.command("pg_ctl").args(["-w", "-s", "-D"]).arg(self.data()).arg("promote"));
    }

    /// Where it listens.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A directory and a port.
    fn place(bin: PathBuf) -> Self {
        let dir = tempfile::Builder::new().prefix("stagedoor-pg-").tempdir().expect("a directory").keep();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let root = std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
        // the server refuses to run as root
        let as_user = root.then(|| "postgres".to_owned());
        if let Some(user) = &as_user {
            run(Command::new("chown").arg(user).arg(&dir));
        }
        Self { bin, dir, port, as_user }
    }

    fn start(bin: PathBuf) -> Self {
        let cluster = Self::place(bin);
        let data = cluster.data();
        run(cluster
            .command("initdb")
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"])
            .arg(&data));
        cluster.up();
        cluster.watch();
        cluster
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = match &self.as_user {
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Starts the server; fsync stays on, as in production.
    pub fn up(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c max_connections=200",
            self.port,
            self.dir.display()
        );
        run(self
            .command("pg_ctl")
            .args(["-w", "-s", "-o", &options, "-l"])
            .arg(self.dir.join("log"))
            .arg("-D")
            .arg(self.data())
            .arg("start"));
    }

    /// Stops the server at once, as a crash would.
    pub fn crash(&self) {
        run(self.command("pg_ctl").args(["-w", "-s", "-m", "immediate", "-D"]).arg(self.data()).arg("stop"));
    }

    /// The URL of `database` as `user`.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// Leaves a child that waits for this process to end (its standard input closes), then cleans up.
    fn watch(&self) {
        let script = format!(
            "cat > /dev/null; {} -m immediate -D '{}' stop > /dev/null 2>&1; rm -rf '{}'",
            match &self.as_user {
                Some(user) => format!("runuser -u {user} -- '{}'", self.bin.join("pg_ctl").display()),
                None => format!("'{}'", self.bin.join("pg_ctl").display()),
            },
            self.data().display(),
            self.dir.display()
        );
        let child = Command::new("sh")
            .args(["-c", &script])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        // held open until the process ends; the child is reaped by init
        std::mem::forget(child);
    }
}

fn run(command: &mut Command) {
    let errors = tempfile::NamedTempFile::new().expect("a file");
    let sink = |path: &Path| File::options().append(true).open(path).expect("just made");
    let status =
        command.stdout(Stdio::null()).stderr(sink(errors.path())).status().expect("the program runs");
    let said = std::fs::read_to_string(errors.path()).unwrap_or_default();
    assert!(status.success(), "{command:?}: {said}");
}
