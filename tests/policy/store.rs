//! Reloading while the server runs: the old policy stays until a valid new one takes its place.

use serde_json::json;
use stagedoor::server::policy::{Policy, PolicyError, PolicyStore, Reload};

use crate::support::{ask, denied_by, granted};

const ALL: &str = "@id(\"all\") permit (principal, action, resource);";
const NONE: &str = "@id(\"none\") @message(\"Closed.\") forbid (principal, action, resource);\n@id(\"all\") permit (principal, action, resource);";

#[test]
fn a_valid_change_takes_effect_and_says_what_to_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.cedar");
    std::fs::write(&path, ALL).unwrap();
    let store = PolicyStore::new(Policy::from_path(&path).unwrap());
    let before = store.current();
    assert_eq!(store.reload_from(&path).unwrap(), Reload::Unchanged);

    std::fs::write(&path, NONE).unwrap();
    let Reload::Changed { old, new } = store.reload_from(&path).unwrap() else { panic!("unchanged") };
    assert_eq!((old.as_str(), new.as_str()), (before.version(), store.current().version()));
    assert_ne!(old, new);
    assert_eq!(denied_by(ask(&store.current(), &[])), "none");
    granted(ask(&before, &[])); // who began with the old policy ends with it
    assert_eq!(store.reload_from(&path).unwrap(), Reload::Unchanged);
}

#[test]
fn an_invalid_change_leaves_the_old_policy_in_force_and_is_complained_of_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.cedar");
    std::fs::write(&path, ALL).unwrap();
    let store = PolicyStore::new(Policy::from_path(&path).unwrap());
    let version = store.current().version().to_owned();

    std::fs::write(
        &path,
        format!("{ALL}\n@id(\"b\") forbid (principal, action, resource) when {{ nonsense }};"),
    )
    .unwrap();
    let Err(PolicyError::Invalid(problems)) = store.reload_from(&path) else { panic!("loaded") };
    assert_eq!(problems[0].line, Some(2));
    assert_eq!(store.current().version(), version);
    assert_eq!(store.reload_from(&path).unwrap(), Reload::Unchanged);

    // an empty file is no policy, and least of all one that permits
    std::fs::write(&path, "").unwrap();
    assert!(store.reload_from(&path).is_err());
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(store.reload_from(&path), Err(PolicyError::Unreadable { .. })));
    assert_eq!(store.current().version(), version);
    granted(ask(&store.current(), &[]));

    std::fs::write(&path, NONE).unwrap();
    assert!(matches!(store.reload_from(&path), Ok(Reload::Changed { .. })));
    std::fs::write(&path, ALL).unwrap();
    assert!(matches!(store.reload_from(&path), Ok(Reload::Changed { .. })));
}

#[test]
fn a_file_added_to_a_directory_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("10.cedar"), ALL).unwrap();
    let store = PolicyStore::new(Policy::from_path(dir.path()).unwrap());
    let vip = "@id(\"vip\") forbid (principal, action, resource in Role::\"user\");";
    std::fs::write(dir.path().join("20.cedar"), vip).unwrap();
    assert!(matches!(store.reload_from(dir.path()), Ok(Reload::Changed { .. })));
    assert_eq!(denied_by(ask(&store.current(), &[("/target/directory/roles", json!(["user"]))])), "vip");
}

#[test]
fn deciding_while_reloading_sees_one_policy_or_the_other_and_never_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.cedar");
    std::fs::write(&path, ALL).unwrap();
    let store = PolicyStore::new(Policy::from_path(&path).unwrap());
    std::thread::scope(|scope| {
        let deciders: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    (0..300).map(|_| ask(&store.current(), &[]).rule().to_owned()).collect::<Vec<_>>()
                })
            })
            .collect();
        for text in [NONE, ALL].iter().cycle().take(20) {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(store.reload_from(&path), Ok(Reload::Changed { .. })));
        }
        for decider in deciders {
            assert!(decider.join().unwrap().iter().all(|rule| rule == "all" || rule == "none"));
        }
    });
}
