//! The private Postgres. (A stand-in: only its settings.)

use std::path::PathBuf;

/// Where the private Postgres keeps its data, and which programs and user run it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The folder of its data; `None` chooses the default.
    pub data_dir: Option<PathBuf>,
    /// The folder of `initdb` and `postgres`; `None` looks for them.
    pub bin_dir: Option<PathBuf>,
    /// The user it runs as when Tidings itself runs as root.
    pub user: Option<String>,
}
