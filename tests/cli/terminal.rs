//! At a terminal: questions, colours, widths, the growing log; and none of that where there is no terminal.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;

use serde_json::Value;

use super::{Place, Server, text};

pub(super) const POLICY: &str = r#"
@id("desk")
@client("desk")
@asserted("allow")
@unknown("actor target")
@scope("read")
permit (principal, action == Action::"impersonate", resource)
when { principal.assurance == "asserted" };
"#;

/// A server with a policy that lets the client `desk` mint, and that client's secret.
struct Desk {
    place: Place,
    server: Server,
    secret: String,
}

impl Desk {
    fn open() -> Self {
        let place = Place::initialised();
        std::fs::write(place.path().join("policy.cedar"), POLICY).unwrap();
        std::fs::write(place.path().join("stagedoor.toml"), "[policy]\npath = \"policy.cedar\"\n").unwrap();
        let secret = minter(&place);
        let server = Server::start(&place);
        Self { place, server, secret }
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let all: Vec<&str> = arguments.iter().copied().chain(["--url", &self.server.url]).collect();
        let mut command = self.place.command(&all);
        command.env("STAGEDOOR_CLIENT_SECRET", &self.secret);
        command
    }

    fn mint(&self, actor: &str, reason: &str) {
        let minted = self
            .command(&["token", "mint", "--user", "user_42", "--actor", actor, "--reason", reason])
            .output()
            .unwrap();
        assert!(minted.status.success(), "{}", text(&minted.stderr));
    }
}

/// The secret of a new client `desk`.
pub(super) fn minter(place: &Place) -> String {
    let scopes = "actor_tokens:issue,actor_tokens:assert_actor,audit:read,audit:read_personal";
    let made = place.json(&[
        "client",
        "create",
        "--name",
        "desk",
        "--scopes",
        scopes,
        "--audience",
        "https://api.example.com",
        "--may-assert",
        "*",
    ]);
    made["client_secret"].as_str().unwrap().to_owned()
}

/// What a person sees at a terminal of `columns`, who waits for each question and types the answer to it.
fn at_a_terminal(
    place: &Place,
    arguments: &[&str],
    environment: &[(&str, &str)],
    columns: u16,
    dialogue: &[(&str, &str)],
) -> (String, bool) {
    let words: Vec<String> = arguments.iter().map(|a| format!("'{a}'")).collect();
    let line = format!("stty cols {columns}; exec {} {}", env!("CARGO_BIN_EXE_stagedoor"), words.join(" "));
    let mut child = std::process::Command::new("timeout")
        .args(["60", "script", "-qec", &line, "/dev/null"])
        .current_dir(place.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", "xterm")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = Vec::new();
    for (question, answer) in dialogue {
        let mut byte = [0];
        while !text_so_far(&seen).ends_with(question) {
            assert_eq!(screen.read(&mut byte).unwrap(), 1, "{question:?} never came: {}", text_so_far(&seen));
            seen.push(byte[0]);
        }
        keys.write_all(answer.as_bytes()).unwrap();
    }
    screen.read_to_end(&mut seen).unwrap();
    (text_so_far(&seen), child.wait().unwrap().success())
}

fn text_so_far(seen: &[u8]) -> String {
    String::from_utf8_lossy(seen).into_owned()
}

#[test]
fn a_person_is_asked_for_what_is_missing_and_the_secret_is_not_shown() {
    let desk = Desk::open();
    let arguments = ["token", "mint", "--url", &desk.server.url];
    let secret = format!("{}\n", desk.secret);
    let dialogue = [
        ("Act as which user: ", "\n"),
        ("Act as which user: ", "user_42\n"),
        ("Who acts: ", "admin_7\n"),
        ("Why (the log keeps it): ", "Ticket 4711: invoice missing\n"),
        ("Client secret (not shown): ", secret.as_str()),
    ];
    let (seen, success) = at_a_terminal(&desk.place, &arguments, &[], 80, &dialogue);
    assert!(success, "{seen}");
    assert!(seen.contains("actor     admin_7 (asserted)") && seen.contains("\u{1b}[32mminted"), "{seen}");
    assert!(!seen.contains(&desk.secret), "the secret stands on the screen");
    // who gives everything is asked nothing, and colours can be forbidden
    let arguments =
        ["token", "mint", "--url", &desk.server.url, "--user", "u", "--actor", "a", "--reason", "Drill"];
    let environment = [("NO_COLOR", "1"), ("STAGEDOOR_CLIENT_SECRET", desk.secret.as_str())];
    let (seen, success) = at_a_terminal(&desk.place, &arguments, &environment, 80, &[]);
    assert!(success && seen.starts_with("minted\r\n") && !seen.contains('\u{1b}'), "{seen:?}");
}

#[test]
fn a_script_is_never_asked() {
    let desk = Desk::open();
    for (arguments, missing) in [
        (&["token", "mint"][..], "--user is missing"),
        (&["token", "mint", "--user", "u"], "--actor is missing"),
    ] {
        let output = desk.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(missing), "{}", text(&output.stderr));
    }
}

