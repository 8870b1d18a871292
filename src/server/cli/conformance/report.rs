//! Judges what came back, and shows it: a table for people, JSON and `JUnit` for programs.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;

use super::cases::{Case, Expect, Level};
use super::send::Observed;

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Right,
    /// Let in what had to stay out.
    WronglyAccepted,
    /// Kept out what had to be let in.
    WronglyRefused,
    /// Kept out, but with an answer that says something else.
    WrongAnswer,
    /// A 5xx, or no answer: the token reached something that it broke.
    Broke,
    /// Right either way; shown for information.
    Shown,
    /// HTTP cannot carry the case.
    NotSent,
}

/// One case and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The case's group.
    pub group: &'static str,
    /// The case's name.
    pub id: String,
    /// What the case shows.
    pub why: String,
    /// The right answer.
    pub expect: Expect,
    /// How grave a wrong one is.
    pub level: Level,
    /// What came back.
    pub observed: Observed,
    /// What that means.
    pub verdict: Verdict,
}

impl Finding {
    /// Judges one answer.
    #[must_use]
    pub fn of(case: &Case, observed: Observed) -> Self {
        let verdict = judge(case.expect, &observed);
        let (id, why) = (case.id.clone(), case.why.clone());
        Self { group: case.group, id, why, expect: case.expect, level: case.level, observed, verdict }
    }

    /// Whether it is a failure. A service that breaks fails whatever broke it.
    #[must_use]
    pub fn fails(&self, strict: bool) -> bool {
        match self.verdict {
            Verdict::Right | Verdict::Shown | Verdict::NotSent => false,
            Verdict::Broke => true,
            Verdict::WronglyAccepted | Verdict::WronglyRefused | Verdict::WrongAnswer => {
                strict || self.level == Level::Must
            }
        }
    }

    fn lax(&self, strict: bool) -> bool {
        !self.fails(strict) && !matches!(self.verdict, Verdict::Right | Verdict::Shown | Verdict::NotSent)
    }

    fn answer(&self) -> String {
        match &self.observed {
            Observed::Status(status) => status.to_string(),
            Observed::NoAnswer(what) => what.clone(),
            Observed::NotSent => "not sent".to_owned(),
        }
    }
}

fn judge(expect: Expect, observed: &Observed) -> Verdict {
    let status = match observed {
        Observed::NotSent => return Verdict::NotSent,
        Observed::NoAnswer(_) if expect == Expect::RefuseUnread => return Verdict::Right,
        Observed::NoAnswer(_) | Observed::Status(500..) => return Verdict::Broke,
        Observed::Status(status) => *status,
    };
    let let_in = (200..300).contains(&status);
    let wrong = if let_in { Verdict::WronglyAccepted } else { Verdict::WrongAnswer };
    let right_if = |right: bool| if right { Verdict::Right } else { wrong };
    match expect {
        Expect::Accept => {
            if let_in {
                Verdict::Right
            } else {
                Verdict::WronglyRefused
            }
        }
        Expect::Forbid if matches!(status, 400 | 401) => Verdict::WronglyRefused,
        Expect::Forbid => right_if(status == 403),
        Expect::Refuse => right_if(matches!(status, 400 | 401)),
        Expect::RefuseOrForbid => right_if(matches!(status, 400 | 401 | 403)),
        Expect::RefuseUnread => right_if((400..500).contains(&status)),
        Expect::Either => {
            if let_in || matches!(status, 400 | 401 | 403) {
                Verdict::Shown
            } else {
                wrong
            }
        }
    }
}

