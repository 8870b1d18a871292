//! An HTTP server that takes what it is sent, and answers as a test wants.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::until_within;

/// How one request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// With this status, at once.
    Status(u16),
    /// With 200 and this.
    Json(&'static str),
    /// Not before [`Receiver::let_go`].
    Held,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub answer: Answer,
}

impl Delivery {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }

    pub fn taken(&self) -> bool {
        matches!(self.answer, Answer::Status(200..=299))
    }
}

#[derive(Debug, Default)]
struct State {
    came: Vec<Delivery>,
    next: VecDeque<Answer>,
    always: Option<Answer>,
}

/// The server; it ends with the test's runtime.
#[derive(Clone)]
pub struct Receiver {
    pub base: String,
    state: Arc<Mutex<State>>,
    held: Arc<watch::Sender<bool>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let held = Arc::new(watch::channel(false).0);
        let receiver = Self { base, state: Arc::default(), held };
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while serving.serve(&mut stream).await.is_some() {}
                });
            }
        });
        receiver
    }

    /// The next requests are answered so, then 204.
    pub fn answers(&self, answers: &[Answer]) {
        self.state.lock().unwrap().next.extend(answers);
    }

    /// Every request is answered so.
    pub fn always(&self, answer: Option<Answer>) {
        self.state.lock().unwrap().always = answer;
    }

    /// Answers what is held, with 204.
    pub fn let_go(&self) {
        self.held.send_replace(true);
    }

    /// Everything that came, in order.
    pub fn came(&self) -> Vec<Delivery> {
        self.state.lock().unwrap().came.clone()
    }

    /// What was taken, once it is `n` or more.
    pub async fn taken(&self, n: usize) -> Vec<Delivery> {
        let taken = || self.came().into_iter().filter(Delivery::taken).collect::<Vec<_>>();
        until_within(60, &format!("{n} events are taken"), || async { taken().len() >= n }).await;
        taken()
    }

    /// Waits until `n` requests came.
    pub async fn asked(&self, n: usize) {
        until_within(60, &format!("{n} requests come"), || async { self.came().len() >= n }).await;
    }

    async fn serve(&self, stream: &mut BufReader<TcpStream>) -> Option<()> {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let path = line.split(' ').nth(1)?.to_owned();
        let mut headers = HeaderMap::new();
        loop {
            line.clear();
            stream.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?);
        }
        let length = headers.get("content-length").map_or(0, |v| v.to_str().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let answer = {
            let mut state = self.state.lock().unwrap();
            let next = state.next.pop_front();
            let answer = next.or(state.always).unwrap_or(Answer::Status(204));
            state.came.push(Delivery { path, headers, body, answer });
            answer
        };
        let (status, text) = match answer {
            Answer::Status(status) => (status, ""),
            Answer::Json(text) => (200, text),
            Answer::Held => {
                let mut held = self.held.subscribe();
                held.wait_for(|gone| *gone).await.ok()?;
                (204, "")
            }
        };
        let length = text.len();
        let head = "content-type: application/json\r\ncontent-length";
        let text = format!("HTTP/1.1 {status} -\r\n{head}: {length}\r\n\r\n{text}");
        stream.get_mut().write_all(text.as_bytes()).await.ok()
    }
}
