//! Every example of docs/policy.md is a policy with its expectations, and all of them hold.

use std::path::{Path, PathBuf};

use stagedoor::server::policy::{Expectations, Policy};

fn examples(extension: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policies");
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

#[test]
fn every_example_does_what_its_expectations_say() {
    let tables = examples("toml");
    assert!(tables.len() >= 10, "{tables:?}");
    for table in tables {
        let expectations = Expectations::from_path(&table).unwrap_or_else(|e| panic!("{table:?}: {e}"));
        let policy = match expectations.policy.as_deref().and_then(Path::to_str) {
            Some("shipped:default") => Policy::shipped_default(),
            Some(file) => {
                Policy::from_path(&table.with_file_name(file)).unwrap_or_else(|e| panic!("{table:?}: {e}"))
            }
            None => panic!("{table:?} names no policy"),
        };
        let report = expectations.run(&policy);
        assert_eq!(report.failed(), 0, "{}\n{report}", table.display());
        let granted = report.to_json().to_string().matches("permits it for").count();
        assert!(granted > 0 && granted < report.results.len(), "{table:?} expects both grants and denials");
    }
}

#[test]
fn every_example_has_expectations_and_a_place_in_the_document() {
    let document =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md")).unwrap();
    for policy in examples("cedar") {
        assert!(policy.with_extension("toml").exists(), "{policy:?} has no expectations");
        let name = policy.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(
            document.contains(&format!("examples/policies/{name}")),
            "docs/policy.md does not show {name}"
        );
    }
}
