//! What cannot be as it was asked for, and what is said of it.

use std::process::Stdio;

use super::{Place, text};

/// Standard error of `serve`, which is stopped once it listens.
fn said_by_serve(place: &Place, setting: Option<(&str, &str)>) -> String {
    use std::io::BufRead as _;
    let mut command = place.command(&["serve"]);
    command.env("STAGEDOOR_LISTEN", "127.0.0.1:0").envs(setting);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    text(&child.wait_with_output().unwrap().stderr)
}

/// contract.md §2: PostgreSQL without `LOG_MAX_BYTES` is a warning and no promise.
#[test]
fn serve_warns_of_a_log_without_a_reserve() {
    for place in Place::on_both_databases() {
        let postgres = place.environment.iter().any(|(name, _)| *name == "STAGEDOOR_DATABASE_URL");
        let warnings = said_by_serve(&place, None).matches("LOG_MAX_BYTES is not set").count();
        assert_eq!(warnings, usize::from(postgres));
        if postgres {
            let said = said_by_serve(&place, Some(("STAGEDOOR_LOG_MAX_BYTES", "1000000000")));
            assert!(!said.contains("LOG_MAX_BYTES"), "{said}");
        }
    }
}

#[test]
fn a_database_that_lets_nobody_in_is_named_without_the_password() {
    let mut place = Place::initialised();
    place.environment = vec![("STAGEDOOR_DATABASE_URL", "postgres://app:sesame@127.0.0.1:1/x".to_owned())];
    let error = place.fails(&["serve"], 1);
    assert!(error.contains("PostgreSQL at 127.0.0.1:1 does not answer; check that it runs"), "{error}");
    assert!(error.contains("refused") && !error.contains("sesame"), "{error}");
    for mut place in Place::on_both_databases() {
        let url = place.environment.iter_mut().find(|(name, _)| *name == "STAGEDOOR_DATABASE_URL");
        let Some((_, url)) = url else { continue };
        let (_, rest) = url.split_once("service").unwrap();
        *url = format!("postgres://nobody{rest}");
        for arguments in [&["serve"][..], &["client", "list"]] {
            let error = place.fails(arguments, 1);
            assert!(error.contains("does not let the role \"nobody"), "{error}");
            assert_eq!(error.matches("does not exist").count(), 1, "{error}");
        }
    }
}

#[test]
fn a_log_level_that_would_silence_the_log_is_refused() {
    let place = Place::initialised();
    let output = place.command(&["serve"]).env("STAGEDOOR_LOG_LEVEL", "inof").output().unwrap();
    let error = text(&output.stderr);
    assert!(error.contains("`log_level` is no filter (\"inof\"); write a level"), "{error}");
}

#[test]
fn a_client_that_can_mint_nothing_is_made_with_a_warning() {
    let place = Place::initialised();
    let create = |more: &[&str]| {
        let all = [&["client", "create", "--scopes", "actor_tokens:issue"], more].concat();
        let output = place.run(&all);
        assert!(output.status.success());
        text(&output.stderr)
    };
    assert!(create(&[]).starts_with("warning: the client has no audiences"));
    assert_eq!(create(&["--audience", "https://a.example"]), "");
    assert_eq!(create(&["--profile", "clerk", "--origin", "https://app.example.com"]), "");
}

#[test]
fn a_name_in_use_is_refused() {
    let place = Place::initialised();
    let (id, _) = place.create_client();
    let create = ["client", "create", "--name", "backend", "--scopes", "tokens:verify"];
    let error = place.fails(&create, 1);
    assert!(error.contains(&id) && error.contains("choose another"), "{error}");
    let other = place.json(&["client", "create", "--name", "other", "--scopes", "tokens:verify"]);
    let other = other["client_id"].as_str().unwrap();
    place.fails(&["client", "update", other, "--name", "backend"], 1);
    place.ok(&["client", "update", &id, "--name", "backend"]);
    place.ok(&["client", "disable", &id]);
    place.ok(&create);
}

/// The file with the demo client's secret was deleted, and its database stayed.
#[test]
fn dev_without_its_secret_file_gives_its_client_a_new_secret() {
    let place = Place::new();
    place.ok(&["dev", "--once"]);
    std::fs::remove_file(place.path().join(".stagedoor/dev-client.json")).unwrap();
    place.ok(&["dev", "--once"]);
    assert_eq!(place.json(&["client", "list"])["clients"].as_array().unwrap().len(), 1);
}

#[test]
fn options_and_places_that_are_not_there_are_said_to_be() {
    let place = Place::initialised();
    let error = place.fails(&["audit", "verify", "--dir", "/nope"], 2);
    assert!(error.contains("--dir /nope is no directory that is there"), "{error}");
    for more in [&[][..], &["--alg", "RS256"]] {
        let error = place.fails(&[&["key", "rotate", "--purpose", "clerk:client_zz"], more].concat(), 1);
        assert!(error.contains("there is no client client_zz") && !error.contains("init"), "{error}");
    }
    let erase = ["audit", "erase", "--subject", "user_42"];
    for more in [["--basis", "art-17"], ["--iss", "https://a.example"]] {
        let output = place.run(&[&erase[..], &more].concat());
        let error = text(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains("cannot be used with"), "{error}");
    }
}

#[test]
fn dev_says_that_it_listens_on_loopback_only() {
    let place = Place::new();
    let output = place.command(&["dev"]).env("STAGEDOOR_LISTEN", "0.0.0.0:0").output().unwrap();
    let error = text(&output.stderr);
    assert!(error.contains("`stagedoor dev` listens on loopback only, not on 0.0.0.0:0"), "{error}");
}

/// A token that is looked at may be anybody's: it is sent where somebody says, not where a configuration listens.
#[test]
fn a_token_is_inspected_by_a_server_that_is_named_only() {
    let place = Place::initialised();
    let inspect = ["token", "inspect", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0.AA"];
    let said = place.command(&inspect).env("STAGEDOOR_CLIENT_SECRET", "sk_live_0").output().unwrap();
    assert!(text(&said.stdout).contains("not verified") && said.status.success());
    let help = place.ok(&["token", "inspect", "--help"]);
    assert!(help.contains("STAGEDOOR_URL") && !help.contains("has it listen"), "{help}");
}
