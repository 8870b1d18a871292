//! A load generator: keeps a number of requests under way on keep-alive connections, in a process of the bench.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What one run saw.
#[derive(Clone, Copy)]
pub struct Load {
    /// Requests answered in a second.
    pub per_second: f64,
    /// The median.
    pub p50: Duration,
    /// All but one in a hundred were faster.
    pub p99: Duration,
}

/// When a run ends.
#[derive(Clone, Copy)]
pub enum Until {
    /// After these seconds.
    Seconds(u64),
    /// After this many requests.
    Requests(u64),
}

/// A POST of `body` with the header lines `headers` (each ended by CRLF).
pub fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends `request` again and again; anything but 200 ends the bench.
pub async fn load(address: SocketAddr, request: String, connections: usize, until: Until) -> Load {
    load_each(address, vec![request], connections, until, |_| {}).await
}

/// Sends `requests` in turn, and from the first again, and shows `seen` each answer; anything but 200 ends the bench.
pub async fn load_each(
    address: SocketAddr,
    requests: Vec<String>,
    connections: usize,
    until: Until,
    seen: impl Fn(&[u8]) + Clone + Send + Sync + 'static,
) -> Load {
    let requests: Arc<[String]> = requests.into();
    let sent = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (requests, sent, seen) = (Arc::clone(&requests), Arc::clone(&sent), seen.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("the server listens");
                stream.set_nodelay(true).expect("a TCP option");
                let (mut buffer, mut times) = (vec![0u8; 64 * 1024], Vec::new());
                let goes_on = |n: u64| match until {
                    Until::Seconds(seconds) => began.elapsed() < Duration::from_secs(seconds),
                    Until::Requests(count) => n < count,
                };
                loop {
                    let n = sent.fetch_add(1, Ordering::Relaxed);
                    if !goes_on(n) {
                        return times;
                    }
                    let request = &requests[usize::try_from(n).expect("fits") % requests.len()];
                    let asked = Instant::now();
                    stream.write_all(request.as_bytes()).await.expect("the server reads");
                    seen(answer(&mut stream, &mut buffer).await);
                    times.push(asked.elapsed());
                }
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("no panic"));
    }
    let per_second = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort_unstable();
    Load { per_second, p50: times[times.len() / 2], p99: times[times.len() * 99 / 100] }
}

/// Reads one answer whole, with a length or in chunks. Whatever this costs is taken from the server beside it, so
/// nothing is copied.
async fn answer<'b>(stream: &mut TcpStream, buffer: &'b mut [u8]) -> &'b [u8] {
    let (mut filled, mut head) = (0, None);
    loop {
        let n = stream.read(&mut buffer[filled..]).await.expect("an answer");
        assert!(n > 0, "the server closed the connection");
        filled += n;
        let text = &buffer[..filled];
        if head.is_none() {
            let ends = |at: &usize| text[*at] == b'\r' && text[*at..].starts_with(b"\r\n\r\n");
            head = (0..filled).find(ends).map(|end| (end + 4, length(&text[..end])));
        }
        let Some((body, length)) = head else { continue };
        assert!(text.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(text));
        let whole = match length {
            Some(length) => filled >= body + length,
            None => text.ends_with(b"0\r\n\r\n"),
        };
        if whole {
            return &buffer[body..filled];
        }
    }
}

/// `Content-Length` of an answer's head.
fn length(head: &[u8]) -> Option<usize> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(b"content-length:".len())?;
        let value = name.eq_ignore_ascii_case(b"content-length:").then_some(value)?;
        std::str::from_utf8(value).ok()?.trim().parse().ok()
    })
}
