//! openapi.yaml as stock tools read it (issue 6 §6): clients that were generated from it mint and verify, and
//! schemathesis, which sends what it allows and what it does not, finds nothing.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::API;
use crate::recipes::Runtime;
use crate::served::{Made, Served, http, printed};

/// How long schemathesis may look in CI, seconds; `scripts/schemathesis` gives it longer.
const SECONDS: u32 = 45;
/// Every scope there is.
const SCOPES: &str = "actor_tokens:issue,actor_tokens:assert_actor,actor_tokens:redeem,actor_tokens:read,\
     actor_tokens:revoke,tokens:verify,audit:read,audit:read_personal,admin";

fn contract() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("openapi.yaml")
}

fn served() -> (Served, Made) {
    let mut served = Served::initialised();
    let client = served.client(&["--scopes", SCOPES, "--may-assert", "admin_*", "--audience", API]);
    served.serve(&client.permit);
    (served, client)
}

/// Runs what must succeed.
fn ok(command: &mut Command) {
    let output = command.output().expect("the program is there");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// What a client sees that mints, verifies, revokes, verifies again, and asks for what it will not get.
fn saw_a_whole_life(saw: &Value, refused: &str) {
    let milliseconds = saw["milliseconds"].as_i64().expect("a time");
    assert!(milliseconds > 1_700_000_000_000, "{saw}");
    let expected = json!({
        "status": "pending", "milliseconds": milliseconds, "actor": "admin_7", "reason": "revoked", "code": refused
    });
    assert_eq!(saw, &expected);
}

#[test]
fn a_client_of_openapi_typescript_mints_and_verifies() {
    if !Runtime::Node.is_here("a_client_of_openapi_typescript_mints_and_verifies") {
        return;
    }
    let generated = Runtime::Node.dir().join(".recipes");
    std::fs::create_dir_all(&generated).expect("a directory");
    ok(Runtime::Node.tool("openapi-typescript").arg(contract()).arg("-o").arg(generated.join("schema.d.ts")));
    let options =
        "--strict --skipLibCheck --module nodenext --target es2022 --lib es2023,dom --outDir .recipes";
    ok(Runtime::Node.tool("tsc").args(options.split(' ')).arg("generated.ts"));
    let (served, client) = served();
    let mut program = Command::new("node");
    program.arg(generated.join("generated.js"));
    let saw = printed(program.envs([("STAGEDOOR", &served.url), ("CLIENT_SECRET", &client.secret)]));
    saw_a_whole_life(&saw, "form_param_unknown");
}

#[test]
fn a_client_of_openapi_python_client_mints_and_verifies() {
    if !Runtime::Python.is_here("a_client_of_openapi_python_client_mints_and_verifies") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut generator = Runtime::Python.tool("openapi-python-client");
    generator.arg("generate").arg("--path").arg(contract()).args(["--meta", "none", "--output-path"]);
    ok(generator.arg(dir.path().join("stagedoor_client")));
    let (served, client) = served();
    let mut program = Runtime::Python.command("tests/recipes/python/generated.py");
    program.env("PYTHONPATH", dir.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    let saw = printed(program.envs([("STAGEDOOR", &served.url), ("CLIENT_SECRET", &client.secret)]));
    saw_a_whole_life(&saw, "policy_denied");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "how long it may take is a setting of the test")]
async fn schemathesis_finds_nothing() {
    if !Runtime::Python.is_here("schemathesis_finds_nothing") {
        return;
    }
    let (served, client) = served();
    let body = json!({ "user_id": "user_42", "actor": { "sub": "admin_7" }, "reason": "Invoice is missing" });
    let mint = http().post(format!("{}/v1/actor_tokens", served.url)).bearer_auth(&client.secret).json(&body);
    let minted: Value = mint.send().await.expect("it answers").json().await.expect("JSON");
    let token = minted["token"].as_str().expect("a token");

    let dir = tempfile::tempdir().expect("a directory");
    for name in ["schemathesis.toml", "schemathesis_hooks.py"] {
        std::fs::copy(Runtime::Python.dir().join(name), dir.path().join(name)).expect("a copy");
    }
    // In CI what it finds is to be found again; whoever gives it longer lets it choose.
    let longer = std::env::var("SCHEMATHESIS_SECONDS").ok();
    let seconds = longer.clone().unwrap_or_else(|| SECONDS.to_string());
    let mut schemathesis = Runtime::Python.tool("schemathesis");
    schemathesis.current_dir(dir.path()).arg("run").arg(contract()).args(["--url", &served.url]);
    schemathesis.args(["--max-time", &seconds, "--continue-on-failure", "--warnings", "off", "--no-color"]);
    schemathesis.args(["--request-timeout", "10", "--output-sanitize", "false"]);
    if longer.is_none() {
        schemathesis.args(["--seed", "1"]);
    }
    ok(schemathesis.envs([
        ("CLIENT_ID", client.id.as_str()),
        ("CLIENT_SECRET", &client.secret),
        ("ACTOR_TOKEN", token),
    ]));
}
