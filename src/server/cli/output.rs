//! Answers on standard output: text for people, JSON for programs, nothing a terminal would obey.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::Value;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{CliError, terminal};

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
    escaped(&serde_json::to_string_pretty(value).unwrap_or_default())
}

/// A JSON document on one line.
pub fn compact(value: &Value) -> String {
    escaped(&value.to_string())
}

fn escaped(text: &str) -> String {
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

/// `text` in at most `columns` columns, an ellipsis where something was cut off.
pub fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut left = columns.saturating_sub(1);
    for c in text.chars() {
        let width = c.width().unwrap_or(0);
        if width > left {
            break;
        }
        left -= width;
        out.push(c);
    }
    out.push('…');
    out
}

/// Columns that line up, two spaces apart. Where the terminal is too narrow for them, one line a cell instead:
/// an id that is cut off is of no use.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    fitting(head, rows, terminal::columns())
}

fn fitting(head: &[&str], rows: &[Vec<String>], columns: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|c| plain(c)).collect()).collect();
    let width = |i: usize| {
        let cells = rows.iter().map(|r| r.get(i).map_or(0, |c| c.width()));
        cells.chain([head[i].width()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    if columns.is_some_and(|most| widths.iter().sum::<usize>() + 2 * (widths.len() - 1) > most) {
        return records(head, &rows);
    }
    let line = |cells: &[&str]| {
        let mut out = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', width - cell.width() + 2));
        }
        out.trim_end().to_owned()
    };
    let body = rows.iter().map(|r| line(&r.iter().map(String::as_str).collect::<Vec<_>>()));
    std::iter::once(line(head)).chain(body).collect::<Vec<_>>().join("\n")
}

fn records(head: &[&str], rows: &[Vec<String>]) -> String {
    let names = head.iter().map(|name| name.width()).max().unwrap_or(0);
    let record = |row: &Vec<String>| {
        let lines = head.iter().zip(row).map(|(name, cell)| format!("{name:<names$}  {cell}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    rows.iter().map(record).collect::<Vec<_>>().join("\n\n")
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
        assert_eq!(fitting(&["x", "y"], &rows, None), "x     y\naaaa  b\né     c");
        let wide = vec![vec!["日本".to_owned(), "b".to_owned()]];
        assert_eq!(fitting(&["x", "y"], &wide, Some(7)), "x     y\n日本  b", "two columns a character");
    }

    #[test]
    fn a_table_too_wide_for_the_terminal_loses_nothing() {
        let rows =
            vec![vec!["act_1".to_owned(), "one two".to_owned()], vec!["act_2".to_owned(), "x".to_owned()]];
        assert_eq!(fitting(&["ID", "NAME"], &rows, Some(14)).lines().count(), 3, "it fits exactly");
        let narrow = fitting(&["ID", "NAME"], &rows, Some(13));
        assert_eq!(narrow, "ID    act_1\nNAME  one two\n\nID    act_2\nNAME  x");
    }

    #[test]
    fn a_line_is_cut_by_the_columns_it_takes() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 0), "…");
    }
}
