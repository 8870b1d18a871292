//! The request around the token (RFC 6750 §2): no header, two of them, other schemes, other places.

use super::super::forge::Subject;
use super::{Case, Expect, Level, Request, Sheet};

pub(super) fn cases(subject: &Subject) -> Vec<Case> {
    let mut sheet = Sheet::new("request");
    let good = subject.good();
    schemes(&good, &mut sheet);
    doubled(subject, &good, &mut sheet);
    elsewhere(subject, &good, &mut sheet);
    sheet.done()
}

fn schemes(good: &str, sheet: &mut Sheet) {
    let values = [
        ("empty", "an empty header", Level::Must, String::new()),
        ("scheme-alone", "`Bearer` and nothing after it", Level::Must, "Bearer".to_owned()),
        ("no-scheme", "the token without a scheme", Level::Should, good.to_owned()),
        ("basic", "scheme `Basic`", Level::Must, format!("Basic {good}")),
        ("dpop", "scheme `DPoP`: this token is bound to no key", Level::Must, format!("DPoP {good}")),
        ("token", "scheme `Token`", Level::Should, format!("Token {good}")),
        ("jwt", "scheme `JWT`", Level::Should, format!("JWT {good}")),
        ("bearer-longer", "scheme `BearerX`", Level::Must, format!("BearerX {good}")),
        ("bearer-comma", "a comma in the place of the space", Level::Should, format!("Bearer,{good}")),
        ("bearer-colon", "a colon in the place of the space", Level::Should, format!("Bearer:{good}")),
        (
            "bearer-equals",
            "a parameter in the place of the token",
            Level::Should,
            format!("Bearer token={good}"),
        ),
        ("bearer-tab", "a tab in the place of the space", Level::Should, format!("Bearer\t{good}")),
        (
            "basic-then-bearer",
            "`Basic x, Bearer …` in one header",
            Level::Should,
            format!("Basic eDp5, Bearer {good}"),
        ),
        (
            "bearer-bearer",
            "`Bearer …, Bearer …` in one header",
            Level::Should,
            format!("Bearer {good}, Bearer {good}"),
        ),
    ];
    sheet.request(Expect::Refuse, Level::Must, "none", "no token at all", Request::default());
    for (id, why, level, value) in values {
        let request = Request { authorization: vec![value], ..Request::default() };
        sheet.request(Expect::Refuse, level, id, why, request);
    }
}

/// Two headers: a proxy and a service may each read another one.
fn doubled(subject: &Subject, good: &str, sheet: &mut Sheet) {
    let other = subject.claims_with("sub", "somebody_else");
    let bad = subject.claims_with("aud", "https://elsewhere.example");
    let headers = [
        ("two-same", "the same token in two headers", [good, good]),
        ("two-users", "two good tokens in two headers", [good, &other]),
        ("two-good-first", "a good token, then a bad one", [good, &bad]),
        ("two-good-last", "a bad token, then a good one", [&bad, good]),
    ];
    for (id, why, tokens) in headers {
        let authorization = tokens.iter().map(|token| format!("Bearer {token}")).collect();
        sheet.request(
            Expect::Refuse,
            Level::Should,
            id,
            why,
            Request { authorization, ..Request::default() },
        );
    }
    let authorization = vec!["Basic eDp5".to_owned(), format!("Bearer {good}")];
    sheet.request(
        Expect::Refuse,
        Level::Should,
        "two-schemes",
        "two headers of two schemes",
        Request { authorization, ..Request::default() },
    );
}

/// A token, or an identity, where none is looked for.
fn elsewhere(subject: &Subject, good: &str, sheet: &mut Sheet) {
    for name in ["access_token", "token", "jwt"] {
        let request = Request { query: Some((name, good.to_owned())), ..Request::default() };
        let why = format!("the token in the query (`{name}`): queries are logged");
        sheet.request(
            Expect::RefuseOrForbid,
            Level::Must,
            &format!("query-{}", name.replace('_', "-")),
            &why,
            request,
        );
    }
    let with_header =
        |name: &'static str, value: String| Request { headers: vec![(name, value)], ..Request::default() };
    let headers = [
        (
            "cookie",
            "the token in a cookie",
            with_header("cookie", format!("access_token={good}; token={good}; __session={good}")),
        ),
        (
            "proxy-authorization",
            "the token in `Proxy-Authorization`",
            with_header("proxy-authorization", format!("Bearer {good}")),
        ),
        ("x-access-token", "the token in `X-Access-Token`", with_header("x-access-token", good.to_owned())),
        (
            "x-forwarded-access-token",
            "the token in `X-Forwarded-Access-Token`",
            with_header("x-forwarded-access-token", good.to_owned()),
        ),
    ];
    for (id, why, request) in headers {
        sheet.request(Expect::Refuse, Level::Must, id, why, request);
    }
    let spoofed = ["x-stagedoor-user", "x-forwarded-user", "x-user-id", "remote-user", "x-auth-request-user"];
    let headers = spoofed.iter().map(|name| (*name, subject.user.clone())).collect();
    let why = "identity headers and no token: only a proxy may write them";
    sheet.request(
        Expect::Refuse,
        Level::Must,
        "spoofed-identity",
        why,
        Request { headers, ..Request::default() },
    );
    let headers = spoofed.iter().map(|name| (*name, "admin".to_owned())).collect();
    let authorization = vec![format!("Bearer {}", subject.claims_with("aud", "https://elsewhere.example"))];
    let why = "identity headers and a bad token";
    sheet.request(
        Expect::Refuse,
        Level::Must,
        "spoofed-identity-bad-token",
        why,
        Request { authorization, headers, ..Request::default() },
    );
}
