//! File and environment laid over each other, by one table of what may be set.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::environment::PREFIX;
use super::error::ConfigError;
use super::secret::Secret;

/// The largest configuration file that is read, bytes.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;
/// The largest secret file that is read, bytes.
const MAX_SECRET_BYTES: u64 = 16 << 10;
/// The most entries of `[[issuers]]` or `[[gates]]`.
const MAX_TABLES: usize = 256;

/// What kind of value a setting takes; decides how text from the environment is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Boolean,
    Integer,
    /// A list of texts; in the environment separated by commas.
    List,
    /// Text that may also come from the file named by `<key>_file`.
    Secret,
    Table(&'static [Field]),
    Tables(&'static [Field]),
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub name: &'static str,
    pub kind: Kind,
}

/// Shorthand for tables of settings.
pub(super) const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind }
}

/// What was given for one setting.
#[derive(Debug)]
enum Given {
    One { value: toml::Value, setting: String },
    Table(Section),
    Tables(Vec<Section>),
}

/// A table of settings as given; where each came from is kept for messages.
#[derive(Debug)]
pub(super) struct Section {
    /// What this section is called in messages: empty at the top, else `issuers[0]`.
    name: String,
    /// The file the section stands in, for messages.
    file: String,
    given: BTreeMap<String, Given>,
}

/// A text, and what it is called in messages.
pub(super) struct Text {
    pub value: String,
    pub setting: String,
}

impl Text {
    pub fn invalid(&self, why: impl Into<String>) -> ConfigError {
        ConfigError::invalid(&self.setting, why)
    }
}

impl Section {
    /// Reads a parsed file; every key must be in `fields`.
    pub fn from_file(file: &str, table: toml::Table, fields: &'static [Field]) -> Result<Self, ConfigError> {
        Self::from_table(String::new(), file, table, fields)
    }

    fn from_table(
        name: String,
        file: &str,
        table: toml::Table,
        fields: &'static [Field],
    ) -> Result<Self, ConfigError> {
        let mut out = Self { name, file: file.to_owned(), given: BTreeMap::new() };
        for (key, value) in table {
            let path = out.path(&key);
            let setting = format!("`{path}` in {file}");
            let Some((known, kind)) = find(fields, &key) else {
                let nearest = out.path(&nearest(fields, &key));
                return Err(ConfigError::Unknown { given: setting, nearest: format!("`{nearest}`") });
            };
            let given = match (kind, value) {
                (Kind::Table(inner), toml::Value::Table(t)) => {
                    Given::Table(Self::from_table(path, file, t, inner)?)
                }
                (Kind::Tables(inner), toml::Value::Array(list)) => {
                    Given::Tables(tables(&path, file, list, inner)?)
                }
                (Kind::Table(_), _) => {
                    return Err(ConfigError::invalid(setting, format!("is a table; write [{path}]")));
                }
                (Kind::Tables(_), _) => {
                    return Err(ConfigError::invalid(
                        setting,
                        format!("is a list of tables; write [[{path}]]"),
                    ));
                }
                (_, value) => Given::One { value, setting },
            };
            out.given.insert(known, given);
        }
        Ok(out)
    }

    /// Lays one variable over what the file said; `name` is without the prefix.
    pub fn overlay(&mut self, name: &str, value: &str, fields: &'static [Field]) -> Result<(), ConfigError> {
        let path: Vec<String> = name.split("__").map(str::to_ascii_lowercase).collect();
        self.overlay_path(name, "", &path, value, fields)
    }

    fn overlay_path(
        &mut self,
        full: &str,
        before: &str,
        path: &[String],
        value: &str,
        fields: &'static [Field],
    ) -> Result<(), ConfigError> {
        let setting = format!("{PREFIX}{full}");
        let (key, rest) = path.split_first().map_or(("", path), |(k, r)| (k.as_str(), r));
        let found =
            find(fields, key).filter(|(known, kind)| nested(*kind) != rest.is_empty() && known == key);
        let Some((known, kind)) = found else {
            let near = nearest(fields, key);
            return Err(ConfigError::Unknown { given: setting, nearest: variable(before, &near, fields) });
        };
        let before = format!("{before}{}__", known.to_ascii_uppercase());
        match kind {
            Kind::Table(inner) => {
                let section = Self { name: self.path(key), file: self.file.clone(), given: BTreeMap::new() };
                match self.given.entry(known).or_insert(Given::Table(section)) {
                    Given::Table(section) => section.overlay_path(full, &before, rest, value, inner),
                    Given::One { .. } | Given::Tables(_) => {
                        Err(ConfigError::invalid(setting, "sets part of what is no table"))
                    }
                }
            }
            Kind::Tables(inner) => self.overlay_entry(full, &before, known, rest, value, inner),
            _ => {
                let value = from_text(kind, value, &setting)?;
                self.given.insert(known, Given::One { value, setting });
                Ok(())
            }
        }
    }

