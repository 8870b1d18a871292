//! What no policy loosens: every test asks a policy that permits everything it can.

use serde_json::{Value, json};
use stagedoor::server::policy::{PermitRequest, Policy, Refusal, Verdict, builtin, permit_for_client};
use stagedoor::token::{Audience, ClientId};

use crate::support::{ask, denied, denied_by, granted, policy};

/// Permits as much as a policy can say.
fn generous() -> Policy {
    policy(
        r#"@id("everything") @client("client_1") @asserted("allow") @unknown("actor target")
           @scope("*") @max_lifetime("3600") @max_audiences("8") @default_reason("none given")
           permit (principal, action, resource);"#,
    )
}

fn chain(subs: &[&str]) -> Value {
    subs.iter().map(|sub| json!({ "sub": sub, "iss": "https://login.example.com" })).collect()
}

#[test]
fn a_lifetime_is_never_longer_than_an_hour() {
    let asked = [("/lifetime", json!(u32::MAX))];
    assert_eq!(granted(ask(&generous(), &asked)).lifetime_seconds, 3600);
    assert_eq!(denied_by(ask(&generous(), &[("/lifetime", json!(0))])), builtin::LIFETIME);
}

#[test]
fn nobody_acts_for_himself_however_he_is_known() {
    let policy = generous();
    // known by another name to his issuer, but the directory knows him as the target
    let mapped = ("/actor/directory/id", json!("user_42"));
    assert_eq!(denied_by(ask(&policy, std::slice::from_ref(&mapped))), builtin::NEVER_SELF);
    assert_eq!(denied_by(ask(&policy, &[mapped, ("/action", json!("delegate"))])), builtin::NEVER_SELF);
    // no directory: the same name is the same person
    let unmapped = [("/actor/directory", json!(null)), ("/target/id", json!("admin_7"))];
    assert_eq!(denied_by(ask(&policy, &unmapped)), builtin::NEVER_SELF);
    let asserted = [
        ("/actor/iss", json!(null)),
        ("/actor/directory", json!(null)),
        ("/client/may_assert", json!(true)),
        ("/target/id", json!("admin_7")),
    ];
    assert_eq!(denied_by(ask(&policy, &asserted)), builtin::NEVER_SELF);
    // the same name, but the directory knows him as somebody else
    let other = [("/actor/directory/id", json!("emp_1")), ("/target/id", json!("admin_7"))];
    granted(ask(&policy, &other));
}

