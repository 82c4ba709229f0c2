//! PgBouncer in front of a test database.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;
use tidings::postgres;

use super::TestDatabase;
use super::program::{Program, find, free_address};

/// A running PgBouncer.
pub struct Pooler {
    address: SocketAddr,
    database: TestDatabase,
    folder: TempDir,
    program: Program,
}

impl Pooler {
    /// In this mode, with up to `size` connections to the database. `None`: there is no PgBouncer.
    pub async fn start(database: &TestDatabase, mode: &str, size: usize) -> Option<Pooler> {
        let pgbouncer = find("pgbouncer")?;
        let folder = tempfile::tempdir().expect("a folder");
        let address = free_address();
        write_settings(folder.path(), &database.name, database, address, mode, size);
        let mut command = Command::new(pgbouncer);
        command.arg(folder.path().join("pgbouncer.ini")).current_dir(folder.path());
        // It refuses to run as root.
        if let Some(user) = postgres::unprivileged_user(None).expect("a user to run it as") {
            let (uid, gid) = (Some(user.uid), Some(user.gid));
            std::os::unix::fs::chown(folder.path(), uid, gid).expect("chown as root");
            command.uid(user.uid).gid(user.gid);
        }
        let program = Program::start(command, folder.path(), address).await;
        Some(Pooler { address, database: database.clone(), folder, program })
    }

    /// The same database, through here.
    pub fn database(&self) -> TestDatabase {
        let name = self.database.name.clone();
        let url = format!("postgres://tidings@{}/{name}", self.address);
        TestDatabase { name, url }
    }

    /// Switches to another mode; connections stay.
    pub fn switch_to(&self, mode: &str, size: usize) {
        self.lead_to(&self.database, mode, size);
    }

    /// Leads to another database under the same name; connections from clients stay.
    pub fn lead_to(&self, database: &TestDatabase, mode: &str, size: usize) {
        let name = &self.database.name;
        write_settings(self.folder.path(), name, database, self.address, mode, size);
        self.program.signal(Signal::HUP);
    }
}

fn write_settings(
    folder: &Path,
    name: &str,
    database: &TestDatabase,
    address: SocketAddr,
    mode: &str,
    size: usize,
) {
    let (_, host) = database.url.split_once("?host=").expect("the cluster's socket folder");
    let host = percent_encoding::percent_decode_str(host).decode_utf8().expect("UTF-8");
    let settings = format!(
        "[databases]\n{name} = host={host} port=5432 dbname={} user=tidings\n\
         [pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = {mode}\ndefault_pool_size = {size}\n",
        database.name,
        address.ip(),
        address.port(),
    );
    std::fs::write(folder.join("pgbouncer.ini"), settings).expect("a file");
}
