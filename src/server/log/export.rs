//! `audit export`: the log as files for others. Streaming, in constant memory, and never a partial file under
//! its final name, nor in place of what is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::{Map, Value, json};

use super::csv;
use super::head::{Head, position};
use super::read::{LogEntry, TileSource};
use super::tile_path::TilePath;
use crate::server::store::append::EPOCH_SPAN;
use crate::server::store::{Db, StoreError, read};
use crate::token::{Entropy as _, SystemEntropy};

/// Entries fetched at a time.
const CHUNK: i64 = 1024;
/// The version of OCSF that events are written for.
const OCSF_VERSION: &str = "1.6.0";

/// What kind of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// One entry a line, as `/v1/audit/entries` answers it.
    Ndjson,
    /// A table for spreadsheets, safe to open in one.
    Csv,
    /// OCSF Authentication events (3002), activity 7 "Account Switch", type "Impersonate"; one a line, attempts
    /// only.
    Ocsf,
    /// A static tile directory (C2SP tlog-tiles) that any verifier reads; the current epoch.
    Tiles,
}

impl ExportFormat {
    /// The words of `--format`.
    pub const WORDS: &'static [&'static str] = &["ndjson", "csv", "ocsf", "tiles"];

    /// Reads a word of [`Self::WORDS`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "ndjson" => Self::Ndjson,
            "csv" => Self::Csv,
            "ocsf" => Self::Ocsf,
            "tiles" => Self::Tiles,
            _ => return None,
        })
    }
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The target is there already, and is never written over.
    #[error("{} is there already; choose another path", .0.display())]
    Exists(PathBuf),
    /// The target could not be written; nothing is left under its name.
    #[error("{} could not be written, and nothing is left of it; check the path and the free space", .1.display())]
    Write(#[source] io::Error, PathBuf),
    /// The log could not be read.
    #[error("the log could not be read")]
    Store(#[from] StoreError),
}

/// Whether `out` may be made.
///
/// # Errors
/// [`ExportError::Exists`].
pub fn refuse_existing(out: &Path) -> Result<(), ExportError> {
    if out.symlink_metadata().is_ok() { Err(ExportError::Exists(out.to_path_buf())) } else { Ok(()) }
}

/// Exports entries as `format` to the file `out`; the number of entries written. Disclosures come along only
/// when `personal`. `host` names the log in OCSF events.
///
/// # Errors
/// See [`ExportError`].
pub async fn entries(
    db: &Db,
    format: ExportFormat,
    host: &str,
    out: &Path,
    personal: bool,
) -> Result<u64, ExportError> {
    let mut partial = Partial::file(out)?;
    let write = |error| ExportError::Write(error, out.to_path_buf());
    if format == ExportFormat::Csv {
        partial.line(&csv::header()).map_err(write)?;
    }
    let Some(newest) = read::newest_head(db).await? else { return partial.finish().map(|()| 0) };
    let (mut next, mut written) = (0, 0);
    loop {
        let rows = read::entries_ascending(db, next, newest.size, CHUNK).await?;
        let Some(last) = rows.last() else { break };
        next = last.idx + 1;
        for row in rows {
            let entry = LogEntry::read(row, personal)?;
            let line = match format {
                ExportFormat::Csv => Some(csv::line(&entry)),
                ExportFormat::Ocsf => ocsf_event(&entry, host).map(|event| event.to_string()),
                ExportFormat::Ndjson | ExportFormat::Tiles => Some(ndjson_line(&entry)),
            };
            if let Some(line) = line {
                partial.line(&line).map_err(write)?;
                written += 1;
            }
        }
    }
    partial.finish()?;
    Ok(written)
}

/// The notes of an exported log.
#[derive(Debug)]
pub struct Notes {
    /// The signed note of the head that is exported.
    pub checkpoint: String,
    /// The newest one that witnesses cosigned, if there is one.
    pub witnessed: Option<String>,
    /// The key both verify with.
    pub vkey: String,
}

/// Exports the current epoch as a static tile directory `out`; the number of entries. Bodies that were pruned
/// are left out, their hashes are not.
///
/// # Errors
/// See [`ExportError`].
pub async fn tiles(db: &Db, head: &Head, notes: &Notes, out: &Path) -> Result<u64, ExportError> {
    let partial = Partial::directory(out)?;
    let write = |error| ExportError::Write(error, out.to_path_buf());
    let size = head.size();
    let mut source = TileSource::new(db, head.epoch);
    for level in 0..=5u32 {
        let nodes = size >> (8 * level);
        for n in 0..nodes.div_ceil(256) {
            let width = (nodes - n * 256).min(256);
            let path = TilePath { level: Some(level), n, width: (width < 256).then_some(width) };
            let hashes = source.tile(level, n).await?;
            let hashes = hashes.get(..usize::try_from(width).unwrap_or(0)).unwrap_or(hashes);
            partial.put(&path.text(), &hashes.concat()).map_err(write)?;
            source.forget();
            if level > 0 {
                continue;
            }
            let first = position(head.epoch, n * 256);
            let rows = read::entries_ascending(db, first, first + width.cast_signed(), 256).await?;
            if rows.len() as u64 == width {
                let bundle: Vec<u8> = rows
                    .iter()
                    .flat_map(|row| {
                        let length = u16::try_from(row.body.len()).unwrap_or(u16::MAX);
                        length.to_be_bytes().into_iter().chain(row.body.iter().copied())
                    })
                    .collect();
                let path = TilePath { level: None, ..path };
                partial.put(&path.text(), &bundle).map_err(write)?;
            }
        }
    }
    partial.put("checkpoint", notes.checkpoint.as_bytes()).map_err(write)?;
    if let Some(witnessed) = &notes.witnessed {
        partial.put("witnessed", witnessed.as_bytes()).map_err(write)?;
    }
    partial.put("vkey", format!("{}\n", notes.vkey).as_bytes()).map_err(write)?;
    partial.finish()?;
    debug_assert!(size < EPOCH_SPAN.cast_unsigned());
    Ok(size)
}

/// A file or directory under construction: gone again unless [`Partial::finish`] is reached. A process that is killed
/// leaves it behind, under a name that no other export meets.
struct Partial {
    at: PathBuf,
    target: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Partial {
    fn prepare(target: &Path) -> Result<PathBuf, ExportError> {
        refuse_existing(target)?;
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".partial-{:016x}", u64::from_be_bytes(SystemEntropy.bytes())));
        Ok(target.with_file_name(name))
    }

    fn file(target: &Path) -> Result<Self, ExportError> {
        let at = Self::prepare(target)?;
        // it may hold personal data: only its owner reads it
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at);
        let file = opened.map_err(|error| ExportError::Write(error, target.to_path_buf()))?;
        Ok(Self { at, target: target.to_path_buf(), file: Some(BufWriter::new(file)) })
    }

    fn directory(target: &Path) -> Result<Self, ExportError> {
        let at = Self::prepare(target)?;
        let made = fs::DirBuilder::new().mode(0o755).create(&at);
        made.map_err(|error| ExportError::Write(error, target.to_path_buf()))?;
        Ok(Self { at, target: target.to_path_buf(), file: None })
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        match &mut self.file {
            Some(file) => writeln!(file, "{text}"),
            None => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn put(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.at.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn finish(mut self) -> Result<(), ExportError> {
        let done = match self.file.take() {
            Some(file) => {
                file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|f| f.sync_all())
            }
            None => Ok(()),
        };
        done.and_then(|()| rename_to_free(&self.at, &self.target)).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => ExportError::Exists(self.target.clone()),
            _ => ExportError::Write(error, self.target.clone()),
        })
    }
}

