//! What a service has to let in, or to refuse for the right reason.

use serde_json::json;

use super::super::forge::{Subject, and_a_half, b64, sign_parts, text, with};
use super::{Case, Expect, Level, Presented, Request, Sheet};

/// What synchronised clocks differ by at most, and our own verifier forgives.
const AHEAD_SECONDS: i64 = 4;

pub(super) fn cases(subject: &Subject) -> Vec<Case> {
    let mut sheet = Sheet::new("good");
    let base = if subject.bends_actor_tokens() { impersonation(subject) } else { Expect::Accept };
    sheet.bearer(base, Level::Must, "base", "the token that the hostile ones are bent from", subject.good());
    actors(subject, &mut sheet);
    ordinary(subject, &mut sheet);
    spellings(subject, base, &mut sheet);
    for key in &subject.keys[1..] {
        let header = with(with(subject.header(), "alg", key.alg().name()), "kid", key.kid());
        let token = sign_parts(key, &b64(text(&header)), &b64(text(&subject.claims())));
        let id = format!("key-{}", key.alg().name().to_lowercase());
        sheet.bearer(Expect::Either, Level::Should, &id, "signed by another published key", token);
    }
    sheet.done()
}

/// What the route answers to a good actor token.
fn impersonation(subject: &Subject) -> Expect {
    if subject.admits_impersonation { Expect::Accept } else { Expect::Forbid }
}

fn actors(subject: &Subject, sheet: &mut Sheet) {
    let expect = impersonation(subject);
    let claims = subject.actor_claims();
    let mut put = |level, id: &str, why: &str, claims| {
        sheet.bearer(expect, level, id, why, subject.sign(&subject.header(), &claims));
    };
    put(Level::Must, "actor", "an actor token: `act` names who acts", claims.clone());
    let asserted =
        with(with(claims.clone(), "act", json!({ "sub": subject.actor })), "actor_assurance", "asserted");
    put(Level::Must, "actor-asserted", "an actor whom a client named: no `act.iss`", asserted);
    let chain = json!({ "sub": "agent_1", "act": { "sub": subject.actor } });
    put(
        Level::Must,
        "actor-delegated",
        "an agent acts for the actor: `act` in `act`",
        with(claims.clone(), "act", chain),
    );
    let many = json!([subject.audience, "https://elsewhere.example"]);
    put(
        Level::Must,
        "actor-audiences",
        "`aud` is an array with the service in it",
        with(claims, "aud", many),
    );
}

fn ordinary(subject: &Subject, sheet: &mut Sheet) {
    let Some(claims) = subject.ordinary_claims() else { return };
    let mut put = |expect, level, id: &str, why: &str, header, claims| {
        sheet.bearer(expect, level, id, why, subject.sign(&header, &claims));
    };
    put(
        Expect::Accept,
        Level::Must,
        "ordinary",
        "a user's own token: no `act`",
        subject.header(),
        claims.clone(),
    );
    let acted = with(claims.clone(), "act", json!({ "sub": subject.actor }));
    let why = "`act` in a token of the home issuer is an impersonation too";
    put(impersonation(subject), Level::Must, "ordinary-acted", why, subject.header(), acted);
    let typ = with(subject.header(), "typ", "JWT");
    put(Expect::Either, Level::Should, "ordinary-typ-jwt", "many home issuers write `typ: JWT`", typ, claims);
}

/// Right in another spelling.
fn spellings(subject: &Subject, base: Expect, sheet: &mut Sheet) {
    let (header, claims) = (subject.header(), subject.claims());
    let mut put = |level, id: &str, why: &str, token: String| sheet.bearer(base, level, id, why, token);
    put(
        Level::Should,
        "typ-long",
        "`application/` before a media type is implied (RFC 7515 §4.1.9)",
        subject.header_with("typ", "application/at+jwt"),
    );
    put(
        Level::Should,
        "typ-case",
        "media types are compared without case",
        subject.header_with("typ", "AT+JWT"),
    );
    put(
        // RFC 7515 §4 says to ignore it; joserfc refuses it.
        Level::Should,
        "header-unknown",
        "a header member nobody knows and nobody called critical",
        subject.header_with("x-note", "hello"),
    );
    put(
        Level::Must,
        "claim-unknown",
        "a claim nobody knows",
        subject.claims_with("x-note", json!({ "a": [1, 2, 3] })),
    );
    put(Level::Should, "sub-unicode", "a user id outside ASCII", subject.claims_with("sub", "Jürgen Ω"));
    put(Level::Should, "sub-long", "a user id of 255 bytes", subject.claims_with("sub", "u".repeat(255)));
    put(
        Level::Should,
        "exp-fraction",
        "NumericDate may have a fraction (RFC 7519 §2)",
        subject.claims_with("exp", and_a_half(subject.now.timestamp() + 600)),
    );
    put(
        Level::Must,
        "header-spaced",
        "white space in JSON means nothing",
        subject.sign_text(text(&header).replace("\":", "\" : "), text(&claims)),
    );
    let ahead = subject.now.timestamp() + AHEAD_SECONDS;
    put(
        Level::Should,
        "clock-ahead",
        "made a moment ago on a machine whose clock is some seconds ahead",
        subject.sign(&header, &with(with(claims.clone(), "iat", ahead), "nbf", ahead)),
    );
    let token = subject.good();
    let mut scheme = |level, id: &str, why: &str, value: String| {
        let request = Request { authorization: vec![value], ..Request::default() };
        sheet.put(base, level, id, why, Presented::Request(request));
    };
    scheme(Level::Must, "scheme-lower", "the scheme has no case (RFC 9110 §11.1)", format!("bearer {token}"));
    scheme(Level::Must, "scheme-upper", "the scheme has no case", format!("BEARER {token}"));
    let why = "RFC 9110 allows more than one space here, RFC 6750 one";
    sheet.request(
        Expect::Either,
        Level::Should,
        "scheme-spaces",
        why,
        Request { authorization: vec![format!("Bearer  {token}")], ..Request::default() },
    );
}
