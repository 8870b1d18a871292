//! How long one decision takes, entities included: median of many, with 5 and with 50 rules.
//!
//! Aims (issue 4): 5 rules ≤ 40 µs, 50 rules ≤ 100 µs. `cargo bench --bench policy`.

#[path = "shared/figures.rs"]
#[expect(dead_code, reason = "shared with the other benches")]
mod figures;

use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

use serde_json::json;
use stagedoor::server::policy::{Policy, Question, Source, Verdict, question_from_json};
use stagedoor::token::{Clock, SystemClock};

use figures::{Asked, figure};

const ROUNDS: usize = 20_000;

/// One permit, four forbids that read real facts, and then as many rules as it takes: half of them permits
/// for other roles, half forbids that look at the target and the context. None may decide.
fn policy(rules: usize) -> Policy {
    let mut text = String::from(
        r#"
@id("support") @scope("read") @max_lifetime("900")
permit (principal in Role::"support", action == Action::"impersonate", resource)
when { principal.known && resource.known && principal has org && resource has org && principal.org == resource.org };
@id("protected")
forbid (principal, action, resource in Role::"protected");
@id("upward")
forbid (principal, action, resource) when { context.roles_beyond_actor.containsAny(["admin", "owner", "auditor"]) };
@id("deactivated")
forbid (principal, action, resource) when { resource has active && !resource.active };
@id("reason")
forbid (principal, action == Action::"impersonate", resource) when { context.reason_length < 10 };
"#,
    );
    for n in 5..rules {
        let rule = if n % 2 == 0 {
            format!(
                "@id(\"p{n}\") @scope(\"read\") permit (principal in Role::\"team-{n}\", action == Action::\"impersonate\", resource in Group::\"customers-{n}\") when {{ principal.known && resource.known }};"
            )
        } else {
            format!(
                "@id(\"f{n}\") forbid (principal, action == Action::\"impersonate\", resource in Group::\"vip-{n}\") unless {{ context has ticket && context.ticket like \"VIP-{n}-*\" }};"
            )
        };
        let _ = writeln!(text, "{rule}");
    }
    Policy::load("bench", &[Source { file: "bench.cedar", text: &text }])
        .expect("the bench's policy is valid")
}

fn question(clock: &dyn Clock) -> Question {
    question_from_json(
        json!({
            "actor": {
                "sub": "admin_7", "iss": "https://login.example.com", "roles": ["staff"], "groups": ["emea"],
                "amr": ["pwd", "hwk"], "acr": "gold", "login_age": 300,
                "directory": { "roles": ["support", "user"], "org": "acme", "groups": ["berlin"] }
            },
            "target": { "id": "user_42", "directory": { "roles": ["user"], "org": "acme", "groups": ["customers-3"] } },
            "client": { "id": "client_1", "name": "backoffice" },
            "reason": "Ticket 4711: invoice missing", "ticket": "4711", "lifetime": 600, "scope": "read",
            "audience": ["https://api.example.com"], "address": "192.0.2.7", "targets_last_hour": 3
        }),
        clock.now(),
    )
    .expect("the bench's facts are a question")
}

fn median(policy: &Policy, question: &Question, clock: &dyn Clock) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = clock.monotonic();
            black_box(policy.decide(black_box(question)));
            clock.monotonic().saturating_sub(start)
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn main() {
    let clock = SystemClock::default();
    let question = question(&clock);
    let us = |policy: &Policy| median(policy, &question, &clock).as_secs_f64() * 1e6;
    for (rules, aim) in [(5, 40.0), (50, 100.0)] {
        let policy = policy(rules);
        assert!(matches!(policy.decide(&question), Verdict::Granted { .. }), "the bench measures a grant");
        figure(
            &format!("policy, {rules} rules: one decision, median"),
            us(&policy),
            "us",
            Asked::AtMost(aim),
        );
    }
    let shipped = us(&Policy::shipped_default());
    figure("policy, as shipped: one decision, median", shipped, "us", Asked::Nothing);
}
