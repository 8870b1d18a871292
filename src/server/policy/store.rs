//! The policy in force, exchanged as a whole when a new one validates.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::load::{Policy, PolicyError, PolicyFiles};

/// Holds the policy in force. Reading it takes no lock; a decision keeps the policy it began with.
#[derive(Debug)]
pub struct PolicyStore {
    current: ArcSwap<Policy>,
    /// The text refused last, so that a file that stays wrong is complained of once.
    refused: Mutex<Option<[u8; 32]>>,
}

/// What a reload found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// The same text as is in force, or the same that was refused before.
    Unchanged,
    /// Another policy is in force now: record it.
    Changed {
        /// The version (`id@sha256`) that was in force.
        old: String,
        /// The version in force now.
        new: String,
    },
}

impl PolicyStore {
    /// A store with its first policy.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { current: ArcSwap::from_pointee(policy), refused: Mutex::new(None) }
    }

    /// The policy in force.
    pub fn current(&self) -> Arc<Policy> {
        self.current.load_full()
    }

    /// Reads the policy at `path` again and puts it in force if it is another one and valid. Cheap when
    /// nothing changed: the text is read and hashed. The caller decides when, and records a change.
    ///
    /// # Errors
    /// The text cannot be read or is not valid; the policy in force stays. The same invalid text is an
    /// error once.
    pub fn reload_from(&self, path: &Path) -> Result<Reload, PolicyError> {
        let files = PolicyFiles::read(path)?;
        let sha256 = files.sha256();
        // Held throughout, so that two reloads at once cannot put an older text over a newer one.
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.current();
        if old.sha256() == sha256 {
            *refused = None;
            return Ok(Reload::Unchanged);
        }
        if *refused == Some(sha256) {
            return Ok(Reload::Unchanged);
        }
        match Policy::load(&files.name, &files.sources()) {
            Ok(policy) => {
                let (old, new) = (old.version().to_owned(), policy.version().to_owned());
                let changed = Reload::Changed { old, new };
                self.current.store(Arc::new(policy));
                *refused = None;
                Ok(changed)
            }
            Err(error) => {
                *refused = Some(sha256);
                Err(error)
            }
        }
    }
}
