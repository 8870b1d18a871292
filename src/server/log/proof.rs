//! Receipts: an inclusion proof with its checkpoint as `c2sp.org/tlog-proof@v1` text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::Checkpoint;
use super::note::{NoteError, NoteVerifier};
use super::tree::{Hash, leaf_hash, verify_inclusion};

/// The first line of a proof.
const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// A tree of 2^63 leaves needs no more hashes than this.
const MAX_HASHES: usize = 63;

/// Why a receipt proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not in the form of a proof.
    #[error("the proof is malformed")]
    Malformed,
    /// Its checkpoint is not acceptable.
    #[error("the proof's checkpoint is not acceptable")]
    Checkpoint(#[from] NoteError),
    /// The entry is not at this place of this tree.
    #[error("the entry is not in the tree of the checkpoint")]
    NotIncluded,
}

/// The text of a proof.
#[must_use]
pub fn format(index: u64, path: &[Hash], checkpoint: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(64 + path.len() * 45 + checkpoint.len());
    let _ = write!(out, "{HEADER}\nindex {index}\n");
    for hash in path {
        STANDARD.encode_string(hash, &mut out);
        out.push('\n');
    }
    out.push('\n');
    out.push_str(checkpoint);
    out
}

/// Whether `proof` shows that `body` is an entry of the log `verifier` signs for; its index and checkpoint.
///
/// # Errors
/// Whatever is not so.
pub fn verify(proof: &str, body: &[u8], verifier: &NoteVerifier) -> Result<(u64, Checkpoint), ProofError> {
    if proof.len() > 64 * 1024 {
        return Err(ProofError::Malformed);
    }
    let rest = proof.strip_prefix(HEADER).and_then(|r| r.strip_prefix('\n')).ok_or(ProofError::Malformed)?;
    let (head, note) = rest.split_once("\n\n").ok_or(ProofError::Malformed)?;
    let mut lines = head.lines();
    let index = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(ProofError::Malformed)?;
    let index: u64 = index.parse().map_err(|_| ProofError::Malformed)?;
    let path: Vec<Hash> = lines
        .map(|line| STANDARD.decode(line).ok().and_then(|bytes| bytes.try_into().ok()))
        .collect::<Option<_>>()
        .ok_or(ProofError::Malformed)?;
    if path.len() > MAX_HASHES {
        return Err(ProofError::Malformed);
    }
    let checkpoint = Checkpoint::open(note, verifier)?;
    if verify_inclusion(index, checkpoint.size, &leaf_hash(body), &path, &checkpoint.root) {
        Ok((index, checkpoint))
    } else {
        Err(ProofError::NotIncluded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::log::checkpoint::CheckpointSigner;
    use crate::server::log::tree::{BatchNodes, Frontier};

    #[test]
    fn a_receipt_proves_its_entry_and_no_other() {
        let signer = CheckpointSigner::from_seed(&[1; 32], "log.example", 1).unwrap();
        let bodies: Vec<Vec<u8>> = (0..5u8).map(|i| vec![b'{', i, b'}']).collect();
        let mut frontier = Frontier::default();
        let batch = BatchNodes::append(&mut frontier, bodies.iter().map(|b| leaf_hash(b)), |_, _, _| ());
        let checkpoint = signer.sign(frontier.size(), frontier.root());
        for (i, body) in (0u64..).zip(&bodies) {
            let receipt = format(i, &batch.inclusion(i), &checkpoint);
            let (index, opened) = verify(&receipt, body, signer.verifier()).unwrap();
            assert_eq!((index, opened.size), (i, 5));
            assert_eq!(verify(&receipt, b"{}", signer.verifier()), Err(ProofError::NotIncluded));
            let moved = receipt.replace(&format!("index {i}"), &format!("index {}", (i + 1) % 5));
            assert!(verify(&moved, body, signer.verifier()).is_err());
        }
        let only = format(0, &[], &signer.sign(1, leaf_hash(b"{}")));
        assert!(only.starts_with("c2sp.org/tlog-proof@v1\nindex 0\n\nlog.example/audit/1\n1\n"));
        assert!(verify(&only, b"{}", signer.verifier()).is_ok());
    }
}
