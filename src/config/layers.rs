//! Where a setting's text comes from: the flag, then the environment, then `.env`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

/// Every name that means something.
pub(super) const KNOWN: [&str; 19] = [
    "DATABASE_URL",
    "TIDINGS_ALLOW_UNAUTHENTICATED",
    "TIDINGS_CORS_ORIGINS",
    "TIDINGS_DATA_DIR",
    "TIDINGS_DIRECT_DATABASE_URL",
    "TIDINGS_DRAIN",
    "TIDINGS_DRAIN_DELAY",
    "TIDINGS_HEARTBEAT",
    "TIDINGS_LISTEN",
    "TIDINGS_LOG",
    "TIDINGS_LOG_FORMAT",
    "TIDINGS_MAX_BODY",
    "TIDINGS_MAX_CONNECTIONS",
    "TIDINGS_MAX_DATA",
    "TIDINGS_MIGRATE",
    "TIDINGS_POSTGRES_BIN",
    "TIDINGS_POSTGRES_USER",
    "TIDINGS_RETENTION",
    "TIDINGS_URL",
];
const PREFIX: &str = "TIDINGS_";
/// From this likeness on, of 0 to 1, one name can be another that was mistyped.
const LIKE: f64 = 0.5;

/// One sentence on why the configuration cannot be used, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub(super) String);

/// The settings found in the environment and in `.env`; only our own names are kept.
#[derive(Clone, Default)]
pub struct Layers {
    environment: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
}

impl Layers {
    /// Reads this process's environment and the working directory's `.env`. The environment is
    /// left as it is: setting it is not safe in a program with threads.
    pub fn of_this_process() -> Result<Self, Invalid> {
        Ok(Self { environment: from_environment(std::env::vars_os())?, file: from_file(".env")? })
    }

    /// The text of one setting, if any layer has one that is not empty.
    pub(super) fn value<'a>(
        &'a self,
        variable: &str,
        flag: &'a Option<String>,
    ) -> Option<&'a String> {
        [flag.as_ref(), self.environment.get(variable), self.file.get(variable)]
            .into_iter()
            .flatten()
            .find(|text| !text.is_empty())
    }

    /// Reads one setting. What `parse` complains about continues the sentence "VARIABLE (--flag) …".
    pub(super) fn read<T>(
        &self,
        variable: &str,
        flag: &Option<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Invalid> {
        let Some(text) = self.value(variable, flag) else { return Ok(None) };
        let explain = |why| Invalid(format!("{variable} ({}) {why}", flag_of(variable)));
        parse(text).map(Some).map_err(explain)
    }

    /// Reads one setting over its default.
    pub(super) fn set<T>(
        &self,
        field: &mut T,
        variable: &str,
        flag: &Option<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<(), Invalid> {
        if let Some(value) = self.read(variable, flag, parse)? {
            *field = value;
        }
        Ok(())
    }

    /// Warnings on names of ours that mean nothing. Not errors: an orchestrator that runs a service
    /// called "tidings" puts `TIDINGS_PORT` and more of the kind into every environment.
    pub(super) fn unknown_names(&self) -> Vec<String> {
        let names = self.environment.keys().chain(self.file.keys());
        let unknown = names.filter(|name| !KNOWN.contains(&name.as_str()));
        let mut warnings: Vec<_> = unknown
            .map(|name| match nearest(name) {
                Some(near) => {
                    format!("{name} is not a setting and is ignored; the nearest one is {near}")
                }
                None => format!(
                    "{name} is not a setting and is ignored; `tidings serve --help` lists them all"
                ),
            })
            .collect();
        warnings.dedup();
        warnings
    }

    #[cfg(test)]
    pub(super) fn of(environment: &[(&str, &str)], file: &[(&str, &str)]) -> Self {
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        Self { environment: owned(environment), file: owned(file) }
    }
}

/// `TIDINGS_DRAIN_DELAY` is `--drain-delay`; a test keeps this true of every flag.
pub(super) fn flag_of(variable: &str) -> String {
    let name = variable.strip_prefix(PREFIX).unwrap_or(variable);
    format!("--{}", name.to_lowercase().replace('_', "-"))
}

fn is_ours(name: &str) -> bool {
    name == "DATABASE_URL" || name.starts_with(PREFIX)
}

fn nearest(name: &str) -> Option<&'static str> {
    // Without the prefix, so that TIDINGS_DATABASE_URL finds DATABASE_URL.
    let bare = |name: &'_ str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    // What other programs call it is not spelt alike.
    if ["ADDRESS", "BIND", "HOST", "PORT"].contains(&bare(name).as_str()) {
        return Some("TIDINGS_LISTEN");
    }
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(&bare(known), &bare(name));
    let near = KNOWN.into_iter().filter(|known| likeness(known) >= LIKE);
    near.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
}

pub(super) fn from_environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, Invalid> {
    let mut found = BTreeMap::new();
    for (name, value) in variables {
        let Some(name) = name.into_string().ok().filter(|name| is_ours(name)) else { continue };
        let Ok(value) = value.into_string() else {
            return Err(Invalid(format!("{name} is not UTF-8: set it to plain text")));
        };
        found.insert(name, value);
    }
    Ok(found)
}

pub(super) fn from_file(path: impl AsRef<Path>) -> Result<BTreeMap<String, String>, Invalid> {
    let lines = match dotenvy::from_path_iter(path) {
        Ok(lines) => lines,
        Err(error) if error.not_found() => return Ok(BTreeMap::new()),
        Err(error) => return Err(unreadable(&error)),
    };
    let mut found = BTreeMap::new();
    for line in lines {
        let (name, value) = line.map_err(|error| unreadable(&error))?;
        if is_ours(&name) {
            found.insert(name, value);
        }
    }
    Ok(found)
}

/// Shows no more of a line than its name, also where no = ends it: the rest may be a password.
fn unreadable(error: &dotenvy::Error) -> Invalid {
    let dotenvy::Error::LineParse(line, _) = error else {
        return Invalid(format!(".env in the working directory cannot be read: {error}"));
    };
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let name = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
    let name = name.unwrap_or_default();
    Invalid(format!(
        ".env in the working directory has a line that cannot be read, the one that begins with \
         {name:?}: write NAME=value, and put a value with spaces or quotes between single quotes"
    ))
}
