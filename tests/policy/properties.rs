//! Whatever the policy and whatever is asked: everything only ever shrinks.

use proptest::prelude::*;
use serde_json::{Value, json};
use stagedoor::server::policy::{Policy, Source, Verdict, question_from_json};
use stagedoor::token::Scope;

use crate::support::noon;

const SCOPES: [&str; 5] = ["read", "write", "admin", "billing:read", "*"];
const AUDIENCES: [&str; 3] = ["https://a.example", "https://b.example", "https://c.example"];

fn some_of(words: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(words, 0..=words.len())
}

/// One permit with any limits, and the condition it applies under.
fn permit() -> impl Strategy<Value = String> {
    (
        prop::option::of(1..=3600u32),
        prop::option::of(prop_oneof![
            Just("*".to_owned()),
            proptest::sample::subsequence(&SCOPES[..4], 1..=4).prop_map(|s| s.join(" ")),
        ]),
        prop::option::of(proptest::sample::subsequence(&AUDIENCES, 1..=3).prop_map(|a| a.join(" "))),
        prop::option::of(1..=8u32),
        any::<(bool, bool, bool, bool)>(),
        prop::sample::select(vec![
            "true",
            "principal.known",
            "resource.known",
            "context.targets_last_hour < 3",
        ]),
    )
        .prop_map(
            |(lifetime, scope, audience, count, (approval, client, unknown, consent), condition)| {
                let mut text = String::new();
                let mut add = |name: &str, value: &str| text += &["@", name, "(\"", value, "\") "].concat();
                if let Some(seconds) = lifetime {
                    add("max_lifetime", &seconds.to_string());
                }
                if let Some(scope) = scope {
                    add("scope", &scope);
                }
                if let Some(audience) = audience {
                    add("audience", &audience);
                }
                if let Some(count) = count {
                    add("max_audiences", &count.to_string());
                }
                if approval {
                    add("require_approval", "true");
                }
                if client {
                    add("client", "client_1");
                    add("asserted", "allow");
                    if unknown {
                        add("unknown", "actor target");
                    }
                }
                if consent {
                    add("require_consent", "given");
                }
                format!("{text} permit (principal, action, resource) when {{ {condition} }};")
            },
        )
}

fn facts() -> impl Strategy<Value = Value> {
    (
        prop::option::of(0..=10_000u32),
        prop::option::of(some_of(&SCOPES).prop_map(|s| s.join(" "))),
        some_of(&AUDIENCES),
        prop::sample::select(vec!["impersonate", "delegate", "approve", "console:support"]),
        any::<(bool, bool, bool, bool, bool)>(),
        0..5u32,
        0..5usize,
        prop::sample::select(vec!["client_1", "client_2"]),
    )
        .prop_map(|(lifetime, scope, audience, action, flags, targets, depth, client)| {
            let (verified, known_actor, known_target, may_assert, same) = flags;
            let earlier: Vec<Value> =
                (0..depth).map(|n| json!({ "sub": format!("earlier_{n}"), "iss": "https://i" })).collect();
            json!({
                "action": action,
                "actor": {
                    "sub": "a", "iss": if verified { Some("https://i") } else { None },
                    "known": known_actor, "directory": { "id": if same { "t" } else { "a" } },
                    "on_behalf_of": earlier
                },
                "target": {
                    "id": "t", "known": known_target,
                    "directory": { "consent_until": "2026-01-05T12:05:00Z" }
                },
                "client": { "id": client, "may_assert": may_assert },
                "reason": "because it is needed", "lifetime": lifetime, "scope": scope, "audience": audience,
                "targets_last_hour": targets
            })
        })
}

fn load(permits: &[String], more: &str) -> Policy {
    let named = |(n, p): (usize, &String)| format!("@id(\"p{n}\") {p}\n");
    let text = permits.iter().enumerate().map(named).collect::<Vec<_>>().concat();
    Policy::load("any", &[Source { file: "any.cedar", text: &format!("{text}{more}") }]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn limits_only_ever_shrink_whatever_the_policy(permits in prop::collection::vec(permit(), 1..5), facts in facts()) {
        let question = question_from_json(facts, noon()).unwrap();
        if let Verdict::Granted { limits, .. } = load(&permits, "").decide(&question) {
            let asked = question.lifetime_seconds.unwrap_or(600);
            prop_assert!((1..=3600).contains(&limits.lifetime_seconds) && limits.lifetime_seconds <= asked);
            prop_assert!(!limits.scope.is_empty());
            let mints = matches!(question.action.as_str(), "impersonate" | "delegate");
            if let Some(asked) = question.scope.as_ref().filter(|_| mints) {
                prop_assert!(limits.scope.is_subset_of(asked));
            }
            prop_assert!(limits.audience.iter().all(|a| question.audience.contains(a)));
            let chain = question.actor.act.chain().count();
            prop_assert!(chain <= 4 && (chain == 1 || question.action.as_str() == "delegate"));
            let verified = question.actor.assurance.as_str() == "verified";
            prop_assert!(verified || (question.client.may_assert && question.client.id.as_str() == "client_1"));
            if mints {
                prop_assert!(!limits.audience.is_empty());
                let canonical = question.actor.person.as_ref().and_then(|p| p.id.as_ref());
                prop_assert_ne!(canonical, Some(&question.target.id));
                let known = question.actor.person.is_some() && question.target.person.is_some();
                prop_assert!(known || question.client.id.as_str() == "client_1");
            }
        }
    }

    #[test]
    fn a_forbid_is_never_outvoted_and_one_that_errs_denies(
        permits in prop::collection::vec(permit(), 1..5), facts in facts()
    ) {
        let question = question_from_json(facts, noon()).unwrap();
        let forbidden = load(&permits, "@id(\"f\") forbid (principal, action, resource);");
        prop_assert_eq!(forbidden.decide(&question).decision(), "denied");
        let erring = load(
            &permits,
            "@id(\"e\") forbid (principal, action, resource) when { (context.lifetime + 1) * 9223372036854775807 > 5 && false == true || context.lifetime * 9223372036854775807 < -1 };",
        );
        prop_assume!(question.lifetime_seconds != Some(0) && question.lifetime_seconds != Some(1));
        prop_assert_eq!(erring.decide(&question).decision(), "denied");
    }

    #[test]
    fn a_permit_more_never_takes_a_scope_away(permits in prop::collection::vec(permit(), 2..5), facts in facts()) {
        let question = question_from_json(facts, noon()).unwrap();
        let granted = |policy: &Policy| policy.decide(&question).limits().map(|l| l.scope.clone());
        let complete = |scope: &Scope| question.scope.as_ref().is_some_and(|asked| asked.is_subset_of(scope));
        let (fewer, all) = (granted(&load(&permits[..permits.len() - 1], "")), granted(&load(&permits, "")));
        if let Some(fewer) = fewer {
            let all = all.unwrap();
            prop_assert!(fewer == all || complete(&all));
        }
    }

    #[test]
    fn no_text_at_all_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = Policy::load("any", &[Source { file: "any.cedar", text: &text }]);
    }

    #[test]
    fn no_change_to_a_good_text_makes_the_reader_panic(at in 0usize..4000, with in "\\PC{0,3}", cut in 0usize..20) {
        let good = stagedoor::server::policy::SHIPPED_DEFAULT;
        let floor = |mut at: usize| { at = at.min(good.len()); while !good.is_char_boundary(at) { at -= 1 } at };
        let text = format!("{}{with}{}", &good[..floor(at)], &good[floor(at + cut)..]);
        let _ = Policy::load("any", &[Source { file: "any.cedar", text: &text }]);
    }
}