#[test]
fn an_asserted_actor_needs_a_client_that_may_assert_him_and_a_rule_that_says_so() {
    let asserted = ("/actor/iss", json!(null));
    let may = ("/client/may_assert", json!(true));
    assert_eq!(denied_by(ask(&generous(), std::slice::from_ref(&asserted))), builtin::ASSERTED_CLIENT);
    granted(ask(&generous(), &[asserted.clone(), may.clone()]));
    let other = ("/client/id", json!("client_2"));
    assert_eq!(denied_by(ask(&generous(), &[asserted.clone(), may.clone(), other])), builtin::ASSERTED_RULE);
    let verified_only = policy(r#"@id("all") permit (principal, action, resource);"#);
    assert_eq!(denied_by(ask(&verified_only, &[asserted.clone(), may.clone()])), builtin::ASSERTED_RULE);
    for action in ["approve", "console:support", "console:audit", "console:revoke"] {
        let refused = ask(&generous(), &[asserted.clone(), may.clone(), ("/action", json!(action))]);
        assert_eq!(denied_by(refused), builtin::ASSERTED_ACTION, "{action}");
    }
}

#[test]
fn an_asserted_actor_cannot_pass_for_a_verified_one_of_the_same_name() {
    let by_name = policy(
        r#"@id("one") @client("client_1") @asserted("allow")
           permit (principal == Actor::"https://login.example.com#admin_7", action, resource);"#,
    );
    granted(ask(&by_name, &[]));
    let claims_issuer = [("/actor/assurance", json!("asserted")), ("/client/may_assert", json!(true))];
    assert_eq!(denied_by(ask(&by_name, &claims_issuer)), builtin::NO_PERMIT);
    let spelled = [
        ("/actor/iss", json!(null)),
        ("/actor/sub", json!("https://login.example.com#admin_7")),
        ("/client/may_assert", json!(true)),
    ];
    assert_eq!(denied_by(ask(&by_name, &spelled)), builtin::NO_PERMIT);
    let nested_hash =
        [("/actor/iss", json!("https://login.example.com#admin_7")), ("/actor/sub", json!("x"))];
    assert_eq!(denied_by(ask(&by_name, &nested_hash)), builtin::NO_PERMIT);
}

#[test]
fn a_verified_actor_without_an_issuer_is_nobody() {
    let nobody = [("/actor/iss", json!(null)), ("/actor/assurance", json!("verified"))];
    assert_eq!(denied_by(ask(&generous(), &nobody)), builtin::ACTOR_WITHOUT_ISSUER);
}

#[test]
fn unknown_people_need_a_permit_that_says_so_and_names_the_client() {
    let known_only = policy(r#"@id("all") permit (principal, action, resource);"#);
    let actor_only =
        policy(r#"@id("a") @client("client_1") @unknown("actor") permit (principal, action, resource);"#);
    let unknown_target = ("/target/directory", json!(null));
    let unknown_actor = ("/actor/directory", json!(null));
    for unknown in [unknown_target.clone(), unknown_actor.clone()] {
        assert_eq!(denied_by(ask(&known_only, std::slice::from_ref(&unknown))), builtin::NO_PERMIT);
        granted(ask(&generous(), std::slice::from_ref(&unknown)));
        let other_client = ("/client/id", json!("client_2"));
        assert_eq!(denied_by(ask(&generous(), &[unknown, other_client])), builtin::NO_PERMIT);
    }
    granted(ask(&actor_only, &[unknown_actor]));
    assert_eq!(denied_by(ask(&actor_only, &[unknown_target])), builtin::NO_PERMIT);
}

#[test]
fn a_directory_that_answers_with_another_id_knows_nobody() {
    let lies = ("/target/directory/id", json!("user_43"));
    let known_only = policy(r#"@id("all") permit (principal, action, resource);"#);
    assert_eq!(denied_by(ask(&known_only, std::slice::from_ref(&lies))), builtin::NO_PERMIT);
    for spelling in ["USER_42", "user_42 ", "user_42\u{200b}", "ｕser_42"] {
        let lies = ("/target/directory/id", json!(spelling));
        assert_eq!(denied_by(ask(&known_only, &[lies])), builtin::NO_PERMIT, "{spelling:?}");
    }
    // nothing of the wrong record reaches a rule
    let by_role = policy(
        r#"@id("r") @client("client_1") @unknown("target") permit (principal, action, resource in Role::"user");"#,
    );
    granted(ask(&by_role, &[]));
    assert_eq!(denied_by(ask(&by_role, &[lies])), builtin::NO_PERMIT);
}

#[test]
fn scopes_that_do_not_meet_are_a_denial() {
    let read = policy(r#"@id("r") @scope("read") permit (principal, action, resource);"#);
    assert_eq!(denied_by(ask(&read, &[("/scope", json!("write admin"))])), builtin::SCOPE);
    let without = policy(r#"@id("r") permit (principal, action, resource);"#);
    assert_eq!(granted(ask(&without, &[])).scope.to_string(), "read");
    assert_eq!(denied_by(ask(&without, &[("/scope", json!("write"))])), builtin::SCOPE);
    // a star in the question is a scope like any other
    assert_eq!(denied_by(ask(&read, &[("/scope", json!("*"))])), builtin::SCOPE);
}

#[test]
fn a_token_has_one_audience_unless_the_policy_says_more() {
    let two = json!(["https://a.example", "https://b.example"]);
    let one = policy(r#"@id("r") permit (principal, action, resource);"#);
    assert_eq!(denied_by(ask(&one, &[("/audience", two.clone())])), builtin::AUDIENCE);
    granted(ask(&one, &[("/audience", json!(["https://a.example", "https://a.example"]))]));
    assert_eq!(denied_by(ask(&one, &[("/audience", json!([]))])), builtin::AUDIENCE);
    let both = policy(r#"@id("r") @max_audiences("2") permit (principal, action, resource);"#);
    assert_eq!(granted(ask(&both, &[("/audience", two.clone())])).audience.len(), 2);
    let listed = policy(
        r#"@id("r") @audience("https://a.example https://c.example") permit (principal, action, resource);"#,
    );
    let limits = granted(ask(&listed, &[("/audience", two)]));
    assert_eq!(limits.audience.iter().map(Audience::as_str).collect::<Vec<_>>(), ["https://a.example"]);
    let elsewhere = json!(["https://b.example", "https://a.example/"]);
    assert_eq!(denied_by(ask(&listed, &[("/audience", elsewhere)])), builtin::AUDIENCE);
}

#[test]
fn only_a_delegation_goes_on_from_an_actor_who_acts_for_somebody() {
    let policy = generous();
    let earlier = ("/actor/on_behalf_of", chain(&["first"]));
    for action in ["impersonate", "approve", "console:support", "console:audit", "console:revoke"] {
        let refused = ask(&policy, &[earlier.clone(), ("/action", json!(action))]);
        assert_eq!(denied_by(refused), builtin::NESTED_ACTOR, "{action}");
    }
    granted(ask(&policy, &[earlier, ("/action", json!("delegate"))]));
}

#[test]
fn a_chain_of_four_is_the_longest_and_a_longer_one_is_refused_not_cut() {
    let policy = generous();
    let delegate = ("/action", json!("delegate"));
    granted(ask(&policy, &[delegate.clone(), ("/actor/on_behalf_of", chain(&["a", "b", "c"]))]));
    let five = ("/actor/on_behalf_of", chain(&["a", "b", "c", "d"]));
    assert_eq!(denied_by(ask(&policy, &[delegate, five])), builtin::CHAIN_TOO_DEEP);
}

#[test]
fn nobody_delegates_to_himself_nor_round_in_a_circle() {
    let policy = generous();
    let delegate = ("/action", json!("delegate"));
    for earlier in [&["admin_7"][..], &["a", "admin_7"], &["a", "b", "a"]] {
        let refused = ask(&policy, &[delegate.clone(), ("/actor/on_behalf_of", chain(earlier))]);
        assert_eq!(denied_by(refused), builtin::CHAIN_CYCLE, "{earlier:?}");
    }
    // named by a client, without an issuer: might be anybody of that name
    let nameless = ("/actor/on_behalf_of", json!([{ "sub": "admin_7" }]));
    assert_eq!(denied_by(ask(&policy, &[delegate.clone(), nameless])), builtin::CHAIN_CYCLE);
    let namesake = json!([{ "sub": "admin_7", "iss": "https://other.example" }]);
    granted(ask(&policy, &[delegate, ("/actor/on_behalf_of", namesake)]));
}

#[test]
fn a_reason_is_needed_unless_the_policy_supplies_one_for_the_client() {
    let plain = policy(r#"@id("r") permit (principal, action, resource);"#);
    for none in [json!(null), json!("   ")] {
        assert_eq!(denied_by(ask(&plain, &[("/reason", none.clone())])), builtin::REASON_MISSING);
        granted(ask(&generous(), &[("/reason", none)]));
    }
    let limits = granted(ask(&generous(), &[("/reason", json!(null))]));
    assert_eq!(limits.default_reason.as_deref(), Some("none given"));
}

#[test]
fn one_permits_default_reason_is_no_other_permits() {
    let two = policy(
        r#"@id("narrow") @client("client_1") @default_reason("nightly job")
           permit (principal, action, resource) when { context has ticket && context.ticket == "JOB-1" };
           @id("support") permit (principal, action, resource);"#,
    );
    assert_eq!(denied_by(ask(&two, &[("/reason", json!(null))])), builtin::REASON_MISSING);
    assert_eq!(granted(ask(&two, &[])).default_reason, None);
    let job = granted(ask(&two, &[("/reason", json!(null)), ("/ticket", json!("JOB-1"))]));
    assert_eq!(job.default_reason.as_deref(), Some("nightly job"));
}

#[test]
fn profile_clerk_means_full_access_for_five_minutes_or_nothing() {
    let clerk = ("/client/clerk", json!(true));
    let no_aud = ("/audience", json!([]));
    let unlimited = policy(r#"@id("r") @scope("*") permit (principal, action, resource);"#);
    let limits = granted(ask(&unlimited, &[clerk.clone(), no_aud.clone(), ("/lifetime", json!(3600))]));
    assert_eq!((limits.scope.to_string().as_str(), limits.lifetime_seconds), ("*", 300));
    let longer =
        policy(r#"@id("r") @scope("*") @max_lifetime("3600") permit (principal, action, resource);"#);
    let limits = granted(ask(&longer, &[clerk.clone(), no_aud.clone(), ("/lifetime", json!(3600))]));
    assert_eq!(limits.lifetime_seconds, 900);
    let narrow = ask(&unlimited, &[clerk.clone(), no_aud.clone(), ("/scope", json!("read"))]);
    assert_eq!(denied_by(narrow), builtin::CLERK_FULL_ACCESS);
    let read = policy(r#"@id("r") @scope("read") permit (principal, action, resource);"#);
    assert_eq!(denied_by(ask(&read, &[clerk, no_aud])), builtin::CLERK_FULL_ACCESS);
}

#[test]
fn everything_allowed_and_nothing_asked_is_read() {
    assert_eq!(granted(ask(&generous(), &[])).scope.to_string(), "read");
    assert_eq!(granted(ask(&generous(), &[("/scope", json!("write"))])).scope.to_string(), "write");
}

#[test]
fn the_permit_printed_for_a_clerk_client_does_what_its_sdk_needs_and_no_more() {
    let id = ClientId::try_from("client_1").unwrap();
    let patterns = ["staff_*", "odd\"\\name", "#with#hash", "https://idp.example#boss"].map(str::to_owned);
    let request =
        PermitRequest { client_id: &id, may_assert: &patterns, clerk: true, max_lifetime_seconds: None };
    let text = permit_for_client(&request);
    // appended to the default policy, as an operator would
    let policy = policy(&format!("{}\n{text}", stagedoor::server::policy::SHIPPED_DEFAULT));
    let sdk = |sub: &str, more: &[(&str, Value)]| {
        let mut changes = vec![
            ("/actor", json!({ "sub": sub })),
            ("/target/directory", json!(null)),
            ("/client/may_assert", json!(true)),
            ("/client/clerk", json!(true)),
            ("/audience", json!([])),
            ("/reason", json!(null)),
        ];
        changes.extend_from_slice(more);
        ask(&policy, &changes)
    };
    let limits = granted(sdk("staff_7", &[]));
    assert_eq!((limits.scope.to_string().as_str(), limits.lifetime_seconds), ("*", 300));
    granted(sdk("odd\"\\name", &[]));
    granted(sdk("with#hash", &[]));
    for nobody in ["user_7", "boss", "https://idp.example#boss", "odd"] {
        assert_eq!(denied_by(sdk(nobody, &[])), builtin::NO_PERMIT, "{nobody}");
    }
    assert_eq!(denied_by(sdk("staff_7", &[("/client/id", json!("client_2"))])), builtin::ASSERTED_RULE);
    let protected = json!({ "roles": ["protected"] });
    assert_eq!(denied_by(sdk("staff_7", &[("/target/directory", protected)])), "protected");
}

#[test]
fn a_printed_permit_without_patterns_permits_nobody() {
    let id = ClientId::try_from("client_1").unwrap();
    let request =
        PermitRequest { client_id: &id, may_assert: &[], clerk: false, max_lifetime_seconds: Some(99_999) };
    let text = permit_for_client(&request);
    assert!(text.contains("@max_lifetime(\"3600\")"), "{text}");
    let asserted = [("/actor/iss", json!(null)), ("/client/may_assert", json!(true))];
    assert_eq!(denied_by(ask(&policy(&text), &asserted)), builtin::NO_PERMIT);
}

#[test]
fn a_rule_that_errs_denies_even_when_it_is_a_forbid_that_cedar_would_skip() {
    // overflows for any count but zero: the validator cannot know
    let erring = r#"@id("errs") forbid (principal, action, resource)
        when { context.targets_last_hour * 9223372036854775807 > 5 };"#;
    let text = format!("@id(\"all\") permit (principal, action, resource); {erring}");
    let policy = policy(&text);
    granted(ask(&policy, &[]));
    let verdict = ask(&policy, &[("/targets_last_hour", json!(2))]);
    assert_eq!(denied(verdict), ("errs".to_owned(), Refusal::Error));
}

#[test]
fn an_erring_permit_denies_although_another_permit_applies() {
    let policy = policy(
        r#"@id("all") permit (principal, action, resource);
           @id("errs") permit (principal, action, resource) when { User_is_not_there(principal) };"#
            .replace("User_is_not_there(principal)", r#"Actor::"https://x#nobody".known"#)
            .as_str(),
    );
    assert_eq!(denied(ask(&policy, &[])), ("errs".to_owned(), Refusal::Error));
}

#[test]
fn a_time_that_cedar_cannot_hold_is_a_denial() {
    let mut q = crate::support::question(crate::support::facts());
    q.now = chrono::DateTime::from_timestamp(300_000_000_000, 0).unwrap();
    let office = policy(
        r#"@id("r") permit (principal, action, resource) when { context.now > datetime("2026-01-01") };"#,
    );
    let Verdict::Denied { refusal, rule, .. } = office.decide(&q) else { panic!("granted") };
    assert_eq!((rule.as_str(), refusal), (builtin::QUESTION, Refusal::Error));
}
