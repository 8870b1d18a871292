//! A server that does what no real one can be made to do: lies, floods, redirects in circles.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

type Answer = dyn Fn(&Asked) -> Vec<u8> + Send + Sync;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub body: String,
}

pub struct Faulty {
    pub base: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<Mutex<Arc<Answer>>>,
}

impl Faulty {
    pub async fn start(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let answer: Arc<Mutex<Arc<Answer>>> = Arc::new(Mutex::new(Arc::new(answer)));
        let (seen, current) = (Arc::clone(&asked), Arc::clone(&answer));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, current) = (Arc::clone(&seen), Arc::clone(&current));
                tokio::spawn(async move {
                    let Some(request) = read_request(&mut stream).await else { return };
                    let answer = Arc::clone(&current.lock().expect("the lock"));
                    let bytes = answer(&request);
                    seen.lock().expect("the lock").push(request);
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { base, asked, answer }
    }

    pub fn answer_with(&self, answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) {
        *self.answer.lock().expect("the lock") = Arc::new(answer);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("the lock").clone()
    }
}

async fn read_request(stream: &mut tokio::net::TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0u8; 4096];
        let n = stream.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
        });
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        let mut words = head.split(' ').map(str::to_owned);
        return Some(Asked { method: words.next()?, target: words.next()?, body: body.to_owned() });
    }
}

/// An answer with a status line's rest, a media type and a body.
pub fn http(status: &str, content_type: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub fn json(body: &serde_json::Value) -> Vec<u8> {
    http("200 OK", "application/scim+json", body.to_string())
}
