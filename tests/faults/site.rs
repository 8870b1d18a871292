//! The service under fault: a database of its own and the real processes that serve over it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::book::Book;
use crate::pg::{Cluster, TestDatabase};
use crate::proxy::Proxy;

pub const ISSUER: &str = "https://faults.test";
pub const AUDIENCE: &str = "https://api.example.com";

/// Any client named `test` may say who the actor is; a short reason is denied, so that denials are in the mix.
const POLICY: &str = r#"
@id("test-read")
@client("test")
@asserted("allow")
@unknown("actor target")
@max_lifetime("900")
@scope("read")
permit (principal, action == Action::"impersonate", resource)
when { principal.assurance == "asserted" };

@id("reason-too-short")
@message("Give a reason of at least 10 characters.")
forbid (principal, action == Action::"impersonate", resource)
when { context.reason_length < 10 };
"#;

/// Where libfaketime is, from Debian's package `faketime`.
pub const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// On what a run happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// A SQLite file, one process.
    Sqlite,
    /// A SQLite file on a tmpfs of 64 MiB: its WAL alone grows to 16.
    SmallDisk,
    /// PostgreSQL, so many processes.
    Postgres(usize),
}

impl Place {
    pub const fn database(self) -> &'static str {
        match self {
            Self::Sqlite | Self::SmallDisk => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    pub const fn replicas(self) -> usize {
        match self {
            Self::Sqlite | Self::SmallDisk => 1,
            Self::Postgres(replicas) => replicas,
        }
    }
}

/// One process of the service.
#[derive(Default)]
pub struct Replica {
    child: Option<Child>,
    pub base: String,
    starts: usize,
}

impl Replica {
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running replica").id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        let child = self.child.as_mut()?;
        child.try_wait().expect("a child can be waited for").map(|status| status.to_string())
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Tells it to stop, and waits until it did.
    pub async fn stop(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        signal(child.id(), rustix::process::Signal::TERM);
        let began = Instant::now();
        loop {
            match child.try_wait().expect("a child can be waited for") {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("told to stop, it ended with {status}")),
                None if began.elapsed() > Duration::from_secs(40) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err("told to stop, it did not within 40 s".into());
                }
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    // it may be gone
    let _ = rustix::process::kill_process(pid, signal);
}

/// A database, the processes over it, and everything their callers were ever told.
pub struct Site {
    pub replicas: Vec<Replica>,
    /// Mints, redeems, revokes and verifies.
    pub minter: String,
    /// Reads the log.
    pub auditor: String,
    pub book: Book,
    /// PostgreSQL is reached through it.
    pub proxy: Option<Proxy>,
    pub database: Option<TestDatabase>,
    mounted: Option<PathBuf>,
    dir: TempDir,
}

impl Site {
    /// A new one, nothing running yet. `cluster`: where PostgreSQL's database is made, if not where all are.
    pub async fn new(place: Place, cluster: Option<&Cluster>) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let data = dir.path().join("data");
        let (mut proxy, mut database, mut mounted) = (None, None, None);
        let mut settings = String::new();
        match place {
            Place::Sqlite => {}
            Place::SmallDisk => {
                fs::create_dir(&data).expect("a directory");
                run(Command::new("mount")
                    .args(["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs"])
                    .arg(&data));
                mounted = Some(data.clone());
            }
            Place::Postgres(_) => {
                let made = match cluster {
                    Some(own) => own.database().await,
                    None => crate::pg::database().await.expect("PostgreSQL"),
                };
                let authority = made.service_url.split_once('@').expect("user@host").1;
                let (host, name) = authority.split_once('/').expect("host/database");
                let through = Proxy::start(host).await;
                settings = format!(
                    "database_url = \"postgres://{}@127.0.0.1:{}/{name}\"\n",
                    made.service_user, through.port
                );
                (proxy, database) = (Some(through), Some(made));
            }
        }
        let text = format!(
            "listen = \"127.0.0.1:0\"\nissuer = \"{ISSUER}\"\ndata_dir = \"{}\"\n\
             master_key_file = \"{dir}/master.key\"\n{settings}[policy]\npath = \"{dir}/policy.cedar\"\n",
            data.display(),
            dir = dir.path().display(),
        );
        fs::write(dir.path().join("stagedoor.toml"), text).expect("settings");
        fs::write(dir.path().join("policy.cedar"), POLICY).expect("a policy");
        let replicas = (0..place.replicas()).map(|_| Replica::default()).collect();
        let mut site = Self {
            replicas,
            minter: String::new(),
            auditor: String::new(),
            book: Book::default(),
            proxy,
            database,
            mounted,
            dir,
        };
        site.cli(&["init"]).await.expect("init");
        let scopes = "actor_tokens:issue,actor_tokens:assert_actor,actor_tokens:read,actor_tokens:revoke,tokens:verify";
        site.minter = site
            .client(&["--name", "test", "--scopes", scopes, "--audience", AUDIENCE, "--may-assert", "*"])
            .await;
        site.auditor = site.client(&["--name", "auditor", "--scopes", "audit:read"]).await;
        site
    }

