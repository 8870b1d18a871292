//! `stagedoor policy check | explain | test | show`: a policy looked at before it is used.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::output;
use crate::server::policy::{
    Expectations, ExpectationsError, FactsError, Policy, PolicyError, SCHEMA, SHIPPED_DEFAULT, SHIPPED_DEV,
    question_from_json,
};
use crate::token::Clock;

/// The most bytes of facts that are read.
const MAX_FACTS_BYTES: u64 = 64 * 1024;

/// What `stagedoor policy` does.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Says whether a policy is valid, and every problem with its place in the text.
    Check {
        /// A file, a directory of `*.cedar`, `shipped:default` or `shipped:dev`; else the configured one.
        path: Option<PathBuf>,
    },
    /// Answers a question and says which rule decided and what became of every other.
    Explain {
        /// The facts, TOML or (named `*.json`) JSON; `-` reads JSON from standard input.
        facts: PathBuf,
        /// The policy, as for `check`.
        #[arg(long)]
        policy: Option<PathBuf>,
    },
    /// Runs a table of expectations; fails when one is not met.
    Test {
        /// The table, TOML or (named `*.json`) JSON.
        file: PathBuf,
        /// The policy, as for `check`; else the one the table names, else the configured one.
        #[arg(long)]
        policy: Option<PathBuf>,
    },
    /// Prints a text that comes with the program, to begin one's own from.
    Show {
        /// Which.
        #[arg(value_enum, default_value = "default")]
        what: Shown,
    },
}

/// A text that comes with the program.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Shown {
    /// The default policy.
    Default,
    /// The policy of `stagedoor dev`.
    Dev,
    /// The Cedar schema.
    Schema,
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum PolicyCommandError {
    /// There is no valid policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// There is no valid table.
    #[error(transparent)]
    Expectations(#[from] ExpectationsError),
    /// The facts could not be read.
    #[error("the facts at {} could not be read", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// The facts are neither TOML nor JSON.
    #[error("the facts are not valid: {0}")]
    Syntax(String),
    /// The facts are not a question.
    #[error("the facts are not a question: {0}")]
    Facts(#[from] FactsError),
    /// The answer could not be written.
    #[error("the answer could not be written")]
    Output(#[from] std::io::Error),
}

impl PolicyCommandError {
    /// 1: looked at and not valid; 2: could not look.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Policy(PolicyError::Invalid(_) | PolicyError::TooLarge) => 1,
            _ => 2,
        }
    }
}

/// Runs a command and answers its exit code: 0 as it should be, 1 not. `json`: for programs. `configured` is the policy of the
/// settings; without one the shipped default is meant.
///
/// # Errors
/// There is no answer; [`PolicyCommandError::exit_code`] is the process's. Nothing was written then.
pub fn run(
    command: &PolicyCommand,
    json: bool,
    configured: Option<&Path>,
    clock: &dyn Clock,
    input: &mut dyn Read,
    out: &mut dyn Write,
) -> Result<u8, PolicyCommandError> {
    match command {
        PolicyCommand::Check { path } => check(path.as_deref().or(configured), json, out),
        PolicyCommand::Explain { facts, policy } => {
            let policy = load(policy.as_deref().or(configured))?;
            let question = question_from_json(read_facts(facts, input)?, clock.now())?;
            let explanation = policy.explain(&question);
            answer(json, out, || explanation.to_json(), || explanation.to_string())?;
            Ok(0)
        }
        PolicyCommand::Test { file, policy } => test(file, policy.as_deref(), configured, json, out),
        PolicyCommand::Show { what } => {
            let text = match what {
                Shown::Default => SHIPPED_DEFAULT,
                Shown::Dev => SHIPPED_DEV,
                Shown::Schema => SCHEMA,
            };
            out.write_all(text.as_bytes())?;
            Ok(0)
        }
    }
}

/// Writes the answer; text as a terminal may see it.
fn answer(
    json: bool,
    out: &mut dyn Write,
    value: impl FnOnce() -> Value,
    text: impl FnOnce() -> String,
) -> std::io::Result<()> {
    if json {
        return writeln!(out, "{}", output::pretty(&value()));
    }
    text().lines().try_for_each(|line| writeln!(out, "{}", output::plain(line)))
}

fn check(path: Option<&Path>, json: bool, out: &mut dyn Write) -> Result<u8, PolicyCommandError> {
    match load(path) {
        Ok(policy) => {
            let (rules, version) = (policy.rule_count(), policy.version());
            let value = || json!({ "valid": true, "policy": version, "rules": rules });
            answer(json, out, value, || format!("valid: {rules} rules, {version}"))?;
            Ok(0)
        }
        // The problems are the answer to this question, not a failure to answer it.
        Err(PolicyError::Invalid(problems)) => {
            let value = || {
                let problems: Vec<Value> = problems
                    .iter()
                    .map(|p| json!({ "file": p.file, "line": p.line, "column": p.column, "message": p.message }))
                    .collect();
                json!({ "valid": false, "problems": problems })
            };
            let text = || problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            answer(json, out, value, text)?;
            Ok(1)
        }
        Err(error) => Err(error.into()),
    }
}

fn test(
    file: &Path,
    policy: Option<&Path>,
    configured: Option<&Path>,
    json: bool,
    out: &mut dyn Write,
) -> Result<u8, PolicyCommandError> {
    let table = Expectations::from_path(file)?;
    let named = table.policy.as_ref().map(|p| match shipped(p) {
        Some(_) => p.clone(),
        // What a table names stands beside it, wherever the command is run from.
        None => file.parent().unwrap_or(Path::new("")).join(p),
    });
    let report = table.run(&load(policy.or(named.as_deref()).or(configured))?);
    answer(json, out, || report.to_json(), || report.to_string())?;
    Ok(u8::from(report.failed() > 0))
}

/// The policy that comes with the program under this name.
fn shipped(path: &Path) -> Option<Policy> {
    match path.to_str()? {
        "shipped:default" => Some(Policy::shipped_default()),
        "shipped:dev" => Some(Policy::shipped_dev()),
        _ => None,
    }
}

fn load(path: Option<&Path>) -> Result<Policy, PolicyError> {
    let Some(path) = path else { return Ok(Policy::shipped_default()) };
    shipped(path).map_or_else(|| Policy::from_path(path), Ok)
}

fn read_facts(path: &Path, input: &mut dyn Read) -> Result<serde_json::Value, PolicyCommandError> {
    let unreadable = |e| PolicyCommandError::Unreadable(path.to_owned(), e);
    let standard_input = path == Path::new("-");
    let mut text = String::new();
    if standard_input {
        input.take(MAX_FACTS_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_FACTS_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    }
    if text.len() as u64 > MAX_FACTS_BYTES {
        return Err(PolicyCommandError::Syntax(format!("they are longer than {MAX_FACTS_BYTES} bytes")));
    }
    if standard_input || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        serde_json::from_str(&text).map_err(|e| PolicyCommandError::Syntax(e.to_string()))
    } else {
        toml::from_str(&text).map_err(|e| PolicyCommandError::Syntax(e.to_string()))
    }
}
