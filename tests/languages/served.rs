//! The real binary, serving over a directory of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A Stagedoor that serves, and ends with its test.
pub struct Served {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    child: Option<Child>,
    dir: tempfile::TempDir,
}

/// A client that was made, and the permit that it needs.
pub struct Made {
    pub id: String,
    pub secret: String,
    pub permit: String,
}

impl Served {
    /// A database with keys, and settings; nobody serves yet.
    pub fn initialised() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = "trusted_proxies = [\"127.0.0.0/8\"]\n[policy]\npath = \"policy.cedar\"\n[[gates]]\nname = \"default\"\n\
             audience = \"https://api.example.com\"\nimpersonation = true\n";
        std::fs::write(dir.path().join("stagedoor.toml"), settings).expect("settings");
        let served = Self { url: String::new(), child: None, dir };
        served.ok(&["init"]);
        served
    }

    /// `stagedoor client create` with these arguments.
    pub fn client(&self, arguments: &[&str]) -> Made {
        let said = self.ok(&[&["client", "create", "--json"], arguments].concat());
        let made: Value = serde_json::from_str(&said).expect("a client in JSON");
        let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        Made { id: text("client_id"), secret: text("client_secret"), permit: text("permit") }
    }

    /// Serves under these permits, on a port of its own.
    pub fn serve(&mut self, policy: &str) {
        std::fs::write(self.dir.path().join("policy.cedar"), policy).expect("a policy");
        let mut command = self.command(&["serve"]);
        command.env("STAGEDOOR_LISTEN", "127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output")).lines();
        let line = lines.find_map(|line| Some(line.ok()?.strip_prefix("listening on ")?.to_owned()));
        self.child = Some(child);
        self.url = line.expect("the address is printed");
    }

    /// Ends it without a word, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the binary runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stagedoor"));
        command.args(arguments).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a script printed, as JSON.
pub fn printed(command: &mut Command) -> Value {
    let output = command.stdin(Stdio::null()).output().expect("the script runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

/// Calls servers of the test, whatever proxy the machine is set to.
pub fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}
