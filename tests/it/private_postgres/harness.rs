//! A folder for one test, a Tidings that can be killed, and questions about processes.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidings::postgres::{Error, PrivatePostgres, Settings, find_programs, unprivileged_user};

pub(crate) const CHILD_FOLDER: &str = "TIDINGS_TEST_FOLDER";
pub(crate) const CHILD_IS_READY: &str = "the database is ready";

/// Far more than a slow machine needs; reached only by a test that fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// A data folder of one test. At its end nothing runs there any more, whatever happened.
pub(crate) struct Folder {
    root: TempDir,
    path: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder::named("data")
    }

    pub(crate) fn named(name: impl AsRef<Path>) -> Folder {
        // Not TMPDIR, which may be long; and the server's user has to get through.
        let root = tempfile::Builder::new().prefix("tidings-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let path = root.path().join(name);
        Folder { root, path }
    }

    /// One that was used before, which saves the seconds of `initdb`.
    pub(crate) fn with_database() -> Folder {
        static USED_BEFORE: OnceLock<(PathBuf, Child)> = OnceLock::new();
        let (used_before, _) = USED_BEFORE.get_or_init(|| {
            let folder = Folder::new();
            drop(folder.start());
            let (kept, remover) = scratch();
            copy(&folder.cluster(), &kept.join("postgres"));
            (kept, remover)
        });
        let folder = Folder::new();
        fs::create_dir(folder.path()).unwrap();
        copy(&used_before.join("postgres"), &folder.cluster());
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn cluster(&self) -> PathBuf {
        self.path.join("postgres")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join("run/.s.PGSQL.5432")
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings { data_dir: Some(self.path.clone()), ..Settings::default() }
    }

    pub(crate) fn start(&self) -> PrivatePostgres {
        PrivatePostgres::start(&self.settings()).unwrap()
    }

    pub(crate) fn refusal(&self) -> Error {
        refusal(&self.settings())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path.join("postgres.log")).unwrap_or_default()
    }

    /// The server's own process.
    pub(crate) fn postmaster(&self) -> u32 {
        let text = fs::read_to_string(self.cluster().join("postmaster.pid")).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    /// Every process of the server.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let places = [self.cluster(), self.path.join("postgres.new")];
        let is_ours = |pid: &u32| {
            let link = |name| fs::read_link(format!("/proc/{pid}/{name}")).unwrap_or_default();
            places.contains(&link("cwd")) && link("exe").ends_with("postgres")
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(is_ours)
            .collect()
    }

    pub(crate) fn wait_until_nothing_runs(&self) {
        wait_until("nothing runs on the folder", || self.processes().is_empty());
    }

    /// The answer to a query, asked exactly as the printed line says.
    pub(crate) fn ask(&self, postgres: &PrivatePostgres, query: &str) -> String {
        try_ask(postgres, query).unwrap_or_else(|error| panic!("{query}: {error}\n{}", self.log()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for pid in self.processes() {
            kill("KILL", pid);
        }
        if !thread::panicking() {
            self.wait_until_nothing_runs();
        }
    }
}

pub(crate) fn refusal(settings: &Settings) -> Error {
    PrivatePostgres::start(settings).expect_err("it must not start")
}

pub(crate) fn try_ask(postgres: &PrivatePostgres, query: &str) -> Result<String, String> {
    let line = format!("{} -XAtc \"$QUERY\"", postgres.psql());
    let output = Command::new("sh").args(["-c", &line]).env("QUERY", query).output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A Tidings in a process of its own, killed at the end of the test.
pub(crate) struct Tidings {
    child: Child,
    /// Kept open, since the child still has its verdict to print.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Tidings {
    pub(crate) fn start(folder: &Folder) -> Tidings {
        Tidings::start_under(&[], folder)
    }

    /// Started by another program, such as `unshare …`.
    pub(crate) fn start_under(wrapper: &[&str], folder: &Folder) -> Tidings {
        let child = Tidings::command(wrapper, folder).spawn().unwrap();
        let mut tidings = Tidings { child, stdout: None };
        let mut stdout = BufReader::new(tidings.child.stdout.take().unwrap());
        let ready = stdout.by_ref().lines().any(|line| line.unwrap().contains(CHILD_IS_READY));
        assert!(ready, "the child ended without becoming ready: {}", folder.log());
        tidings.stdout = Some(stdout);
        tidings
    }

    pub(crate) fn command(wrapper: &[&str], folder: &Folder) -> Command {
        let program = std::env::current_exe().unwrap();
        let mut words: Vec<&OsStr> = wrapper.iter().map(OsStr::new).collect();
        words.push(program.as_os_str());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.args(["--exact", "private_postgres::child_that_holds_the_database"]);
        command.args(["--ignored", "--nocapture"]);
        command.env(CHILD_FOLDER, folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as its own shutdown would.
    pub(crate) fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Tidings {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < DEADLINE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn kill(signal: &str, pid: u32) {
    let _ = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status();
}

/// A zombie is not: whoever should collect it may take their time.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Field `number` of `/proc/<pid>/stat`, counted as in its manual page; none once it is gone.
pub(crate) fn stat_field(pid: u32, number: usize) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(number - 3)?.parse().ok()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program of the Postgres under test or of the system, as the user the server would run as.
pub(crate) fn as_the_server(program: &str) -> Command {
    let beside = find_programs(None, None).unwrap().postgres.with_file_name(program);
    let mut command = Command::new(if beside.exists() { beside } else { program.into() });
    if let Some(user) = unprivileged_user(None).unwrap() {
        command.gid(user.gid).uid(user.uid);
    }
    command
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success());
}

/// A folder for what all tests of one run share. Statics are never dropped, so a shell removes it
/// when this process ends, however it ends: that closes the pipe the shell reads from.
fn scratch() -> (PathBuf, Child) {
    let path = tempfile::Builder::new().prefix("tidings-").tempdir_in("/tmp").unwrap().keep();
    let mut shell = Command::new("sh");
    shell.args(["-c", "read -r _; rm -rf \"$FOLDER\""]).env("FOLDER", &path).process_group(0);
    (path, shell.stdin(Stdio::piped()).spawn().unwrap())
}
