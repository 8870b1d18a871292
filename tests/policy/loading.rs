//! What is not a policy is refused when it is loaded, with its place in the text.

use stagedoor::server::policy::{Policy, PolicyError, Source};

use crate::support::{load, policy};

/// The problems as `line:column message`.
fn problems(text: &str) -> Vec<String> {
    match load(text) {
        Err(PolicyError::Invalid(problems)) => problems
            .into_iter()
            .map(|p| {
                assert_eq!(p.file, "test.cedar");
                match (p.line, p.column) {
                    (Some(line), Some(column)) => format!("{line}:{column} {}", p.message),
                    _ => p.message,
                }
            })
            .collect(),
        other => panic!("expected problems, got {other:?}"),
    }
}

#[track_caller]
fn one_problem(text: &str, place: &str, part: &str) {
    let found = problems(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with(place) && found[0].contains(part), "{found:#?}");
}

#[test]
fn a_syntax_error_has_a_place() {
    one_problem("@id(\"a\")\npermit (principal, action, resource) wen { true };", "2:38 ", "wen");
    one_problem("", "there is no rule", "");
    one_problem("// nothing but a comment\n", "there is no rule", "");
}

#[test]
fn every_problem_is_told_and_not_only_the_first() {
    let found = problems(
        "@id(\"a\")\n@max_lifetime(\"15m\")\n@colour(\"red\")\npermit (principal, action, resource);\n\n\
         permit (principal, action, resource);\n\n  @id(\"b\") @message(\"\")\nforbid (principal, action, resource);",
    );
    let places: Vec<&str> = found.iter().map(|p| p.split(' ').next().unwrap()).collect();
    assert_eq!(places, ["2:1", "3:1", "6:1", "8:12"], "{found:#?}");
}

#[test]
fn types_are_checked_against_the_schema() {
    let when = |condition: &str| {
        format!("@id(\"a\")\npermit (principal, action, resource)\nwhen {{ {condition} }};")
    };
    for (condition, part) in [
        ("principal.orgg == \"x\"", "orgg"),
        ("context.reason_length < \"10\"", "type"),
        ("principal.sub == 7", "type"),
        ("resource in User::\"x\"", "User"),
        ("context.now.toTyme() == duration(\"1h\")", "toTyme"),
    ] {
        let found = problems(&when(condition));
        assert!(!found.is_empty() && found[0].starts_with("3:"), "{condition}: {found:#?}");
        assert!(found.iter().any(|p| p.contains(part)), "{condition}: {found:#?}");
    }
}

#[test]
fn what_may_be_absent_has_to_be_tested_with_has() {
    for optional in ["principal.org", "resource.org", "context.ticket", "context.reason", "principal.acr"] {
        let text = format!("@id(\"a\") forbid (principal, action, resource) when {{ {optional} == \"x\" }};");
        let found = problems(&text);
        assert!(found.iter().any(|p| p.contains("has")), "{optional}: {found:#?}");
        let (of, name) = optional.split_once('.').unwrap();
        load(&text.replace("when { ", &format!("when {{ {of} has {name} && "))).unwrap();
    }
}

#[test]
fn actions_are_those_of_the_schema() {
    let found = problems("@id(\"a\") permit (principal, action == Action::\"impersonat\", resource);");
    assert!(found.iter().any(|p| p.contains("impersonat")), "{found:#?}");
}

#[test]
fn a_rule_that_can_never_apply_is_a_problem() {
    one_problem(
        "@id(\"a\")\nforbid (principal, action, resource)\nwhen { resource.id == \"x\" && false };",
        "1:1 ",
        "impossible",
    );
}

#[test]
fn text_that_looks_like_other_text_is_a_problem() {
    let found = problems("@id(\"a\") permit (principal in Role::\"s\u{202e}upport\", action, resource);");
    assert!(found[0].to_lowercase().contains("bidi"), "{found:#?}");
    let found = problems("@id(\"a\") permit (principal in Role::\"s\u{443}pport\", action, resource);");
    assert!(found[0].to_lowercase().contains("mixed"), "{found:#?}");
}

#[test]
fn two_rules_of_one_name_and_rules_with_slots_are_problems() {
    one_problem(
        "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") forbid (principal, action, resource);",
        "2:1 ",
        "test.cedar:1",
    );
    let found = problems("@id(\"a\") permit (principal == ?principal, action, resource);");
    assert!(found[0].contains("slots"), "{found:#?}");
}

#[test]
fn files_of_a_policy_are_one_policy_and_problems_name_theirs() {
    let good = Source { file: "10-rules.cedar", text: "@id(\"a\") permit (principal, action, resource);" };
    let bad = Source {
        file: "20-more.cedar",
        text: "\n@id(\"b\") forbid (principal, action, resource) when { 1 };",
    };
    let again = Source { file: "20-more.cedar", text: "@id(\"a\") forbid (principal, action, resource);" };
    let Err(PolicyError::Invalid(found)) = Policy::load("p", &[good, bad]) else { panic!("loaded") };
    assert_eq!((found[0].file.as_str(), found[0].line), ("20-more.cedar", Some(2)));
    let Err(PolicyError::Invalid(found)) = Policy::load("p", &[good, again]) else { panic!("loaded") };
    assert!(found[0].message.contains("10-rules.cedar:1"), "{found:#?}");
}

#[test]
fn the_hash_is_what_sha256sum_prints() {
    let text = "@id(\"a\") permit (principal, action, resource);";
    // printf '%s' … | sha256sum
    let sum = "64d0660629c25041854fc878cc000caff403f89223c1e59433cc85fec3d77f38";
    let version = policy(text).version().to_owned();
    assert_eq!(version, format!("test@{sum}"));
    // sha256sum one.cedar two.cedar | sha256sum
    let both = "e2df8f09cb218e74199cb38b7f2ccdf53587a12002aa512a000f528af60a6fd3";
    let two = "@id(\"b\") permit (principal, action, resource);";
    let sources = [Source { file: "one.cedar", text }, Source { file: "two.cedar", text: two }];
    assert_eq!(Policy::load("dir", &sources).unwrap().version(), format!("dir@{both}"));
    let commented = policy(&format!("{text} // why"));
    assert_ne!(commented.version(), version, "a comment is a change: the log names the text that was read");
}

#[test]
fn more_text_than_a_megabyte_is_not_read() {
    let text = format!("@id(\"a\") permit (principal, action, resource);{}", " ".repeat(1 << 20));
    assert!(matches!(load(&text), Err(PolicyError::TooLarge)));
}

#[test]
fn a_policy_is_a_file_or_a_directory_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nowhere.cedar");
    assert!(matches!(Policy::from_path(&missing), Err(PolicyError::Unreadable { .. })));
    assert!(matches!(Policy::from_path(dir.path()), Err(PolicyError::NoFiles { .. })));
    std::fs::write(dir.path().join("b.cedar"), "@id(\"b\") forbid (principal, action, resource);").unwrap();
    std::fs::write(dir.path().join("a.cedar"), "@id(\"a\") permit (principal, action, resource);").unwrap();
    std::fs::write(dir.path().join("notes.txt"), "not a rule").unwrap();
    let whole = Policy::from_path(dir.path()).unwrap();
    assert_eq!(whole.rule_count(), 2);
    let one = Policy::from_path(&dir.path().join("a.cedar")).unwrap();
    assert!(one.version().starts_with("a@") && one.sha256() != whole.sha256());
    std::fs::write(dir.path().join("a.cedar"), [0xff, 0xfe]).unwrap();
    assert!(matches!(Policy::from_path(dir.path()), Err(PolicyError::Unreadable { .. })));
}
