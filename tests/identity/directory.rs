//! The directory against a real SCIM server, and against one that lies.

use std::sync::Arc;

use serde_json::{Value, json};
use stagedoor::server::directory::{
    BearerToken, Cached, Directory, DirectoryConfig, DirectoryError, IdAttribute, ScimConfig,
};
use stagedoor::server::outbound::OutboundError;
use stagedoor::server::policy::Person;
use stagedoor::token::{Clock as _, Sub};

use super::faulty::{Asked, Faulty, http, json};
use super::parts::{PushedClock, Scim, outbound};

pub fn sub(text: &str) -> Sub {
    Sub::try_from(text).unwrap()
}

fn open_with(url: &str, change: impl FnOnce(&mut ScimConfig)) -> (Arc<PushedClock>, Directory) {
    let token = BearerToken::Text("scim-secret".to_owned().into());
    let mut config = ScimConfig { url: url.into(), token, cache_seconds: 60, id_attribute: IdAttribute::Id };
    change(&mut config);
    let clock = PushedClock::new();
    let shared: Arc<dyn stagedoor::token::Clock> = Arc::<PushedClock>::clone(&clock);
    let directory = Directory::open(DirectoryConfig::Scim(config), &outbound(&[url]), shared).unwrap();
    (clock, directory)
}

pub fn open(url: &str) -> (Arc<PushedClock>, Directory) {
    open_with(url, |_| {})
}

#[tokio::test]
async fn people_of_a_real_scim_server_are_read_with_all_they_are() {
    let Some(scim) = Scim::start() else { return };
    let (_, directory) = open(scim.url());
    let get = |id: &str| {
        let (directory, id) = (&directory, sub(id));
        async move { directory.look_up(&id).await }
    };
    let mary = Person {
        id: Some(sub("user_42")),
        display_name: Some("Person user_42".into()),
        active: true,
        roles: vec!["customer".into()],
        org: Some("acme".into()),
        ..Person::default()
    };
    assert_eq!(get("user_42").await, Ok(Some(mary)));
    assert!(!get("user_13").await.unwrap().unwrap().active);
    assert_eq!(
        get("user_99").await.unwrap().unwrap().roles,
        ["customer", "protected"],
        "shown names are no roles"
    );
    let consenting = get("user_50").await.unwrap().unwrap();
    assert_eq!(consenting.consent_until, Some("2030-01-31T12:00:00Z".parse().unwrap()));
    assert!(consenting.opted_out);
    // One path segment, whatever the id holds.
    assert_eq!(get("a/b?c#d").await.unwrap().unwrap().id, Some(sub("a/b?c#d")));
    for nobody in ["nobody", "../Users/user_42", "user_42?x", "..", ".", "user_42/", "USER_42"] {
        assert_eq!(get(nobody).await, Ok(None), "{nobody}");
    }
}

#[tokio::test]
async fn an_answer_is_kept_as_long_as_stated_and_a_nobody_shorter() {
    let Some(scim) = Scim::start() else { return };
    let (clock, directory) = open(scim.url());
    let (known, unknown) = (sub("user_42"), sub("nobody"));
    assert_eq!(directory.cached(&known), Cached::NotAsked);
    assert_eq!(scim.count().await, 0, "cached asks nobody");
    for _ in 0..5 {
        assert!(directory.look_up(&known).await.unwrap().unwrap().active);
        assert_eq!(directory.look_up(&unknown).await, Ok(None));
    }
    assert_eq!(scim.count().await, 2);
    assert!(matches!(directory.cached(&known), Cached::Known(_)));
    assert_eq!(directory.cached(&unknown), Cached::NotThere);

    scim.control("set?id=user_42&active=0").await;
    clock.push(11);
    assert_eq!(directory.cached(&unknown), Cached::NotAsked, "a nobody is believed 10 s");
    assert!(directory.look_up(&known).await.unwrap().unwrap().active, "still the first answer");
    clock.push(50);
    assert!(!directory.look_up(&known).await.unwrap().unwrap().active, "older than a minute: asked again");
    assert_eq!(scim.count().await, 3);

    let (clock, uncached) = open_with(scim.url(), |c| c.cache_seconds = 0);
    for _ in 0..2 {
        uncached.look_up(&known).await.unwrap();
    }
    assert_eq!(scim.count().await, 5, "asked every time");
    assert!(
        matches!(uncached.cached(&known), Cached::Known(_)),
        "what was seen a moment ago can be explained"
    );
    clock.push(11);
    assert_eq!(uncached.cached(&known), Cached::NotAsked);
}

