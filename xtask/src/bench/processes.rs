//! Processes: who descends from whom, processor time and memory, as /proc tells; and an end to each.

use std::fs;
use std::process::{Child, Command};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// No load takes this long.
const LIMIT: Duration = Duration::from_secs(60);

/// USER_HZ, the unit of times in /proc: 100 on every architecture that netshunt runs on (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// A line of /proc/PID/stat.
#[derive(Clone, Debug, PartialEq)]
struct Process {
    pid: u32,
    parent: u32,
    name: String,
    /// Seconds of processor time, without and with children that were waited for.
    own: f64,
    children: f64,
}

impl Process {
    /// proc_pid_stat(5). The name may hold anything, parentheses too.
    fn parse(line: &str) -> Option<Self> {
        let (pid, rest) = line.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Numbered from 1 there; `fields` starts with number 3.
        let seconds = |number: usize| Some(fields.get(number - 3)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Self {
            pid: pid.parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
            name: name.to_owned(),
            own: seconds(14)? + seconds(15)?,
            children: seconds(16)? + seconds(17)?,
        })
    }
}

/// Every process of this pid namespace. One that ends meanwhile is left out.
fn all() -> Result<Vec<Process>> {
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .filter_map(|entry| Process::parse(&fs::read_to_string(entry.path().join("stat")).ok()?))
        .collect())
}

/// `root` and its descendants.
fn tree(root: u32) -> Result<Vec<Process>> {
    let all = all()?;
    let mut found: Vec<Process> = all.iter().filter(|process| process.pid == root).cloned().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|process| process.pid) {
        found.extend(all.iter().filter(|process| process.parent == parent).cloned());
        next += 1;
    }
    Ok(found)
}

/// Seconds of processor time that `root` and its living descendants have used.
pub(crate) fn cpu_of_tree(root: u32) -> Result<f64> {
    Ok(tree(root)?.iter().map(|process| process.own).sum())
}

/// Seconds of processor time of all processes that this one has waited for, with theirs.
pub(crate) fn cpu_of_children() -> Result<f64> {
    let line = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    Ok(Process::parse(&line).context("/proc/self/stat is not as proc(5) says")?.children)
}

/// The numbers of all processes of this namespace, those that only wait to be reaped too.
pub(crate) fn numbers() -> Result<Vec<u32>> {
    Ok(all()?.iter().map(|process| process.pid).collect())
}

/// Takes the exit status of every child that has ended, and with it the processor time it used.
///
/// Daemons come to the first process of a namespace when the process that made them ends.
pub(crate) fn reap() {
    // Not `waitpid(None, …)`: that is our process group only, and daemons have their own.
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
}

/// Kills processes by their numbers and returns their names.
pub(crate) fn kill(numbers: &[u32]) -> Result<Vec<String>> {
    let processes = all()?;
    let condemned = processes.iter().filter(|process| numbers.contains(&process.pid));
    Ok(condemned
        .map(|process| {
            if let Some(pid) = i32::try_from(process.pid).ok().and_then(rustix::process::Pid::from_raw) {
                // One that has ended since is gone as well.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            process.name.clone()
        })
        .collect())
}

/// MB (10^6) of memory of all processes but the ones with these numbers and those called `except`.
///
/// What several share counts in equal parts: PSS, proc_pid_smaps(5). One that ends meanwhile counts
/// nothing.
pub(crate) fn memory(others: &[u32], except: &str) -> Result<f64> {
    let all = all()?;
    let counted = all.iter().filter(|process| !others.contains(&process.pid) && process.name != except);
    let kib: f64 = counted
        .filter_map(|process| share(&fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).ok()?))
        .sum();
    ensure!(kib > 0.0, "no process is left to measure");
    Ok(kib * 1024.0 / 1e6)
}

/// The proportional share of a /proc/PID/smaps_rollup, in KiB; a zombie has none.
fn share(rollup: &str) -> Option<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Does `work` with the child; kills its process group when that takes too long.
pub(crate) fn watched<T, E: Into<anyhow::Error>>(
    child: &mut Child,
    work: impl FnOnce(&mut Child) -> Result<T, E>,
) -> Result<T> {
    let group = format!("-{}", child.id());
    let (done, watch) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let late = watch.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
            if late {
                let _ = Command::new("sh").args(["-c", "kill -KILL -- \"$1\"", "sh", &group]).status();
            }
            late
        });
        let result = work(child);
        drop(done);
        let late = watch.join().expect("it does not panic");
        ensure!(!late, "killed: not done within {LIMIT:?}");
        result.map_err(Into::into)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_read() {
        let line = "42 (a) (b) S 7 42 42 0 -1 0 0 0 0 0 150 50 20 10 20 0 1 0 99";
        let parsed = Process::parse(line).unwrap();
        assert_eq!((parsed.pid, parsed.parent, parsed.name.as_str()), (42, 7, "a) (b"));
        assert!((parsed.own - 2.0).abs() < 1e-9 && (parsed.children - 0.3).abs() < 1e-9);
    }

    #[test]
    fn we_are_in_our_own_tree() {
        let own = std::process::id();
        assert_eq!(tree(own).unwrap()[0].pid, own);
        assert!(numbers().unwrap().contains(&own));
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(share("Rss:\t  99 kB\nPss:\t    1234 kB\nPss_Anon: 5 kB\n"), Some(1234.0));
        assert_eq!(share("Rss:\t 5 kB\n"), None);
        let own = std::process::id();
        let rest: Vec<u32> = numbers().unwrap().into_iter().filter(|number| *number != own).collect();
        assert!(memory(&rest, "").unwrap() > 0.1);
    }
}
