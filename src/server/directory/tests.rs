use std::time::Duration;

use super::*;
use crate::server::outbound::OutboundConfig;
use crate::token::FixedClock;

fn sub(text: &str) -> Sub {
    Sub::try_from(text).unwrap()
}

fn open(path: &std::path::Path) -> (Arc<FixedClock>, Result<Directory, DirectoryError>) {
    let clock = Arc::new(FixedClock::at_seconds(1_800_000_000));
    let outbound = Outbound::new(&OutboundConfig::default()).unwrap();
    let config = DirectoryConfig::File { path: path.to_owned() };
    (Arc::clone(&clock), Directory::open(config, &outbound, clock))
}

/// Replaces the file as an operator's tool would: written beside and renamed.
fn replace(path: &std::path::Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn the_demo_people_are_read_with_all_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("demo.json");
    std::fs::write(&path, DEMO_PEOPLE).unwrap();
    let directory = open(&path).1.unwrap();
    let protected = directory.look_up(&sub("user_99")).await.unwrap().unwrap();
    assert_eq!(protected.id, Some(sub("user_99")));
    assert_eq!(protected.roles, ["customer", "protected"]);
    assert_eq!(protected.org.as_deref(), Some("acme"));
    assert!(protected.active);
    assert!(!directory.look_up(&sub("user_13")).await.unwrap().unwrap().active);
    for unknown in ["USER_42", "user_42 ", "user_4", "nobody"] {
        assert_eq!(directory.look_up(&sub(unknown)).await, Ok(None), "{unknown}");
        assert_eq!(directory.cached(&sub(unknown)), Cached::NotThere);
    }
}

#[tokio::test]
async fn a_csv_export_gives_the_same_people_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("people.csv");
    let text = "\u{feff}id,active,display_name,roles,groups,org,consent_until,opted_out\r\n\
        user_1,true,\"Doe, \"\"JD\"\"\nJane\",support;admin,g1,acme,2030-01-31T12:00:00Z,true\r\n\
        \r\n\
        user_2,false,,,,,,\r\n";
    std::fs::write(&path, text.replace("\nJane", " Jane")).unwrap();
    let directory = open(&path).1.unwrap();
    let person = directory.look_up(&sub("user_1")).await.unwrap().unwrap();
    assert_eq!(person.display_name.as_deref(), Some("Doe, \"JD\" Jane"));
    assert_eq!(person.roles, ["support", "admin"]);
    assert_eq!(person.consent_until, Some("2030-01-31T12:00:00Z".parse().unwrap()));
    assert!(person.active && person.opted_out);
    let plain = directory.look_up(&sub("user_2")).await.unwrap().unwrap();
    let want = Person { id: Some(sub("user_2")), ..Person::default() };
    assert_eq!(plain, want);
}

