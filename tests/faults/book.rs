//! What callers were told, kept for ever: the log has to agree with all of it after every fault.

use std::collections::HashMap;

use serde_json::Value;

/// A token that a caller received.
#[derive(Debug, Clone)]
pub struct Released {
    pub token: String,
    pub grant: String,
    pub index: u64,
    /// The receipt that came with it.
    pub proof: String,
}

/// A call with an `Idempotency-Key`, and the token it was answered with, if it was answered.
#[derive(Debug, Clone)]
pub struct Keyed {
    pub path: &'static str,
    pub key: String,
    pub body: Value,
    pub token: Option<String>,
}

/// What one stretch of load was told.
#[derive(Debug, Default)]
pub struct Heard {
    pub released: Vec<Released>,
    /// Receipts of answers without a token.
    pub receipts: Vec<(u64, String)>,
    /// Tokens that were answered to be revoked.
    pub revoked: Vec<String>,
    /// Tokens that may be revoked: the call was refused or lost, and may have been carried out all the same.
    pub doubtful: Vec<String>,
    pub keyed: Vec<Keyed>,
    pub denied: u64,
    /// 503.
    pub refused: u64,
    /// No answer.
    pub lost: u64,
    /// Answers that nobody should get.
    pub strange: Vec<String>,
}

impl Heard {
    pub fn add(&mut self, other: Self) {
        self.released.extend(other.released);
        self.receipts.extend(other.receipts);
        self.revoked.extend(other.revoked);
        self.doubtful.extend(other.doubtful);
        self.keyed.extend(other.keyed);
        self.denied += other.denied;
        self.refused += other.refused;
        self.lost += other.lost;
        self.strange.extend(other.strange);
    }
}

/// Everything that was ever heard at one site.
#[derive(Debug, Default)]
pub struct Book {
    /// Whose entry stands at a place of the log, by its origin and index.
    places: HashMap<(String, u64), String>,
    /// Every receipt, by the origin of its log.
    pub receipts: Vec<(u64, String)>,
    /// What the newest stretch of load was told.
    pub fresh: Heard,
    /// Tokens of all runs before, a few each, to be looked up again.
    pub kept: Vec<Released>,
    /// Revoked tokens of all runs before, a few each.
    pub kept_revoked: Vec<String>,
}

/// The name of the log a receipt is of.
pub fn origin(proof: &str) -> &str {
    proof.split_once("\n\n").map_or("", |(_, checkpoint)| checkpoint.lines().next().unwrap_or(""))
}

impl Book {
    /// Takes in what was heard; an index that was given out twice is told.
    pub fn hear(&mut self, heard: Heard) -> Vec<String> {
        let mut violations = Vec::new();
        let tokens = heard.released.iter().map(|r| (r.index, &r.proof, r.token.clone()));
        let others = heard.receipts.iter().map(|(index, proof)| (*index, proof, String::new()));
        for (index, proof, what) in tokens.chain(others) {
            let place = (origin(proof).to_owned(), index);
            // a code's receipt and a replayed answer name an entry again: only two tokens exclude each other
            match self.places.get(&place) {
                Some(before) if !before.is_empty() && !what.is_empty() && *before != signed(&what) => {
                    violations.push(format!("index {index} was released twice, for two tokens"));
                }
                _ => {
                    self.places.insert(place, signed(&what));
                }
            }
            self.receipts.push((index, proof.clone()));
        }
        self.fresh.add(heard);
        violations
    }

    /// What was fresh is old: a sample of it is looked at again after every later run.
    pub fn settle(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        self.kept.extend(fresh.released.into_iter().step_by(20));
        self.kept_revoked.extend(fresh.revoked.into_iter().step_by(20));
        // the newest of a run stand for it: each is checked against the tree again and again
        if self.receipts.len() > 4000 {
            self.receipts = self.receipts.iter().step_by(2).cloned().collect();
        }
    }
}

/// What was signed, without the signature: a repeated answer is signed anew.
fn signed(token: &str) -> String {
    token.rsplit_once('.').map_or("", |(signed, _)| signed).to_owned()
}
