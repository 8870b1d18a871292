//! What has to hold after every fault: the log verifies, by ourselves and by others; every token that a caller
//! holds stands where its receipt says; what was answered to be revoked is refused.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::book::{Heard, Keyed, Released, origin};
use crate::load::{MINT, ask, client, post, released};
use crate::site::{Site, run};

/// How many calls are made at once.
const AT_ONCE: usize = 8;
/// Checkpoints that `audit verify` has to find continued.
const CHECKPOINTS: usize = 24;

/// What a check found.
#[derive(Debug, Default)]
pub struct Found {
    pub violations: Vec<String>,
    /// Tokens looked up.
    pub looked_up: usize,
    /// Entries of the log.
    pub entries: u64,
    /// What the foreign verifier said.
    pub foreign: String,
}

/// Go's own implementation of the log's formats, compiled once; `None` where Go is not installed.
pub fn foreign_verifier() -> Option<PathBuf> {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults-foreign");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/foreign.go");
    if !Path::new("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog").is_dir() {
        return None;
    }
    let mut build = Command::new("go");
    build.arg("build").arg("-o").arg(&out).arg(source);
    run(build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode"));
    Some(out)
}

/// Everything, with every process of the site started again that has ended.
pub async fn check(site: &mut Site, foreign: Option<&Path>) -> Found {
    let mut found = Found::default();
    let strange = std::mem::take(&mut site.book.fresh.strange);
    found.violations.extend(strange.into_iter().take(5));
    verify(site, &mut found).await;
    if let Err(error) = site.start_all().await {
        found.violations.push(format!("after the fault: {error}"));
        return found;
    }
    if let Err(error) = serves_again(site).await {
        found.violations.push(error);
        return found;
    }
    replay(site, &mut found).await;
    let tokens: Vec<Released> = site.book.fresh.released.iter().chain(&site.book.kept).cloned().collect();
    found.looked_up = tokens.len();
    found.violations.extend(look_up(site, tokens).await);
    found.violations.extend(still_revoked(site).await);
    if let Some(foreign) = foreign {
        match foreign_verdict(site, foreign).await {
            Ok(said) => found.foreign = said,
            Err(error) => found.violations.push(format!("the foreign verifier refuses: {error}")),
        }
    }
    found
}

