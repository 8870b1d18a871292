//! Permits written for an operator: what `client create` prints for a client that has to name its actors.

use std::fmt::Write;

use super::{CLERK_LIFETIME_CAP_SECONDS, CLERK_LIFETIME_SECONDS, FULL_ACCESS_SCOPE, LIFETIME_CAP_SECONDS};
use crate::token::ClientId;

/// What the permit has to say.
#[derive(Debug, Clone)]
pub struct PermitRequest<'a> {
    /// The client it is for.
    pub client_id: &'a ClientId,
    /// The actors it may name, as `--may-assert` takes them: `SUB` or `ISS#SUB`, `*` for any text. Who is
    /// merely named carries no issuer, so a pattern that demands one covers nobody here.
    pub may_assert: &'a [String],
    /// Profile `clerk`: full access, a reason of its own, 300 seconds.
    pub clerk: bool,
    /// The longest lifetime, seconds; clamped to what the profile can have. `None`: its default.
    pub max_lifetime_seconds: Option<u32>,
}

/// The permit a client needs to name actors who do not prove themselves, as Cedar text to append to a
/// policy. It applies whether or not there is a directory; the policy's forbids stay above it.
#[must_use]
pub fn permit_for_client(request: &PermitRequest<'_>) -> String {
    let id = request.client_id;
    let (default, cap) = if request.clerk {
        (CLERK_LIFETIME_SECONDS, CLERK_LIFETIME_CAP_SECONDS)
    } else {
        (super::MAX_LIFETIME_SECONDS, LIFETIME_CAP_SECONDS)
    };
    let lifetime = request.max_lifetime_seconds.unwrap_or(default).clamp(1, cap);
    let scope = if request.clerk { FULL_ACCESS_SCOPE } else { "read" };
    let mut out = format!(
        "@id(\"{}-{id}\")\n@client(\"{id}\")\n@asserted(\"allow\")\n@unknown(\"actor target\")\n\
         @scope(\"{scope}\")\n@max_lifetime(\"{lifetime}\")\n",
        if request.clerk { "clerk" } else { "assert" },
    );
    if request.clerk {
        out.push_str("@default_reason(\"unstated (clerk)\")\n");
    }
    let sub = |written: &String| match written.split_once('#') {
        None => Some(format!("principal.sub like \"{}\"", pattern(written))),
        Some(("", sub)) => Some(format!("principal.sub like \"{}\"", pattern(sub))),
        Some(_) => None,
    };
    let actors: Vec<String> = request.may_assert.iter().filter_map(sub).collect();
    let actors = if actors.is_empty() { "principal.sub == \"\"".to_owned() } else { actors.join(" || ") };
    // writing to a string cannot fail
    let _ = write!(
        out,
        "permit (principal, action == Action::\"impersonate\", resource)\n\
         when {{ context.client == Client::\"{id}\" && ({actors}) }};\n"
    );
    out
}

/// The pattern as the inside of a Cedar string after `like`: everything but `*` stands for itself.
fn pattern(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
        out
    })
}
