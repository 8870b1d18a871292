//! `deploy/` and the image, as far as they can be held without an engine: settings that exist, probes that are routes,
//! and what the documents promise of them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use stagedoor::server::config::{Config, Environment};
use stagedoor::server::http::ROUTES;

use crate::recipes::Runtime;

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn documents(name: &str) -> Vec<Value> {
    file(name)
        .split("\n---\n")
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}")))
        .collect()
}

/// Settings as a deployment makes them, with secret files that are there.
fn accepts(mut settings: Vec<(String, String)>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, value) in &mut settings {
        if name.ends_with("_FILE") {
            let path: PathBuf = dir.path().join(name.as_str());
            let text = if name.contains("DATABASE") { "postgres://stagedoor@db/stagedoor" } else { "x" };
            std::fs::write(&path, text).unwrap();
            *value = path.display().to_string();
        }
    }
    let environment = Environment::from_pairs(settings.iter().map(|(name, value)| (name, value.clone())));
    Config::parse("deploy", "", &environment).unwrap_or_else(|error| panic!("{settings:?}: {error}"));
}

#[test]
fn kubernetes_runs_three_replicas_that_are_asked_what_the_service_answers() {
    let all = documents("deploy/kubernetes.yaml");
    let of = |kind: &str| all.iter().find(|d| d["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    let deployment = &of("Deployment")["spec"];
    assert_eq!(deployment["replicas"], 3);
    assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let pod = &deployment["template"]["spec"];
    let container = &pod["containers"][0];
    for (probe, path) in
        [("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")]
    {
        assert_eq!(container[probe]["httpGet"]["path"], path, "{probe}");
        assert!(ROUTES.iter().any(|route| route.path == path));
    }
    for (job, pod) in [("serve", pod), ("init", &of("Job")["spec"]["template"]["spec"])] {
        let container = &pod["containers"][0];
        assert_eq!(container["args"][0], job);
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["capabilities"]["drop"][0], "ALL");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["automountServiceAccountToken"], false);
    }
    let labels = &deployment["template"]["metadata"]["labels"];
    for kind in ["Service", "PodDisruptionBudget", "NetworkPolicy"] {
        let spec = &of(kind)["spec"];
        let selector =
            [&spec["selector"]["matchLabels"], &spec["podSelector"]["matchLabels"], &spec["selector"]];
        assert!(selector.contains(&labels), "{kind} selects {selector:?}");
    }
    assert!(of("PodDisruptionBudget")["spec"]["minAvailable"].as_u64().unwrap() < 3, "a node can be emptied");
    // what is under way ends before the process is killed
    let delay = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= delay + 30);
    let data = of("ConfigMap")["data"].as_object().unwrap();
    accepts(data.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect());
}

#[test]
fn kubernetes_accepts_every_member_of_the_manifest() {
    if !Runtime::Python.is_here("kubernetes-validate") {
        return;
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes.yaml");
    // the oldest that knows `preStop.sleep` without a feature gate, and the newest there is
    for version in [&["-k", "1.30"][..], &[]] {
        let mut check = Runtime::Python.tool("kubernetes-validate");
        let output = check.arg("--strict").args(version).arg(&manifest).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let passed = said.lines().filter(|line| line.contains(" passed for resource ")).count();
        assert_eq!(passed, documents("deploy/kubernetes.yaml").len(), "{said}");
    }
}

#[test]
fn compose_sets_what_the_service_knows() {
    let all = documents("deploy/compose.yaml");
    let environment = all[0]["x-stagedoor"]["environment"].as_object().unwrap();
    let settings: Vec<(String, String)> =
        environment.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
    accepts(settings);
    for service in ["init", "stagedoor"] {
        let service = &all[0]["services"][service];
        // the image has no shell: what needs one would not start
        assert!(service.get("entrypoint").is_none(), "{service}");
    }
}

#[test]
fn the_unit_sets_what_the_service_knows_and_is_closed() {
    let unit = file("deploy/systemd/stagedoor.service");
    let value = |key: &str| unit.lines().filter_map(|l| l.strip_prefix(key)?.strip_prefix('=')).next_back();
    let settings = value("Environment").unwrap().split_whitespace();
    accepts(settings.filter_map(|s| s.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect());
    for (key, expected) in [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("PrivateDevices", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("CapabilityBoundingSet", ""),
        ("LimitCORE", "0"),
    ] {
        assert_eq!(value(key), Some(expected), "{key}");
    }
    let seconds: u64 = value("TimeoutStopSec").unwrap().parse().unwrap();
    assert!(seconds > 30, "requests under way have 30 s");
}
