//! The product's own users and roles, and who is signed in as himself.

use std::collections::HashMap;
use std::sync::Mutex;

use actix_web::HttpRequest;
use actix_web::http::header;
use stagedoor::token::{Entropy as _, SystemEntropy};

/// The cookie of ordinary sessions.
pub const COOKIE: &str = "__Host-product-session";

/// Somebody who has an account.
pub struct User {
    /// The id, the same as in the company's directory.
    pub id: &'static str,
    /// What he is called.
    pub name: &'static str,
    /// `admin`, `support` or `customer`.
    pub role: &'static str,
    /// What he bought.
    pub orders: &'static [&'static str],
}

/// Everybody.
pub const USERS: &[User] = &[
    User { id: "admin_7", name: "Alan", role: "admin", orders: &[] },
    User { id: "agent_1", name: "Ada", role: "support", orders: &[] },
    User {
        id: "user_42",
        name: "Mary",
        role: "customer",
        orders: &["4711 · Difference engine, brass", "4712 · Punched cards, 100"],
    },
    User { id: "user_43", name: "Ken", role: "customer", orders: &["4801 · Teletype ribbon"] },
    User { id: "user_99", name: "Vera", role: "customer", orders: &["4900 · Something private"] },
];

/// The user with this id.
pub fn user(id: &str) -> Option<&'static User> {
    USERS.iter().find(|user| user.id == id)
}

/// Who may ask to act as a customer. Stagedoor's policy has its say on top.
pub fn may_impersonate(user: &User) -> bool {
    matches!(user.role, "admin" | "support")
}

/// Ordinary sessions, by the random word in the cookie.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<String, &'static User>>);

impl Sessions {
    /// Signs somebody in: the cookie to set.
    pub fn begin(&self, user: &'static User) -> String {
        let word: String = SystemEntropy.bytes::<24>().iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.lock().expect("no holder of this lock panics").insert(word.clone(), user);
        format!("{COOKIE}={word}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=28800")
    }

    /// Signs out: the cookie to clear.
    pub fn end(&self, request: &HttpRequest) -> String {
        if let Some(word) = word(request) {
            self.0.lock().expect("no holder of this lock panics").remove(&word);
        }
        format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
    }

    /// Who sends this request.
    pub fn who(&self, request: &HttpRequest) -> Option<&'static User> {
        self.0.lock().expect("no holder of this lock panics").get(&word(request)?).copied()
    }
}

fn word(request: &HttpRequest) -> Option<String> {
    let headers = request.headers().get_all(header::COOKIE).filter_map(|h| h.to_str().ok());
    let mut found = headers.flat_map(|h| h.split(';')).filter_map(|pair| pair.trim().split_once('='));
    found.find(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned())
}
