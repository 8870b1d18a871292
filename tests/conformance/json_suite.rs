//! `token::json` against nst/JSONTestSuite.

use stagedoor::token::json::{JsonError, MAX_DEPTH, parse_strict};

use crate::fixtures::vectors;

/// `y_` files that name a member twice: valid to RFC 8259, refused here (JW-6).
const REFUSED_ON_PURPOSE: [&str; 2] =
    ["y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"];

#[test]
fn every_file_of_the_json_test_suite_gets_its_verdict() {
    // JW-6, BP-11
    let Some(dir) = vectors("json_test_suite") else { return };
    let mut seen = 0;
    for file in std::fs::read_dir(dir.join("json-test-suite")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let read = parse_strict(&std::fs::read(&path).unwrap(), MAX_DEPTH);
        if REFUSED_ON_PURPOSE.contains(&name.as_str()) {
            assert_eq!(read, Err(JsonError::DuplicateMember), "{name}");
        } else if name.starts_with("y_") {
            assert!(read.is_ok(), "{name}: {read:?}");
        } else if name.starts_with("n_") {
            assert!(read.is_err(), "{name}");
        }
        seen += 1;
    }
    assert_eq!(seen, 318);
}