#[test]
fn a_wrong_file_is_refused_with_the_place_and_the_reason() {
    let one = r#"{"people":[{"id":"a","active":true}]}"#;
    let table = [
        ("j.json", one.replace("active", "activ"), "line 1", "unknown field `activ`"),
        ("j.json", one.replace(",\"active\":true", ""), "line 1", "missing field `active`"),
        (
            "j.json",
            one.replace("\"active\":true", "\"active\":true,\"active\":true"),
            "line 1",
            "duplicate field",
        ),
        ("j.json", one.replace("\"a\"", "\"\""), "line 1", "must not be empty"),
        ("j.json", one.replace("}]", "},{\"id\":\"a\",\"active\":true}]"), "person 2", "twice"),
        ("j.json", one.replace("true", "true,\"roles\":[\"\"]"), "person 1", "is empty"),
        ("j.json", one.replace("true", "\"true\""), "line 1", "invalid type"),
        ("j.json", "[]".into(), "line 1", ""),
        ("c.csv", "id,name\na,b\n".into(), "line 1", "unknown column"),
        ("c.csv", "id,display_name\na,b\n".into(), "line 1", "column active is missing"),
        ("c.csv", "id,id\na,b\n".into(), "line 1", "there twice"),
        ("c.csv", "id,active\na\n".into(), "line 2", "1 fields where the header has 2"),
        ("c.csv", "id,active\na,yes\n".into(), "line 2", "active must be true or false"),
        ("c.csv", "id,active\na,\n".into(), "line 2", "active must be true or false"),
        ("c.csv", "id,active\n\"a,true\n".into(), "line 2", "not closed"),
        ("c.csv", "id,active\n\"a\"b,true\n".into(), "line 2", "after a closing"),
        ("c.csv", "id,active\na\"b,true\n".into(), "line 2", "inside a field"),
        ("c.csv", "id,active\na,true\na,true\n".into(), "line 3", "twice"),
        ("c.csv", "id,active,roles\na,true,x;;y\n".into(), "line 2", "is empty"),
        ("c.csv", String::new(), "line 1", "header"),
        ("p.txt", one.into(), "name", ".json or .csv"),
    ];
    for (name, text, place, what) in table {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, &text).unwrap();
        match open(&path).1 {
            Err(DirectoryError::Invalid { place: got_place, what: got, .. }) => {
                assert!(got_place.starts_with(place) && got.contains(what), "{text}: {got_place}: {got}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    assert!(matches!(open("/nowhere/people.json".as_ref()).1, Err(DirectoryError::Unreadable { .. })));
}

#[tokio::test]
async fn a_changed_file_is_seen_within_half_a_second_and_a_wrong_one_keeps_the_old_people_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("people.json");
    replace(&path, r#"{"people":[{"id":"a","active":true}]}"#);
    let (clock, directory) = open(&path);
    let directory = directory.unwrap();
    replace(&path, r#"{"people":[{"id":"a","active":false}]}"#);
    assert!(directory.look_up(&sub("a")).await.unwrap().unwrap().active, "not looked at again yet");
    clock.advance(Duration::from_millis(500));
    assert!(!directory.look_up(&sub("a")).await.unwrap().unwrap().active);

    replace(&path, "{");
    clock.advance(Duration::from_secs(1));
    assert!(directory.look_up(&sub("a")).await.unwrap().is_some(), "the last good contents");
    std::fs::remove_file(&path).unwrap();
    clock.advance(Duration::from_secs(599));
    assert!(directory.look_up(&sub("a")).await.unwrap().is_some());
    clock.advance(Duration::from_secs(1));
    assert_eq!(directory.look_up(&sub("a")).await, Err(DirectoryError::Stale), "fail closed");
    assert_eq!(directory.cached(&sub("a")), Cached::NotAsked);

    replace(&path, r#"{"people":[{"id":"b","active":true}]}"#);
    clock.advance(Duration::from_secs(1));
    assert_eq!(directory.look_up(&sub("a")).await, Ok(None));
    assert!(directory.look_up(&sub("b")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_search_finds_by_id_and_name_and_never_more_than_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("demo.json");
    std::fs::write(&path, DEMO_PEOPLE).unwrap();
    let directory = open(&path).1.unwrap();
    let ids =
        |people: Vec<Person>| people.into_iter().filter_map(|p| p.id).map(String::from).collect::<Vec<_>>();
    assert_eq!(ids(directory.search("MARY", 10).await.unwrap()), ["user_42"]);
    assert_eq!(ids(directory.search("user_4", 10).await.unwrap()), ["user_42", "user_43"]);
    assert_eq!(ids(directory.search("acme", 1).await.unwrap()).len(), 1);
    assert_eq!(directory.search(" ", 10).await, Ok(vec![]));
    assert_eq!(directory.search(&"a".repeat(101), 10).await, Ok(vec![]));
}

#[tokio::test]
async fn without_a_directory_nobody_is_known() {
    let outbound = Outbound::new(&OutboundConfig::default()).unwrap();
    let clock = Arc::new(FixedClock::at_seconds(0));
    let directory = Directory::open(DirectoryConfig::None, &outbound, clock).unwrap();
    assert!(directory.is_none());
    assert_eq!(directory.look_up(&sub("user_42")).await, Ok(None));
}
