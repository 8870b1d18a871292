//! What this product asks of Stagedoor: a code for a start of its own, the token for a code, an end.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// Why Stagedoor did not do it.
#[derive(Debug)]
pub enum Refused {
    /// It said no, and why in words.
    No(String),
    /// It could not be asked, or cannot answer now.
    Away,
}

/// Stagedoor, as this product's back end reaches it.
pub struct Stagedoor {
    url: String,
    secret: String,
    http: reqwest::Client,
}

impl Stagedoor {
    /// With the client whose secret stands in `file`, as `stagedoor client create --json` prints it.
    pub fn new(url: &str, file: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let text = std::fs::read_to_string(file)
            .map_err(|e| format!("{}: {e} (does `stagedoor dev` run here?)", file.display()))?;
        let client: Value = serde_json::from_str(&text)?;
        let secret = client["client_secret"].as_str().ok_or("the client file has no client_secret")?;
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(3))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { url: url.to_owned(), secret: secret.to_owned(), http })
    }

    /// Where people use the console.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The client secret: it also keeps this product a place on the revocation stream.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Who signs the tokens.
    pub async fn issuer(&self) -> Result<String, Box<dyn std::error::Error>> {
        let address = format!("{}/.well-known/oauth-authorization-server", self.url);
        let metadata: Value = self.http.get(address).send().await?.json().await?;
        Ok(metadata["issuer"].as_str().ok_or("no issuer")?.to_owned())
    }

    /// A code for `actor` to act as `user`, for whoever holds the verifier of `challenge`.
    pub async fn code(
        &self,
        actor: &str,
        user: &str,
        reason: &str,
        challenge: &str,
    ) -> Result<String, Refused> {
        let body = json!({
            "user_id": user, "actor": { "sub": actor }, "reason": reason,
            "delivery": "code", "code_challenge": challenge,
        });
        let answer = self.ask("/v1/actor_tokens", &self.secret, &body).await?;
        answer["code"].as_str().map(str::to_owned).ok_or(Refused::Away)
    }

    /// The token behind a code.
    pub async fn redeem(&self, code: &str, verifier: &str) -> Result<String, Refused> {
        let body = json!({ "code": code, "code_verifier": verifier });
        let answer = self.ask("/v1/actor_tokens/redeem", &self.secret, &body).await?;
        answer["token"].as_str().map(str::to_owned).ok_or(Refused::Away)
    }

    /// Ends the impersonation that `token` stands for.
    pub async fn stop(&self, token: &str) -> Result<(), Refused> {
        self.ask("/v1/actor_tokens/stop", token, &json!({})).await.map(drop)
    }

    async fn ask(&self, path: &str, credential: &str, body: &Value) -> Result<Value, Refused> {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(credential).json(body);
        let answer = request.send().await.map_err(|_| Refused::Away)?;
        let status = answer.status();
        let body: Value = answer.json().await.map_err(|_| Refused::Away)?;
        if status.is_success() {
            Ok(body)
        } else if status.is_server_error() {
            Err(Refused::Away)
        } else {
            Err(Refused::No(body["detail"].as_str().unwrap_or("Stagedoor refused it.").to_owned()))
        }
    }
}
