//! Node and Python for tests: the packages of `tests/recipes` installed once, programs run from there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A runtime that is on the machine, with its packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// `node`, packages by `npm ci`.
    Node,
    /// `python3`, packages in a virtual environment.
    Python,
}

impl Runtime {
    /// Installs the packages, once in a test binary. False, with a line `SKIP …`, where that cannot be done.
    pub fn is_here(self, test: &str) -> bool {
        static INSTALLED: [OnceLock<Result<(), String>>; 2] = [OnceLock::new(), OnceLock::new()];
        let installed = INSTALLED[self as usize].get_or_init(|| match self {
            Self::Node => self.install(
                "package-lock.json",
                "node_modules",
                &[&["npm", "ci", "--no-audit", "--no-fund"]],
            ),
            Self::Python => self.install(
                "requirements.txt",
                ".venv",
                &[
                    &["python3", "-m", "venv", "--clear", ".venv"],
                    &[
                        ".venv/bin/pip",
                        "install",
                        "-q",
                        "--disable-pip-version-check",
                        "-r",
                        "requirements.txt",
                    ],
                ],
            ),
        });
        if let Err(why) = installed {
            println!("SKIP {test}: {why}");
        }
        installed.is_ok()
    }

    /// Where its packages are.
    pub fn dir(self) -> PathBuf {
        let name = if self == Self::Node { "node" } else { "python" };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes").join(name)
    }

    /// What was installed last is noted beside the packages; another lock file installs anew.
    fn install(self, lock: &str, packages: &str, commands: &[&[&str]]) -> Result<(), String> {
        let dir = self.dir();
        let wanted = fs::read(dir.join(lock)).map_err(|error| format!("{lock}: {error}"))?;
        let note = dir.join(packages).join(".installed");
        if fs::read(&note).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        for command in commands {
            let output = Command::new(command[0]).args(&command[1..]).current_dir(&dir).output();
            let output = output.map_err(|error| format!("{}: {error}", command[0]))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!(
                    "{} failed: {}",
                    command.join(" "),
                    said.lines().last().unwrap_or_default()
                ));
            }
        }
        fs::write(note, wanted).map_err(|error| format!("{packages}: {error}"))
    }

    /// A program that came with the packages.
    pub fn tool(self, name: &str) -> Command {
        let tools = if self == Self::Node { "node_modules/.bin" } else { ".venv/bin" };
        let mut command = Command::new(self.dir().join(tools).join(name));
        command.current_dir(self.dir());
        command
    }

    /// A command for a script of the project. Scripts find their packages beside them, so one from
    /// elsewhere is copied there.
    pub fn command(self, script: &str) -> Command {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let mut path = source.clone();
        if self == Self::Node && !source.starts_with(self.dir()) {
            let copies = self.dir().join(".recipes");
            fs::create_dir_all(&copies).expect("a directory for copies");
            path = copies.join(source.file_name().expect("a script has a name"));
            // put in place whole: another test may be starting the same script
            let copy = tempfile::NamedTempFile::new_in(&copies).expect("a copy");
            fs::copy(&source, copy.path()).expect("the script is copied");
            copy.persist(&path).expect("the copy takes its name");
        }
        let mut command = match self {
            Self::Node => Command::new("node"),
            Self::Python => self.tool("python"),
        };
        command.arg(path).current_dir(self.dir());
        command
    }
}
