//! Services in other languages: the recipes hold, a careless one is caught.

use crate::kit::{conformance, keys, names, path};
use crate::processes::{Running, free_port};
use crate::recipes::Runtime;

const API: &str = "https://api.example.com";

/// A service under test and what the kit needs to reach it.
struct Service {
    _running: Running,
    _keys: tempfile::TempDir,
    base: String,
    key: String,
    jwks: String,
}

impl Service {
    async fn start(runtime: Runtime, script: &str) -> Self {
        let (port, jwks) = (free_port(), format!("127.0.0.1:{}", free_port()));
        let dir = keys("ES256").await;
        let env = [
            ("STAGEDOOR", format!("http://{jwks}")),
            ("HOME_ISSUER", format!("http://{jwks}/home")),
            ("AUDIENCE", API.to_owned()),
            ("PORT", port.to_string()),
            ("EVERY_MS", "200".to_owned()),
        ];
        let running = Running::start(runtime.command(script).envs(env));
        Self {
            _running: running,
            base: format!("http://127.0.0.1:{port}"),
            key: path(&dir, "keys.pem"),
            jwks,
            _keys: dir,
        }
    }

    async fn test(&self, route: &str, impersonators: &str, more: &[&str]) -> (u8, String) {
        let target = format!("{}/{route}", self.base);
        let args = [
            "--target",
            &target,
            "--audience",
            API,
            "--key",
            &self.key,
            "--serve-jwks",
            &self.jwks,
            "--allow-impersonation",
            impersonators,
            "--wait",
            "30",
        ];
        conformance(&[&args[..], more].concat()).await.expect("the service answers")
    }
}

async fn recipe_holds(runtime: Runtime, script: &str) {
    let service = Service::start(runtime, script).await;
    for (route, impersonators) in [("me", "403"), ("orders", "200")] {
        let (code, report) = service.test(route, impersonators, &["--json"]).await;
        assert!(names(&report, "right", None).len() > 150, "a whole run");
        for verdict in ["wrongly_accepted", "wrongly_refused", "wrong_answer", "broke"] {
            let level = if verdict == "broke" { None } else { Some("must") };
            let wrong = names(&report, verdict, level);
            assert!(wrong.is_empty(), "{script} /{route} {verdict}: {wrong:#?}");
        }
        let kept_out = names(&report, "wrongly_refused", None);
        assert!(
            !kept_out.iter().any(|id| id.starts_with("good-clock-ahead")),
            "{script} /{route}: {kept_out:#?}"
        );
        assert_eq!(code, 0, "{script} /{route}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_recipes_hold() {
    if !Runtime::Node.is_here("the_node_recipes_hold") {
        return;
    }
    recipe_holds(Runtime::Node, "docs/languages/node/jose.mjs").await;
    recipe_holds(Runtime::Node, "docs/languages/node/express-oauth2-jwt-bearer.mjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_recipes_hold() {
    if !Runtime::Python.is_here("the_python_recipes_hold") {
        return;
    }
    recipe_holds(Runtime::Python, "docs/languages/python/pyjwt_service.py").await;
    recipe_holds(Runtime::Python, "docs/languages/python/authlib_service.py").await;
}

/// A service that follows the feed refuses what stands in it; one that does not is said to let it in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_tokens_tell_who_follows_the_feed() {
    if !Runtime::Node.is_here("revoked_tokens_tell_who_follows_the_feed") {
        return;
    }
    let only = ["--json", "--revocations", "--only", "good-base", "--only", "revoked"];
    Runtime::Node.command("docs/languages/node/revocations.mjs"); // copied to where its packages are
    let follows = Service::start(Runtime::Node, "tests/recipes/node/follows.mjs").await;
    let (code, report) = follows.test("", "200", &only).await;
    assert_eq!((code, names(&report, "right", None).len()), (0, 4), "{report}");
    let forgets = Service::start(Runtime::Node, "docs/languages/node/jose.mjs").await;
    let (code, report) = forgets.test("orders", "200", &only).await;
    let accepted = names(&report, "wrongly_accepted", Some("must"));
    assert_eq!((code, accepted.len()), (1, 2), "{report}");
    assert!(accepted.iter().all(|id| id.starts_with("revoked-")), "{accepted:?}");
}

/// Issue 6 §4: the wound of zitadel#12097. A right signature is all this service looks at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_forgets_act_typ_and_aud_is_caught() {
    if !Runtime::Node.is_here("a_service_that_forgets_act_typ_and_aud_is_caught") {
        return;
    }
    let service = Service::start(Runtime::Node, "tests/recipes/node/careless.mjs").await;
    let junit = service.key.replace("keys.pem", "junit.xml");
    let (code, report) = service.test("me", "403", &["--json", "--junit", &junit]).await;
    assert_eq!(code, 1);
    let accepted = names(&report, "wrongly_accepted", Some("must"));
    for caught in [
        "good-actor",
        "good-ordinary-acted",
        "act-missing",
        "act-home-null",
        "claim-aud-other",
        "claim-sub-missing",
        "header-typ-secevent+jwt",
    ] {
        assert!(
            accepted.iter().any(|id| id.starts_with(&format!("{caught}:"))),
            "{caught} not in {accepted:#?}"
        );
    }
    // jose checks signatures: nothing that is forged gets through even here.
    for group in ["alg-", "sig-", "kid-"] {
        assert!(!accepted.iter().any(|id| id.starts_with(group)), "{accepted:#?}");
    }
    let junit = std::fs::read_to_string(junit).unwrap();
    assert!(junit.contains("<testcase classname=\"good\" name=\"good-actor\"><failure"), "{junit}");

    let (code, table) = service.test("me", "403", &[]).await;
    assert_eq!(code, 1);
    assert!(table.contains("WRONGLY ACCEPTED") && table.contains("good-actor "), "{table}");
}
