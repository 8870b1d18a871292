//! Witnesses (C2SP tlog-witness, tlog-cosignature): another team keeps size and root of this log, and cosigns
//! only what grew from what it saw. Both sides: the witness itself, and what the log asks of one.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};

use super::checkpoint::Checkpoint;
use super::note::{NoteError, NoteVerifier, split};
use super::tree::{Hash, empty_root, sha256, verify_consistency};

/// The signature type of Ed25519 cosignatures in C2SP notes.
const COSIGNATURE_TYPE: u8 = 0x04;
/// The longest request a witness reads.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Why a witness does not cosign. The numbers are the protocol's HTTP answers.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// 400: not a request.
    #[error("the request is malformed")]
    Malformed,
    /// 404: a log this witness does not know.
    #[error("the log is not known to this witness")]
    UnknownLog,
    /// 403: not signed by the log's key.
    #[error("the checkpoint is not signed by the log's key")]
    Signature,
    /// 409: the witness saw another size (in the answer's body).
    #[error("this witness has seen size {0}")]
    Conflict(u64),
    /// 422: it did not grow from what the witness saw, or has another root of the same size. The log may have been
    /// rolled back or forked.
    #[error("the proof does not show that the log grew from what this witness saw")]
    Inconsistent,
    /// 500: the state could not be kept, so nothing is signed.
    #[error("the witness could not keep its state")]
    State(#[source] io::Error),
}

impl Refused {
    /// The HTTP status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::UnknownLog => 404,
            Self::Signature => 403,
            Self::Conflict(_) => 409,
            Self::Inconsistent => 422,
            Self::State(_) => 500,
        }
    }
}

/// Cosigns checkpoints under a name.
pub struct Cosigner {
    key: Ed25519KeyPair,
    verifier: CosignatureVerifier,
}

impl std::fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cosigner({})", self.verifier.name)
    }
}

/// A witness's public key: `name+id+key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignatureVerifier {
    name: String,
    id: [u8; 4],
    public: [u8; 32],
}

impl Cosigner {
    /// A cosigner from an Ed25519 seed.
    ///
    /// # Errors
    /// A name that a note cannot carry.
    pub fn from_seed(seed: &[u8; 32], name: &str) -> Result<Self, NoteError> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoteError::Key)?;
        let public = key.public_key().as_ref().try_into().map_err(|_| NoteError::Key)?;
        Ok(Self { verifier: CosignatureVerifier::new(name, public)?, key })
    }

    /// The key others verify with.
    #[must_use]
    pub const fn verifier(&self) -> &CosignatureVerifier {
        &self.verifier
    }

    /// The signature line for a checkpoint's text, as seen at `time`.
    #[must_use]
    pub fn line(&self, text: &str, time: DateTime<Utc>) -> String {
        let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
        let signature = self.key.sign(message(text, seconds).as_bytes());
        let mut bytes = self.verifier.id.to_vec();
        bytes.extend(seconds.to_be_bytes());
        bytes.extend(signature.as_ref());
        format!("\u{2014} {} {}\n", self.verifier.name, STANDARD.encode(bytes))
    }
}

