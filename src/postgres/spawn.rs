//! Starting a program of Postgres so that it never outlives us unnoticed: as the unprivileged user,
//! out of reach of the terminal's ctrl-C, asked to stop by the kernel when we are killed.

use std::env;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::User;

/// A command for `program` that works in `folder` and holds `lock`, with all its children, until
/// the last of them ends. Spawn it from a thread that outlives it: the kernel takes the end of
/// that thread for the end of its parent.
pub(super) fn command(
    program: &Path,
    user: Option<&User>,
    folder: &Path,
    lock: &File,
) -> io::Result<Command> {
    let mut command = Command::new(program);
    // A person's PGPORT, PGDATA, PGOPTIONS … are for other servers, and so is their language:
    // messages are read by us, and macOS needs a locale that starts no threads.
    for (name, _) in env::vars_os() {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b"PG") || bytes.starts_with(b"LC_") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").env("TZ", "UTC");
    command.current_dir(folder).stdin(Stdio::null());
    // Ctrl-C goes to the whole foreground group, and Postgres must outlast our own drain.
    command.process_group(0);
    if let Some(user) = user {
        become_user(&mut command, user);
    }
    tie_to_us(&mut command, lock.try_clone()?);
    Ok(command)
}

/// Gives up root, and with it (std does that) every supplementary group.
pub(super) fn become_user(command: &mut Command, user: &User) {
    command.gid(user.gid).uid(user.uid);
}

#[expect(
    unsafe_code,
    reason = "the signal at our death and the inherited lock can only be set between fork and exec"
)]
fn tie_to_us(command: &mut Command, lock: File) {
    #[cfg(target_os = "linux")]
    let parent = rustix::process::getpid();
    let hook = move || {
        rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty())?;
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{Signal, getppid, set_parent_process_death_signal};
            set_parent_process_death_signal(Some(Signal::INT))?;
            // Killed before that call? Then nobody will send the signal.
            if getppid() != Some(parent) {
                return Err(rustix::io::Errno::SRCH.into());
            }
        }
        Ok(())
    };
    // SAFETY: the hook runs in the forked child and makes system calls only; it allocates nothing
    // and takes no lock. std runs it last, after changing the user, which would clear the signal.
    unsafe { command.pre_exec(hook) };
}
