//! Making a new database: all in a folder of another name, so that a crash at any point leaves
//! either no database or a complete one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::server::Server;
use super::{Error, NAME, folder, left_over, log_file};

/// Defaults the person may change, here or with `alter system`; what must not change is given on
/// the server's command line. Durability keeps Postgres' own defaults: all on.
const SETTINGS: &str = "
# Tidings' defaults, yours to change.
max_connections = 100
shared_buffers = 128MB
max_wal_size = 2GB
jit = off
";

pub(super) fn create(server: &Server) -> Result<(), Error> {
    let (folder, new) = (&server.folder, server.folder.unfinished_cluster());
    let lock = left_over::end(folder)?;
    let failed = |source| Error::folder(&new, source);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    folder::make_private(&new, server.user.as_ref())?;
    tracing::info!(folder = %folder.path().display(), "making a new database");

    run_initdb(server, &new, &lock)?;
    add_settings(&new).map_err(failed)?;
    create_database(server, &new, &lock)?;
    fs::rename(&new, folder.cluster()).map_err(failed)?;
    File::open(folder.path()).and_then(|parent| parent.sync_all()).map_err(failed)
}

fn run_initdb(server: &Server, new: &Path, lock: &File) -> Result<(), Error> {
    let mut command = server.command(&server.programs.initdb, new, lock)?;
    command.arg("--pgdata").arg(new);
    command.args(["--username", NAME, "--auth-local", "trust", "--auth-host", "reject"]);
    command.args(["--encoding", "UTF8", "--locale", "C", "--data-checksums", "--no-instructions"]);
    check(command.output(), &command, new)
}

fn add_settings(new: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(new.join("postgresql.conf"))?;
    file.write_all(SETTINGS.as_bytes())?;
    file.sync_all()
}

/// In single-user mode: no server to start and stop, and the checkpoint at its end is durable.
fn create_database(server: &Server, new: &Path, lock: &File) -> Result<(), Error> {
    let mut command = server.command(&server.programs.postgres, new, lock)?;
    command.arg("--single").arg("-D").arg(new).args(["-c", "exit_on_error=on", "template1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.spawn().and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            // If it has ended already, its own words say more than our broken pipe.
            let _ = writeln!(stdin, "create database {NAME}");
        }
        child.wait_with_output()
    });
    check(output, &command, new)
}

fn check(output: io::Result<Output>, command: &Command, new: &Path) -> Result<(), Error> {
    let program = Path::new(command.get_program()).to_owned();
    let output = match output {
        Ok(output) => output,
        Err(source) => return Err(Error::Program { program, source }),
    };
    if output.status.success() {
        return Ok(());
    }
    let tail = log_file::last_lines(&String::from_utf8_lossy(&output.stderr));
    let (cluster, status) = (new.to_owned(), output.status.to_string());
    Err(Error::Initdb { program, cluster, status, tail })
}
