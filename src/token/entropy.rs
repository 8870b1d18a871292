//! Randomness as an argument: nothing but this file asks the machine for random bytes.

use std::cell::RefCell;

use zeroize::Zeroize as _;

/// A source of random bytes for ids, salts and secrets.
pub trait Entropy: Send + Sync {
    /// Fills `buf` with random bytes.
    fn fill(&self, buf: &mut [u8]);

    /// An array of random bytes.
    fn bytes<const N: usize>(&self) -> [u8; N]
    where
        Self: Sized,
    {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }
}

/// The crypto library's own generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

/// Ids and salts are short, and the generator reseeds itself for each draw: they come from a supply drawn at once. Keys
/// and secrets are longer than this and are drawn for themselves.
const SHORT: usize = 16;

thread_local! {
    static SUPPLY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Entropy for SystemEntropy {
    fn fill(&self, buf: &mut [u8]) {
        if buf.len() > SHORT {
            return draw(buf);
        }
        SUPPLY.with_borrow_mut(|supply| {
            if supply.len() < buf.len() {
                supply.resize(32 * SHORT, 0);
                draw(supply);
            }
            let rest = supply.len() - buf.len();
            buf.copy_from_slice(&supply[rest..]);
            // nothing is kept of what was given out
            supply[rest..].zeroize();
            supply.truncate(rest);
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks for randomness")]
fn draw(buf: &mut [u8]) {
    // A machine without randomness can issue nothing safely: stopping is the only right answer.
    aws_lc_rs::rand::fill(buf).expect("the system's random generator answers");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nothing_is_given_out_twice_whatever_is_asked_for() {
        let mut given = HashSet::new();
        for _ in 0..100 {
            // across the ends of the supply, out of step with it, and longer than it is for
            for length in 1..=2 * SHORT + 1 {
                let mut drawn = vec![0; length];
                SystemEntropy.fill(&mut drawn);
                for part in drawn.chunks_exact(8) {
                    assert!(given.insert(part.to_vec()), "{part:x?} was given out before");
                }
            }
        }
        assert_ne!(SystemEntropy.bytes::<SHORT>(), SystemEntropy.bytes::<SHORT>());
        assert_ne!(SystemEntropy.bytes::<32>(), SystemEntropy.bytes::<32>());
    }
}
