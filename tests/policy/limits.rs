//! The annotations of a permit, each with what it grants and what it refuses.

use serde_json::{Value, json};
use stagedoor::server::policy::{Refusal, StepUp, Verdict, builtin};

use crate::support::{ask, denied, denied_by, granted, policy};

fn permit(annotations: &str, changes: &[(&str, Value)]) -> Verdict {
    ask(&policy(&format!("@id(\"rule\") {annotations} permit (principal, action, resource);")), changes)
}

#[test]
fn a_lifetime_is_what_is_asked_and_no_more_than_the_permit_says() {
    for (annotation, asked, lifetime) in [
        ("", json!(null), 600),
        ("", json!(60), 60),
        ("", json!(901), 900),
        ("@max_lifetime(\"300\")", json!(null), 300),
        ("@max_lifetime(\"1800\")", json!(null), 600),
        ("@max_lifetime(\"1800\")", json!(3600), 1800),
        ("@max_lifetime(\"3600\")", json!(3601), 3600),
    ] {
        let limits = granted(permit(annotation, &[("/lifetime", asked.clone())]));
        assert_eq!(limits.lifetime_seconds, lifetime, "{annotation} {asked}");
    }
}

#[test]
fn scopes_are_the_intersection_in_the_order_asked() {
    let scope = |asked: &str| {
        granted(permit("@scope(\"read write billing:read\")", &[("/scope", json!(asked))])).scope.to_string()
    };
    assert_eq!(scope("billing:read read admin"), "billing:read read");
    assert_eq!(granted(permit("@scope(\"write read\")", &[])).scope.to_string(), "write read");
}

#[test]
fn approval_and_break_glass_and_the_count_and_the_look_up_are_passed_on() {
    let limits = granted(permit(
        "@require_approval @max_targets_per_hour(\"7\") @ticket_lookup",
        &[("/ticket", json!("T"))],
    ));
    assert!(limits.require_approval && limits.ticket_lookup && !limits.break_glass);
    assert_eq!(limits.max_targets_per_hour, Some(7));
    assert!(granted(permit("@break_glass(\"true\")", &[])).break_glass);
}

#[test]
fn the_count_of_targets_refuses_what_is_over_already() {
    let count = |n: u32| permit("@max_targets_per_hour(\"7\")", &[("/targets_last_hour", json!(n))]);
    granted(count(6));
    granted(count(7)); // the target may be one of the seven: the log decides inside the append
    assert_eq!(denied_by(count(8)), "rule");
}

#[test]
fn a_ticket_that_is_looked_up_has_to_be_named() {
    assert_eq!(denied_by(permit("@ticket_lookup", &[])), "rule");
    assert_eq!(denied_by(permit("@ticket_lookup", &[("/ticket", json!("  "))])), "rule");
}

#[test]
fn a_step_up_says_what_would_do() {
    let annotations = "@step_up_acr(\"gold platinum\") @step_up_amr(\"hwk mfa\") @max_login_age(\"300\")";
    let login = |acr: Value, amr: Value, age: Value| {
        permit(annotations, &[("/actor/acr", acr), ("/actor/amr", amr), ("/actor/login_age", age)])
    };
    granted(login(json!("gold"), json!(["pwd", "mfa"]), json!(300)));
    granted(login(json!("platinum"), json!(["hwk"]), json!(-30)));
    let needs = StepUp {
        acr_values: ["gold", "platinum", "hwk", "mfa"].map(str::to_owned).to_vec(),
        max_age_seconds: Some(300),
    };
    for (name, verdict) in [
        ("acr", login(json!("silver"), json!(["mfa"]), json!(10))),
        ("no acr", login(json!(null), json!(["mfa"]), json!(10))),
        ("amr", login(json!("gold"), json!(["pwd"]), json!(10))),
        ("no amr", login(json!("gold"), json!([]), json!(10))),
        ("old", login(json!("gold"), json!(["mfa"]), json!(301))),
        ("no time", login(json!("gold"), json!(["mfa"]), json!(null))),
        ("in the future", login(json!("gold"), json!(["mfa"]), json!(-61))),
    ] {
        assert_eq!(denied(verdict), ("rule".to_owned(), Refusal::StepUp(needs.clone())), "{name}");
    }
}

#[test]
fn a_consent_shortens_the_lifetime_and_its_end_is_the_end() {
    let until =
        |at: &str| permit("@require_consent(\"given\")", &[("/target/directory/consent_until", json!(at))]);
    assert_eq!(granted(until("2026-01-05T12:00:01Z")).lifetime_seconds, 1);
    assert_eq!(granted(until("2026-01-05T13:00:00Z")).lifetime_seconds, 600);
    assert_eq!(denied_by(until("2026-01-05T12:00:00.900Z")), "rule");
    assert_eq!(denied_by(until("2026-01-05T11:00:00Z")), "rule");
    let unknown = ("/target/directory", json!(null));
    let needs = "@client(\"client_1\") @unknown(\"target\") @require_consent(\"not_refused\")";
    assert_eq!(denied_by(permit(needs, &[unknown])), "rule", "a wish that is not known is not assumed");
}

