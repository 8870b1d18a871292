//! Signatures that are missing, cut, moved, malleated, or of something else.

use serde_json::json;

use super::super::forge::{Subject, b64, parts, resealed, signature, text, with, without};
use super::super::keys::ecdsa_der;
use super::{Case, Expect, Level, Sheet};
use crate::token::alg::KeyType;

/// The order of P-256 (FIPS 186-5).
const P256_N: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
/// The order of Ed25519's group, least significant byte first (RFC 8032 §5.1).
const ED25519_L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

pub(super) fn cases(subject: &Subject) -> Vec<Case> {
    let mut sheet = Sheet::new("sig");
    broken(subject, &mut sheet);
    moved(subject, &mut sheet);
    match subject.key().alg().key_type() {
        KeyType::Ec => ecdsa(subject, &mut sheet),
        KeyType::Okp => ed25519(subject, &mut sheet),
        KeyType::Rsa => rsa(subject, &mut sheet),
    }
    sheet.done()
}

fn broken(subject: &Subject, sheet: &mut Sheet) {
    let good = subject.good();
    let right = signature(&good);
    let len = right.len();
    let mut must = |id: &str, why: &str, signature: Vec<u8>| sheet.must(id, why, resealed(&good, &signature));
    must("empty", "no signature", Vec::new());
    must("cut", "one byte short", right[..len - 1].to_vec());
    must("half", "half of it", right[..len / 2].to_vec());
    must("one-byte", "one byte", vec![right[0]]);
    must("longer", "one byte more", [&right[..], &[0]].concat());
    must("zero-before", "a zero byte before it", [&[0], &right[..]].concat());
    must("twice", "twice", [&right[..], &right[..]].concat());
    must("zeros", "all zero (r = s = 0)", vec![0; len]);
    must("ones", "all bits set", vec![0xff; len]);
    must("reversed", "backwards", right.iter().rev().copied().collect());
    must("text", "the word `none`", b"none".to_vec());
    for (id, at) in [("first", 0), ("middle", len / 2), ("last", len - 1)] {
        let mut flipped = right.clone();
        flipped[at] ^= 1;
        must(&format!("flip-{id}"), &format!("one bit of its {id} byte flipped"), flipped);
    }
}

/// A right signature, but of something else.
fn moved(subject: &Subject, sheet: &mut Sheet) {
    let good = subject.good();
    let (header, payload, sig) = parts(&good);
    let claims = subject.claims();
    let mut payload_of = |id: &str, why: &str, claims| {
        sheet.must(id, why, format!("{header}.{}.{sig}", b64(text(&claims))));
    };
    payload_of("other-sub", "another user after signing", with(claims.clone(), "sub", "admin"));
    payload_of(
        "other-exp",
        "a later end after signing",
        with(claims.clone(), "exp", subject.now.timestamp() + 86_400),
    );
    payload_of("other-scope", "more scopes after signing", with(claims.clone(), "scope", "read write admin"));
    payload_of(
        "other-aud",
        "another audience after signing",
        with(claims.clone(), "aud", json!([subject.audience, "x"])),
    );
    payload_of("act-taken", "`act` taken away after signing", without(subject.actor_claims(), "act"));
    payload_of(
        "act-other",
        "another actor after signing",
        with(subject.actor_claims(), "act", json!({ "sub": "x" })),
    );
    payload_of("space", "one space more in the payload", with(claims.clone(), "", ""));
    let other = b64(text(&with(subject.header(), "x", 1)));
    sheet.must("other-header", "another header after signing", format!("{other}.{payload}.{sig}"));
    let earlier = subject.claims_with("jti", "another");
    sheet.must(
        "other-token",
        "another good token's signature",
        format!("{header}.{payload}.{}", parts(&earlier).2),
    );
    let swapped = format!("{payload}.{header}.{sig}");
    sheet.must("swapped-parts", "header and payload in each other's place", swapped);
    for (id, why, input) in [
        ("of-payload", "a signature of the payload alone", payload.to_owned()),
        (
            "of-text",
            "a signature of the text before encoding",
            format!("{}.{}", text(&subject.header()), text(&claims)),
        ),
        ("of-dot", "a signature of header and payload with a dot at the end", format!("{header}.{payload}.")),
    ] {
        sheet.must(id, why, resealed(&good, &subject.key().sign(input.as_bytes())));
    }
}

