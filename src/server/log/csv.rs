//! The log as a table for spreadsheets, safe to open in one.

use serde_json::Value;

use super::read::LogEntry;

/// Columns of the table, each with the body's member or the disclosure it shows.
const COLUMNS: [(&str, Source); 20] = [
    ("typ", Source::Body("typ")),
    ("decision", Source::Body("decision")),
    ("rule", Source::Body("rule")),
    ("policy", Source::Body("policy")),
    ("client", Source::Body("client")),
    ("request", Source::Body("req")),
    ("grant", Source::Body("grant")),
    ("jti", Source::Body("jti")),
    ("kid", Source::Body("kid")),
    ("audience", Source::Body("aud")),
    ("scope", Source::Body("scope")),
    ("issued_at", Source::Body("iat")),
    ("lifetime_seconds", Source::Body("ttl")),
    ("assurance", Source::Body("assurance")),
    ("detail", Source::Body("detail")),
    ("actor", Source::Personal("act")),
    ("user_id", Source::Personal("sub")),
    ("reason", Source::Personal("reason")),
    ("ticket", Source::Personal("ticket")),
    ("address", Source::Personal("addr")),
];

#[derive(Clone, Copy)]
enum Source {
    Body(&'static str),
    Personal(&'static str),
}

/// The names of the columns, a line without its end.
#[must_use]
pub fn header() -> String {
    let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    format!("epoch,index,time,leaf,{}", names.join(","))
}

/// An entry as a line without its end; what it does not have or does not show is empty.
#[must_use]
pub fn line(entry: &LogEntry) -> String {
    let mut cells = vec![
        entry.epoch.to_string(),
        entry.index.to_string(),
        entry.time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        entry.leaf_hex(),
    ];
    for (_, source) in COLUMNS {
        let value = match source {
            Source::Body(name) => entry.body.as_ref().and_then(|body| body.get(name)),
            Source::Personal(name) => entry.personal.as_ref().and_then(|personal| personal.get(name)),
        };
        cells.push(cell(&value.map_or_else(String::new, text_of)));
    }
    cells.join(",")
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        Value::Object(act) if act.len() == 1 && act.contains_key("sub") => text_of(&act["sub"]),
        other => other.to_string(),
    }
}

/// A cell that no spreadsheet takes for a formula, quoted where it must be (RFC 4180).
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) || formula {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for (text, shown) in [
            ("plain", "plain"),
            ("=1+1", "\"'=1+1\""),
            ("+49", "\"'+49\""),
            ("-1", "\"'-1\""),
            ("@sum", "\"'@sum\""),
            ("\tx", "\"'\tx\""),
            ("\rx", "\"'\rx\""),
            ("a,\"b\"\nc", "\"a,\"\"b\"\"\nc\""),
        ] {
            assert_eq!(cell(text), shown);
        }
    }
}