#[tokio::test]
async fn fifty_askers_make_one_question() {
    let Some(scim) = Scim::start() else { return };
    let (_, directory) = open(scim.url());
    scim.control("slow?ms=300").await;
    let id = sub("user_42");
    let all = futures_util::future::join_all((0..50).map(|_| directory.look_up(&id))).await;
    assert!(all.iter().all(|got| matches!(got, Ok(Some(_)))));
    assert_eq!(scim.count().await, 1);
    // One who gives up does not take the question with him.
    let (_, directory) = open(scim.url());
    let impatient = tokio::time::timeout(std::time::Duration::from_millis(50), directory.look_up(&id));
    let (gone, stayed) = tokio::join!(impatient, directory.look_up(&id));
    assert!(gone.is_err() && matches!(stayed, Ok(Some(_))));
}

#[tokio::test]
async fn people_are_found_by_other_attributes_and_by_name() {
    let Some(scim) = Scim::start() else { return };
    let (_, by_name) = open_with(scim.url(), |c| c.id_attribute = IdAttribute::UserName);
    let (_, by_external) = open_with(scim.url(), |c| c.id_attribute = IdAttribute::ExternalId);
    let found = by_name.look_up(&sub("user_42@acme.example")).await.unwrap().unwrap();
    assert_eq!(found.id, Some(sub("user_42@acme.example")));
    assert_eq!(by_external.look_up(&sub("ext-user_42")).await.unwrap().unwrap().id, Some(sub("ext-user_42")));
    // Names are compared without case there, ids byte for byte here.
    for nobody in ["USER_42@acme.example", "nobody", "' or userName pr", "x) or (userName pr"] {
        assert_eq!(by_name.look_up(&sub(nobody)).await, Ok(None), "{nobody}");
    }
    // This server does not read the escapes of RFC 7644 §3.4.2.2 and answers 400: then nothing is known.
    for injection in ["x\" or userName pr or userName eq \"x", "\\\" or userName pr"] {
        assert_eq!(by_name.look_up(&sub(injection)).await, Err(DirectoryError::Unavailable { status: 400 }));
    }
    let (_, directory) = open(scim.url());
    let people = directory.search("ser_4", 10).await.unwrap();
    assert_eq!(people.iter().map(|p| p.id.clone().unwrap()).collect::<Vec<_>>(), [sub("user_42")]);
    assert!(directory.search("user", 2).await.unwrap().len() <= 2);
    assert!(
        !matches!(directory.search("x\" or userName pr or userName eq \"x", 10).await, Ok(found) if !found.is_empty())
    );
}

#[tokio::test]
async fn a_scim_server_that_cannot_be_asked_is_an_error_and_never_a_nobody() {
    let Some(scim) = Scim::start() else { return };
    let id = sub("user_42");
    let (_, wrong_token) = open_with(scim.url(), |c| c.token = BearerToken::Text("other".to_owned().into()));
    assert_eq!(wrong_token.look_up(&id).await, Err(DirectoryError::Refused { status: 401 }));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "scim-secret\n").unwrap();
    let (_, from_file) =
        open_with(scim.url(), |c| (c.token, c.cache_seconds) = (BearerToken::File(path.clone()), 0));
    assert!(from_file.look_up(&id).await.unwrap().is_some());
    std::fs::write(&path, "rotated").unwrap();
    assert_eq!(
        from_file.look_up(&id).await,
        Err(DirectoryError::Refused { status: 401 }),
        "read for every call"
    );

    scim.control("slow?ms=20000").await;
    let (clock, slow) = open(scim.url());
    let began = clock.monotonic();
    let got = slow.look_up(&id).await;
    assert!(matches!(got, Err(DirectoryError::Unreachable(OutboundError::Timeout { .. }))), "{got:?}");
    assert!(clock.monotonic().saturating_sub(began).as_secs() < 5);
    assert_eq!(slow.cached(&id), Cached::NotAsked, "a failure is not remembered as an answer");
}