fn ecdsa(subject: &Subject, sheet: &mut Sheet) {
    let good = subject.good();
    let right = signature(&good);
    let (r, s) = right.split_at(right.len() / 2);
    let zero = [0u8; 32];
    let one = [&zero[..31], &[1]].concat();
    let pairs: [(&str, &str, &[u8], &[u8]); 9] = [
        ("r-zero", "r = 0", &zero, s),
        ("s-zero", "s = 0", r, &zero),
        ("r-order", "r = n", &P256_N, s),
        ("s-order", "s = n", r, &P256_N),
        ("both-order", "r = s = n: zero to a reader that reduces", &P256_N, &P256_N),
        ("both-one", "r = s = 1", &one, &one),
        ("r-zero-s-one", "r = 0, s = 1", &zero, &one),
        ("r-one-s-zero", "r = 1, s = 0", &one, &zero),
        ("swapped", "s ‖ r", s, r),
    ];
    for (id, why, r, s) in pairs {
        sheet.must(&format!("es256-{id}"), why, resealed(&good, &[r, s].concat()));
    }
    sheet.should("es256-der", "in DER, as TLS writes it", resealed(&good, &ecdsa_der(&right)));
    let mirrored = [r, &difference(&P256_N, s)].concat();
    let why = "n − s for s: the same claims, another text; a list of refused texts would miss it";
    sheet.bearer(Expect::Either, Level::Should, "es256-malleated", why, resealed(&good, &mirrored));
}

fn ed25519(subject: &Subject, sheet: &mut Sheet) {
    let good = subject.good();
    let right = signature(&good);
    let (r, s) = right.split_at(right.len() / 2);
    sheet.should(
        "eddsa-malleated",
        "S + L for S (RFC 8032 §5.1.7)",
        resealed(&good, &[r, &sum(s, &ED25519_L)].concat()),
    );
    sheet.must("eddsa-s-order", "S = L", resealed(&good, &[r, &ED25519_L].concat()));
    let identity = [&[1][..], &[0; 31]].concat();
    sheet.must(
        "eddsa-small-order",
        "R is the neutral element, S = 0",
        resealed(&good, &[&identity[..], &[0; 32]].concat()),
    );
}

fn rsa(subject: &Subject, sheet: &mut Sheet) {
    let good = subject.good();
    let len = signature(&good).len();
    let number = |n: u8| [vec![0; len - 1], vec![n]].concat();
    sheet.must("rs256-one", "the number 1", resealed(&good, &number(1)));
    sheet.must("rs256-small", "the number 2", resealed(&good, &number(2)));
}

/// `a − b` of numbers written most significant byte first; `b` is the smaller.
fn difference(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut borrow = false;
    let mut out: Vec<u8> = a
        .iter()
        .zip(b)
        .rev()
        .map(|(a, b)| {
            let (first, under) = a.overflowing_sub(*b);
            let (second, again) = first.overflowing_sub(u8::from(borrow));
            borrow = under || again;
            second
        })
        .collect();
    out.reverse();
    out
}

/// `a + b` of numbers written least significant byte first, without what does not fit.
fn sum(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut carry = 0u16;
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            carry = (carry >> 8) + u16::from(*a) + u16::from(*b);
            carry.to_le_bytes()[0]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_subtracted_and_added_with_what_is_carried() {
        assert_eq!(difference(&[2, 0, 0], &[0, 0, 1]), [1, 0xff, 0xff]);
        assert_eq!(sum(&[0xff, 0xff, 0], &[1, 0, 0]), [0, 0, 1]);
    }
}
