//! Told to stop, once or again and again: what was begun is finished.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{Place, text};

fn send(child: &Child, signal: &str) {
    let _ = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
}

/// `serve`, once it listens.
fn start(place: &Place) -> (Child, String) {
    let mut command = place.command(&["serve"]);
    command.env("STAGEDOOR_LISTEN", "127.0.0.1:0").stderr(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().strip_prefix("listening on http://").unwrap().to_owned())
}

/// Waits for the end, and sends the signal again until then.
fn end(mut child: Child, signal: &str) -> ExitStatus {
    for _ in 0..2000 {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        send(&child, signal);
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    panic!("it does not stop");
}

fn stops_in_the_log(place: &Place) -> usize {
    let out = place.path().join("log");
    let _ = std::fs::remove_file(&out);
    place.ok(&["audit", "export", "--format", "ndjson", "--out", "log"]);
    std::fs::read_to_string(out).unwrap().matches(r#""typ":"stop""#).count()
}

#[test]
fn a_second_signal_cuts_nothing_off() {
    let place = Place::initialised();
    for (n, (first, second)) in
        [("-TERM", "-TERM"), ("-INT", "-INT"), ("-TERM", "-INT")].into_iter().enumerate()
    {
        let (child, address) = start(&place);
        let mut request = TcpStream::connect(&address).unwrap();
        write!(request, "POST /oauth/token HTTP/1.1\r\nhost: {address}\r\ncontent-length: 4\r\n\r\na=")
            .unwrap();
        std::thread::sleep(Duration::from_millis(300));
        send(&child, first);
        std::thread::sleep(Duration::from_millis(300));
        send(&child, second);
        std::thread::sleep(Duration::from_millis(300));
        request.write_all(b"bc").unwrap();
        let mut answer = Vec::new();
        request.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 4"), "{first} {second}: {}", text(&answer));
        assert!(end(child, second).success(), "{first} {second}");
        assert_eq!(stops_in_the_log(&place), n + 1, "{first} {second}");
    }
}

/// Whoever has read the line may stop it, and the log hears of that.
#[test]
fn told_to_stop_as_soon_as_it_listens_it_stops_in_good_order() {
    let place = Place::initialised();
    for n in 1..=5 {
        let (child, _) = start(&place);
        assert!(end(child, "-TERM").success(), "start {n}");
        assert_eq!(stops_in_the_log(&place), n);
    }
}