#[test]
fn the_first_permit_that_grants_everything_asked_decides() {
    let rules = policy(
        r#"@id("read")  @scope("read") permit (principal, action, resource);
           @id("both")  @scope("read write") @max_lifetime("60") permit (principal, action, resource);
           @id("all")   @scope("*") @max_lifetime("3600") permit (principal in Role::"support", action, resource);"#,
    );
    for (asked, rule, scope) in [
        (json!(null), "read", "read"),
        (json!("read"), "read", "read"),
        (json!("write"), "both", "write"),
        (json!("read write"), "both", "read write"),
        (json!("admin read"), "all", "admin read"),
    ] {
        let Verdict::Granted { rule: by, limits } = ask(&rules, &[("/scope", asked.clone())]) else {
            panic!("denied {asked}")
        };
        assert_eq!((by.as_str(), limits.scope.to_string().as_str()), (rule, scope));
    }
    // none grants everything: the first that grants anything
    let nobody = ("/actor/directory/roles", json!([]));
    let Verdict::Granted { rule, limits } = ask(&rules, &[nobody, ("/scope", json!("admin write read"))])
    else {
        panic!("denied")
    };
    assert_eq!((rule.as_str(), limits.scope.to_string().as_str()), ("read", "read"));
}

#[test]
fn a_step_up_that_would_help_is_told_before_another_refusal() {
    let rules = policy(
        r#"@id("ticket") @ticket_pattern("T-[0-9]+") permit (principal, action, resource);
           @id("strong") @step_up_amr("hwk") permit (principal, action, resource);"#,
    );
    let (rule, refusal) = denied(ask(&rules, &[]));
    assert_eq!(rule, "strong");
    assert!(matches!(refusal, Refusal::StepUp(_)));
    granted(ask(&rules, &[("/ticket", json!("T-1"))]));
}

#[test]
fn a_refusal_by_a_forbid_says_its_message_and_the_first_forbid_is_the_one_named() {
    let rules = policy(
        r#"@id("all") permit (principal, action, resource);
           @id("silent") forbid (principal, action, resource) when { context.targets_last_hour > 9 };
           @id("later") @message("Come back later.") forbid (principal, action, resource) when { context.targets_last_hour > 5 };"#,
    );
    let Verdict::Denied { rule, message, .. } = ask(&rules, &[("/targets_last_hour", json!(6))]) else {
        panic!("granted")
    };
    assert_eq!((rule.as_str(), message.as_str()), ("later", "Come back later."));
    assert_eq!(denied_by(ask(&rules, &[("/targets_last_hour", json!(10))])), "silent");
}

