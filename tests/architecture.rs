//! The plan of the house, held by a table: which room may import which, and who may know actix or SQL.
//!
//! The compiler holds the wall between the rooms of a downstream service and the server (features); this
//! holds the rest. A row that is wrong is changed here, in the open, or the import is.

use std::fs;
use std::path::{Path, PathBuf};

/// Small rooms that any other may use; they use only each other.
const LEAVES: &[&str] =
    &["config", "limits", "master_key", "metrics", "outbound", "remembered", "telemetry", "tls"];

/// The rooms of the server that a room may use, beside the leaves, `token` and itself.
/// Wiring (`app`, `service`, `http`, `cli`, `console`) stands at the top and is used by nothing below.
const BELOW: &[(&str, &[&str])] = &[
    ("store", &["clients", "keyring", "log", "policy", "revoke"]),
    ("log", &["keyring", "policy", "store"]),
    ("policy", &["directory"]),
    ("directory", &["policy"]),
    ("actors", &["policy"]),
    ("ticket", &[]),
    ("webhooks", &["log", "store"]),
    ("keyring", &["clients", "store"]),
    ("clients", &["policy", "store"]),
    ("revoke", &["clients", "keyring", "log", "store"]),
    ("checker", &["clients"]),
    ("gates", &["checker"]),
    (
        "issue",
        &[
            "actors",
            "checker",
            "clients",
            "directory",
            "keyring",
            "log",
            "policy",
            "revoke",
            "store",
            "ticket",
        ],
    ),
];

/// Where the framework may be named, below `src/`.
const KNOWS_ACTIX: &[&str] = &[
    "guard/actix",
    "server/app",
    "server/console/",
    "server/http/",
    // answers a service under test with keys and metadata
    "server/cli/conformance/serve",
];

/// Where SQL may stand, below `src/`.
const KNOWS_SQL: &[&str] = &[
    "server/store/",
    "server/log/read/",
    "server/log/space",
    "server/log/verify/",
    "server/clients/row",
    "server/keyring/row",
    // what an attacker would write into a `kid`
    "server/cli/conformance/cases/kid",
];

/// Every source file below `src/`, as its path from there and its text without tests and comments.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.file_name().is_some_and(|n| n == "tests.rs") {
                // unit tests in a file of their own
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file");
            let name = path.strip_prefix(&root).expect("below src").to_string_lossy().replace('\\', "/");
            (name, code_only(&text))
        })
        .collect()
}

/// A file up to its unit tests, without comment lines: prose may name what code must not.
fn code_only(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The rooms named after `prefix` in a text: `crate::server::log::x` and `crate::server::{log, policy}`.
fn named_after<'t>(text: &'t str, prefix: &str) -> Vec<&'t str> {
    let mut rooms = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        let rest = &text[at + prefix.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            // Only the outermost names of the list are rooms.
            let mut depth = 0_usize;
            for item in list.split_inclusive(['{', '}', ',']) {
                if depth == 0 {
                    rooms.push(first_word(item.trim_start()));
                }
                match item.chars().last() {
                    Some('{') => depth += 1,
                    Some('}') if depth == 0 => break,
                    Some('}') => depth -= 1,
                    _ => {}
                }
            }
        } else {
            rooms.push(first_word(rest));
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[test]
fn the_rooms_of_a_downstream_service_know_nothing_above_them() {
    for (file, text) in sources() {
        let forbidden: &[&str] = match file.split('/').next() {
            Some("token") => {
                &["crate::guard", "crate::server", "sqlx", "tokio::", "reqwest", "actix_web", "axum"]
            }
            Some("guard") => &["crate::server", "sqlx"],
            _ => continue,
        };
        for word in forbidden {
            assert!(!text.contains(word), "src/{file} names {word}: imports run downward only");
        }
    }
}

#[test]
fn inside_the_server_imports_run_downward() {
    let top = ["app", "service", "http", "cli", "console"];
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let Some(rest) = file.strip_prefix("server/") else { continue };
        let room = first_word(rest);
        if top.contains(&room) || room == "mod" {
            continue;
        }
        let allowed = BELOW.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, allowed)| allowed);
        let listed = LEAVES.contains(&room) || BELOW.iter().any(|(name, _)| *name == room);
        if !listed && !rest.ends_with("mod.rs") {
            wrong.push(format!("server/{room} is new: give it a row in the table"));
        }
        // From a room's own file a sibling is one `super` away, from a file within it two.
        let within = rest.trim_end_matches("/mod.rs").matches('/').count();
        let sibling = format!("use {}", "super::".repeat(within + 1));
        for used in named_after(&text, "crate::server::").into_iter().chain(named_after(&text, &sibling)) {
            if used == "super" {
                continue;
            }
            if top.contains(&used) {
                wrong.push(format!("src/{file} uses {used}: nothing calls upward"));
            } else if used != room && !LEAVES.contains(&used) && !allowed.contains(&used) {
                wrong.push(format!("src/{file} uses {used}, which the table does not show for {room}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_http_and_the_actix_guard_know_actix() {
    for (file, text) in sources() {
        if !KNOWS_ACTIX.iter().any(|room| file.starts_with(room)) {
            assert!(!text.contains("actix_web") && !text.contains("actix_http"), "src/{file} names actix");
        }
    }
}

#[test]
fn only_the_stores_know_sql() {
    let sql = ["SELECT ", "INSERT INTO", "UPDATE ", "DELETE FROM", "CREATE TABLE", "sqlx::query"];
    for (file, text) in sources() {
        if !KNOWS_SQL.iter().any(|room| file.starts_with(room)) {
            for word in sql {
                assert!(!text.contains(word), "src/{file} holds SQL ({word}): it belongs to a store");
            }
        }
    }
}

#[test]
fn a_test_of_this_very_table_sees_what_it_should() {
    let text = "use crate::server::log::{Event, Record};\nuse crate::server::{policy::{self, X}, store};\n";
    assert_eq!(named_after(text, "crate::server::"), ["log", "policy", "store"]);
    assert_eq!(code_only("// actix_web\nfn a() {}\n#[cfg(test)]\nmod tests { use sqlx; }"), "fn a() {}");
}

/// House.md §4 (1): a module opens with one sentence saying what it owns.
#[test]
fn every_module_opens_with_a_sentence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, _) in sources() {
        let text = fs::read_to_string(root.join(&file)).expect("a source file");
        assert!(text.starts_with("//! "), "src/{file} does not say what it owns");
    }
}

/// No engine is at hand in CI: what can be held without one is that the image is built from what is there.
#[test]
fn the_image_is_built_from_files_that_exist_and_runs_as_nobody() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = fs::read_to_string(root.join("Dockerfile")).expect("a Dockerfile");
    let allowed = fs::read_to_string(root.join(".dockerignore")).expect("a .dockerignore");
    let mut copied = 0;
    for line in dockerfile.lines().filter(|l| l.starts_with("COPY ") && !l.contains("--from=")) {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        for source in &words[..words.len() - 1] {
            assert!(root.join(source).exists(), "{line}: {source} is not there");
            assert!(allowed.lines().any(|l| l == format!("!{source}")), "{source} does not reach the engine");
            copied += 1;
        }
    }
    assert!(copied >= 5, "{copied} sources");
    let last_user = dockerfile.lines().rfind(|l| l.starts_with("USER ")).expect("a USER");
    assert!(!last_user.contains("root") && !last_user.starts_with("USER 0"), "{last_user}");
    assert!(dockerfile.lines().any(|l| l.starts_with("HEALTHCHECK ")), "the binary asks itself");
    assert!(dockerfile.lines().any(|l| l.starts_with("VOLUME ")), "data lives in a volume");
}

