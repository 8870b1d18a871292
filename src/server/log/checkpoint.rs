//! Checkpoints: a log's origin, size and root as a signed note (C2SP tlog-checkpoint).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::note::{NoteError, NoteSigner, NoteVerifier, is_signed_by, split};
use super::tree::Hash;
use crate::server::store::append::StoredHead;

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name: `host/audit/<epoch>`.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The note's text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Reads a checkpoint without looking at its signatures.
    ///
    /// # Errors
    /// Not a note, or not the text of a checkpoint.
    pub fn parse_unverified(note: &str) -> Result<Self, NoteError> {
        if note.len() > 64 * 1024 {
            return Err(NoteError::Note);
        }
        let (text, _) = split(note)?;
        Self::from_text(text)
    }

    /// Reads a checkpoint that `verifier` signed.
    ///
    /// # Errors
    /// Not signed by it, not a checkpoint, or another origin.
    pub fn open(note: &str, verifier: &NoteVerifier) -> Result<Self, NoteError> {
        let checkpoint = Self::from_text(verifier.open(note)?)?;
        if checkpoint.origin != verifier.name() {
            return Err(NoteError::Note);
        }
        Ok(checkpoint)
    }

    fn from_text(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.lines();
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(NoteError::Note);
        };
        let digits = size.bytes().all(|b| b.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let size = size.parse().ok().filter(|_| digits).ok_or(NoteError::Note)?;
        let root = STANDARD.decode(root).ok().and_then(|bytes| Hash::try_from(bytes).ok());
        Ok(Self { origin: origin.to_owned(), size, root: root.ok_or(NoteError::Note)? })
    }
}

/// Signs checkpoints of one epoch with a key of the log's own, never the token key.
#[derive(Debug)]
pub struct CheckpointSigner {
    signer: NoteSigner,
    host: String,
    epoch: u32,
}

impl CheckpointSigner {
    /// The signer of epoch `epoch` (from 1) of the log of `host`; the origin is `host/audit/<epoch>`.
    ///
    /// # Errors
    /// A host that a note cannot name.
    pub fn from_seed(seed: &[u8; 32], host: &str, epoch: u32) -> Result<Self, NoteError> {
        let signer = NoteSigner::from_seed(seed, &origin(host, epoch))?;
        Ok(Self { signer, host: host.to_owned(), epoch })
    }

    /// The origin line, which is also the key's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.signer.verifier().name()
    }

    /// The host part of the origin.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The epoch signed for.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The key others verify with.
    #[must_use]
    pub const fn verifier(&self) -> &NoteVerifier {
        self.signer.verifier()
    }

    /// Signs a head for its row, before it is committed: the row is seen when the head is durable, and not before. Whoever
    /// may write the database but has no key cannot continue the log (or rewrite it) by himself.
    #[must_use]
    pub fn sign_head(&self, head: &StoredHead) -> StoredHead {
        StoredHead { signature: Some(self.signer.sign_bytes(&head_text(head))), ..head.clone() }
    }

    /// Whether this log's key signed a stored head, of whichever epoch.
    #[must_use]
    pub fn vouches_for(&self, head: &StoredHead) -> bool {
        vouches_for(self.verifier().public(), head)
    }

    /// The signed checkpoint. Ed25519 is deterministic: every replica makes the same bytes.
    #[must_use]
    pub fn sign(&self, size: u64, root: Hash) -> String {
        self.signer.sign(&Checkpoint { origin: self.origin().to_owned(), size, root }.text())
    }
}

/// Whether the log's key signed a stored head.
#[must_use]
pub fn vouches_for(log_key: &[u8; 32], head: &StoredHead) -> bool {
    head.signature.as_ref().is_some_and(|signature| is_signed_by(log_key, &head_text(head), signature))
}

/// What is signed of a stored head: everything it says (the frontier is what its root is made of). No checkpoint begins
/// like this, whose first line has a host.
fn head_text(head: &StoredHead) -> String {
    format!("stagedoor head\n{}\n{}\n{}\n", head.size, STANDARD.encode(&head.root), head.t_us)
}

/// The origin of an epoch's log.
#[must_use]
pub fn origin(host: &str, epoch: u32) -> String {
    format!("{host}/audit/{epoch}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::log::tree::empty_root;

    #[test]
    fn a_checkpoint_survives_the_round_trip_and_nothing_else_does() {
        let signer = CheckpointSigner::from_seed(&[1; 32], "stagedoor.example:8080", 1).unwrap();
        let note = signer.sign(0, empty_root());
        let opened = Checkpoint::open(&note, signer.verifier()).unwrap();
        assert_eq!((opened.origin.as_str(), opened.size), ("stagedoor.example:8080/audit/1", 0));
        assert_eq!(Checkpoint::parse_unverified(&note).unwrap(), opened);
        for (from, to) in [("\n0\n", "\n00\n"), ("\n0\n", "\n-1\n"), ("\n0\n", "\n+1\n"), ("\n\n", "\n")] {
            assert!(Checkpoint::parse_unverified(&note.replacen(from, to, 1)).is_err(), "{to:?}");
        }
        let next = CheckpointSigner::from_seed(&[1; 32], "stagedoor.example:8080", 2).unwrap();
        assert!(Checkpoint::open(&note, next.verifier()).is_err());
    }
}