    /// `ISSUERS__0__ISS`: entry 0 of the list; the next free number appends one.
    fn overlay_entry(
        &mut self,
        full: &str,
        before: &str,
        known: String,
        rest: &[String],
        value: &str,
        inner: &'static [Field],
    ) -> Result<(), ConfigError> {
        let setting = format!("{PREFIX}{full}");
        let numbered = || format!("must be numbered from 0 without a gap, as {PREFIX}{before}0__…");
        let (number, rest) = rest.split_first().ok_or_else(|| ConfigError::invalid(&setting, numbered()))?;
        let number: usize = number.parse().map_err(|_| ConfigError::invalid(&setting, numbered()))?;
        let (path, file) = (self.path(&known), self.file.clone());
        let Given::Tables(list) = self.given.entry(known).or_insert(Given::Tables(Vec::new())) else {
            return Err(ConfigError::invalid(setting, "sets part of what is no list of tables"));
        };
        if number > list.len() || number >= MAX_TABLES {
            return Err(ConfigError::invalid(setting, numbered()));
        }
        if number == list.len() {
            list.push(Self { name: format!("{path}[{number}]"), file, given: BTreeMap::new() });
        }
        list[number].overlay_path(full, &format!("{before}{number}__"), rest, value, inner)
    }

    /// The name of a setting of this section, for messages about what is missing.
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    pub fn missing(&self, key: &str, hint: &str) -> ConfigError {
        ConfigError::Missing { setting: format!("`{}`", self.path(key)), hint: hint.to_owned() }
    }

    /// How a setting was given, for messages; its bare name when it was not.
    pub fn setting(&self, key: &str) -> String {
        match self.given.get(key) {
            Some(Given::One { setting, .. }) => setting.clone(),
            _ => format!("`{}`", self.path(key)),
        }
    }