/// Everything that came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The service.
    pub target: String,
    /// Whether laxity counts.
    pub strict: bool,
    /// Every case, in order.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing failed.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.findings.iter().any(|finding| finding.fails(self.strict))
    }

    /// The names of the cases of one verdict that count.
    #[must_use]
    pub fn failed(&self, verdict: Verdict) -> Vec<&str> {
        let failed = self.findings.iter().filter(|f| f.verdict == verdict && f.fails(self.strict));
        failed.map(|finding| finding.id.as_str()).collect()
    }

    fn count(&self, of: impl Fn(&Finding) -> bool) -> usize {
        self.findings.iter().filter(|finding| of(finding)).count()
    }

    /// Why the rest of the report may say little, if so.
    fn hint(&self) -> Option<&'static str> {
        let base = self.findings.iter().find(|finding| finding.id == "good-base")?;
        match (base.verdict, &base.observed) {
            (Verdict::Right, _) => None,
            (_, Observed::Status(403)) => Some(
                "The service refused the token that all others are bent from with 403. Does the route refuse impersonators \
                 (--allow-impersonation 403, and --home-issuer for ordinary tokens) or want another scope (--scope)?",
            ),
            (_, Observed::Status(404 | 405)) => {
                Some("There is no such route at the service (a GET is sent).")
            }
            (Verdict::WronglyAccepted, _) => {
                Some("The route lets an impersonator in: say --allow-impersonation 200 if that is meant.")
            }
            _ => Some(
                "The service refused the token that all others are bent from: check --issuer, --audience and that it \
                 has the public keys. Until then its refusals prove nothing.",
            ),
        }
    }

    /// The table for people.
    pub fn write_table(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let strict = self.strict;
        let right = self.count(|f| matches!(f.verdict, Verdict::Right | Verdict::Shown));
        let failed = self.count(|f| f.fails(strict));
        let lax = self.count(|f| f.lax(strict));
        let not_sent = self.count(|f| f.verdict == Verdict::NotSent);
        let all = self.findings.len();
        writeln!(
            out,
            "{}: {all} cases: {right} right, {failed} wrong, {lax} lax, {not_sent} not for HTTP",
            self.target
        )?;
        for (verdict, title) in [
            (Verdict::WronglyAccepted, "WRONGLY ACCEPTED"),
            (Verdict::WronglyRefused, "WRONGLY REFUSED"),
            (
                Verdict::WrongAnswer,
                "REFUSED WITH THE WRONG ANSWER (401 says that a token is bad, 403 that it is not enough)",
            ),
            (Verdict::Broke, "BROKE"),
        ] {
            section(out, title, self.findings.iter().filter(|f| f.verdict == verdict && f.fails(strict)))?;
        }
        let lax = self.findings.iter().filter(|f| f.lax(strict));
        section(out, "LAX: no known attack, stock libraries differ (counts with --strict)", lax)?;
        section(out, "EITHER WAY RIGHT", self.findings.iter().filter(|f| f.verdict == Verdict::Shown))?;
        if let Some(hint) = self.hint() {
            writeln!(out, "\n{hint}")?;
        }
        Ok(())
    }

    /// One JSON document.
    pub fn write_json(&self, out: &mut dyn io::Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// `JUnit`'s XML, as CI servers read it: a suite a group, a failure a wrong answer, skipped what was not sent.
    #[must_use]
    pub fn to_junit(&self) -> String {
        let failed = self.count(|f| f.fails(self.strict));
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let all = self.findings.len();
        put(
            &mut out,
            format_args!(
                "<testsuites name=\"stagedoor conformance\" tests=\"{all}\" failures=\"{failed}\">\n"
            ),
        );
        for group in self.findings.chunk_by(|a, b| a.group == b.group) {
            let failed = group.iter().filter(|f| f.fails(self.strict)).count();
            let skipped = group.iter().filter(|f| f.verdict == Verdict::NotSent).count();
            let (name, tests) = (group[0].group, group.len());
            put(
                &mut out,
                format_args!(
                    "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failed}\" skipped=\"{skipped}\">\n"
                ),
            );
            for finding in group {
                put(
                    &mut out,
                    format_args!("    <testcase classname=\"{name}\" name=\"{}\">", xml(&finding.id)),
                );
                if finding.fails(self.strict) {
                    let verdict = format!("{:?}: {} ({})", finding.verdict, finding.answer(), finding.why);
                    put(&mut out, format_args!("<failure message=\"{}\"/>", xml(&verdict)));
                } else if finding.verdict == Verdict::NotSent {
                    out.push_str("<skipped/>");
                }
                out.push_str("</testcase>\n");
            }
            out.push_str("  </testsuite>\n");
        }
        out.push_str("</testsuites>\n");
        out
    }
}

