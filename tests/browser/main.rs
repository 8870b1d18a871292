//! The console, the banner and the example product in a real Chromium, against the real binary and a real
//! OpenID provider. Where node or Chromium is missing a test says `SKIP` and why.

mod parts;

use parts::{Idp, Product, Stagedoor, node, ready};

/// Through the demo's own sign-in: agent, admin, one who may not, auditor, red button (rows S1, S2, S5, S6).
#[test]
fn the_whole_story_holds_in_the_demo() {
    let Some(tools) = ready() else { return };
    let stagedoor = Stagedoor::dev();
    let product = Product::beside(&stagedoor, None);
    let env = [
        ("STAGEDOOR", stagedoor.url.as_str()),
        ("PRODUCT_PORT", &product.port),
        ("FRONT_END", &product.front_end),
    ];
    node(tools, "story.mjs", &env).finish();
}

/// With people who sign in at the company's identity provider, and the shipped policy.
#[test]
fn the_whole_story_holds_with_a_real_identity_provider() {
    let Some(tools) = ready() else { return };
    let Some((stagedoor, product, idp)) = served() else { return };
    let env = [
        ("STAGEDOOR", stagedoor.url.as_str()),
        ("PRODUCT_PORT", &product.port),
        ("AUDITOR", "auditor_1"),
        ("OFFICER", "officer_1"),
        ("IDP", &idp.issuer),
    ];
    node(tools, "story.mjs", &env).finish();
}

fn served() -> Option<(Stagedoor, Product, Idp)> {
    let port = parts::free_port();
    let idp = Idp::start(&format!("http://127.0.0.1:{port}/console/callback"))?;
    let product_port = parts::free_port();
    let stagedoor = Stagedoor::serve(port, &idp.issuer, product_port);
    let product = Product::beside(&stagedoor, Some(product_port));
    Some((stagedoor, product, idp))
}

/// "Prove it" in the auditor's browser says no where a row was changed in the database.
#[test]
fn an_auditor_notices_a_tampered_row() {
    let Some(tools) = ready() else { return };
    let stagedoor = Stagedoor::dev();
    let mut script = node(tools, "tamper.mjs", &[("STAGEDOOR", &stagedoor.url)]);
    let index = script.wait_for("TAMPER WITH ");
    stagedoor.change_row(index.parse().expect("an index"));
    script.go_on();
    script.finish();
}

/// A session that ends while somebody looks, a lost session, a stopped server: each says what to do.
#[test]
fn what_ends_says_so_and_shows_nothing_private() {
    let Some(tools) = ready() else { return };
    let shipped = include_str!("../../src/server/policy/shipped/dev.cedar");
    let mut stagedoor = Stagedoor::dev_with_policy(shipped);
    let product = Product::beside(&stagedoor, Some(parts::free_port()));
    let secret = stagedoor.client_secret();
    let env =
        [("STAGEDOOR", stagedoor.url.as_str()), ("PRODUCT_PORT", &product.port), ("CLIENT_SECRET", &secret)];
    let mut script = node(tools, "ends.mjs", &env);
    script.wait_for("DO forbid");
    let forbid = "@id(\"not-now\") forbid (principal, action == Action::\"impersonate\", resource);";
    stagedoor.set_policy(&format!("{shipped}\n{forbid}\n"));
    script.go_on();
    script.wait_for("DO permit");
    stagedoor.set_policy(shipped);
    script.go_on();
    script.wait_for("DO stop");
    stagedoor.stop();
    script.go_on();
    script.finish();
}

/// A start that needs a colleague: the agent waits, somebody else approves or refuses.
#[test]
fn a_colleague_approves_and_the_start_goes_on() {
    let Some(tools) = ready() else { return };
    let stagedoor = Stagedoor::dev_with_policy(&format!(
        "{}{}",
        "@id(\"support-changes\") @require_approval @scope(\"read write\")\n\
         permit (principal in Role::\"support\", action == Action::\"impersonate\", resource)\n\
         when { principal.known && resource.known };\n",
        include_str!("../../src/server/policy/shipped/dev.cedar")
    ));
    let product = Product::beside(&stagedoor, Some(parts::free_port()));
    let env = [("STAGEDOOR", stagedoor.url.as_str()), ("PRODUCT_PORT", &product.port)];
    node(tools, "approval.mjs", &env).finish();
}