    /// Whether the setting was given at all.
    pub fn has(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    fn one(&self, key: &str) -> Option<(&toml::Value, &str)> {
        match self.given.get(key) {
            Some(Given::One { value, setting }) => Some((value, setting)),
            _ => None,
        }
    }

    pub fn section(&self, key: &str) -> Option<&Self> {
        match self.given.get(key) {
            Some(Given::Table(section)) => Some(section),
            _ => None,
        }
    }

    pub fn sections(&self, key: &str) -> &[Self] {
        match self.given.get(key) {
            Some(Given::Tables(list)) => list,
            _ => &[],
        }
    }

    pub fn text(&self, key: &str) -> Result<Option<Text>, ConfigError> {
        match self.one(key) {
            None => Ok(None),
            Some((toml::Value::String(value), setting)) if !value.is_empty() => {
                Ok(Some(Text { value: value.clone(), setting: setting.to_owned() }))
            }
            Some((toml::Value::String(_), setting)) => {
                Err(ConfigError::invalid(setting, "is empty; write a value, or leave the setting out"))
            }
            Some((_, setting)) => Err(ConfigError::invalid(setting, "must be a text; write it in quotes")),
        }
    }

    pub fn file_path(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        Ok(self.text(key)?.map(|t| t.value.into()))
    }

    /// A text read by `read`, whose error is a phrase that says what to write.
    pub fn parsed<T>(
        &self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.text(key)?.map(|t| read(&t.value).map_err(|why| t.invalid(why))).transpose()
    }

    pub fn boolean(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.one(key) {
            None => Ok(default),
            Some((toml::Value::Boolean(value), _)) => Ok(*value),
            Some((_, setting)) => Err(ConfigError::invalid(setting, "must be true or false, without quotes")),
        }
    }

    pub fn integer(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, ConfigError> {
        let Some((value, setting)) = self.one(key) else { return Ok(None) };
        match value.as_integer().and_then(|n| u64::try_from(n).ok()) {
            Some(n) if (least..=most).contains(&n) => Ok(Some(n)),
            _ => Err(ConfigError::invalid(setting, format!("must be a whole number from {least} to {most}"))),
        }
    }

    /// A list of texts, each read by `read`.
    pub fn list<T>(
        &self,
        key: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        let Some((value, setting)) = self.one(key) else { return Ok(None) };
        let not_a_list = || ConfigError::invalid(setting, "must be a list of texts, as [\"a\", \"b\"]");
        let entry = |v: &toml::Value| {
            let text = v.as_str().ok_or_else(not_a_list)?;
            read(text).map_err(|why| ConfigError::invalid(setting, format!("holds \"{text}\", which {why}")))
        };
        value.as_array().ok_or_else(not_a_list)?.iter().map(entry).collect::<Result<_, _>>().map(Some)
    }

    /// A secret from the setting itself or from the file named by `<key>_file`, never both.
    pub fn secret(&self, key: &str) -> Result<Option<Secret>, ConfigError> {
        match self.secret_source(key)? {
            None => Ok(None),
            Some(SecretSource::Inline(secret)) => Ok(Some(secret)),
            Some(SecretSource::File(path)) => read_secret(&path).map(Some),
        }
    }

    /// As [`Self::secret`], without reading the file.
    pub fn secret_source(&self, key: &str) -> Result<Option<SecretSource>, ConfigError> {
        let by_file = format!("{key}_file");
        match (self.text(key)?, self.text(&by_file)?) {
            (Some(one), Some(other)) => Err(ConfigError::Both { one: one.setting, other: other.setting }),
            (Some(text), None) => Ok(Some(SecretSource::Inline(Secret::new(text.value)))),
            (None, Some(path)) => Ok(Some(SecretSource::File(path.value.into()))),
            (None, None) => Ok(None),
        }
    }
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In the setting itself.
    Inline(Secret),
    /// In a file of its own.
    File(PathBuf),
}

/// Reads a secret's file; the line end that editors leave is no part of it.
pub(super) fn read_secret(path: &Path) -> Result<Secret, ConfigError> {
    let text = read_limited(path, MAX_SECRET_BYTES)?;
    let trimmed = text.trim_end_matches(['\r', '\n']);
    if trimmed.is_empty() {
        return Err(ConfigError::invalid(path.display().to_string(), "is empty; write the secret into it"));
    }
    Ok(Secret::new(trimmed.to_owned()))
}

/// Reads a text file of at most `max` bytes.
pub(super) fn read_limited(path: &Path, max: u64) -> Result<zeroize::Zeroizing<String>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut text = zeroize::Zeroizing::new(String::new());
    std::fs::File::open(path).and_then(|f| f.take(max + 1).read_to_string(&mut text)).map_err(unreadable)?;
    if text.len() as u64 > max {
        return Err(ConfigError::TooLarge { path: path.to_owned(), max });
    }
    Ok(text)
}

fn tables(
    path: &str,
    file: &str,
    list: Vec<toml::Value>,
    inner: &'static [Field],
) -> Result<Vec<Section>, ConfigError> {
    let entry = |(i, value)| match value {
        toml::Value::Table(t) => Section::from_table(format!("{path}[{i}]"), file, t, inner),
        _ => Err(ConfigError::invalid(format!("`{path}`"), format!("is a list of tables; write [[{path}]]"))),
    };
    if list.len() > MAX_TABLES {
        return Err(ConfigError::invalid(format!("`{path}`"), format!("has more than {MAX_TABLES} entries")));
    }
    list.into_iter().enumerate().map(entry).collect()
}

const fn nested(kind: Kind) -> bool {
    matches!(kind, Kind::Table(_) | Kind::Tables(_))
}

/// The setting called `key`: itself, or the `_file` side of a secret.
fn find(fields: &[Field], key: &str) -> Option<(String, Kind)> {
    fields.iter().find_map(|f| match f.kind {
        kind if f.name == key => Some((key.to_owned(), kind)),
        Kind::Secret if key.strip_suffix("_file") == Some(f.name) => Some((key.to_owned(), Kind::Text)),
        _ => None,
    })
}

/// How a setting is written as a variable, with `…` where a table's key is still missing.
fn variable(before: &str, key: &str, fields: &[Field]) -> String {
    let more = match find(fields, key) {
        Some((_, Kind::Table(_))) => "__…",
        Some((_, Kind::Tables(_))) => "__0__…",
        _ => "",
    };
    format!("{PREFIX}{before}{}{more}", key.to_ascii_uppercase())
}

fn from_text(kind: Kind, text: &str, setting: &str) -> Result<toml::Value, ConfigError> {
    Ok(match kind {
        Kind::Boolean => match text {
            "true" => true.into(),
            "false" => false.into(),
            _ => return Err(ConfigError::invalid(setting, "must be true or false")),
        },
        Kind::Integer => match text.parse::<i64>() {
            Ok(n) => n.into(),
            Err(_) => return Err(ConfigError::invalid(setting, "must be a whole number")),
        },
        Kind::List => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            toml::Value::Array(parts.map(|part| part.to_owned().into()).collect())
        }
        Kind::Text | Kind::Secret | Kind::Table(_) | Kind::Tables(_) => text.to_owned().into(),
    })
}

/// The setting whose name needs the fewest changes to become `key`.
fn nearest(fields: &[Field], key: &str) -> String {
    let key: String = key.chars().take(64).collect::<String>().to_ascii_lowercase();
    let names = fields.iter().flat_map(|f| {
        let by_file = matches!(f.kind, Kind::Secret).then(|| format!("{}_file", f.name));
        std::iter::once(f.name.to_owned()).chain(by_file)
    });
    names.min_by_key(|name| edits(name, &key)).unwrap_or_default()
}

/// Levenshtein's distance, with a swap of neighbours as one edit.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
