//! Invariant 14: verifiers that nobody here wrote accept the live endpoints, and refuse what was forged.
//!
//! `tests/auditors` holds the two programs, which docs/audit.md gives to auditors.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};

use super::Place;
use super::audit::{Serving, attempt_at, auditor, send};
use crate::recipes::Runtime;

/// A part of a file's path, and which of its bytes.
type Aim = (&'static str, fn(&[u8]) -> usize);

/// Stands between a verifier and the log, and changes one byte of one file.
struct Forger {
    url: String,
    target: Arc<Mutex<Option<Aim>>>,
}

impl Forger {
    fn before(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/audit/log", listener.local_addr().unwrap());
        let target = Arc::new(Mutex::new(None));
        let (aim, address) = (Arc::clone(&target), address.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let aim = *aim.lock().unwrap_or_else(PoisonError::into_inner);
                pass(stream, &address, aim);
            }
        });
        Self { url, target }
    }

    fn aim(&self, target: Option<Aim>) {
        *self.target.lock().unwrap() = target;
    }
}

/// One request and its answer. Verifiers may close early, which is theirs to do.
fn pass(mut stream: TcpStream, address: &str, aim: Option<Aim>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !stream.read(&mut byte).is_ok_and(|n| n == 1) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let credential = head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization:"));
    let mut server = TcpStream::connect(address).unwrap();
    let credential = credential.map_or(String::new(), |line| format!("{line}\r\n"));
    write!(server, "GET {path} HTTP/1.1\r\nhost: {address}\r\n{credential}connection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).unwrap();
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    if let Some((of, byte)) = aim
        && path.contains(of)
    {
        let at = split + byte(&answer[split..]);
        // stays a letter where it was one, so that base64 stays base64
        answer[at] = if answer[at] == b'A' { b'B' } else { b'A' };
    }
    let _ = stream.write_all(&answer);
}

/// Where a line begins.
fn of_line(note: &[u8], n: usize) -> usize {
    note.split_inclusive(|byte| *byte == b'\n').take(n).map(<[u8]>::len).sum()
}

/// A verifier: how it is run, beside what every one of them is told.
struct Foreign {
    name: &'static str,
    run: Box<dyn Fn() -> Command>,
}

fn foreign() -> Vec<Foreign> {
    let mut out = Vec::new();
    let build = tempfile::tempdir().unwrap();
    let binary = build.keep().join("sumdb");
    let mut go = Command::new("go");
    go.args(["build", "-o"])
        .arg(&binary)
        .arg("tests/auditors/sumdb.go")
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    go.envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("CGO_ENABLED", "0")]);
    match go.output() {
        Ok(built) if built.status.success() => {
            out.push(Foreign { name: "Go sumdb", run: Box::new(move || Command::new(&binary)) });
        }
        Ok(built) if String::from_utf8_lossy(&built.stderr).contains("cannot find package") => {
            println!("SKIP Go sumdb: golang-golang-x-mod-dev is not installed");
        }
        Ok(built) => panic!("the Go program does not build: {}", String::from_utf8_lossy(&built.stderr)),
        Err(_) => println!("SKIP Go sumdb: golang-go is not installed"),
    }
    if Runtime::Python.is_here("tlog-scales") {
        let script = "tests/auditors/tlog_scales_check.py";
        out.push(Foreign { name: "tlog-scales", run: Box::new(move || Runtime::Python.command(script)) });
    }
    out
}

#[test]
fn foreign_verifiers_accept_the_live_log_and_refuse_a_forged_one() {
    let foreign = foreign();
    for place in Place::on_both_databases() {
        let theirs = Place::new();
        place.ok(&["audit", "export", "--format", "tiles", "--out", "first"]);
        let vkey = place.path().join("first/vkey");
        std::fs::copy(&vkey, theirs.path().join("log.vkey")).unwrap();
        let arguments =
            ["audit", "witness", "--name", "witness.example/w1", "--log", "log.vkey", "--state", "w"];
        let mut command = theirs.command(&arguments);
        command.args(["--listen", "127.0.0.1:0"]);
        let witness = Serving::start(command);
        let witness_key = witness.said[0].strip_prefix("vkey ").unwrap();
        let witness_file = theirs.path().join("witness.vkey");
        std::fs::write(&witness_file, witness_key).unwrap();

        let serve = |listen: &str| {
            let mut command = place.command(&["serve"]);
            command.stderr(std::process::Stdio::null()).envs([
                ("STAGEDOOR_LISTEN", listen),
                ("STAGEDOOR_ALLOW_HTTP", "true"),
                ("STAGEDOOR_WITNESSES__0__URL", witness.url()),
                ("STAGEDOOR_WITNESSES__0__VKEY", witness_key),
            ]);
            Serving::start(command)
        };
        let serving = serve("127.0.0.1:0");
        let address = serving.url().replace("http://", "");
        let secret = auditor(&place, &address);
        let kept = place.path().join("kept");
        std::fs::write(&kept, send(&address, "", "GET", "/v1/audit/log/checkpoint", "").1).unwrap();
        let mut kept_all = vec![kept];
        for i in 0..520 {
            attempt_at(&address, &secret, &format!("user_{i}"));
            if [3, 250, 251, 400].contains(&i) {
                // invariant 4: every checkpoint that was ever signed, by a foreign verifier
                let kept = place.path().join(format!("kept{i}"));
                std::fs::write(&kept, send(&address, "", "GET", "/v1/audit/log/checkpoint", "").1).unwrap();
                kept_all.push(kept);
            }
        }
        let witnessed = || send(&address, "", "GET", "/v1/audit/log/witnessed", "").0 == 200;
        while !witnessed() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }

        let forger = Forger::before(&address);
        let ask = |verifier: &Foreign| -> Output {
            let mut command = (verifier.run)();
            command
                .arg("--log")
                .arg(&forger.url)
                .arg("--vkey")
                .arg(&vkey)
                .arg("--witness")
                .arg(&witness_file);
            command.args(&kept_all).env("STAGEDOOR_CLIENT_SECRET", &secret).output().unwrap()
        };
        for verifier in &foreign {
            forger.aim(None);
            let said = ask(verifier);
            let text = String::from_utf8_lossy(&said.stdout);
            assert!(said.status.success(), "{}: {}", verifier.name, String::from_utf8_lossy(&said.stderr));
            assert!(
                text.starts_with("holds: 5") && text.contains("entries, 6 kept"),
                "{}: {text}",
                verifier.name
            );
            let forgeries: [(&str, Aim); 6] = [
                ("an entry", ("tile/entries/000", |_| 3000)),
                ("a hash of a leaf", ("tile/0/000", |_| 4000)),
                ("a hash of a subtree", ("tile/1/000", |_| 40)),
                ("the checkpoint's root", ("log/checkpoint", |note| of_line(note, 2) + 5)),
                ("the checkpoint's signature", ("log/checkpoint", |note| of_line(note, 4) + 60)),
                ("the cosignature", ("log/witnessed", |note| of_line(note, 5) + 60)),
            ];
            for (what, aim) in forgeries {
                forger.aim(Some(aim));
                let said = ask(verifier);
                let text = String::from_utf8_lossy(&said.stderr);
                assert!(!said.status.success(), "{} takes {what} that was forged", verifier.name);
                assert!(text.contains("does NOT hold"), "{} about {what}: {text}", verifier.name);
            }
        }
    }
}
