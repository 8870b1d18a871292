//! A policy from its text: parsed, validated strictly, named by the SHA-256 of what was read.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{Effect, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;

use super::annotations::Annotations;
use super::entities::Reads;

/// The Cedar schema every policy is validated against.
pub const SCHEMA: &str = include_str!("schema.cedarschema");
/// The text of [`Policy::shipped_default`].
pub const SHIPPED_DEFAULT: &str = include_str!("shipped/default.cedar");
/// The text of [`Policy::shipped_dev`].
pub const SHIPPED_DEV: &str = include_str!("shipped/dev.cedar");
/// The most policy text that is read, bytes, over all files.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// The most problems that are told at once: a reader mends the first ones first.
const MAX_PROBLEMS: usize = 50;

pub(super) static PARSED_SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::from_str(SCHEMA).expect("the shipped schema parses: a test holds it"));

/// One file of a policy.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What messages call it.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// One thing wrong with a policy, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Line, from 1; `None` when the text as a whole is meant.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
    /// One sentence, and what would help where Cedar knows it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file could not be read.
    #[error("the policy at {} could not be read", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A directory without any file that ends in `.cedar`.
    #[error("there is no file *.cedar in {}", .path.display())]
    NoFiles {
        /// Which.
        path: PathBuf,
    },
    /// More text than is ever read.
    #[error("the policy is larger than {MAX_TEXT_BYTES} bytes")]
    TooLarge,
    /// The text is not a valid policy.
    #[error("the policy is not valid:\n{}", .0.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}

/// One rule of a loaded policy.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) annotations: Annotations,
    pub(super) effect: Effect,
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) policy: cedar_policy::Policy,
}

/// A policy that was parsed and validated: a value, shared and never changed.
#[derive(Debug)]
pub struct Policy {
    version: String,
    sha256: [u8; 32],
    /// In the order of the text.
    pub(super) rules: Vec<Rule>,
    pub(super) index: HashMap<PolicyId, usize>,
    /// Apart, so that a refusal by a forbid can be told from one for want of a permit.
    pub(super) permits: PolicySet,
    pub(super) forbids: PolicySet,
    /// The words of the schema that some rule may name: what none names is not built for a decision.
    pub(super) reads: Reads,
}

