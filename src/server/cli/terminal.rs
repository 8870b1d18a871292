//! The terminal: whether there is one, how wide it is, colours, and questions to the person at it.

use std::io::{IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use zeroize::Zeroizing;

use super::CliError;

/// Columns of a terminal that does not say how many it has.
const USUAL_COLUMNS: usize = 80;

/// The columns of standard output; `None` when it is no terminal and lines may be as long as they are.
pub fn columns() -> Option<usize> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let columns = tcgetwinsize(out).map_or(0, |size| usize::from(size.ws_col));
    Some(if columns == 0 { USUAL_COLUMNS } else { columns })
}

/// What a word means, said by colour beside the word itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It went well.
    Good,
    /// It did not.
    Bad,
    /// Less important than what stands beside it.
    Aside,
}

/// `text` in the colour of `tone`; as it is where standard output is no terminal, `NO_COLOR` is set or
/// `TERM` says that colours are not understood.
pub fn paint(tone: Tone, text: &str) -> String {
    if anstream::AutoStream::choice(&std::io::stdout()) == anstream::ColorChoice::Never {
        return text.to_owned();
    }
    let style = match tone {
        Tone::Good => Style::new().fg_color(Some(AnsiColor::Green.into())),
        Tone::Bad => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
        Tone::Aside => Style::new().dimmed(),
    };
    format!("{style}{text}{style:#}")
}

/// Whether there is a person to ask: questions go to standard error, answers come from standard input.
pub fn may_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks until something is answered.
///
/// # Errors
/// The input ended, or the terminal cannot be used.
pub fn ask(question: &str) -> Result<String, CliError> {
    loop {
        let answer = read(question)?;
        if !answer.trim().is_empty() {
            return Ok(answer.trim().to_owned());
        }
    }
}

/// Asks for what must not stand on the screen.
///
/// # Errors
/// The input ended, or the terminal cannot be used.
pub fn ask_hidden(question: &str) -> Result<Zeroizing<String>, CliError> {
    let hidden = Hidden::new().map_err(failed)?;
    let answer = read(question);
    drop(hidden);
    // the person's own line end was not shown either
    eprintln!();
    Ok(Zeroizing::new(answer?.trim().to_owned()))
}

fn read(question: &str) -> Result<Zeroizing<String>, CliError> {
    let mut prompt = std::io::stderr().lock();
    write!(prompt, "{question}: ").and_then(|()| prompt.flush()).map_err(failed)?;
    let mut line = Zeroizing::new(String::new());
    if std::io::stdin().read_line(&mut line).map_err(failed)? == 0 {
        return Err(CliError::Refused("nothing was answered; give it as an option, see --help".into()));
    }
    Ok(line)
}

fn failed(source: impl Into<std::io::Error>) -> CliError {
    CliError::File { path: "the terminal".into(), source: source.into() }
}

/// While it lives, what is typed is not shown.
struct Hidden(Termios);

impl Hidden {
    fn new() -> rustix::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