/// Writing to a text cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

fn section<'a>(
    out: &mut dyn io::Write,
    title: &str,
    findings: impl Iterator<Item = &'a Finding>,
) -> io::Result<()> {
    let mut findings = findings.peekable();
    if findings.peek().is_none() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    for finding in findings {
        let why: String = finding.why.chars().take(110).collect();
        writeln!(out, "  {:<32} {:<4} {why}", finding.id, finding.answer())?;
    }
    Ok(())
}

/// Text for an XML attribute; characters that XML 1.0 cannot carry are dropped.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_its_status_alone() {
        use Expect as E;
        use Verdict as V;
        let silent = Observed::NoAnswer(String::new());
        let s = Observed::Status;
        for (expect, observed, verdict) in [
            (E::Accept, s(204), V::Right),
            (E::Accept, s(401), V::WronglyRefused),
            (E::Accept, s(302), V::WronglyRefused),
            (E::Accept, s(502), V::Broke),
            (E::Refuse, s(401), V::Right),
            (E::Refuse, s(400), V::Right),
            (E::Refuse, s(200), V::WronglyAccepted),
            (E::Refuse, s(403), V::WrongAnswer),
            (E::Refuse, s(302), V::WrongAnswer),
            (E::Refuse, s(500), V::Broke),
            (E::Refuse, silent.clone(), V::Broke),
            (E::Forbid, s(403), V::Right),
            (E::Forbid, s(200), V::WronglyAccepted),
            (E::Forbid, s(401), V::WronglyRefused),
            (E::RefuseOrForbid, s(403), V::Right),
            (E::RefuseOrForbid, s(200), V::WronglyAccepted),
            (E::RefuseUnread, s(431), V::Right),
            (E::RefuseUnread, silent, V::Right),
            (E::RefuseUnread, s(200), V::WronglyAccepted),
            (E::RefuseUnread, s(500), V::Broke),
            (E::Either, s(200), V::Shown),
            (E::Either, s(401), V::Shown),
            (E::Either, s(500), V::Broke),
            (E::Either, Observed::NotSent, V::NotSent),
        ] {
            assert_eq!(judge(expect, &observed), verdict, "{expect:?} {observed:?}");
        }
    }

    fn finding(level: Level, verdict: Verdict) -> Finding {
        Finding {
            group: "alg",
            id: "alg-x".to_owned(),
            why: "a <\"reason\"> & a \u{7} bell".to_owned(),
            expect: Expect::Refuse,
            level,
            observed: Observed::Status(200),
            verdict,
        }
    }

    #[test]
    fn laxity_counts_only_when_it_is_asked_for_and_breaking_always() {
        let report = |strict, level, verdict| Report {
            target: String::new(),
            strict,
            findings: vec![finding(level, verdict)],
        };
        assert!(!report(false, Level::Must, Verdict::WronglyAccepted).holds());
        assert!(report(false, Level::Should, Verdict::WronglyAccepted).holds());
        assert!(!report(true, Level::Should, Verdict::WronglyAccepted).holds());
        assert!(!report(false, Level::Should, Verdict::Broke).holds());
        assert!(report(true, Level::Must, Verdict::NotSent).holds());
    }

    #[test]
    fn junit_is_well_formed_whatever_a_case_says() {
        let report = Report {
            target: String::new(),
            strict: false,
            findings: vec![finding(Level::Must, Verdict::WronglyAccepted)],
        };
        let xml = report.to_junit();
        assert!(xml.contains("a &lt;&quot;reason&quot;&gt; &amp; a  bell"), "{xml}");
        assert!(xml.contains("tests=\"1\" failures=\"1\" skipped=\"0\""), "{xml}");
    }
}
