//! The process's environment, read here and nowhere else; tests inject a map.

use std::collections::BTreeMap;
use std::fmt;

use super::error::ConfigError;
use super::secret::Secret;

/// What every variable of ours begins with.
pub const PREFIX: &str = "STAGEDOOR_";

/// Variables that are no settings of the server: they belong to the command line.
const COMMAND_LINE: [&str; 4] = ["CONFIG", "URL", "CLIENT_SECRET", "CLIENT_SECRET_FILE"];

/// The variables that begin with `STAGEDOOR_`, without the prefix.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// A variable of ours that is not UTF-8.
    pub fn from_process() -> Result<Self, ConfigError> {
        let mut found = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)) else { continue };
            let value = value
                .into_string()
                .map_err(|_| ConfigError::invalid(format!("{PREFIX}{name}"), "is not UTF-8; set it again"))?;
            found.insert(name.to_owned(), value);
        }
        Ok(Self(found))
    }

    /// Whether `DATABASE_URL` is set as other programs read it, which this one does not.
    #[must_use]
    pub fn has_bare_database_url() -> bool {
        std::env::var_os("DATABASE_URL").is_some()
    }

    /// An environment for tests: full names, such as `STAGEDOOR_LISTEN`; others are left out.
    pub fn from_pairs<K: AsRef<str>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let ours = |(k, v): (K, V)| Some((k.as_ref().strip_prefix(PREFIX)?.to_owned(), v.into()));
        Self(pairs.into_iter().filter_map(ours).collect())
    }

    /// `STAGEDOOR_CONFIG`: where the configuration file is, when `--config` does not say.
    #[must_use]
    pub fn config_path(&self) -> Option<&str> {
        self.0.get("CONFIG").map(String::as_str)
    }

    /// `STAGEDOOR_URL`: the running server that terminal commands talk to.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.0.get("URL").map(String::as_str)
    }

    /// The same, with the server at `url`.
    #[must_use]
    pub fn with_url(mut self, url: String) -> Self {
        self.0.insert("URL".to_owned(), url);
        self
    }

    /// `STAGEDOOR_CLIENT_SECRET` (or `_FILE`): whom terminal commands speak as.
    ///
    /// # Errors
    /// Both are set, or the file cannot be read.
    pub fn client_secret(&self) -> Result<Option<Secret>, ConfigError> {
        match (self.0.get("CLIENT_SECRET"), self.0.get("CLIENT_SECRET_FILE")) {
            (Some(_), Some(_)) => Err(ConfigError::Both {
                one: format!("{PREFIX}CLIENT_SECRET"),
                other: format!("{PREFIX}CLIENT_SECRET_FILE"),
            }),
            (Some(text), None) => Ok(Some(Secret::new(text.clone()))),
            (None, Some(path)) => super::layers::read_secret(path.as_ref()).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The variables that are settings: name without prefix, and value; those of numbered tables in their order.
    pub(super) fn settings(&self) -> Vec<(&str, &str)> {
        let all = self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let mut settings: Vec<_> =
            all.filter(|(k, v)| !COMMAND_LINE.contains(k) && !set_by_orchestrator(k, v)).collect();
        // as text, 10 comes before 2
        settings.sort_by_cached_key(|(name, _)| {
            name.split("__").map(|part| (part.parse::<usize>().ok(), part)).collect::<Vec<_>>()
        });
        settings
    }
}

/// Kubernetes (as Docker links once did) tells every container where a service called `stagedoor` is, in
/// variables that look like ours: `STAGEDOOR_SERVICE_HOST`, `STAGEDOOR_PORT_8080_TCP_ADDR`, … They are no
/// mistake of the operator's.
fn set_by_orchestrator(name: &str, value: &str) -> bool {
    name == "SERVICE_HOST"
        || name == "SERVICE_PORT"
        || name.starts_with("SERVICE_PORT_")
        || (name == "PORT" && value.starts_with("tcp://"))
        || (name.starts_with("PORT_") && (name.contains("_TCP") || name.contains("_UDP")))
}

/// Names only: any value may be a secret.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