#[test]
fn the_log_is_followed_as_it_grows_each_entry_once() {
    let desk = Desk::open();
    let mut tail = desk
        .command(&["log", "tail", "-n", "5", "--type", "issue", "--people", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    for n in 0..3 {
        desk.mint("admin_7", &format!("Call {n}"));
        let row: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(row["personal"]["reason"], format!("Call {n}"));
        assert_eq!(row["body"]["typ"], "issue");
        seen.push(row["index"].as_u64().unwrap());
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert!(lines.next().is_none(), "each entry once");
    assert!(seen.windows(2).all(|w| w[0] < w[1]), "{seen:?}");
}

#[test]
fn following_people_does_not_feed_on_its_own_entries() {
    let desk = Desk::open();
    desk.mint("admin_6", "A call");
    let mut tail = desk
        .command(&["token", "log", "tail", "-n", "5", "--people", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    // the first look at people, and each later one, is an entry; the look at that entry names nobody, so
    // nothing follows it but what others do
    for actor in ["admin_7", "admin_8"] {
        while next()["body"]["typ"] != "view" {}
        desk.mint(actor, "Another call");
        let row = next();
        assert_eq!((&row["body"]["typ"], &row["personal"]["act"]["sub"]), (&"issue".into(), &actor.into()));
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn entries_are_one_line_each_that_no_name_in_them_can_break() {
    let desk = Desk::open();
    let hostile = "\u{202e}drowssap <b>日本</b> 🙂 ".repeat(4);
    desk.mint("admin_7", &hostile);
    let filters = ["log", "tail", "--no-follow", "--people", "--decision", "granted", "--actor", "admin_7"];
    let piped = text(&desk.command(&filters).output().unwrap().stdout);
    assert_eq!(piped.lines().count(), 1, "{piped}");
    assert!(piped.contains("admin_7 as user_42") && piped.contains("\\u{202e}drowssap <b>日本"), "{piped}");
    assert!(!piped.contains('\u{202e}'), "nothing the terminal would obey");
    let with_url: Vec<&str> = filters.iter().copied().chain(["--url", &desk.server.url]).collect();
    let environment = [("STAGEDOOR_CLIENT_SECRET", desk.secret.as_str())];
    let (seen, success) = at_a_terminal(&desk.place, &with_url, &environment, 72, &[]);
    assert!(success, "{seen}");
    assert!(seen.contains("\u{1b}[32mgranted\u{1b}[0m"), "{seen:?}");
    for line in seen.lines() {
        let plain = line.replace("\u{1b}[32m", "").replace("\u{1b}[0m", "").replace("\u{1b}[2m", "");
        assert!(plain.chars().count() <= 72, "{line:?}");
    }
}

#[test]
fn tables_fit_the_terminal_and_lose_nothing() {
    let place = Place::initialised();
    let (id, _) = place.create_client();
    for arguments in [&["client", "list"][..], &["key", "list"]] {
        let (wide, _) = at_a_terminal(&place, arguments, &[], 240, &[]);
        let piped = place.ok(arguments);
        assert_eq!(wide.replace("\r\n", "\n"), piped, "a wide terminal shows what a pipe gets");
        let (narrow, _) = at_a_terminal(&place, arguments, &[], 72, &[]);
        assert!(narrow.lines().all(|line| line.chars().count() <= 72), "{narrow}");
        for word in piped.split_whitespace() {
            assert!(narrow.contains(word), "{word} is lost:\n{narrow}");
        }
    }
    assert!(place.ok(&["client", "list"]).contains(&id));
}

#[test]
fn shells_complete_every_command() {
    let place = Place::new();
    for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef stagedoor"), ("fish", "complete -c")] {
        let script = place.ok(&["completions", shell]);
        assert!(script.contains(mark) && script.contains("rotate-secret"), "{shell}");
    }
    std::fs::write(place.path().join("c"), place.ok(&["completions", "bash"])).unwrap();
    let asked = std::process::Command::new("bash")
        .args(["-c", r#". ./c && COMP_WORDS=(stagedoor token re) COMP_CWORD=2 && _stagedoor stagedoor re token && echo "${COMPREPLY[@]}""#])
        .current_dir(place.path())
        .output()
        .unwrap();
    assert_eq!(text(&asked.stdout), "revoke\n", "{}", text(&asked.stderr));
}