impl Policy {
    /// Parses and validates the text of a policy. `name` is the `id` in its version, `id@sha256`.
    ///
    /// The SHA-256 is that of the text when there is one file (what `sha256sum` prints), and that of the
    /// lines `<sha256>  <file>\n` (what `sha256sum *.cedar` prints) when there are several.
    ///
    /// # Errors
    /// Every problem found, with file, line and column: syntax, types, an attribute read without `has`,
    /// a rule that can never apply, an annotation that is unknown or nonsense. Warnings of Cedar's
    /// validator are problems too: a rule that decides who may be whom should leave no doubt.
    pub fn load(name: &str, sources: &[Source<'_>]) -> Result<Self, PolicyError> {
        if sources.iter().map(|s| s.text.len()).sum::<usize>() > MAX_TEXT_BYTES {
            return Err(PolicyError::TooLarge);
        }
        let sha256 = text_sha256(sources);
        let mut problems = Vec::new();
        let mut rules: Vec<Rule> = Vec::new();
        for source in sources {
            read_rules(*source, &mut rules, &mut problems);
        }
        let index = index_rules(&rules, &mut problems);
        if rules.is_empty() && problems.is_empty() {
            problems.push(whole(sources.first().map_or(name, |s| s.file), "there is no rule in it"));
        }
        // Cedar's validator speaks of rules by id; with two of one name its words would mislead.
        let (permits, forbids) = (rule_set(&rules, Effect::Permit), rule_set(&rules, Effect::Forbid));
        if problems.is_empty() {
            for set in [&permits, &forbids] {
                validate(set, sources, &rules, &index, &mut problems);
            }
        }
        if !problems.is_empty() {
            problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
            problems.truncate(MAX_PROBLEMS);
            return Err(PolicyError::Invalid(problems));
        }
        let reads = Reads::of(sources.iter().map(|s| s.text));
        let version = format!("{name}@{}", hex(&sha256));
        Ok(Self { version, sha256, rules, index, permits, forbids, reads })
    }

    /// Reads a policy from a file, or from the files `*.cedar` of a directory in the order of their names.
    ///
    /// # Errors
    /// As [`Policy::load`], or the file cannot be read.
    pub fn from_path(path: &Path) -> Result<Self, PolicyError> {
        let files = PolicyFiles::read(path)?;
        Self::load(&files.name, &files.sources())
    }

    /// The policy a server without one of its own uses.
    ///
    /// # Panics
    /// Never: a test loads it.
    #[must_use]
    pub fn shipped_default() -> Self {
        Self::load("default", &[Source { file: "default.cedar", text: SHIPPED_DEFAULT }])
            .expect("the shipped default policy is valid: a test holds it")
    }

    /// The policy of `stagedoor dev`.
    ///
    /// # Panics
    /// Never: a test loads it.
    #[must_use]
    pub fn shipped_dev() -> Self {
        Self::load("dev", &[Source { file: "dev.cedar", text: SHIPPED_DEV }])
            .expect("the shipped dev policy is valid: a test holds it")
    }

    /// `id@sha256`, as it stands in the log.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The SHA-256 of the text (see [`Policy::load`]).
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Whether any rule looks at how many targets the actor had: only then somebody has to count.
    pub fn counts_targets(&self) -> bool {
        self.reads.word("targets_last_hour")
            || self.rules.iter().any(|rule| rule.annotations.max_targets_per_hour.is_some())
    }

    /// Whether any permit lets somebody break the glass.
    pub fn breaks_glass(&self) -> bool {
        self.rules.iter().any(|rule| rule.effect == Effect::Permit && rule.annotations.break_glass)
    }

    /// How many rules there are.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }
}

/// The files of a policy as they were read: hashed before anything is parsed.
pub(super) struct PolicyFiles {
    pub(super) name: String,
    files: Vec<(String, String)>,
}

impl PolicyFiles {
    pub(super) fn read(path: &Path) -> Result<Self, PolicyError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| PolicyError::Unreadable { path, source }
        };
        let mut paths = Vec::new();
        if path.is_dir() {
            for entry in std::fs::read_dir(path).map_err(unreadable(path))? {
                let file = entry.map_err(unreadable(path))?.path();
                if file.extension().is_some_and(|e| e == "cedar") {
                    paths.push(file);
                }
            }
            paths.sort();
            if paths.is_empty() {
                return Err(PolicyError::NoFiles { path: path.to_owned() });
            }
        } else {
            paths.push(path.to_owned());
        }
        let mut left = MAX_TEXT_BYTES;
        let mut files = Vec::new();
        for file in paths {
            let text = read_at_most(&file, left).map_err(unreadable(&file))?.ok_or(PolicyError::TooLarge)?;
            left -= text.len();
            files.push((file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned(), text));
        }
        let name = path.file_stem().map_or_else(|| "policy".to_owned(), |s| s.to_string_lossy().into_owned());
        Ok(Self { name, files })
    }

    pub(super) fn sources(&self) -> Vec<Source<'_>> {
        self.files.iter().map(|(file, text)| Source { file, text }).collect()
    }

    pub(super) fn sha256(&self) -> [u8; 32] {
        text_sha256(&self.sources())
    }
}

/// The text of a file, or `None` when it is longer than `most` bytes.
fn read_at_most(path: &Path, most: usize) -> std::io::Result<Option<String>> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(most as u64 + 1).read_to_string(&mut text)?;
    Ok((text.len() <= most).then_some(text))
}

