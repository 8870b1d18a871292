//! W3C Trace Context: to which trace a request belongs. Continued and passed on, and believed for nothing else.
//!
//! `tracestate` is dropped, as the recommendation allows: what a stranger writes into it is not ours to hand on.

use std::fmt;

use crate::token::Entropy;

/// The header, both ways.
pub const TRACEPARENT: &str = "traceparent";
/// Longer ones are of no version anybody has written.
const MAX_LENGTH: usize = 256;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// A span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// Whether whoever began the trace keeps it.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent` of this or a later version; anything else is as if it were not there.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_at_checked(3).filter(|_| text.len() <= MAX_LENGTH)?;
        let version = version.strip_suffix('-').and_then(hex::<1>)?[0];
        let (ours, later) = rest.split_at_checked(52)?;
        // of a later version only what this one knows is read
        if version == 0xff || !(later.is_empty() || version > 0 && later.starts_with('-')) {
            return None;
        }
        let mut parts = ours.split('-');
        let (trace_id, span_id) = (hex(parts.next()?)?, hex(parts.next()?)?);
        let [flags] = hex(parts.next()?)?;
        let valid = parts.next().is_none() && trace_id != [0; 16] && span_id != [0; 8];
        valid.then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }

    /// The first span of a trace of its own.
    #[must_use]
    pub fn root(entropy: &dyn Entropy) -> Self {
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        entropy.fill(&mut trace_id);
        entropy.fill(&mut span_id);
        Self { trace_id, span_id, sampled: false }
    }

    /// A span of ours under this one.
    #[must_use]
    pub fn child(&self, entropy: &dyn Entropy) -> Self {
        Self { span_id: Self::root(entropy).span_id, ..*self }
    }

    /// The trace in hexadecimal.
    #[must_use]
    pub fn trace(&self) -> impl fmt::Display + use<> {
        Hex(self.trace_id)
    }

    /// The span in hexadecimal.
    #[must_use]
    pub fn span(&self) -> impl fmt::Display + use<> {
        Hex(self.span_id)
    }
}

/// The value of `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-0{}", self.trace(), self.span(), u8::from(self.sampled))
    }
}

struct Hex<const N: usize>([u8; N]);

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Exactly `N` bytes in lower-case hexadecimal.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(digits) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

/// Runs `work` as part of a span: calls it makes carry the span on.
pub async fn within<F: Future>(context: TraceContext, work: F) -> F::Output {
    CURRENT.scope(context, work).await
}

/// The span that this task works for; `None` for work of our own.
#[must_use]
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SystemEntropy;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_recommendations_example_is_read_and_written_again() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert_eq!(context.trace().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((context.span().to_string().as_str(), context.sampled), ("00f067aa0ba902b7", true));
        assert_eq!(context.to_string(), GOOD);
        let child = context.child(&SystemEntropy);
        assert_eq!((child.trace_id, child.sampled), (context.trace_id, true));
        assert_ne!(child.span_id, context.span_id);
        assert_eq!(TraceContext::parse(&child.to_string()), Some(child));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known_and_nonsense_not_at_all() {
        for good in
            [GOOD.replacen("00", "cc", 1), format!("{}-what-comes-later", GOOD.replacen("00", "cc", 1))]
        {
            assert!(TraceContext::parse(&good).is_some(), "{good}");
        }
        let long = format!("{}-{}", GOOD.replacen("00", "cc", 1), "a".repeat(300));
        let bad = [
            "",
            "00",
            "00-",
            "é0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0é",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            &long,
        ];
        for text in bad {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_span_is_known_where_it_is_worked_for_and_nowhere_else() {
        let context = TraceContext::root(&SystemEntropy);
        assert_eq!(current(), None);
        within(context, async {
            tokio::task::yield_now().await;
            assert_eq!(current(), Some(context));
            assert_eq!(tokio::spawn(async { current() }).await.unwrap(), None);
        })
        .await;
    }
}
