//! `stagedoor policy …` as functions: what is written and which exit code follows.

use std::path::{Path, PathBuf};

use stagedoor::server::cli::policy::{PolicyCommand, PolicyCommandError, Shown, run};
use stagedoor::token::FixedClock;

use crate::support::{facts, noon};

const TABLE: &str = r#"
policy = "p.cedar"
[base]
actor = { sub = "a", iss = "https://i", directory = { roles = ["support"] } }
target = { id = "t", directory = {} }
client = { id = "client_1" }
reason = "because"
audience = ["https://x"]
[[case]]
name = "support may"
expect = { decision = "granted", rule = "all", lifetime = 900 }
[[case]]
name = "others may not"
given.actor.directory.roles = []
expect = { decision = "denied" }
"#;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        dir.write("p.cedar", "@id(\"all\") permit (principal in Role::\"support\", action, resource);");
        dir
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn ran(
    (command, json): &(PolicyCommand, bool),
    configured: Option<&Path>,
    input: &str,
) -> Result<(u8, String), PolicyCommandError> {
    let mut out = Vec::new();
    let code = run(command, *json, configured, &FixedClock::at(noon()), &mut input.as_bytes(), &mut out)?;
    Ok((code, String::from_utf8(out).unwrap()))
}

#[test]
fn check_says_valid_or_where_not() {
    let dir = Dir::new();
    let check = |path: Option<PathBuf>, json| (PolicyCommand::Check { path }, json);
    let (code, text) = ran(&check(Some(dir.0.path().join("p.cedar")), false), None, "").unwrap();
    assert_eq!(code, 0);
    assert!(text.starts_with("valid: 1 rules, p@"), "{text}");
    let (_, text) = ran(&check(None, false), None, "").unwrap();
    assert!(text.contains("default@"), "{text}");
    let configured = dir.0.path().join("p.cedar");
    let (_, text) = ran(&check(None, true), Some(&configured), "").unwrap();
    assert!(text.contains("\"policy\": \"p@"), "{text}");

    let bad = dir.write(
        "bad.cedar",
        "@id(\"x\")\npermit (principal, action, resource) when { principal.org == \"o\" };",
    );
    let (code, text) = ran(&check(Some(bad.clone()), false), None, "").unwrap();
    assert_eq!((code, text.starts_with("bad.cedar:2:")), (1, true), "{text}");
    let (code, text) = ran(&check(Some(bad), true), None, "").unwrap();
    assert_eq!(code, 1);
    assert!(text.contains("\"line\": 2"), "{text}");
    let error = ran(&check(Some(dir.0.path().join("missing")), false), None, "").unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn test_shows_what_differs_and_fails() {
    let dir = Dir::new();
    let command = |file: PathBuf, json| (PolicyCommand::Test { file, policy: None }, json);
    let (code, text) = ran(&command(dir.write("t.toml", TABLE), false), None, "").unwrap();
    assert_eq!(code, 1);
    assert!(text.contains("FAIL  1 support may"), "{text}");
    assert!(text.contains("lifetime\n        - expected 900\n        + got      600"), "{text}");
    assert!(text.contains("ok    2 others may not"), "{text}");
    assert!(text.contains("2 cases, 1 failed (p@"), "{text}");

    let right = TABLE.replace("lifetime = 900", "lifetime = 600");
    let (code, text) = ran(&command(dir.write("t.toml", &right), true), None, "").unwrap();
    assert_eq!(code, 0);
    assert!(text.contains("\"failed\": 0"), "{text}");
    // another policy than the one the table names
    let other = (
        PolicyCommand::Test { file: dir.write("t.toml", &right), policy: Some("shipped:default".into()) },
        false,
    );
    assert_eq!(ran(&other, None, "").unwrap().0, 1);
}

#[test]
fn a_table_may_be_json() {
    let dir = Dir::new();
    let table = serde_json::json!({
        "policy": "p.cedar",
        "base": facts(),
        "case": [{ "name": "x", "expect": { "decision": "granted", "scope": "read", "message": "permits" } }]
    });
    let file = dir.write("t.json", &table.to_string());
    assert_eq!(ran(&(PolicyCommand::Test { file, policy: None }, false), None, "").unwrap().0, 0);
}

#[test]
fn a_table_that_tests_nothing_or_misspells_is_refused() {
    let dir = Dir::new();
    for (text, part) in [
        ("policy = \"p.cedar\"", "no case"),
        (&*TABLE.replace("lifetime = 900", "lifetme = 900"), "lifetme"),
        (&*TABLE.replace("reason =", "raeson ="), "raeson"),
        (&*TABLE.replace("given.actor", "given.akteur"), "case 2 (others may not)"),
        (&*TABLE.replace("decision = \"denied\"", "decision = \"maybe\""), "maybe"),
        ("not toml", "line 1"),
    ] {
        let file = dir.write("bad.toml", text);
        let error = ran(&(PolicyCommand::Test { file, policy: None }, false), None, "").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn explain_reads_facts_from_a_file_or_from_standard_input() {
    let dir = Dir::new();
    let explain = |facts: PathBuf, json| (PolicyCommand::Explain { facts, policy: None }, json);
    let file = dir.write("facts.json", &facts().to_string());
    let (code, text) = ran(&explain(file, false), None, "").unwrap();
    assert_eq!(code, 0);
    assert!(text.starts_with("granted: Rule support permits it for 600 seconds with scope read."), "{text}");
    assert!(text.contains("forbid protected (default.cedar:"), "{text}");
    let (_, text) = ran(&explain("-".into(), true), None, &facts().to_string()).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (answer["decision"].as_str(), answer["limits"]["lifetime_seconds"].as_u64()),
        (Some("granted"), Some(600))
    );
    let facts = TABLE.split("[base]").nth(1).unwrap().split("[[case]]").next().unwrap();
    let file = dir.write("facts.toml", facts);
    let (_, text) = ran(&explain(file, false), None, "").unwrap();
    assert!(text.starts_with("denied: No rule permits"), "{text}");
    for bad in ["", "{}", "[]", "{\"actor\":1}"] {
        assert_eq!(ran(&explain("-".into(), false), None, bad).unwrap_err().exit_code(), 2, "{bad}");
    }
    assert!(ran(&explain("-".into(), false), None, &" ".repeat(70_000)).is_err());
}

#[test]
fn show_prints_what_comes_with_the_program() {
    let show = |what| ran(&(PolicyCommand::Show { what }, false), None, "").unwrap().1;
    assert!(show(Shown::Default).contains("@id(\"support\")"));
    assert!(show(Shown::Dev).contains("@client(\"dev\")"));
    assert!(show(Shown::Schema).contains("entity Actor"));
}