    async fn client(&self, form: &[&str]) -> String {
        let arguments: Vec<&str> = ["client", "create", "--json"].iter().chain(form).copied().collect();
        let made = self.cli(&arguments).await.expect("a client");
        let made: Value = serde_json::from_str(&made).expect("JSON");
        made["client_secret"].as_str().expect("a secret").to_owned()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The SQLite file's path with a suffix: `""`, `"-wal"`, `"-shm"`.
    pub fn file(&self, suffix: &str) -> String {
        format!("{}/data/stagedoor.db{suffix}", self.path().display())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.path()).env_clear().env("TZ", "UTC").stdin(Stdio::null());
        if let Some(database) = &self.database {
            command.env("STAGEDOOR_DATABASE_OWNER_URL", &database.owner_url);
        }
        command
    }

    /// Runs a command to its end.
    pub async fn output(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments);
        tokio::task::spawn_blocking(move || command.output().expect("the program runs"))
            .await
            .expect("a thread")
    }

    /// Runs what must succeed; its standard output.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.output(arguments).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(format!("{arguments:?}: {}{}", text(&output.stderr), text(&output.stdout)))
        }
    }

    /// Starts what does not run, and waits until it answers.
    pub async fn start_all(&mut self) -> Result<(), String> {
        for i in 0..self.replicas.len() {
            if self.replicas[i].child.is_none() || self.replicas[i].ended().is_some() {
                self.start(i, &[], &[]).await?;
            }
        }
        Ok(())
    }

    /// Starts replica `i`: behind `before` (a program and its arguments), with more variables.
    pub async fn start(&mut self, i: usize, before: &[String], env: &[(&str, String)]) -> Result<(), String> {
        self.replicas[i].kill();
        self.replicas[i].starts += 1;
        let name = format!("replica-{i}-{}", self.replicas[i].starts);
        let out = self.path().join(format!("{name}.out"));
        let mut command = self.command();
        if let Some((program, arguments)) = before.split_first() {
            let mut wrapped = Command::new(program);
            wrapped
                .args(arguments)
                .arg(command.get_program())
                .current_dir(self.path())
                .env_clear()
                .stdin(Stdio::null());
            command = wrapped;
        }
        let file = |path: &Path| File::create(path).expect("a log file");
        command.arg("serve").envs(env.iter().map(|(name, value)| (*name, value.as_str())));
        command.stdout(file(&out)).stderr(file(&self.path().join(format!("{name}.err"))));
        self.replicas[i].child = Some(command.spawn().expect("the service starts"));
        let began = Instant::now();
        loop {
            let said = fs::read_to_string(&out).unwrap_or_default();
            if let Some(base) = said.lines().find_map(|line| line.strip_prefix("listening on ")) {
                base.clone_into(&mut self.replicas[i].base);
                return Ok(());
            }
            if let Some(ended) = self.replicas[i].ended() {
                self.replicas[i].child = None;
                return Err(format!("it did not start ({ended}): {}", self.last_words(i)));
            }
            if began.elapsed() > Duration::from_secs(20) {
                return Err(format!("it did not start within 20 s: {}", self.last_words(i)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The end of what a replica wrote to standard error.
    pub fn last_words(&self, i: usize) -> String {
        let path = self.path().join(format!("replica-{i}-{}.err", self.replicas[i].starts));
        let said = fs::read_to_string(path).unwrap_or_default();
        let from = said.len().saturating_sub(600);
        said.get(from..).unwrap_or(&said).to_owned()
    }

    pub fn bases(&self) -> Vec<String> {
        self.replicas.iter().map(|replica| replica.base.clone()).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for replica in &mut self.replicas {
            replica.kill();
        }
        if let Some(path) = &self.mounted {
            let _ = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}

/// The program under fault, as it was when the runs began: it may be built again meanwhile.
fn binary() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stagedoor-{}", std::process::id()));
        fs::copy(env!("CARGO_BIN_EXE_stagedoor"), &copy).expect("a copy");
        copy
    })
}

/// Removes the copy.
pub fn tidy() {
    let _ = fs::remove_file(binary());
}

/// Runs a program that must succeed.
pub fn run(command: &mut Command) {
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
