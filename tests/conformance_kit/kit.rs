//! The command as a person gives it, and what it says.

use std::sync::Arc;

use clap::Parser;
use serde_json::Value;
use stagedoor::server::cli::conformance::{ConformanceArgs, ConformanceError, run};
use stagedoor::token::SystemClock;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ConformanceArgs,
}

/// Runs `stagedoor conformance …`: exit code and what stands on standard output.
pub async fn conformance(args: &[&str]) -> Result<(u8, String), ConformanceError> {
    let cli =
        Cli::try_parse_from(std::iter::once(&"conformance").chain(args)).expect("the arguments are right");
    let mut out = Vec::new();
    let code = run(cli.args, Arc::new(SystemClock::default()), &mut out).await?;
    Ok((code, String::from_utf8(out).expect("UTF-8")))
}

/// The names of the cases of a JSON report with this verdict; of one level, if given.
pub fn names(report: &str, verdict: &str, level: Option<&str>) -> Vec<String> {
    let report: Value = serde_json::from_str(report).expect("a report in JSON");
    let findings = report["findings"].as_array().expect("findings");
    assert!(!findings.is_empty(), "something was sent");
    findings
        .iter()
        .filter(|f| f["verdict"] == verdict && level.is_none_or(|level| f["level"] == level))
        .map(|f| {
            format!("{}: {}", f["id"].as_str().unwrap_or_default(), f["why"].as_str().unwrap_or_default())
        })
        .collect()
}

/// A directory with test keys: `keys.pem` and `jwks.json`.
pub async fn keys(alg: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let (key, jwks) = (path(&dir, "keys.pem"), path(&dir, "jwks.json"));
    let (code, _) =
        conformance(&["keygen", "--out", &key, "--jwks", &jwks, "--alg", alg]).await.expect("keys");
    assert_eq!(code, 0);
    dir
}

pub fn path(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).to_str().expect("a path in UTF-8").to_owned()
}

#[tokio::test]
async fn a_key_file_is_private_and_never_written_over() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = keys("RS256").await;
    let (key, jwks) = (path(&dir, "keys.pem"), path(&dir, "jwks.json"));
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    let again = conformance(&["keygen", "--out", &key, "--jwks", &jwks]).await;
    assert!(matches!(again, Err(ConformanceError::File { .. })), "{again:?}");
    assert_eq!(std::fs::read(&key).unwrap(), before);
    let public: Value = serde_json::from_slice(&std::fs::read(&jwks).unwrap()).unwrap();
    assert_eq!(public["keys"][0]["alg"], "RS256");
    assert!(!public.to_string().contains("\"d\""), "private members in the public set");
}

#[tokio::test]
async fn a_service_that_is_down_is_said_to_be_down() {
    let dir = keys("ES256").await;
    let target = format!("http://127.0.0.1:{}/", crate::processes::free_port());
    let key = path(&dir, "keys.pem");
    let down = conformance(&["--target", &target, "--issuer", "i", "--audience", "a", "--key", &key]).await;
    assert!(matches!(down, Err(ConformanceError::Down { .. })), "{down:?}");
}

#[test]
fn what_is_needed_is_asked_for() {
    for args in [
        &["c"][..],
        &["c", "--target", "http://127.0.0.1"],
        &["c", "--target", "http://127.0.0.1", "--audience", "a"],
        &["c", "--target", "http://127.0.0.1", "--audience", "a", "--issuer", "i"],
        &[
            "c",
            "--target",
            "http://127.0.0.1",
            "--audience",
            "a",
            "--issuer",
            "i",
            "--key",
            "k",
            "--allow-impersonation",
            "204",
        ],
    ] {
        let parsed = Cli::try_parse_from(args);
        // Without anything at all the command itself says what it can do.
        assert!(parsed.is_err() || args.len() == 1, "{args:?}");
    }
    let served = ["c", "--target", "http://127.0.0.1", "--audience", "a", "--serve-jwks", "127.0.0.1:0"];
    assert!(Cli::try_parse_from(served).is_ok());
}
