//! What the figures were measured on: without it they mean nothing.

use std::fs;
use std::process::Command;

use crate::Outcome;

/// One line: cores, processor, kernel, memory, Postgres, commit.
pub(crate) fn line() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(unknown);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_else(|_| unknown());
    let memory = kib("/proc/meminfo", "MemTotal")
        .map_or_else(unknown, |kib| format!("{:.1} GiB", kib as f64 / 1024.0 / 1024.0));
    let commit = output("git", &["describe", "--always", "--dirty"]).unwrap_or_else(unknown);
    format!(
        "machine: {cores} cores, {processor}, Linux {}, {memory}; {}; commit {commit}",
        kernel.trim(),
        postgres()
    )
}

fn postgres() -> String {
    let folder = std::env::var("TIDINGS_POSTGRES_BIN").unwrap_or_default();
    let beside = format!("{folder}/postgres");
    output(if folder.is_empty() { "postgres" } else { &beside }, &["--version"])
        .unwrap_or_else(|| "Postgres unknown".to_owned())
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.is_empty()).then(|| text.trim().to_owned())
}

/// The value of `name:` in one of the kernel's text files.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kib(path: &str, name: &str) -> Option<u64> {
    field(path, name)?.split_whitespace().next()?.parse().ok()
}

/// Resident memory of one process.
pub(crate) fn resident_kib(pid: u32) -> Outcome<u64> {
    let path = format!("/proc/{pid}/status");
    kib(&path, "VmRSS").ok_or_else(|| format!("{path} tells no VmRSS").into())
}

/// Memory of all processes below `pid`: its private Postgres. Proportional, since Postgres'
/// processes share their buffers and would count them many times; resident where not readable.
pub(crate) fn descendants_kib(pid: u32) -> u64 {
    let children: Vec<u32> =
        processes().filter(|&(_, parent)| parent == pid).map(|p| p.0).collect();
    let own = |child| {
        kib(&format!("/proc/{child}/smaps_rollup"), "Pss").or_else(|| resident_kib(child).ok())
    };
    children.iter().map(|&child| own(child).unwrap_or(0) + descendants_kib(child)).sum()
}

/// Every process with its parent.
fn processes() -> impl Iterator<Item = (u32, u32)> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let parent = field(&format!("/proc/{pid}/status"), "PPid")?.parse().ok()?;
        Some((pid, parent))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_is_known() {
        assert!(resident_kib(std::process::id()).unwrap() > 100);
        assert!(resident_kib(u32::MAX).is_err());
    }
}
