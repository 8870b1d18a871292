//! Callers who mint, redeem, revoke, retry and are denied, and who write down what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::book::{Heard, Keyed, Released};
use crate::rng::Rng;

pub const MINT: &str = "/v1/actor_tokens";
pub const REDEEM: &str = "/v1/actor_tokens/redeem";

/// Load that goes on until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Heard>>,
}

/// What a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Minting, redeeming, revoking, retrying, and being denied.
    All,
    /// Minting alone.
    Mints,
}

impl Load {
    /// `callers` of their own, spread over the replicas.
    pub fn start(bases: &[String], secret: &str, callers: usize, mix: Mix, rng: &mut Rng) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..callers).map(|n| {
            let seed = rng.next();
            let caller = Caller {
                http: client(),
                base: bases[n % bases.len()].clone(),
                secret: secret.to_owned(),
                name: format!("{seed:x}"),
                rng: Rng::new(seed),
                mine: Vec::new(),
                heard: Heard::default(),
                stop: Arc::clone(&stop),
            };
            tokio::spawn(caller.call(mix))
        });
        Self { tasks: tasks.collect(), stop }
    }

    /// Lets calls under way finish; what was heard.
    pub async fn stop(self) -> Heard {
        self.stop.store(true, Ordering::SeqCst);
        let mut heard = Heard::default();
        for task in self.tasks {
            heard.add(task.await.expect("a caller"));
        }
        heard
    }
}

pub fn client() -> Client {
    Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("a client")
}

struct Caller {
    http: Client,
    base: String,
    secret: String,
    name: String,
    rng: Rng,
    /// Tokens that may be revoked, and whom they are for.
    mine: Vec<(Released, String)>,
    heard: Heard,
    stop: Arc<AtomicBool>,
}

/// An answer, or none.
type Answer = Option<(StatusCode, Value)>;

impl Caller {
    async fn call(mut self, mix: Mix) -> Heard {
        let mut n = 0;
        while !self.stop.load(Ordering::SeqCst) {
            n += 1;
            match if mix == Mix::Mints { 0 } else { self.rng.between(0, 99) } {
                0..45 => self.mint(n, false).await,
                45..55 => self.mint(n, true).await,
                55..75 => self.redeem(n).await,
                75..85 => self.revoke_grant().await,
                85..89 => self.revoke_user().await,
                _ => self.be_denied().await,
            }
        }
        self.heard
    }

    async fn post(&mut self, path: &str, key: Option<&str>, body: &Value) -> Answer {
        let answer = post(&self.http, &self.base, &self.secret, path, key, body).await;
        match &answer {
            None => {
                self.heard.lost += 1;
                // whoever is away is not hammered
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            Some((StatusCode::SERVICE_UNAVAILABLE, _)) => {
                self.heard.refused += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Some(_) => {}
        }
        answer
    }

    fn strange(&mut self, what: &str, status: StatusCode, body: &Value) {
        if status != StatusCode::SERVICE_UNAVAILABLE {
            self.heard.strange.push(format!("{what} was answered {status}: {body}"));
        }
    }

    fn released(&mut self, body: &Value, user: &str) {
        match released(body) {
            Some(released) => {
                self.mine.push((released.clone(), user.to_owned()));
                self.heard.released.push(released);
            }
            None => self.heard.strange.push(format!("an answer without token or receipt: {body}")),
        }
    }

    fn user(&mut self) -> String {
        format!("u{}_{}", self.name, self.rng.between(0, 4))
    }

    async fn mint(&mut self, n: u64, keyed: bool) {
        let user = self.user();
        let body = ask(&user);
        let key = keyed.then(|| format!("{}-{n}", self.name));
        let answer = self.post(MINT, key.as_deref(), &body).await;
        let mut token = None;
        match answer {
            Some((StatusCode::OK, body)) => {
                token = body["token"].as_str().map(str::to_owned);
                self.released(&body, &user);
            }
            Some((status, body)) => self.strange("a mint", status, &body),
            None => {}
        }
        if let Some(key) = key {
            self.heard.keyed.push(Keyed { path: MINT, key, body, token });
        }
    }

    async fn redeem(&mut self, n: u64) {
        let user = self.user();
        let mut body = ask(&user);
        body["delivery"] = "code".into();
        let Some((status, answer)) = self.post(MINT, None, &body).await else { return };
        let Some(code) = answer["code"].as_str() else {
            return self.strange("a mint by code", status, &answer);
        };
        if let (Some(index), Some(proof)) =
            (answer["audit"]["index"].as_u64(), answer["audit"]["proof"].as_str())
        {
            self.heard.receipts.push((index, proof.to_owned()));
        }
        let body = json!({ "code": code });
        let key = format!("{}-{n}r", self.name);
        let mut token = None;
        match self.post(REDEEM, Some(&key), &body).await {
            Some((StatusCode::OK, body)) => {
                token = body["token"].as_str().map(str::to_owned);
                self.released(&body, &user);
            }
            Some((status, body)) => self.strange("a redeem", status, &body),
            None => {}
        }
        self.heard.keyed.push(Keyed { path: REDEEM, key, body, token });
    }

    async fn revoke_grant(&mut self) {
        let Some((released, _)) = self.mine.pop() else { return };
        let path = format!("{MINT}/{}/revoke", released.grant);
        let answer = self.post(&path, None, &json!({})).await;
        self.revoked("a revocation", answer, vec![released]);
    }

    async fn revoke_user(&mut self) {
        let user = self.user();
        let body = json!({ "user_id": user, "reason": "Faults are injected here" });
        let answer = self.post("/v1/revocations", None, &body).await;
        let mine = std::mem::take(&mut self.mine);
        let (gone, kept): (Vec<_>, _) = mine.into_iter().partition(|(_, of)| *of == user);
        self.mine = kept;
        self.revoked(
            "a revocation by user",
            answer,
            gone.into_iter().map(|(released, _)| released).collect(),
        );
    }

    fn revoked(&mut self, what: &str, answer: Answer, gone: Vec<Released>) {
        let tokens = gone.into_iter().map(|released| released.token);
        match answer {
            Some((StatusCode::OK, _)) => self.heard.revoked.extend(tokens),
            other => {
                self.heard.doubtful.extend(tokens);
                if let Some((status, body)) = other {
                    self.strange(what, status, &body);
                }
            }
        }
    }

    async fn be_denied(&mut self) {
        let user = self.user();
        let mut body = ask(&user);
        body["reason"] = "short".into();
        match self.post(MINT, None, &body).await {
            Some((StatusCode::FORBIDDEN, _)) => self.heard.denied += 1,
            Some((status, body)) => self.strange("a mint that must be denied", status, &body),
            None => {}
        }
    }
}

/// The body of a mint.
pub fn ask(user: &str) -> Value {
    json!({ "user_id": user, "actor": { "sub": "admin_7" }, "reason": "Ticket 4711: invoice missing" })
}

/// One call; `None`: no answer came back whole.
pub async fn post(
    http: &Client,
    base: &str,
    secret: &str,
    path: &str,
    key: Option<&str>,
    body: &Value,
) -> Answer {
    let mut request = http.request(Method::POST, format!("{base}{path}")).bearer_auth(secret).json(body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let response = request.send().await.ok()?;
    let status = response.status();
    let bytes = response.bytes().await.ok()?;
    Some((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
}

/// A mint's or redeem's answer.
pub fn released(body: &Value) -> Option<Released> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Released {
        token: text(&body["token"])?,
        grant: text(&body["id"])?,
        index: body["audit"]["index"].as_u64()?,
        proof: text(&body["audit"]["proof"])?,
    })
}
