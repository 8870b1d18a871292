//! Randomness as an argument: nothing but this file asks the machine for random bytes.

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

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks for randomness")]
    fn fill(&self, buf: &mut [u8]) {
        // A machine without randomness can issue nothing safely: stopping is the only right answer.
        aws_lc_rs::rand::fill(buf).expect("the system's random generator answers");
    }
}