fn message(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

impl CosignatureVerifier {
    fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        if name.is_empty() || name.contains('+') || name.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            return Err(NoteError::Name);
        }
        let hash = sha256(&[name.as_bytes(), b"\n", &[COSIGNATURE_TYPE], &public].concat());
        Ok(Self { name: name.to_owned(), id: [hash[0], hash[1], hash[2], hash[3]], public })
    }

    /// Reads `name+id+key`.
    ///
    /// # Errors
    /// Another form, another key type, or an id that is not the key's.
    pub fn parse(vkey: &str) -> Result<Self, NoteError> {
        let mut parts = vkey.trim_end().splitn(3, '+');
        let (Some(name), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::VerifierKey);
        };
        let key = STANDARD.decode(key).map_err(|_| NoteError::VerifierKey)?;
        let [COSIGNATURE_TYPE, public @ ..] = key.as_slice() else { return Err(NoteError::VerifierKey) };
        let verifier = Self::new(name, public.try_into().map_err(|_| NoteError::VerifierKey)?)?;
        if verifier.vkey() == vkey.trim_end() { Ok(verifier) } else { Err(NoteError::VerifierKey) }
    }

    /// The witness's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key in note form.
    #[must_use]
    pub fn vkey(&self) -> String {
        let mut typed = vec![COSIGNATURE_TYPE];
        typed.extend(self.public);
        format!("{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id), STANDARD.encode(typed))
    }

    /// The one of `lines` (without its line break) that is this witness's cosignature of `text`.
    ///
    /// # Errors
    /// None is, or it does not verify.
    pub fn line_in<'l>(&self, text: &str, lines: &'l str) -> Result<&'l str, NoteError> {
        let own = |line: &&str| {
            line.strip_prefix("\u{2014} ")
                .and_then(|l| l.split_once(' '))
                .is_some_and(|(name, _)| name == self.name)
        };
        let mut last = NoteError::Unsigned;
        for line in lines.lines().filter(own) {
            match self.verify(text, line) {
                Ok(_) => return Ok(line),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// When this witness saw the checkpoint of `text`, if one of `lines` is its cosignature.
    ///
    /// # Errors
    /// None is, or it does not verify.
    pub fn verify(&self, text: &str, lines: &str) -> Result<DateTime<Utc>, NoteError> {
        let mut signatures = lines.lines().filter_map(|line| {
            let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            let bytes = STANDARD.decode(signature).ok()?;
            (name == self.name && bytes.len() == 76 && bytes[..4] == self.id).then_some(bytes)
        });
        let bytes = signatures.next().ok_or(NoteError::Unsigned)?;
        let seconds = u64::from_be_bytes(bytes[4..12].try_into().map_err(|_| NoteError::Note)?);
        UnparsedPublicKey::new(&ED25519, self.public)
            .verify(message(text, seconds).as_bytes(), &bytes[12..])
            .map_err(|_| NoteError::Signature)?;
        let seconds = i64::try_from(seconds).map_err(|_| NoteError::Note)?;
        DateTime::from_timestamp(seconds, 0).ok_or(NoteError::Note)
    }
}

/// What a log asks a witness: its checkpoint, and the proof that it grew from size `old`.
#[must_use]
pub fn request(old: u64, proof: &[String], checkpoint: &str) -> String {
    let mut out = format!("old {old}\n");
    for hash in proof {
        out.push_str(hash);
        out.push('\n');
    }
    out.push('\n');
    out.push_str(checkpoint);
    out
}

/// A witness: which logs it knows, and what it last saw of each, on disk.
#[derive(Debug)]
pub struct Witness {
    cosigner: Cosigner,
    logs: HashMap<String, NoteVerifier>,
    state: PathBuf,
}

impl Witness {
    /// A witness that keeps its state in the directory `state`.
    #[must_use]
    pub fn new(cosigner: Cosigner, logs: Vec<NoteVerifier>, state: PathBuf) -> Self {
        let logs = logs.into_iter().map(|log| (log.name().to_owned(), log)).collect();
        Self { cosigner, logs, state }
    }

    /// Answers `POST /add-checkpoint`: the cosignature line, after size and root are on disk.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn add_checkpoint(&mut self, body: &str, now: DateTime<Utc>) -> Result<String, Refused> {
        if body.len() > MAX_REQUEST_BYTES {
            return Err(Refused::Malformed);
        }
        let (head, note) = body.split_once("\n\n").ok_or(Refused::Malformed)?;
        let mut lines = head.lines();
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).ok_or(Refused::Malformed)?;
        let old: u64 = old.parse().map_err(|_| Refused::Malformed)?;
        let proof: Vec<Hash> = lines
            .map(|line| STANDARD.decode(line).ok()?.try_into().ok())
            .collect::<Option<_>>()
            .ok_or(Refused::Malformed)?;
        let stated = Checkpoint::parse_unverified(note).map_err(|_| Refused::Malformed)?;
        let log = self.logs.get(&stated.origin).ok_or(Refused::UnknownLog)?;
        let new = Checkpoint::open(note, log).map_err(|_| Refused::Signature)?;
        if old > new.size || proof.len() > 63 {
            return Err(Refused::Malformed);
        }
        let file = self.state.join(file_name(&new.origin));
        let (size, root) = read_state(&file)?;
        if old != size {
            return Err(Refused::Conflict(size));
        }
        // also that one size has one root, and size zero that of the empty tree
        if !verify_consistency(size, &root, new.size, &new.root, &proof) {
            return Err(Refused::Inconsistent);
        }
        write_state(&self.state, &file, new.size, &new.root).map_err(Refused::State)?;
        let (text, _) = split(note).map_err(|_| Refused::Malformed)?;
        Ok(self.cosigner.line(text, now))
    }
}

fn file_name(origin: &str) -> String {
    sha256(origin.as_bytes())
        .iter()
        .map(|byte| char::from(b'a' + byte % 26))
        .chain(".state".chars())
        .collect()
}

fn read_state(file: &Path) -> Result<(u64, Hash), Refused> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, empty_root())),
        Err(error) => return Err(Refused::State(error)),
    };
    let parsed = text
        .trim_end()
        .split_once('\n')
        .and_then(|(size, root)| Some((size.parse().ok()?, STANDARD.decode(root).ok()?.try_into().ok()?)));
    // a state that cannot be read must never be taken for a new log
    parsed.ok_or_else(|| Refused::State(io::Error::from(io::ErrorKind::InvalidData)))
}

