//! C2SP signed notes with Ed25519 (type 0x01): text, signatures, verifier keys.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tree::sha256;

/// The signature type of plain Ed25519 in C2SP notes.
const ED25519_TYPE: u8 = 0x01;
/// The longest note read: a checkpoint with its signatures is far below.
const MAX_NOTE_BYTES: usize = 64 * 1024;

/// Why a note or a key in note form is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The name has a space, a plus or a line break, or is empty.
    #[error("the name of a note key must not be empty nor contain spaces or +")]
    Name,
    /// Not in the form of a note.
    #[error("the note is malformed")]
    Note,
    /// Not in the form of a verifier key.
    #[error("the verifier key is malformed")]
    VerifierKey,
    /// The seed makes no key.
    #[error("the signing key is not acceptable")]
    Key,
    /// No line is signed by the key.
    #[error("the note is not signed by this key")]
    Unsigned,
    /// The key's signature does not verify.
    #[error("the note's signature does not verify")]
    Signature,
}

fn key_id(name: &str, typed_key: &[u8]) -> [u8; 4] {
    let hash = sha256(&[name.as_bytes(), b"\n", typed_key].concat());
    [hash[0], hash[1], hash[2], hash[3]]
}

fn check_name(name: &str) -> Result<(), NoteError> {
    if name.is_empty() || name.contains('+') || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(NoteError::Name);
    }
    Ok(())
}

/// Signs notes under a name.
pub struct NoteSigner {
    key: Ed25519KeyPair,
    verifier: NoteVerifier,
}

impl std::fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NoteSigner({})", self.verifier.name)
    }
}

impl NoteSigner {
    /// A signer from an Ed25519 seed.
    ///
    /// # Errors
    /// A name that a note cannot carry.
    pub fn from_seed(seed: &[u8; 32], name: &str) -> Result<Self, NoteError> {
        check_name(name)?;
        let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoteError::Key)?;
        let public = key.public_key().as_ref().try_into().map_err(|_| NoteError::Key)?;
        Ok(Self { verifier: NoteVerifier::new(name, public)?, key })
    }

    /// The key others verify with.
    #[must_use]
    pub const fn verifier(&self) -> &NoteVerifier {
        &self.verifier
    }

    /// The note of `text` (which ends with a line break) and this key's signature.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        format!("{text}\n{}", self.signature_line(text))
    }

    /// This key's signature alone, over a text that is no note.
    pub(super) fn sign_bytes(&self, text: &str) -> Vec<u8> {
        self.key.sign(text.as_bytes()).as_ref().to_vec()
    }

    /// This key's signature line for `text`, with its line break.
    #[must_use]
    pub fn signature_line(&self, text: &str) -> String {
        debug_assert!(text.ends_with('\n'), "a note's text ends with a line break");
        let mut bytes = self.verifier.id.to_vec();
        bytes.extend_from_slice(self.key.sign(text.as_bytes()).as_ref());
        format!("\u{2014} {} {}\n", self.verifier.name, STANDARD.encode(bytes))
    }
}

/// A public key in note form: `name+id+key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteVerifier {
    name: String,
    id: [u8; 4],
    public: [u8; 32],
}

impl NoteVerifier {
    /// The verifier of an Ed25519 public key.
    ///
    /// # Errors
    /// A name that a note cannot carry.
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        let id = key_id(name, &typed(&public));
        Ok(Self { name: name.to_owned(), id, public })
    }

    /// Reads `name+id+key`.
    ///
    /// # Errors
    /// Another form, another key type, or an id that is not the key's.
    pub fn parse(vkey: &str) -> Result<Self, NoteError> {
        if vkey.len() > 1024 {
            return Err(NoteError::VerifierKey);
        }
        let mut parts = vkey.trim_end_matches('\n').splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::VerifierKey);
        };
        let key = STANDARD.decode(key).map_err(|_| NoteError::VerifierKey)?;
        let [ED25519_TYPE, public @ ..] = key.as_slice() else { return Err(NoteError::VerifierKey) };
        let verifier = Self::new(name, public.try_into().map_err(|_| NoteError::VerifierKey)?)?;
        if hex(verifier.id) != id {
            return Err(NoteError::VerifierKey);
        }
        Ok(verifier)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key itself, which signs under another name in another epoch.
    #[must_use]
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The key in note form, as `/v1/audit/log/vkey` answers it.
    #[must_use]
    pub fn vkey(&self) -> String {
        format!("{}+{}+{}", self.name, hex(self.id), STANDARD.encode(typed(&self.public)))
    }

    /// The text of `note`, when this key signed it.
    ///
    /// # Errors
    /// Malformed, not signed by this key, or a signature that does not verify.
    pub fn open<'n>(&self, note: &'n str) -> Result<&'n str, NoteError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::Note);
        }
        let (text, signatures) = split(note)?;
        let mut lines = signatures.lines().filter_map(|line| {
            let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            let bytes = STANDARD.decode(signature).ok()?;
            (name == self.name && bytes.get(..4) == Some(&self.id)).then_some(bytes)
        });
        let bytes = lines.next().ok_or(NoteError::Unsigned)?;
        UnparsedPublicKey::new(&ED25519, self.public)
            .verify(text.as_bytes(), &bytes[4..])
            .map_err(|_| NoteError::Signature)?;
        Ok(text)
    }
}

/// Whether `public` signed `text`, which is no note.
pub(super) fn is_signed_by(public: &[u8; 32], text: &str, signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(text.as_bytes(), signature).is_ok()
}

/// A note's text (with its last line break) and its signature lines.
///
/// # Errors
/// No blank line between them, or lines after it that are no signatures.
pub fn split(note: &str) -> Result<(&str, &str), NoteError> {
    let at = note.rfind("\n\n").ok_or(NoteError::Note)?;
    let (text, signatures) = (&note[..=at], &note[at + 2..]);
    let well_formed = signatures.ends_with('\n')
        && signatures.lines().all(|line| line.starts_with("\u{2014} "))
        && !text.chars().any(|c| c != '\n' && c.is_ascii_control());
    if well_formed { Ok((text, signatures)) } else { Err(NoteError::Note) }
}

fn typed(public: &[u8; 32]) -> [u8; 33] {
    let mut out = [ED25519_TYPE; 33];
    out[1..].copy_from_slice(public);
    out
}

fn hex(id: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vkey_and_note_are_those_of_the_reference() {
        // golang.org/x/mod/sumdb/note, example key PeterNeumann+c74f20a3 (public part)
        let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let verifier = NoteVerifier::parse(vkey).unwrap();
        assert_eq!(verifier.vkey(), vkey);
        let note = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n\n\
                    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        assert!(verifier.open(note).is_ok());
        assert_eq!(verifier.open(&note.replace("answer", "Answer")), Err(NoteError::Signature));
    }

    #[test]
    fn a_note_opens_with_its_key_and_no_other() {
        let signer = NoteSigner::from_seed(&[7; 32], "log.example/audit/1").unwrap();
        let note = signer.sign("log.example/audit/1\n0\nroot\n");
        assert_eq!(signer.verifier().open(&note), Ok("log.example/audit/1\n0\nroot\n"));
        let other = NoteSigner::from_seed(&[8; 32], "log.example/audit/1").unwrap();
        assert_eq!(other.verifier().open(&note), Err(NoteError::Unsigned));
        assert_eq!(signer.verifier().open("no signature\n"), Err(NoteError::Note));
        assert!(NoteSigner::from_seed(&[7; 32], "a b").is_err());
        assert!(NoteVerifier::parse("a+00000000+AAAA").is_err());
    }
}
