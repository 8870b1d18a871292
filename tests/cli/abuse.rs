//! What a hostile network does to the real binary: pipelines without end, connections that come and go, and sockets
//! whose other half is gone. Each is bounded, and others are served meanwhile.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::{Place, Server, get};

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sockets and files the server holds.
fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count()
}

fn is_served(server: &Server) {
    let answer = get(server.url.strip_prefix("http://").unwrap(), "/healthz");
    assert!(answer.contains("ok"), "{answer}");
}

/// Waits until the server has let go of all but `kept` of its descriptors.
fn wait_for_descriptors(server: &Server, kept: usize) {
    for _ in 0..400 {
        if descriptors(server) <= kept {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{} descriptors are open, {kept} were before", descriptors(server));
}

#[test]
fn a_pipeline_without_end_is_answered_in_order_and_held_back() {
    let place = Place::initialised();
    let server = Server::start(&place);
    // a long answer fills what lies between the two soon
    let request = "GET /openapi.yaml HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000);
    let stream = connect(&server);
    // nobody reads the answers: the server stops reading questions, and does not keep them all in memory
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut sent, mut writer) = (0, stream.try_clone().unwrap());
    let most = 64 << 20;
    while sent < most {
        match writer.write(&request.as_bytes()[sent % request.len()..]) {
            Ok(n) => sent += n,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent < most, "everything was taken without an answer being read");
    let memory = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let resident: usize = memory
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|l| l.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap();
    assert!(resident < 300 << 10, "{resident} KiB resident after {sent} bytes of questions");
    is_served(&server);
    // whoever reads gets one answer after the other
    let mut reader = BufReader::new(stream);
    for n in 0..100 {
        let mut length = None;
        loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0, "closed after {n} answers");
            if let Some(bytes) = line.strip_prefix("content-length: ") {
                length = bytes.trim_end().parse().ok();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length.expect("a length")];
        reader.read_exact(&mut body).unwrap();
        assert!(body.starts_with(b"openapi: 3"), "answer {n} begins where the one before ends");
    }
    drop((reader, writer));
    is_served(&server);
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let place = Place::initialised();
    let server = Server::start(&place);
    is_served(&server);
    let before = descriptors(&server);
    for i in 0..2000 {
        let mut stream = connect(&server);
        match i % 4 {
            0 => {}
            1 => stream.write_all(b"GET /healthz HTTP/1.1\r\nho").unwrap(),
            2 => stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").unwrap(),
            _ => stream
                .write_all(b"POST /v1/actor_tokens HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{")
                .unwrap(),
        }
    }
    is_served(&server);
    wait_for_descriptors(&server, before + 1);
}

#[test]
fn a_socket_whose_other_half_is_gone_is_answered_and_closed() {
    let place = Place::initialised();
    let server = Server::start(&place);
    is_served(&server);
    let before = descriptors(&server);
    let mut half_open = Vec::new();
    for i in 0..200 {
        let mut stream = connect(&server);
        let question: &[u8] = if i % 2 == 0 {
            b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
        } else {
            b"GET /healthz HTTP/1.1\r\n"
        };
        stream.write_all(question).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        half_open.push(stream);
    }
    is_served(&server);
    // each is closed from the other side too, although nobody here closes it
    for stream in &mut half_open {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    wait_for_descriptors(&server, before + 1);
    drop(half_open);
}
