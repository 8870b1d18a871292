//! Finding handoff codes, many by one way to the database.
//!
//! Every redeem begins with a look-up, and a look-up costs its turns between threads more than its rows. What comes while
//! one is under way waits and is asked about together: with a look-up each, SQLite recorded 7 redeems a commit instead of
//! 22 (`cargo bench --bench mint -- redeem`).

use tokio::sync::mpsc;

use super::grants::Grant;
use crate::server::log::reply::{Reply, answer_all, reply};
use crate::server::log::{Log, LogError, StoredCode, Tag};
use crate::server::store::grants::{self, Handoff};
use crate::server::store::{Db, StoreError};

/// How many are asked about together at most.
const TOGETHER: usize = 64;

/// One look-up: what finds the code, and where the answer goes.
pub(in crate::server::log) type Wanted = (Tag, Reply<Result<Option<Handoff>, StoreError>>);

/// Begins to answer what is sent; ends when nobody can send any more.
pub(in crate::server::log) fn find_codes(db: Db) -> mpsc::Sender<Wanted> {
    let (sender, mut wanted) = mpsc::channel::<Wanted>(TOGETHER);
    tokio::spawn(async move {
        let mut batch = Vec::with_capacity(TOGETHER);
        while wanted.recv_many(&mut batch, TOGETHER).await > 0 {
            let hashes: Vec<&str> = batch.iter().map(|(hash, _)| &*hash.0).collect();
            let found = grants::handoffs(&db, &hashes).await;
            answer_all(batch.drain(..).map(|(hash, reply)| {
                let mine = |found: &Vec<Handoff>| {
                    found.iter().find(|found| *found.code.code_hash == *hash.0).cloned()
                };
                (reply, found.as_ref().map(mine).map_err(Clone::clone))
            }));
        }
    });
    sender
}

impl Log {
    /// The handoff code that `hash` finds, used or not, with its grant, whose people are not read: what is sealed with
    /// the code names them.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn handoff(&self, hash: Tag) -> Result<Option<(StoredCode, Grant)>, LogError> {
        let (reply, answered) = reply();
        self.0.codes.send((hash, reply)).await.map_err(|_| LogError::Closed)?;
        let Some(found) = answered.await.map_err(|_| LogError::Closed)?? else { return Ok(None) };
        Ok(Some((found.code, Grant::read(found.grant)?)))
    }
}