fn text_sha256(sources: &[Source<'_>]) -> [u8; 32] {
    match sources {
        [one] => sha256(one.text.as_bytes()),
        many => {
            let line = |s: &Source<'_>| format!("{}  {}\n", hex(&sha256(s.text.as_bytes())), s.file);
            sha256(many.iter().map(line).collect::<Vec<_>>().concat().as_bytes())
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 is 32 bytes long")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // writing to a string cannot fail
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Parses one file and reads the annotations of its rules.
fn read_rules(source: Source<'_>, rules: &mut Vec<Rule>, problems: &mut Vec<Problem>) {
    let set = match PolicySet::from_str(source.text) {
        Ok(set) => set,
        Err(errors) => {
            problems.extend(errors.iter().map(|e| problem_of(source, e, None)));
            return;
        }
    };
    for template in set.templates() {
        problems.push(whole(source.file, &format!("a rule with slots ({}) is never linked", template.id())));
    }
    let mut from = 0;
    // Cedar numbers the policies of a text in order; its own iterator has none.
    for number in 0..set.num_of_policies() {
        let Some(policy) = set.policy(&PolicyId::new(format!("policy{number}"))) else { continue };
        let text = policy.to_string();
        let start = source.text[from..].find(&text).map_or(from, |at| from + at);
        let end = start + text.len().min(source.text.len() - start);
        match Annotations::read(policy.effect(), policy.annotations()) {
            Ok(annotations) => rules.push(Rule {
                effect: policy.effect(),
                file: source.file.to_owned(),
                line: position(source.text, start).0,
                policy: policy.new_id(PolicyId::new(&annotations.id)),
                annotations,
            }),
            Err(faults) => problems.extend(faults.into_iter().map(|fault| {
                let name = fault.name.unwrap_or_default();
                let at = source.text.get(start..end).and_then(|t| find_annotation(t, &name)).unwrap_or(0);
                let message =
                    if name.is_empty() { fault.message } else { format!("@{name}: {}", fault.message) };
                at_offset(source, start + at, message)
            })),
        }
        from = end;
    }
}

/// Where `@name` stands in the text of a rule (Cedar allows space after the `@`; then the rule's start will do).
fn find_annotation(text: &str, name: &str) -> Option<usize> {
    text.match_indices(&format!("@{name}"))
        .map(|(at, _)| at)
        .find(|at| !text[at + 1 + name.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
}

fn index_rules(rules: &[Rule], problems: &mut Vec<Problem>) -> HashMap<PolicyId, usize> {
    let mut index = HashMap::new();
    for (at, rule) in rules.iter().enumerate() {
        if let Some(first) = index.insert(rule.policy.id().clone(), at) {
            let first = &rules[first];
            problems.push(Problem {
                file: rule.file.clone(),
                line: Some(rule.line),
                column: Some(1),
                message: format!(
                    "a rule named `{}` stands in {}:{} already",
                    rule.annotations.id, first.file, first.line
                ),
            });
        }
    }
    index
}

fn rule_set(rules: &[Rule], effect: Effect) -> PolicySet {
    let mut set = PolicySet::new();
    for rule in rules.iter().filter(|r| r.effect == effect) {
        // A second rule of the same name is a problem already told by `index_rules`.
        let _ = set.add(rule.policy.clone());
    }
    set
}

fn validate(
    set: &PolicySet,
    sources: &[Source<'_>],
    rules: &[Rule],
    index: &HashMap<PolicyId, usize>,
    problems: &mut Vec<Problem>,
) {
    let result = Validator::new(PARSED_SCHEMA.clone()).validate(set, ValidationMode::Strict);
    let mut add = |id: &PolicyId, diagnostic: &dyn Diagnostic| {
        let rule = index.get(id).map(|at| &rules[*at]);
        let source = rule.and_then(|r| sources.iter().find(|s| s.file == r.file));
        if let Some(source) = source {
            problems.push(problem_of(*source, diagnostic, rule.map(|r| r.line)));
        } else {
            problems.push(whole("policy", &sentence(diagnostic)));
        }
    };
    for error in result.validation_errors() {
        add(error.policy_id(), error);
    }
    for warning in result.validation_warnings() {
        add(warning.policy_id(), warning);
    }
}

/// A diagnostic of Cedar's as a problem: at its first label, else at `line`.
fn problem_of(source: Source<'_>, diagnostic: &dyn Diagnostic, line: Option<usize>) -> Problem {
    let label = diagnostic.labels().and_then(|mut labels| labels.next());
    match (label, line) {
        (Some(label), _) => at_offset(source, label.offset(), sentence(diagnostic)),
        (None, Some(line)) => {
            Problem { line: Some(line), column: Some(1), ..whole(source.file, &sentence(diagnostic)) }
        }
        (None, None) => whole(source.file, &sentence(diagnostic)),
    }
}

fn sentence(diagnostic: &dyn Diagnostic) -> String {
    let mut out = diagnostic.to_string();
    if let Some(help) = diagnostic.help() {
        out.push_str(" (");
        out.push_str(&help.to_string());
        out.push(')');
    }
    out
}

fn at_offset(source: Source<'_>, offset: usize, message: String) -> Problem {
    let (line, column) = position(source.text, offset);
    Problem { file: source.file.to_owned(), line: Some(line), column: Some(column), message }
}

fn whole(file: &str, message: &str) -> Problem {
    Problem { file: file.to_owned(), line: None, column: None, message: message.to_owned() }
}

/// Line and column, from 1, of a byte offset; one past the end is the end.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "é1\n  x";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 2), (1, 2));
        assert_eq!(position(text, 1), (1, 1), "inside a character is at it");
        assert_eq!(position(text, text.len() - 1), (2, 3));
        assert_eq!(position(text, 999), (2, 4));
    }
}
