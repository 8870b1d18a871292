//! A thousand clients that send one byte a second (slow-loris): others are answered as before, and in the end every one
//! of the thousand is shown the door (issue 6, "Bad input").

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stagedoor::token::{Alg, Clock as _, SystemClock};

use crate::raw::ask;
use crate::stagedoor::Stagedoor;

const CLIENTS: usize = 1000;
/// The time for a head, and that between two requests. Nobody is sent away before half of it: actix counts from a clock
/// that it reads twice a second, later when its worker is busy, so that the time begins before the connection did.
const FIRST_HEAD_WITHIN: Duration = Duration::from_secs(10);
const KEPT_ALIVE: Duration = Duration::from_secs(5);
/// Ten seconds for a head or a body, fifteen before a connection that went on after its answer is ended, and a machine
/// that is busy.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// What a slow client sends at once; the rest comes byte by byte. Nobody of them has a credential.
fn begins(which: usize) -> &'static [u8] {
    match which % 5 {
        0 => b"",
        1 => b"GET /v1/forward_auth HTTP/1.1\r\nHost: service.example\r\nX-Slow: ",
        2 => b"POST /v1/actor_tokens HTTP/1.1\r\nHost: service.example\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n{",
        3 => b"GET /healthz HTTP/1.1\r\nHost: service.example\r\n\r\nGET /healthz HTTP/1.1\r\nHost: service.example\r\nX-Slow: ",
        _ => b"POST /oauth/token HTTP/1.1\r\nHost: service.example\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\ng",
    }
}

/// Whether the server has ended it. An answer on the way there may still be read.
fn is_over(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4096];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn a_thousand_slow_clients_stop_nobody_and_are_gone_in_the_end() {
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).expect("more open files");
    let stagedoor = Stagedoor::start(Alg::Es256);
    let clock = SystemClock::default();
    let mut slow: Vec<(usize, Duration, TcpStream)> = (0..CLIENTS)
        .map(|which| {
            let opened = clock.monotonic();
            let mut stream = TcpStream::connect(("127.0.0.1", stagedoor.port)).expect("it takes connections");
            stream.write_all(begins(which)).expect("it reads");
            stream.set_nonblocking(true).expect("a socket");
            (which % 5, opened, stream)
        })
        .collect();

    let token = stagedoor.subject.sign(&stagedoor.subject.header(), &stagedoor.subject.actor_claims());
    let bearer = format!("Bearer {token}");
    let mut slowest = Duration::ZERO;
    for round in 0_u32.. {
        for (kind, _, stream) in slow.iter_mut().filter(|(kind, ..)| *kind != 0) {
            // one that was told to go may be gone
            let _ = stream.write(if *kind % 2 == 1 { b"x" } else { b" " });
        }
        // while they are there
        if round < 3 {
            for _ in 0..20 {
                let began = clock.monotonic();
                let headers = [("Authorization", bearer.as_str())];
                let answer = ask(stagedoor.port, "GET", "/v1/forward_auth/orders", &headers, "");
                assert_eq!(answer.status, 200, "{answer:?}");
                slowest = slowest.max(clock.monotonic().saturating_sub(began));
            }
        }
        slow.retain_mut(|(kind, opened, stream)| {
            let over = is_over(stream);
            // read after it was found: on a machine that is busy its time may be up before all of them are there
            let had = clock.monotonic().saturating_sub(*opened);
            let may_have = if *kind == 3 { KEPT_ALIVE } else { FIRST_HEAD_WITHIN };
            assert!(!over || had >= may_have / 2, "kind {kind} was shown the door after {had:?}");
            !over
        });
        if slow.is_empty() {
            break;
        }
        assert!(clock.monotonic() < GONE_WITHIN, "{} are still there, kind {}", slow.len(), slow[0].0);
        std::thread::sleep(Duration::from_secs(1));
    }
    // who waits for one of them waits for its whole time
    assert!(slowest < KEPT_ALIVE, "somebody waited {slowest:?}");
}