/// Renames to a name that nobody has taken meanwhile.
fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // some network file systems cannot: there it is looked at right before
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if to.symlink_metadata().is_err() => {
            fs::rename(from, to)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(io::ErrorKind::AlreadyExists.into()),
        renamed => Ok(renamed?),
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // after a finish there is nothing under this name
        if fs::remove_file(&self.at).is_err() {
            let _ = fs::remove_dir_all(&self.at);
        }
    }
}

fn ndjson_line(entry: &LogEntry) -> String {
    use std::fmt::Write as _;
    let mut line = format!(
        "{{\"epoch\":{},\"index\":{},\"time\":{},\"leaf\":\"{}\",\"body\":{}",
        entry.epoch,
        entry.index,
        entry.time.timestamp_millis(),
        entry.leaf_hex(),
        entry.body_text
    );
    if let Some(personal) = &entry.personal {
        let _ =
            write!(line, ",\"personal\":{},\"disclosures\":{}", personal.to_json(), json!(entry.disclosures));
    }
    line.push('}');
    line
}

/// An attempt as OCSF has it; `None` for entries of other types.
fn ocsf_event(entry: &LogEntry, host: &str) -> Option<Value> {
    let body = entry.body.as_ref()?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    if !matches!(text("typ"), Some("issue" | "redeem")) {
        return None;
    }
    let granted = text("decision") == Some("granted");
    let personal = |name: &str| entry.personal.as_ref().and_then(|personal| personal.get(name)).cloned();
    let origin = super::checkpoint::origin(host, entry.epoch);
    let mut event = Map::new();
    let mut put = |name: &str, value: Value| event.insert(name.to_owned(), value);
    put("category_uid", json!(3));
    put("category_name", json!("Identity & Access Management"));
    put("class_uid", json!(3002));
    put("class_name", json!("Authentication"));
    put("activity_id", json!(7));
    put("activity_name", json!("Account Switch"));
    put("type_uid", json!(300_207));
    put("account_switch_type_id", json!(2));
    put("account_switch_type", json!("Impersonate"));
    put("time", json!(entry.time.timestamp_millis()));
    put("severity_id", json!(if granted { 1 } else { 3 }));
    put("status_id", json!(if granted { 1 } else { 2 }));
    put("status", json!(if granted { "Success" } else { "Failure" }));
    put("status_detail", text("rule").map_or(Value::Null, Into::into));
    put("user", json!({ "uid": personal("sub").unwrap_or_else(|| "unknown".into()), "type_id": 1 }));
    let actor = personal("act").and_then(|act| act.get("sub").cloned());
    put("actor", json!({ "user": { "uid": actor.unwrap_or_else(|| "unknown".into()), "type_id": 2 } }));
    put("service", json!({ "uid": text("client").unwrap_or("unknown"), "name": "stagedoor" }));
    if let Some(reason) = personal("reason") {
        put("message", reason);
    }
    if let Some(address) = personal("addr") {
        put("src_endpoint", json!({ "ip": address }));
    }
    if let Some(grant) = text("grant") {
        let end = body.get("iat").and_then(Value::as_i64).zip(body.get("ttl").and_then(Value::as_i64));
        put("session", json!({ "uid": grant, "expiration_time": end.map(|(iat, ttl)| (iat + ttl) * 1000) }));
    }
    put(
        "metadata",
        json!({
            "version": OCSF_VERSION,
            "product": { "name": "Stagedoor", "vendor_name": "Stagedoor" },
            "uid": format!("{origin}#{}", entry.index),
            "log_name": origin,
            "sequence": entry.index,
        }),
    );
    Some(Value::Object(event))
}