fn write_state(directory: &Path, file: &Path, size: u64, root: &Hash) -> io::Result<()> {
    let next = file.with_extension("next");
    let mut out = File::create(&next)?;
    writeln!(out, "{size}\n{}", STANDARD.encode(root))?;
    out.sync_all()?;
    fs::rename(&next, file)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::log::checkpoint::CheckpointSigner;
    use crate::server::log::tree::{self, Frontier, leaf_hash, node_hash};

    struct Fixture {
        witness: Witness,
        signer: CheckpointSigner,
        leaves: Vec<Hash>,
        _dir: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let signer = CheckpointSigner::from_seed(&[1; 32], "log.example", 1).unwrap();
        let cosigner = Cosigner::from_seed(&[2; 32], "witness.example/w1").unwrap();
        let witness = Witness::new(cosigner, vec![signer.verifier().clone()], dir.path().to_path_buf());
        let leaves = (0..40u8).map(|i| leaf_hash(&[i])).collect();
        Fixture { witness, signer, leaves, _dir: dir }
    }

    fn root(leaves: &[Hash]) -> Hash {
        let mut frontier = Frontier::default();
        for leaf in leaves {
            frontier.push(*leaf, |_, _, _| ());
        }
        frontier.root()
    }

    fn complete(leaves: &[Hash]) -> Hash {
        match leaves {
            [one] => *one,
            many => {
                let (left, right) = many.split_at(many.len() / 2);
                node_hash(&complete(left), &complete(right))
            }
        }
    }

    fn ask(f: &mut Fixture, old: u64, new: usize) -> Result<String, Refused> {
        let note = f.signer.sign(new as u64, root(&f.leaves[..new]));
        let leaves = f.leaves.clone();
        let path = if old == 0 || old >= new as u64 {
            Vec::new()
        } else {
            tree::consistency(old, new as u64, &mut |height, n| {
                let first = usize::try_from(n << height).unwrap();
                complete(&leaves[first..first + (1 << height)])
            })
        };
        let path: Vec<String> = path.iter().map(|hash| STANDARD.encode(hash)).collect();
        let now = DateTime::from_timestamp(1_795_333_985, 0).unwrap();
        f.witness.add_checkpoint(&request(old, &path, &note), now)
    }

    #[test]
    fn a_witness_cosigns_what_grew_and_refuses_everything_else() {
        let mut f = fixture();
        let verifier = CosignatureVerifier::parse(&f.witness.cosigner.verifier().vkey()).unwrap();
        let now = DateTime::from_timestamp(0, 0).unwrap();
        let empty = request(0, &[], &f.signer.sign(0, [7; 32]));
        let refused = f.witness.add_checkpoint(&empty, now);
        assert!(matches!(refused, Err(Refused::Inconsistent)), "the empty tree has one root");
        let line = ask(&mut f, 0, 7).unwrap();
        let text =
            Checkpoint { origin: "log.example/audit/1".into(), size: 7, root: root(&f.leaves[..7]) }.text();
        assert_eq!(verifier.verify(&text, &line).unwrap().timestamp(), 1_795_333_985);
        assert_eq!(verifier.verify(&text.replace("\n7\n", "\n8\n"), &line), Err(NoteError::Signature));
        ask(&mut f, 7, 20).unwrap();
        ask(&mut f, 20, 20).unwrap();
        assert!(matches!(ask(&mut f, 7, 30), Err(Refused::Conflict(20))), "an old state of the log");
        assert!(matches!(ask(&mut f, 7, 10), Err(Refused::Conflict(20))), "a rollback");
        assert!(matches!(ask(&mut f, 21, 20), Err(Refused::Malformed)));
        f.leaves[3] = leaf_hash(b"rewritten");
        assert!(matches!(ask(&mut f, 20, 30), Err(Refused::Inconsistent)), "a fork");
        assert!(matches!(ask(&mut f, 20, 20), Err(Refused::Inconsistent)), "a fork of the same size");
        f.signer = CheckpointSigner::from_seed(&[9; 32], "log.example", 1).unwrap();
        assert!(matches!(ask(&mut f, 20, 30), Err(Refused::Signature)));
        f.signer = CheckpointSigner::from_seed(&[9; 32], "other.example", 1).unwrap();
        assert!(matches!(ask(&mut f, 20, 30), Err(Refused::UnknownLog)));
        for bad in ["", "old 1", "old x\n\n", "old 0\n!!\n\nx\n"] {
            assert!(matches!(f.witness.add_checkpoint(bad, now), Err(Refused::Malformed)), "{bad:?}");
        }
    }

    #[test]
    fn a_witness_that_lost_its_state_signs_nothing() {
        let mut f = fixture();
        ask(&mut f, 0, 7).unwrap();
        let file = f.witness.state.join(file_name("log.example/audit/1"));
        fs::write(&file, "garbage").unwrap();
        assert!(matches!(ask(&mut f, 7, 20), Err(Refused::State(_))));
        assert!(matches!(ask(&mut f, 0, 20), Err(Refused::State(_))));
    }
}