#[test]
fn nothing_permitted_is_nothing_allowed() {
    let forbids_only = policy(r#"@id("f") forbid (principal, action, resource in Role::"protected");"#);
    assert_eq!(denied_by(ask(&forbids_only, &[])), builtin::NO_PERMIT);
}

#[test]
fn every_fact_of_a_question_reaches_the_rules() {
    // one permit for each fact: it applies with the fact and not with the other
    for (condition, path, with, without) in [
        ("principal.sub == \"admin_7\"", "/actor/sub", json!("admin_7"), json!("admin_8")),
        (
            "principal has iss && principal.iss == \"https://i\"",
            "/actor/iss",
            json!("https://i"),
            json!("https://j"),
        ),
        ("principal has id && principal.id == \"e1\"", "/actor/directory/id", json!("e1"), json!("e2")),
        ("principal in Role::\"r\"", "/actor/roles", json!(["r"]), json!(["s"])),
        ("principal in Role::\"r\"", "/actor/directory/roles", json!(["r"]), json!([])),
        ("principal.roles.contains(\"r\")", "/actor/roles", json!(["q", "r"]), json!(["q"])),
        ("principal in Group::\"g\"", "/actor/groups", json!(["g"]), json!([])),
        ("principal in Group::\"g\"", "/actor/directory/groups", json!(["g"]), json!([])),
        ("principal in Org::\"o\"", "/actor/directory/org", json!("o"), json!("p")),
        ("principal.amr.contains(\"hwk\")", "/actor/amr", json!(["hwk"]), json!(["pwd"])),
        ("principal has acr && principal.acr == \"gold\"", "/actor/acr", json!("gold"), json!(null)),
        ("principal has login_age && principal.login_age < 60", "/actor/login_age", json!(59), json!(60)),
        ("resource.id == \"u1\"", "/target/id", json!("u1"), json!("u2")),
        ("resource in Role::\"r\"", "/target/directory/roles", json!(["r"]), json!([])),
        ("resource in Group::\"g\"", "/target/directory/groups", json!(["g"]), json!([])),
        ("resource in Org::\"o\"", "/target/directory/org", json!("o"), json!(null)),
        (
            "resource has opted_out && !resource.opted_out",
            "/target/directory/opted_out",
            json!(false),
            json!(true),
        ),
        (
            "resource has consent_until && resource.consent_until > context.now",
            "/target/directory/consent_until",
            json!("2026-01-05T12:00:01Z"),
            json!("2026-01-05T11:59:59Z"),
        ),
        ("context.client == Client::\"client_1\"", "/client/id", json!("client_1"), json!("client_2")),
        ("context.client.name == \"n\"", "/client/name", json!("n"), json!("m")),
        (
            "context has reason && context.reason like \"*invoice*\"",
            "/reason",
            json!("invoice"),
            json!("in voice"),
        ),
        ("context.reason_length == 7", "/reason", json!(" invoice "), json!("invoices")),
        ("context has ticket && context.ticket == \"T\"", "/ticket", json!("T"), json!(null)),
        ("context.lifetime == 600", "/lifetime", json!(null), json!(601)),
        ("context has scope && context.scope.contains(\"read\")", "/scope", json!("x read"), json!(null)),
        ("context.audience.contains(\"https://a\")", "/audience", json!(["https://a"]), json!(["https://b"])),
        ("context.delivery == \"code\"", "/delivery", json!("code"), json!("token")),
        (
            "context.now >= datetime(\"2026-01-05T12:00:00Z\")",
            "/now",
            json!("2026-01-05T12:00:00Z"),
            json!("2026-01-05T11:59:59Z"),
        ),
        ("context.weekday == 7", "/now", json!("2026-01-04T12:00:00Z"), json!("2026-01-05T12:00:00Z")),
        (
            "context has address && context.address.isInRange(ip(\"192.0.2.0/24\"))",
            "/address",
            json!("::ffff:192.0.2.1"),
            json!("2001:db8::1"),
        ),
        ("context.targets_last_hour == 3", "/targets_last_hour", json!(3), json!(4)),
        (
            "context.roles_beyond_actor == [\"owner\"]",
            "/target/directory/roles",
            json!(["owner", "support"]),
            json!(["support"]),
        ),
    ] {
        let rules = policy(&format!(
            "@id(\"r\") @scope(\"*\") permit (principal, action, resource) when {{ {condition} }};"
        ));
        granted(ask(&rules, &[(path, with)]));
        assert_eq!(denied_by(ask(&rules, &[(path, without)])), builtin::NO_PERMIT, "{condition}");
    }
}

#[test]
fn the_directory_says_which_organisation_an_actor_is_of_before_his_token_does() {
    let rules = policy(
        r#"@id("r") @client("client_1") @unknown("actor") permit (principal in Org::"acme", action, resource);"#,
    );
    granted(ask(&rules, &[("/actor/org", json!("other"))]));
    granted(ask(&rules, &[("/actor/directory", json!(null)), ("/actor/org", json!("acme"))]));
    assert_eq!(
        denied_by(ask(&rules, &[("/actor/directory/org", json!("x")), ("/actor/org", json!("acme"))])),
        builtin::NO_PERMIT
    );
}

#[test]
fn only_an_actor_who_may_look_is_told_that_a_user_does_not_exist() {
    let rules = policy(
        r#"@id("act") permit (principal, action == Action::"impersonate", resource);
           @id("look") permit (principal in Role::"lead", action == Action::"look_up", resource);
           @id("not-here") forbid (principal, action, resource) when { context.lifetime > 3000 };"#,
    );
    let unknown = ("/target/directory", json!(null));
    let lead = ("/actor/directory/roles", json!(["lead"]));
    assert_eq!(denied_by(ask(&rules, std::slice::from_ref(&unknown))), builtin::NO_PERMIT);
    let (rule, refusal) = denied(ask(&rules, &[unknown.clone(), lead.clone()]));
    assert_eq!((rule.as_str(), refusal), ("look", Refusal::UnknownTarget));
    let forbidden = ask(&rules, &[unknown, lead.clone(), ("/lifetime", json!(3001))]);
    assert_eq!(denied_by(forbidden), builtin::NO_PERMIT, "a forbid holds for looking, too");
    assert_eq!(denied_by(ask(&rules, &[lead, ("/lifetime", json!(3001))])), "not-here");
    let any_action = policy(r#"@id("all") permit (principal, action, resource);"#);
    let refused = ask(&any_action, &[("/target/directory", json!(null))]);
    assert_eq!(denied_by(refused), builtin::NO_PERMIT, "to act for anybody is not to know who exists");
}
