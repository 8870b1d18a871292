//! The traps of other products (field.md) that are the policy's to avoid, by their number there.

use serde_json::json;
use stagedoor::server::policy::{Policy, Refusal, builtin};

use crate::support::{ask, denied, denied_by, facts, granted, policy, question, with};

#[test]
fn trap_1_the_same_question_asked_again_later_gets_the_answer_of_then() {
    // minted, then opted out (or deactivated, or promoted) before the code is redeemed
    let policy = Policy::shipped_default();
    granted(ask(&policy, &[]));
    for (path, value, rule) in [
        ("/target/directory/opted_out", json!(true), "opted-out"),
        ("/target/directory/active", json!(false), "deactivated-target"),
        ("/target/directory/roles", json!(["admin"]), "never-upward"),
        ("/target/directory/org", json!("elsewhere"), builtin::NO_PERMIT),
    ] {
        assert_eq!(denied_by(ask(&policy, &[(path, value)])), rule);
    }
    assert_eq!(policy.decide(&question(facts())), policy.decide(&question(facts())), "pure");
}

#[test]
fn trap_2_a_circle_of_actors_is_refused_and_erases_nobody() {
    let rules = policy(r#"@id("all") permit (principal, action, resource);"#);
    let a = json!({ "sub": "admin_7", "iss": "https://login.example.com" });
    let b = json!({ "sub": "b", "iss": "https://login.example.com" });
    let circle = [("/action", json!("delegate")), ("/actor/on_behalf_of", json!([b, a]))];
    assert_eq!(denied_by(ask(&rules, &circle)), builtin::CHAIN_CYCLE);
    let nested = ("/actor/on_behalf_of", json!([b]));
    assert_eq!(denied_by(ask(&rules, &[nested])), builtin::NESTED_ACTOR);
}

#[test]
fn trap_3_a_name_that_a_client_says_is_not_a_proof() {
    let rules = policy(r#"@id("all") permit (principal in Role::"support", action, resource);"#);
    let named = [("/actor/iss", json!(null)), ("/client/may_assert", json!(true))];
    assert_eq!(denied_by(ask(&rules, &named)), builtin::ASSERTED_RULE);
}

#[test]
fn trap_8_an_actor_who_lost_his_role_is_denied_when_asked_again() {
    let policy = Policy::shipped_default();
    assert_eq!(denied_by(ask(&policy, &[("/actor/directory/roles", json!([]))])), builtin::NO_PERMIT);
    assert_eq!(denied_by(ask(&policy, &[("/actor/directory/active", json!(false))])), "deactivated-actor");
}

#[test]
fn trap_11_an_exchange_never_widens_scopes() {
    let rules = policy(r#"@id("all") @scope("read write admin") permit (principal, action, resource);"#);
    let parent = ("/scope", json!("read"));
    let delegate = ("/action", json!("delegate"));
    assert_eq!(granted(ask(&rules, &[delegate.clone(), parent])).scope.to_string(), "read");
    let foreign = ask(&rules, &[delegate, ("/scope", json!("root"))]);
    assert_eq!(denied_by(foreign), builtin::SCOPE, "an empty intersection is a denial, not everything");
}

#[test]
fn trap_13_read_only_is_a_scope_and_not_a_verb() {
    assert_eq!(granted(ask(&Policy::shipped_default(), &[])).scope.to_string(), "read");
}

#[test]
fn trap_15_a_chain_of_any_length_is_refused_before_it_is_looked_at() {
    let rules = policy(r#"@id("all") permit (principal, action, resource);"#);
    let long: Vec<_> = (0..5_000).map(|n| json!({ "sub": format!("a{n}"), "iss": "https://i" })).collect();
    let asked = [("/action", json!("delegate")), ("/actor/on_behalf_of", json!(long))];
    assert_eq!(denied_by(ask(&rules, &asked)), builtin::CHAIN_TOO_DEEP);
}

#[test]
fn trap_16_a_chain_that_is_too_deep_is_refused_and_never_cut() {
    let rules = policy(r#"@id("all") permit (principal, action, resource);"#);
    let earlier: Vec<_> = (0..4).map(|n| json!({ "sub": format!("a{n}"), "iss": "https://i" })).collect();
    let asked = [("/action", json!("delegate")), ("/actor/on_behalf_of", json!(earlier))];
    assert_eq!(denied_by(ask(&rules, &asked)), builtin::CHAIN_TOO_DEEP);
}

#[test]
fn wanted_3_who_for_whom_is_pairwise_and_never_upward() {
    let policy = Policy::shipped_default();
    let lead = ("/target/directory/roles", json!(["support-lead"]));
    assert_eq!(denied_by(ask(&policy, &[lead])), "never-upward");
    // a role the actor's own token claims counts as his, one the directory gives the target as the target's
    let mixed = [("/actor/roles", json!(["owner"])), ("/target/directory/roles", json!(["owner"]))];
    granted(ask(&policy, &mixed));
}

#[test]
fn a_scim_answer_that_lies_about_the_id_is_an_unknown_user() {
    let policy = Policy::shipped_default();
    let lies = ("/target/directory/id", json!("user_1"));
    let unknown = ("/target/directory", json!(null));
    assert_eq!(ask(&policy, &[lies]), ask(&policy, &[unknown]));
}

#[test]
fn an_explanation_says_why_and_a_failed_rule_is_seen_in_it() {
    let rules = policy(
        "@id(\"all\") @ticket_pattern(\"T\") permit (principal, action, resource);\n\
         @id(\"org\") permit (principal, action, resource) when { principal has org && resource has org && principal.org == resource.org };\n\
         @id(\"errs\") forbid (principal, action, resource) when { context.targets_last_hour * 9223372036854775807 > 5 };",
    );
    let q = question(with(&[("/target/directory/org", json!(null))]));
    let explained = rules.explain(&q);
    assert_eq!(explained.verdict, rules.decide(&q));
    assert_eq!(explained.trace.len(), 3);
    assert_eq!(explained.trace[0].but.as_deref(), Some("Name the ticket this is about in `ticket`."));
    assert_eq!(explained.trace[1].missing, ["resource.org"]);
    assert_eq!((explained.trace[2].line, explained.trace[2].forbids), (3, true));
    let failing = rules.explain(&question(with(&[("/targets_last_hour", json!(2))])));
    assert!(failing.to_string().contains("FAILED"), "{failing}");
    assert_eq!(failing.to_json()["refusal"], "error");
    assert_eq!(failing.to_json()["trace"][2]["outcome"], "failed");
    // the answer to a caller says no more than a refused mint
    let mut members: Vec<String> = explained.verdict.to_json().as_object().unwrap().keys().cloned().collect();
    members.sort();
    assert_eq!(members, ["decision", "limits", "message", "rule"]);
    assert_eq!(denied(failing.verdict).1, Refusal::Error);
}
