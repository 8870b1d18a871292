//! Answers on standard output: text for people, JSON for programs, nothing a terminal would obey.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::Value;

use super::CliError;

/// Prints one line, or several.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(CliError::Output)
}

/// Prints a JSON document.
pub fn print_json(value: &Value) -> Result<(), CliError> {
    print(&pretty(value))
}

/// A JSON document over several lines, still JSON where characters had to be escaped.
pub fn pretty(value: &Value) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Text from elsewhere as a person may see it: control characters and those that turn the direction of
/// writing are shown, never obeyed.
pub fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if is_hidden(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
        out
    })
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// An error and what caused it, on one line; a cause that repeats what was said is left out.
pub fn chain(error: &dyn Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !out.contains(&text) {
            let _ = write!(out, ": {text}");
        }
        source = cause.source();
    }
    out
}

/// Columns that line up, two spaces apart.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|c| plain(c)).collect()).collect();
    let width = |i: usize| {
        let cells = rows.iter().map(|r| r.get(i).map_or(0, |c| c.chars().count()));
        cells.chain([head[i].chars().count()]).max().unwrap_or(0)
    };
    let line = |cells: &[&str]| {
        let mut out = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let _ = write!(out, "{cell:<0$}  ", width(i));
        }
        out.trim_end().to_owned()
    };
    let body = rows.iter().map(|r| line(&r.iter().map(String::as_str).collect::<Vec<_>>()));
    std::iter::once(line(head)).chain(body).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_elsewhere_reaches_the_terminal_as_a_command() {
        assert_eq!(plain("a\u{1b}[31mb\u{202e}c"), "a\\u{1b}[31mb\\u{202e}c");
        let value = serde_json::json!({"a": "x\u{9b}\u{202e}é"});
        let text = pretty(&value);
        assert!(text.contains("\\u009b\\u202eé"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["aaaa".to_owned(), "b".to_owned()], vec!["é".to_owned(), "c".to_owned()]];
        assert_eq!(table(&["x", "y"], &rows), "x     y\naaaa  b\né     c");
    }
}