/// docs/threats.md names the test that shows each claim: files that exist, and tests that are called so.
#[test]
fn every_test_that_the_threat_model_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/threats.md")).expect("docs/threats.md");
    let mut tests = String::new();
    let mut folders = vec![root.join("tests"), root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                tests.push_str(&fs::read_to_string(path).expect("a source file"));
            }
        }
    }
    let mut names = 0;
    for quoted in text.split('`').skip(1).step_by(2) {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if quoted.starts_with("tests/") || (quoted.starts_with("src/") && !quoted.contains(' ')) {
            assert!(root.join(quoted).exists(), "docs/threats.md names {quoted}, which is not there");
        } else if quoted.matches('_').count() >= 3 && quoted.chars().all(word) {
            assert!(
                tests.contains(&format!("fn {quoted}(")),
                "docs/threats.md names the test {quoted}: no such test"
            );
            names += 1;
        }
    }
    assert!(names >= 50, "{names} tests are named");
}

/// The packages in a lock file, by name and version.
fn locked() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lock = fs::read_to_string(root.join("Cargo.lock")).expect("Cargo.lock");
    let value = |line: &str, key: &str| {
        line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"').map(str::to_owned)
    };
    let mut out = Vec::new();
    let mut name = String::new();
    for line in lock.lines() {
        if let Some(found) = value(line, "name") {
            name = found;
        } else if let Some(version) = value(line, "version") {
            out.push((name.clone(), version));
        }
    }
    out
}

/// What deny.toml bans, held without `cargo deny`: one TLS stack, one crypto provider, registries only, no `unsafe`.
#[test]
fn the_supply_chain_is_what_deny_toml_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = locked();
    let has = |name: &str| packages.iter().any(|(n, _)| n == name);
    assert!(packages.len() > 100 && has("rustls") && has("aws-lc-rs"), "the lock file was read");
    for banned in ["openssl-sys", "openssl", "native-tls", "h2", "rsa", "boring", "sodiumoxide"] {
        assert!(!has(banned), "{banned} is in Cargo.lock; deny.toml says why it must not be");
    }
    assert_eq!(packages.iter().filter(|(n, _)| n == "rustls").count(), 1, "one TLS stack");
    // in the lock file for a target we do not build, linked into nothing
    let tree = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--all-features",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ])
        .current_dir(root)
        .output()
        .expect("cargo");
    let tree = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.contains("aws-lc-sys"), "{tree}");
    for banned in ["ring v", "openssl", "native-tls v", "h2 v"] {
        assert!(
            !tree.lines().any(|line| line.starts_with(banned) && !line.starts_with("openssl-probe")),
            "{banned}"
        );
    }
    let lock = fs::read_to_string(root.join("Cargo.lock")).expect("Cargo.lock");
    for source in lock.lines().filter_map(|line| line.strip_prefix("source = ")) {
        assert_eq!(source, "\"registry+https://github.com/rust-lang/crates.io-index\"");
    }
    for (file, text) in sources() {
        assert!(!text.contains("unsafe "), "src/{file} is unsafe");
    }
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    assert!(manifest.contains("unsafe_code = \"forbid\""));
}
