//! The two policies that come with the program, rule by rule.

use serde_json::json;
use stagedoor::server::policy::{Policy, Refusal, builtin};

use crate::support::{ask, denied, denied_by, granted, noon};

#[test]
fn the_default_grants_support_fifteen_minutes_of_read_in_their_own_organisation() {
    let policy = Policy::shipped_default();
    let limits = granted(ask(&policy, &[("/lifetime", json!(3600)), ("/scope", json!("read write"))]));
    assert_eq!(limits.lifetime_seconds, 900);
    assert_eq!(limits.scope.to_string(), "read");
    assert_eq!(limits.audience.len(), 1);
    assert!(!limits.require_approval && !limits.break_glass && !limits.ticket_lookup);
    assert_eq!(granted(ask(&policy, &[])).lifetime_seconds, 600);
    assert_eq!(granted(ask(&policy, &[("/lifetime", json!(60))])).lifetime_seconds, 60);
}

#[test]
fn the_default_refuses_each_thing_it_promises_to_refuse() {
    let policy = Policy::shipped_default();
    let support_lead = json!(["support", "support-lead"]);
    let table = [
        ("no role", "/actor/directory/roles", json!(["user"]), builtin::NO_PERMIT),
        ("other organisation", "/target/directory/org", json!("other"), builtin::NO_PERMIT),
        ("target without organisation", "/target/directory/org", json!(null), builtin::NO_PERMIT),
        ("actor without organisation", "/actor/directory/org", json!(null), builtin::NO_PERMIT),
        ("unknown target", "/target/directory", json!(null), builtin::NO_PERMIT),
        ("unknown actor", "/actor/directory", json!(null), builtin::NO_PERMIT),
        ("self", "/target/id", json!("admin_7"), builtin::NEVER_SELF),
        ("protected", "/target/directory/roles", json!(["user", "protected"]), "protected"),
        ("upward: admin", "/target/directory/roles", json!(["admin"]), "never-upward"),
        ("upward: a lead", "/target/directory/roles", support_lead, "never-upward"),
        ("deactivated target", "/target/directory/active", json!(false), "deactivated-target"),
        ("deactivated actor", "/actor/directory/active", json!(false), "deactivated-actor"),
        ("opted out", "/target/directory/opted_out", json!(true), "opted-out"),
        ("nine characters", "/reason", json!("123456789"), "reason-too-short"),
        ("nine and spaces", "/reason", json!("   123456789     "), "reason-too-short"),
        ("no reason", "/reason", json!(null), "reason-too-short"),
        ("scope it does not grant", "/scope", json!("write"), builtin::SCOPE),
        ("delegation", "/action", json!("delegate"), builtin::NO_PERMIT),
        ("approval by support", "/action", json!("approve"), builtin::NO_PERMIT),
        ("the log", "/action", json!("console:audit"), builtin::NO_PERMIT),
        ("revoking", "/action", json!("console:revoke"), builtin::NO_PERMIT),
    ];
    for (name, path, value, rule) in table {
        assert_eq!(denied_by(ask(&policy, &[(path, value)])), rule, "{name}");
    }
}

#[test]
fn a_reason_of_ten_characters_is_long_enough_in_any_script() {
    let policy = Policy::shipped_default();
    granted(ask(&policy, &[("/reason", json!("1234567890"))]));
    granted(ask(&policy, &[("/reason", json!("счёт утерян"))]));
    assert_eq!(denied_by(ask(&policy, &[("/reason", json!("ééééééééé"))])), "reason-too-short");
}

#[test]
fn whoever_holds_a_role_himself_does_not_act_upward() {
    let policy = Policy::shipped_default();
    let both = [
        ("/actor/directory/roles", json!(["support", "admin"])),
        ("/target/directory/roles", json!(["admin"])),
    ];
    granted(ask(&policy, &both));
}

#[test]
fn the_console_is_open_by_role_and_an_admin_approves() {
    let policy = Policy::shipped_default();
    for (role, action) in [
        ("support", "console:support"),
        ("admin", "console:support"),
        ("auditor", "console:audit"),
        ("security", "console:audit"),
        ("security", "console:revoke"),
        ("admin", "console:revoke"),
        ("support-lead", "approve"),
        ("admin", "approve"),
    ] {
        let roles = ("/actor/directory/roles", json!([role]));
        granted(ask(&policy, &[roles, ("/action", json!(action))]));
    }
}

#[test]
fn an_asserted_actor_is_denied_by_the_default_even_where_the_client_may_assert() {
    let policy = Policy::shipped_default();
    let asserted = ("/actor/iss", json!(null));
    assert_eq!(denied_by(ask(&policy, std::slice::from_ref(&asserted))), builtin::ASSERTED_CLIENT);
    let may = ("/client/may_assert", json!(true));
    assert_eq!(denied_by(ask(&policy, &[asserted, may])), builtin::ASSERTED_RULE);
}

#[test]
fn an_actor_without_a_permit_cannot_tell_who_exists_or_is_protected() {
    let policy = Policy::shipped_default();
    let other = ("/actor/directory/org", json!("other"));
    let answers = [
        ask(&policy, std::slice::from_ref(&other)),
        ask(&policy, &[other.clone(), ("/target/directory", json!(null))]),
        ask(&policy, &[other.clone(), ("/target/directory/roles", json!(["protected"]))]),
        ask(&policy, &[other.clone(), ("/target/directory/roles", json!(["admin"]))]),
        ask(&policy, &[other, ("/target/directory/active", json!(false))]),
        ask(&policy, &[("/target/directory", json!(null))]),
    ];
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
}

#[test]
fn the_dev_policy_lets_the_client_named_dev_name_actors_and_no_other() {
    let policy = Policy::shipped_dev();
    let dev = |more: &[(&str, serde_json::Value)]| {
        let mut changes = vec![
            ("/actor/iss", json!(null)),
            ("/client/may_assert", json!(true)),
            ("/client/name", json!("dev")),
        ];
        changes.extend_from_slice(more);
        ask(&policy, &changes)
    };
    assert_eq!(granted(dev(&[])).scope.to_string(), "read");
    let admin = ("/actor/directory/roles", json!(["admin"]));
    assert_eq!(granted(dev(&[admin, ("/scope", json!("read write"))])).scope.to_string(), "read write");
    assert_eq!(denied_by(dev(&[("/client/name", json!("other"))])), builtin::ASSERTED_RULE);
    assert_eq!(denied_by(dev(&[("/target/directory/roles", json!(["protected"]))])), "protected");
    let (rule, refusal) = denied(dev(&[("/target/directory", json!(null))]));
    assert_eq!((rule.as_str(), refusal), ("dev-look-up", Refusal::UnknownTarget));
}

#[test]
fn a_policy_is_named_by_the_hash_of_its_text() {
    let version = Policy::shipped_default().version().to_owned();
    let (id, sha256) = version.split_once('@').unwrap();
    assert_eq!((id, sha256.len()), ("default", 64));
    assert!(version != Policy::shipped_dev().version());
    assert_eq!(noon().to_rfc3339(), "2026-01-05T12:00:00+00:00");
}