/// `audit verify`, with checkpoints that callers were given.
async fn verify(site: &Site, found: &mut Found) {
    let dir = site.path().join("checkpoints");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("a directory");
    let receipts = &site.book.receipts;
    let step = (receipts.len() / CHECKPOINTS).max(1);
    let mut arguments = vec!["audit".to_owned(), "verify".into(), "--json".into()];
    let newest = receipts.iter().max_by_key(|(index, _)| *index);
    for (n, (_, receipt)) in receipts.iter().step_by(step).chain(newest).enumerate() {
        let file = dir.join(n.to_string());
        fs::write(&file, receipt).expect("a file");
        arguments.extend(["--checkpoint".to_owned(), file.display().to_string()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = site.output(&arguments).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    found.entries = report["entries"].as_u64().unwrap_or(0);
    if report["holds"] != true || !output.status.success() {
        let findings = if report.is_null() {
            String::from_utf8_lossy(&output.stderr).into_owned()
        } else {
            report["findings"].to_string()
        };
        found.violations.push(format!("audit verify: {findings}"));
    }
}

/// A mint succeeds on every replica, soon.
async fn serves_again(site: &mut Site) -> Result<(), String> {
    let http = client();
    for (i, base) in site.bases().into_iter().enumerate() {
        let began = Instant::now();
        loop {
            let last = match post(&http, &base, &site.minter, MINT, None, &ask("again")).await {
                Some((StatusCode::OK, body)) => {
                    let mut heard = Heard::default();
                    heard.released.extend(released(&body));
                    let twice = site.book.hear(heard);
                    break if twice.is_empty() { Ok(()) } else { Err(twice.join("; ")) };
                }
                Some((status, body)) => format!("{status} {body}"),
                None => "no answer".to_owned(),
            };
            if let Some(ended) = site.replicas[i].ended() {
                return Err(format!("replica {i} ended ({ended}): {}", site.last_words(i)));
            }
            if began.elapsed() > Duration::from_secs(30) {
                return Err(format!("nothing is minted 30 s after the fault: {last} {}", site.last_words(i)));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }?;
    }
    Ok(())
}

/// Every call with an `Idempotency-Key`, again: who was answered gets the same token, and who was not gets at most
/// one, which then has to be in the log like every other.
async fn replay(site: &mut Site, found: &mut Found) {
    let keyed: Vec<Keyed> = std::mem::take(&mut site.book.fresh.keyed);
    let revoked: HashSet<&String> = site.book.fresh.revoked.iter().chain(&site.book.fresh.doubtful).collect();
    let (http, base, secret) = (client(), site.replicas[0].base.clone(), site.minter.clone());
    let answers = futures_util::stream::iter(keyed)
        .map(|call| async {
            let answer = post(&http, &base, &secret, call.path, Some(&call.key), &call.body).await;
            (call, answer)
        })
        .buffer_unordered(AT_ONCE);
    let answers: Vec<_> = answers.collect().await;
    let mut heard = Heard::default();
    for (call, answer) in answers {
        let over = call.token.as_ref().is_some_and(|token| revoked.contains(token));
        match (answer, &call.token) {
            (Some((StatusCode::OK, body)), before) => {
                let Some(again) = released(&body) else {
                    found.violations.push(format!("a retry was answered without a token: {body}"));
                    continue;
                };
                let signed = |token: &str| token.rsplit_once('.').map(|(signed, _)| signed.to_owned());
                if before.as_ref().is_some_and(|before| signed(before) != signed(&again.token)) {
                    found
                        .violations
                        .push(format!("a retry got another token than the first call: {}", call.path));
                }
                heard.released.push(again);
            }
            (Some((status, body)), Some(_)) if !over => {
                found.violations.push(format!("a retry of an answered call got {status}: {body}"));
            }
            (Some((status, body)), _) if status.is_server_error() => {
                let said = site.last_words(0);
                found.violations.push(format!("a retry got {status}: {body} {said}"));
            }
            (None, _) => found.violations.push("a retry was not answered".into()),
            (Some(_), _) => {}
        }
    }
    found.violations.extend(site.book.hear(heard));
}

/// Released ⊆ recorded: every token is found by itself, at the index its receipt names.
async fn look_up(site: &Site, tokens: Vec<Released>) -> Vec<String> {
    let (http, base, secret) =
        (client(), site.replicas.last().expect("a replica").base.clone(), &site.auditor);
    let wrong = futures_util::stream::iter(tokens)
        .map(|released| {
            let (http, base) = (&http, &base);
            async move {
                let body = json!({ "token": released.token });
                let answer = look(http, base, secret, &body).await?;
                let there = answer["found"] == true
                    && answer["entry"]["index"].as_u64() == Some(released.index)
                    && answer["verifies"] == true
                    && answer["alarm"] == false;
                // another epoch counts anew: there the receipt says which log it is of
                (!there
                    && origin(&released.proof) == origin(answer["proof"].as_str().unwrap_or(&released.proof)))
                .then(|| format!("released with index {} and not recorded so: {answer}", released.index))
            }
        })
        .buffer_unordered(AT_ONCE);
    some(wrong.filter_map(std::future::ready).collect().await)
}

async fn look(http: &Client, base: &str, secret: &str, body: &Value) -> Option<Value> {
    let (_, answer) = post(http, base, secret, "/v1/audit/lookup", None, body).await?;
    Some(answer)
}

/// What was answered to be revoked is refused, on every replica.
async fn still_revoked(site: &Site) -> Vec<String> {
    let tokens: Vec<&String> = site.book.fresh.revoked.iter().chain(&site.book.kept_revoked).collect();
    let http = client();
    let mut wrong = Vec::new();
    for base in site.bases() {
        let (http, base, secret) = (&http, &base, &site.minter);
        let active = futures_util::stream::iter(&tokens)
            .map(|token| async move {
                let body = json!({ "token": token });
                let answer = post(http, base, secret, "/v1/actor_tokens/verify", None, &body).await;
                let refused = matches!(&answer, Some((StatusCode::OK, body)) if body["active"] == false);
                (!refused).then(|| format!("revoked, and then: {answer:?}"))
            })
            .buffer_unordered(AT_ONCE);
        wrong.extend(some(active.filter_map(std::future::ready).collect().await));
    }
    wrong
}

/// A few of many, and how many there are.
fn some(mut all: Vec<String>) -> Vec<String> {
    let n = all.len();
    all.truncate(3);
    if n > 3 {
        all.push(format!("and {} more like these", n - 3));
    }
    all
}

async fn foreign_verdict(site: &Site, program: &Path) -> Result<String, String> {
    let base = site.replicas[0].base.clone();
    let vkey = client().get(format!("{base}/v1/audit/log/vkey")).send().await.map_err(|e| e.to_string())?;
    let vkey = vkey.text().await.map_err(|e| e.to_string())?;
    let name = vkey.split('+').next().unwrap_or("");
    let ours: Vec<_> = site.book.receipts.iter().filter(|(_, proof)| origin(proof) == name).collect();
    let receipts: Vec<Value> =
        ours.iter().map(|(index, proof)| json!({ "index": index, "proof": proof })).collect();
    let (key_file, receipt_file) = (site.path().join("vkey"), site.path().join("receipts.json"));
    // the key of an origin is the one that was seen first
    let key_file = key_file.with_extension(name.rsplit('/').next().unwrap_or("1"));
    if !key_file.exists() {
        fs::write(&key_file, vkey.trim()).map_err(|e| e.to_string())?;
    }
    fs::write(&receipt_file, Value::from(receipts).to_string()).map_err(|e| e.to_string())?;
    let mut command = Command::new(program);
    command.arg(base).arg(key_file).arg(receipt_file).env("LOG_SECRET", &site.auditor);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("a thread");
    let output = output.map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
