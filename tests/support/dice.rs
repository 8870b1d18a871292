//! Mutated input from a seed: short in CI, and as long as `FUZZ_SECONDS` says (see `tests/api/fuzz.rs`).

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What a fuzzer would have found out by itself, in some more time.
const WORDS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[[[[[[[[[",
    b":",
    b",",
    b"null",
    b"true",
    b"-0",
    b"1e309",
    b"9007199254740993",
    b"-1",
    b"0.1",
    b"99999999999999999999",
    b"\xff",
    b"\xc3\x28",
    b"\xe2\x80\xae",
    b"\0",
    b"\r\n",
    b"%",
    b"%00",
    b"%ff",
    b"%2e%2e%2f",
    b"&",
    b"=",
    b"+",
    b"..",
    b"/",
    b"//",
    b"x000",
    b".p/",
    b".p/256",
    b"act",
    b"\"act\":{\"sub\":\"a\"}",
    b"alg",
    b"none",
    b"HS256",
    b"crit",
    b"\"sub\":\"x\"",
    b"aud",
    b"jti",
    b"exp",
    b"token",
    b"user_id",
    b"scope",
    b"client_id",
    b"urn:ietf:params:oauth:token-type:access_token",
    b"permit",
    b"forbid",
    b"@id(\"a\")",
    b"when {",
    b"};",
];

/// The inputs of `tests/corpora/<target>`, by name. What a long run finds is put there, and every run sends it again.
pub fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora").join(target);
    let mut files: Vec<_> = dir.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target}: no corpus");
    files.iter().map(|file| std::fs::read(file).unwrap().trim_ascii_end().to_vec()).collect()
}

/// xorshift64*: the same run from the same seed.
pub struct Dice(u64);

impl Dice {
    /// One of so many.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % sides.max(1)
    }

    /// One to four changes of one of the seeds.
    pub fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut out = seeds[self.roll(seeds.len())].clone();
        for _ in 0..=self.roll(4) {
            let at = self.roll(out.len() + 1);
            let until = at + self.roll((out.len() - at).min(16) + 1);
            match self.roll(6) {
                0 if at < out.len() => out[at] ^= 1 << self.roll(8),
                1 => drop(out.drain(at..until)),
                2 => {
                    let piece = out[at..until].to_vec();
                    out.splice(at..at, piece);
                }
                3 => {
                    let other = &seeds[self.roll(seeds.len())];
                    let from = self.roll(other.len() + 1);
                    out.splice(at.., other[from..].iter().copied());
                }
                4 => drop(out.splice(at..until, WORDS[self.roll(WORDS.len())].iter().copied())),
                _ => drop(out.splice(at..at, WORDS[self.roll(WORDS.len())].iter().copied())),
            }
        }
        out
    }

    /// A token with something changed: its text, or what one of its parts says.
    pub fn mutate_token(&mut self, token: &str) -> String {
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let part = self.roll(4);
        if part == 3 {
            let text = self.mutate(&[token.as_bytes().to_vec()]);
            return String::from_utf8_lossy(&text).into_owned();
        }
        let decoded = URL_SAFE_NO_PAD.decode(&parts[part]).unwrap();
        parts[part] = URL_SAFE_NO_PAD.encode(self.mutate(&[decoded]));
        parts.join(".")
    }
}

#[expect(clippy::disallowed_methods, reason = "a long run is asked for, and seeded, by whoever starts it")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Rolls as often as a short run takes, or as long as was asked for; says how often that was.
pub struct Run {
    name: &'static str,
    dice: Dice,
    done: u64,
    short: u64,
    until: Option<Instant>,
}

impl Run {
    /// A run, this long in CI.
    #[expect(clippy::disallowed_methods, reason = "a long run lasts as long as was asked for")]
    pub fn new(name: &'static str, short: u64) -> Self {
        let seed = setting("FUZZ_SEED").unwrap_or(20_261_125) | 1;
        let until = setting("FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
        println!("fuzz {name}: seed {seed}");
        Self { name, dice: Dice(seed), done: 0, short, until }
    }

    /// The next roll; `None` at the end.
    #[expect(clippy::disallowed_methods, reason = "a long run lasts as long as was asked for")]
    pub fn next(&mut self) -> Option<&mut Dice> {
        let over = self.until.map_or(self.done >= self.short, |until| Instant::now() >= until);
        if over {
            println!("fuzz {}: {} inputs", self.name, self.done);
            return None;
        }
        self.done += 1;
        Some(&mut self.dice)
    }
}