pub fn user(id: &str) -> Value {
    json!({ "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "id": id, "userName": "n", "active": true })
}

pub fn list(resources: &[Value]) -> Value {
    let schema = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
    json!({ "schemas": [schema], "totalResults": resources.len(), "Resources": resources })
}

#[tokio::test]
async fn a_scim_server_that_lies_is_not_believed() {
    let server = Faulty::start(|_| Vec::new()).await;
    let without = |name: &str| {
        let mut user = user("user_42");
        user.as_object_mut().unwrap().remove(name);
        user
    };
    let with = |name: &str, value: Value| {
        let mut user = user("user_42");
        user[name] = value;
        user
    };
    let malformed = |what| DirectoryError::Malformed(what);
    let not_user = || malformed("it is not a user resource");
    let base = server.base.clone();
    let redirect =
        format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {base}/x\r\nContent-Length: 0\r\n\r\n");
    let host = || "127.0.0.1".to_owned();
    let twice = user("user_42").to_string().replacen('{', "{\"id\":\"user_1\",", 1);
    let rows: Vec<(&str, Vec<u8>, DirectoryError)> = vec![
        ("another person", json(&user("user_43")), DirectoryError::WrongPerson),
        ("another case", json(&user("USER_42")), DirectoryError::WrongPerson),
        ("white space", json(&user("user_42 ")), DirectoryError::WrongPerson),
        ("no id", json(&without("id")), malformed("the person has no id")),
        ("no schemas", json(&without("schemas")), not_user()),
        (
            "a group",
            json(&with("schemas", json!(["urn:ietf:params:scim:schemas:core:2.0:Group"]))),
            not_user(),
        ),
        ("id twice", http("200 OK", "application/scim+json", twice), not_user()),
        ("id a number", json(&with("id", json!(42))), not_user()),
        ("active a text", json(&with("active", json!("true"))), not_user()),
        ("a list", json(&list(&[user("user_42")])), not_user()),
        (
            "roles without end",
            json(&with("roles", json!((0..1001).map(|n| n.to_string()).collect::<Vec<_>>()))),
            malformed("too many roles or groups"),
        ),
        ("html", http("200 OK", "text/html", "<html>"), malformed("it is not JSON")),
        ("cut off", http("200 OK", "application/scim+json", "{\"schemas\":"), not_user()),
        (
            "no content",
            http("204 No Content", "application/scim+json", ""),
            DirectoryError::Unavailable { status: 204 },
        ),
        (
            "too many requests",
            http("429 Too Many", "application/json", "{}"),
            DirectoryError::Unavailable { status: 429 },
        ),
        ("broken", http("500 Oops", "application/json", "{}"), DirectoryError::Unavailable { status: 500 }),
        ("forbidden", http("403 No", "application/json", "{}"), DirectoryError::Refused { status: 403 }),
        (
            "redirect loop",
            redirect.into(),
            DirectoryError::Unreachable(OutboundError::Redirect { host: host() }),
        ),
        (
            "10 MB",
            http("200 OK", "application/scim+json", vec![b' '; 10 * 1024 * 1024]),
            DirectoryError::Unreachable(OutboundError::TooLarge { host: host() }),
        ),
    ];
    for (name, answer, want) in rows {
        server.answer_with(move |_: &Asked| answer.clone());
        let (_, directory) = open(&server.base);
        assert_eq!(directory.look_up(&sub("user_42")).await, Err(want), "{name}");
        assert_eq!(directory.cached(&sub("user_42")), Cached::NotAsked, "{name}: not remembered");
    }
    // Who does not say that somebody is active has nobody active.
    server.answer_with(move |_| json(&without("active")));
    let (_, directory) = open(&server.base);
    assert!(!directory.look_up(&sub("user_42")).await.unwrap().unwrap().active);
}

#[tokio::test]
async fn a_filter_travels_in_a_body_and_its_answer_is_checked() {
    let server = Faulty::start(|_| Vec::new()).await;
    let named = |name: &str| {
        let mut user = user("x");
        user["userName"] = json!(name);
        user
    };
    let secret_name = "needle\"@acme.example";
    let rows = [
        (list(&[]), Ok(None)),
        (list(&[named("somebody else")]), Err(DirectoryError::WrongPerson)),
        (
            list(&[named(secret_name), named(secret_name)]),
            Err(DirectoryError::Malformed("more than one person for an id")),
        ),
        (
            json!({ "schemas": [], "totalResults": 0 }),
            Err(DirectoryError::Malformed("it is not a list response")),
        ),
        (user("x"), Err(DirectoryError::Malformed("it is not a list response"))),
    ];
    for (answer, want) in rows {
        let shown = answer.to_string();
        server.answer_with(move |_: &Asked| json(&answer));
        let (_, directory) = open_with(&server.base, |c| c.id_attribute = IdAttribute::UserName);
        let got = directory.look_up(&sub(secret_name)).await.map(|found| found.map(|p| p.id));
        assert_eq!(got, want, "{shown}");
    }
    for asked in server.asked() {
        assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/Users/.search"));
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        assert_eq!(body["filter"], r#"userName eq "needle\"@acme.example""#);
    }
}
