//! Finding and ending every process of a test, whatever became of its parents.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::until;

/// In the environment of everything a world starts, and so of its descendants.
pub(crate) const MARK: &str = "E2E_OF_NETSHUNT";

/// Which processes are meant.
#[derive(Clone, Debug)]
pub(crate) struct Belongings {
    /// The value of [`MARK`], or the start of it.
    pub(crate) mark: String,
    /// Network namespaces, by inode: a process that cleared its environment is still in one of them.
    pub(crate) namespaces: Vec<u64>,
}

impl Belongings {
    /// The living processes, zombies left out.
    pub(crate) fn find(&self) -> Vec<Pid> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        numbers.filter(|&pid| self.includes(pid)).map(Pid::from_raw).collect()
    }

    fn includes(&self, pid: i32) -> bool {
        if u32::try_from(pid) == Ok(std::process::id()) {
            return false;
        }
        let folder = Path::new("/proc").join(pid.to_string());
        // A zombie has neither an environment nor a namespace any more.
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        let marked = |entry: &[u8]| {
            let entry = String::from_utf8_lossy(entry);
            entry
                .strip_prefix(MARK)
                .and_then(|e| e.strip_prefix('='))
                .is_some_and(|e| e.starts_with(&self.mark))
        };
        environment.split(|&byte| byte == 0).any(marked)
            || fs::metadata(folder.join("ns/net")).is_ok_and(|net| self.namespaces.contains(&net.ino()))
    }

    /// Kills them all, and whatever they start meanwhile.
    pub(crate) fn kill(&self) -> bool {
        until(crate::DEADLINE, || {
            let alive = self.find();
            for &pid in &alive {
                // ESRCH: it went by itself.
                let _ = kill(pid, Signal::SIGKILL);
            }
            alive.is_empty()
        })
    }
}

/// A process's name and what it runs, for messages.
pub(crate) fn describe(pid: Pid) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid}: {}", String::from_utf8_lossy(&line).replace('\0', " ").trim_end())
}
