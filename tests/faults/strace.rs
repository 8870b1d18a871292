//! strace as the hand that kills a process, or fails it, at an exact system call; and as the witness of order.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::site::signal;

pub struct Tracer {
    child: Child,
    log: PathBuf,
}

impl Tracer {
    /// Attaches to every thread of `pid`; returns once it has.
    pub async fn attach(pid: u32, dir: &Path, arguments: &[&str]) -> Self {
        let (log, said) = (dir.join("strace.log"), dir.join("strace.err"));
        let _ = fs::remove_file(&log);
        let child = Command::new("strace")
            .args(["-f", "-yy", "-s", "16", "-p", &pid.to_string(), "-o"])
            .arg(&log)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said).expect("a file"))
            .spawn()
            .expect("strace starts");
        let began = Instant::now();
        while !fs::read_to_string(&said).unwrap_or_default().contains("attached") {
            assert!(began.elapsed() < Duration::from_secs(10), "strace attaches");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { child, log }
    }

    /// Lets go of the process; what was seen.
    pub fn detach(mut self) -> String {
        signal(self.child.id(), rustix::process::Signal::INT);
        let _ = self.child.wait();
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// The call at which a traced process was killed: the last one it entered.
pub fn last_call(log: &str) -> String {
    let call =
        log.lines().rev().find(|line| line.contains('(') && !line.contains("+++") && !line.contains("---"));
    let call = call.unwrap_or("").split_once(' ').map_or("", |(_, call)| call.trim());
    let end = call.char_indices().nth(90).map_or(call.len(), |(at, _)| at);
    call[..end].to_owned()
}

/// What a serial caller's trace says of order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Answers to calls that record.
    pub answers: u64,
    /// Of these, how many left while something of the write-ahead log was written and not flushed.
    pub unflushed: u64,
}

/// Reads a trace of `pwrite64`, `fsync`, `fdatasync` and `sendto` made with one caller: between the last write to
/// the write-ahead log and each answer there must be a flush of it. A flush that strace only pretended is none.
pub fn order(log: &str) -> Order {
    let mut order = Order::default();
    let mut dirty = false;
    // by thread: the flush that has begun, and whether something was written since
    let mut flushing: HashMap<&str, bool> = HashMap::new();
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let is_flush = call.starts_with("fsync(") || call.starts_with("fdatasync(");
        if call.starts_with("pwrite64(") && call.contains("-wal>") {
            dirty = true;
            for written in flushing.values_mut() {
                *written = true;
            }
        } else if is_flush && call.contains("-wal>") {
            if call.contains("unfinished") {
                flushing.insert(thread, false);
            } else if call.ends_with("= 0") {
                dirty = false;
            }
        } else if call.starts_with("<... fsync resumed") || call.starts_with("<... fdatasync resumed") {
            let written = flushing.remove(thread);
            if written == Some(false) && call.ends_with("= 0") {
                dirty = false;
            }
        } else if call.starts_with("sendto(") && call.contains("\"HTTP/1.1 ") {
            order.answers += 1;
            order.unflushed += u64::from(dirty);
        }
    }
    order
}
