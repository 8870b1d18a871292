//! What mutation testing found that nothing held: the last value taken and the first refused, and whom words are for.

use serde_json::json;
use stagedoor::server::policy::{
    Expectations, PermitRequest, Policy, PolicyError, Refusal, Source, Verdict, builtin, permit_for_client,
};
use stagedoor::token::ClientId;

use crate::support::{ask, denied_by, granted, load, policy};

/// A permit of every scope for whoever does this.
fn permit(annotations: &str, action: &str) -> String {
    format!(
        "@id(\"p\") @scope(\"read\") {annotations}\npermit (principal, action == Action::\"{action}\", resource);\n"
    )
}

#[test]
fn a_client_names_actors_only_for_what_a_permit_says() {
    let named = [("/actor/iss", json!(null)), ("/client/may_assert", json!(true))];
    let asserted = |action: &str| policy(&permit("@client(\"backoffice\") @asserted(\"allow\")", action));
    granted(ask(&asserted("impersonate"), &named));
    for other in ["delegate", "approve"] {
        assert_eq!(denied_by(ask(&asserted(other), &named)), builtin::ASSERTED_RULE, "{other}");
    }
}

#[test]
fn a_hint_is_for_the_client_and_the_action_it_stands_beside() {
    let message = |annotations: &str, action: &str| {
        let rules = policy(&format!(
            "@id(\"p\") @hint(\"Ask Ann.\") {annotations}\npermit (principal in Role::\"nobody\", action == Action::\"{action}\", resource);"
        ));
        match ask(&rules, &[]) {
            Verdict::Denied { message, .. } => message,
            granted @ Verdict::Granted { .. } => panic!("{granted:?}"),
        }
    };
    assert!(message("", "impersonate").ends_with(" Ask Ann."));
    assert!(message("@client(\"backoffice\")", "impersonate").ends_with(" Ask Ann."));
    for (annotations, action) in [("@client(\"other\")", "impersonate"), ("", "delegate")] {
        assert!(!message(annotations, action).contains("Ann"), "{annotations} {action}");
    }
}

#[test]
fn nobody_acts_for_himself_by_whichever_name_he_goes() {
    let all = policy(&permit("@unknown(\"actor target\") @client(\"backoffice\")", "impersonate"));
    let nobody_in_the_directory = ("/actor/directory", json!(null));
    for (changes, rule) in [
        (vec![("/target/id", json!("admin_7"))], Some(builtin::NEVER_SELF)),
        (vec![("/target/id", json!("user_43"))], None),
    ] {
        let changes: Vec<_> = changes.into_iter().chain([nobody_in_the_directory.clone()]).collect();
        match rule {
            Some(rule) => assert_eq!(denied_by(ask(&all, &changes)), rule, "{changes:?}"),
            None => drop(granted(ask(&all, &changes))),
        }
    }
}

#[test]
fn it_is_known_whether_a_policy_counts_targets_or_breaks_glass() {
    for (text, counts, breaks) in [
        (permit("", "impersonate"), false, false),
        (permit("@max_targets_per_hour(\"5\")", "impersonate"), true, false),
        (permit("@break_glass", "impersonate"), false, true),
        (
            permit("@message(\"break_glass \\\"and\\\" more\")", "impersonate")
                .replace("permit", "forbid")
                .replace("@scope(\"read\")", ""),
            true,
            false,
        ),
        (permit("", "impersonate").replace(';', " when { context.targets_last_hour < 3 };"), true, false),
    ] {
        let policy = policy(&text);
        // an escape may stand for any word, so it counts as looking at everything; what is an annotation is known
        assert_eq!((policy.counts_targets(), policy.breaks_glass()), (counts, breaks), "{text}");
    }
}

#[test]
fn nobody_logs_in_again_for_what_would_be_refused_all_the_same() {
    let strong = policy(&permit("@step_up_acr(\"high\") @require_consent(\"given\")", "impersonate"));
    let (reason, scope) = (("/reason", json!(null)), ("/scope", json!("write")));
    assert_eq!(denied_by(ask(&strong, &[reason])), builtin::REASON_MISSING);
    assert_eq!(denied_by(ask(&strong, &[scope])), builtin::SCOPE);
    let (_, refusal) = crate::support::denied(ask(&strong, &[]));
    assert!(matches!(refusal, Refusal::StepUp(_)), "and only then what is known of the user: {refusal:?}");
    assert_eq!(denied_by(ask(&strong, &[("/actor/acr", json!("high"))])), "p", "he has not consented");
}

#[test]
fn texts_and_files_are_taken_to_their_last_byte() {
    let message = |length: usize| {
        load(&format!(
            "@id(\"p\") @message(\"{}\")\nforbid (principal, action, resource);",
            "x".repeat(length)
        ))
    };
    let longest = (1..2000).take_while(|length| message(*length).is_ok()).last().unwrap();
    assert_eq!(longest, 1000, "a text of 1 to 1000 bytes");
    let filled = |bytes: usize| {
        let rule = permit("", "impersonate");
        let comment = format!("//{}\n", "x".repeat(bytes - rule.len() - 3));
        let text = format!("{comment}{rule}");
        assert_eq!(text.len(), bytes);
        Policy::load("test", &[Source { file: "test.cedar", text: &text }]).map(drop)
    };
    let most = 1 << 20;
    assert!(!matches!(filled(most), Err(PolicyError::TooLarge)), "{most} bytes");
    assert!(matches!(filled(most + 1), Err(PolicyError::TooLarge)));
}

#[test]
fn a_generated_permit_escapes_what_cedar_would_read() {
    let client_id: ClientId = "client_1".parse().unwrap();
    let odd = ["a\"b\\c".to_owned(), "d\u{7}e".to_owned()];
    let text = permit_for_client(&PermitRequest {
        client_id: &client_id,
        may_assert: &odd,
        clerk: false,
        max_lifetime_seconds: None,
    });
    assert!(text.contains(r#"a\"b\\c"#) && text.contains(r"d\u{7}e"), "{text}");
    load(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
}

#[test]
fn a_failed_case_says_its_number_and_what_differs() {
    let cases = |expect: &str| {
        let text = format!(
            "[base]\nclient = {{ id = \"client_1\", name = \"backoffice\" }}\nreason = \"Ticket 4711\"\naudience = [\"https://api.example.com\"]\n\
             actor = {{ sub = \"admin_7\", iss = \"https://login.example.com\", directory = {{ roles = [] }} }}\n\
             target = {{ id = \"user_42\", directory = {{ roles = [] }} }}\n\
             [[case]]\nname = \"first\"\n[case.expect]\ndecision = \"granted\"\n\
             [[case]]\nname = \"second\"\n[case.expect]\n{expect}\n"
        );
        Expectations::parse(&text, false)
    };
    let all = policy(&permit("", "impersonate"));
    let right =
        cases("decision = \"granted\"\nscope = \"read\"").unwrap_or_else(|error| panic!("{error}")).run(&all);
    assert_eq!((right.results.len(), right.failed()), (2, 0));
    let wrong = cases("decision = \"denied\"").unwrap().run(&all);
    assert_eq!(wrong.failed(), 1);
    assert_eq!(wrong.results.iter().map(|case| case.number).collect::<Vec<_>>(), [1, 2]);
    let said = wrong.to_string();
    assert!(said.contains("second") && said.contains("denied"), "{said}");
}
