//! The real binary, in a directory and a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// Settings, database and keys, as `stagedoor init` makes them.
pub struct Place(tempfile::TempDir);

/// A process that serves; dropped, it is killed and not asked.
pub struct Process {
    child: Child,
    pub url: String,
}

impl Place {
    /// With a policy under which any client named `test` may say who the actor is.
    pub fn new(settings: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.set(settings);
        place.policy(crate::site::POLICY);
        assert!(place.command(&["init"]).output().unwrap().status.success());
        place
    }

    pub fn set(&self, settings: &str) {
        let text = format!("listen = \"127.0.0.1:0\"\n{settings}\n[policy]\npath = \"policy.cedar\"\n");
        std::fs::write(self.path().join("stagedoor.toml"), text).unwrap();
    }

    pub fn policy(&self, text: &str) {
        std::fs::write(self.path().join("policy.cedar"), text).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stagedoor"));
        command.args(arguments).current_dir(self.path()).env_clear().stderr(Stdio::null());
        command
    }

    /// The secret of a new client that mints.
    pub fn minter(&self) -> String {
        let scopes = "actor_tokens:issue,actor_tokens:assert_actor";
        let arguments =
            ["client", "create", "--name", "test", "--scopes", scopes, "--may-assert", "*", "--json"];
        let made = self
            .command(&[&arguments[..], &["--audience", crate::site::AUDIENCE]].concat())
            .output()
            .unwrap();
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        crate::site::text(&made, "client_secret").to_owned()
    }

    /// Serves; what it logs goes to a file.
    pub fn serve(&self) -> Process {
        let log = std::fs::File::create(self.path().join("stderr")).unwrap();
        let mut child = self.command(&["serve"]).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").map(str::to_owned);
        let url = url.unwrap_or_else(|| panic!("it serves: {line}{}", self.logged()));
        Process { child, url }
    }

    /// What the last process logged.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.path().join("stderr")).unwrap()
    }
}

impl Process {
    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Process {
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