/// Text for a terminal: control characters and those that change the direction of writing are shown as
/// escapes, so that nobody's reason can move the cursor or hide a word.
#[must_use]
pub fn terminal_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let bidi = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || bidi || matches!(c, '\u{2028}' | '\u{2029}') {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_moved_by_what_people_wrote() {
        assert_eq!(terminal_text("a\u{1b}[2Jb\u{202e}c\nd"), "a\\u{1b}[2Jb\\u{202e}c\\u{a}d");
    }

    #[test]
    fn what_somebody_made_meanwhile_is_not_written_over_and_what_a_kill_left_blocks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("log");
        let left = dir.path().join(format!("log.partial-{}", std::process::id()));
        fs::write(&left, "left by a kill -9").unwrap();
        let file = Partial::file(&out).unwrap();
        fs::write(&out, "somebody's").unwrap();
        assert!(matches!(file.finish(), Err(ExportError::Exists(at)) if at == out));
        assert_eq!(fs::read_to_string(&out).unwrap(), "somebody's");
        fs::remove_file(&out).unwrap();
        let directory = Partial::directory(&out).unwrap();
        fs::create_dir(&out).unwrap();
        assert!(matches!(directory.finish(), Err(ExportError::Exists(_))));
        fs::remove_dir(&out).unwrap();
        Partial::directory(&out).unwrap().finish().unwrap();
        assert!(out.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing but what was there, and the log");
    }
}
