//! The CSV form of the file directory: RFC 4180 with a header line; several roles in one field stand with `;` between.

use super::file::{Entry, Flaw};
use crate::token::Sub;

const COLUMNS: [&str; 8] =
    ["id", "active", "display_name", "roles", "groups", "org", "consent_until", "opted_out"];
const REQUIRED: [&str; 2] = ["id", "active"];

/// The people of a CSV text, each with the place it stands at.
pub(super) fn parse_people(text: &str) -> Result<Vec<(String, Entry)>, Flaw> {
    let mut records = records(text.strip_prefix('\u{feff}').unwrap_or(text))?.into_iter();
    let (_, header) = records.next().ok_or_else(|| flaw(1, "a header line is needed"))?;
    let mut columns = Vec::with_capacity(header.len());
    for name in &header {
        let known = COLUMNS.iter().find(|c| *c == name).copied();
        let column =
            known.ok_or_else(|| flaw(1, &format!("unknown column; known are {}", COLUMNS.join(", "))))?;
        if columns.contains(&column) {
            return Err(flaw(1, &format!("column {column} is there twice")));
        }
        columns.push(column);
    }
    if let Some(missing) = REQUIRED.iter().find(|name| !columns.contains(name)) {
        return Err(flaw(1, &format!("column {missing} is missing")));
    }
    records.map(|(line, fields)| Ok((format!("line {line}"), entry(line, &columns, fields)?))).collect()
}

fn entry(line: usize, columns: &[&str], fields: Vec<String>) -> Result<Entry, Flaw> {
    if fields.len() != columns.len() {
        return Err(flaw(line, &format!("{} fields where the header has {}", fields.len(), columns.len())));
    }
    let values = columns.iter().copied().zip(fields);
    let take = |wanted: &str| values.clone().find(|(name, _)| *name == wanted).map(|(_, value)| value);
    let text = |wanted: &str| take(wanted).filter(|value| !value.is_empty());
    let list = |value: Option<String>| -> Vec<String> {
        value.map(|v| v.split(';').map(|w| w.trim().to_owned()).collect()).unwrap_or_default()
    };
    let yes_or_no = |name: &str, value: Option<String>| match value.as_deref() {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        None if !REQUIRED.contains(&name) => Ok(false),
        _ => Err(flaw(line, &format!("{name} must be true or false"))),
    };
    let id = text("id").unwrap_or_default();
    let consent_until = match text("consent_until") {
        None => None,
        Some(time) => Some(
            time.parse()
                .map_err(|_| flaw(line, "consent_until must be a time such as 2030-01-31T12:00:00Z"))?,
        ),
    };
    Ok(Entry {
        id: Sub::try_from(id).map_err(|e| flaw(line, &format!("id {e}")))?,
        active: yes_or_no("active", text("active"))?,
        display_name: text("display_name"),
        roles: list(text("roles")),
        groups: list(text("groups")),
        org: text("org"),
        consent_until,
        opted_out: yes_or_no("opted_out", text("opted_out"))?,
    })
}

/// Splits the text into records with the line each begins at; empty lines are skipped.
fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>, Flaw> {
    let mut records = Vec::new();
    let (mut fields, mut field) = (Vec::new(), String::new());
    let (mut line, mut began, mut quoted, mut was_quoted) = (1, 1, false, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() && !was_quoted => (quoted, was_quoted) = (true, true),
            '"' => return Err(flaw(line, "a quotation mark inside a field that is not quoted")),
            ',' if !quoted => {
                fields.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                if !(fields.is_empty() && field.is_empty() && !was_quoted) {
                    fields.push(std::mem::take(&mut field));
                    records.push((began, std::mem::take(&mut fields)));
                }
                line += 1;
                (began, was_quoted) = (line, false);
            }
            _ if was_quoted && !quoted => return Err(flaw(line, "text after a closing quotation mark")),
            _ => {
                if c == '\n' {
                    line += 1;
                }
                field.push(c);
            }
        }
    }
    if quoted {
        return Err(flaw(began, "a quotation mark is not closed"));
    }
    if !(fields.is_empty() && field.is_empty() && !was_quoted) {
        fields.push(field);
        records.push((began, fields));
    }
    Ok(records)
}

fn flaw(line: usize, what: &str) -> Flaw {
    Flaw { place: format!("line {line}"), what: what.to_owned() }
}
