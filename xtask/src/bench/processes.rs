//! What /proc tells about processes: who descends from whom, processor time, memory.

use std::fs;

use anyhow::{Context, Result, ensure};

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

/// Resident MB (10^6) of `root` and its descendants, those called `except` left out.
///
/// What several share counts for each; one that ends meanwhile counts nothing.
pub(crate) fn resident_of_tree(root: u32, except: &str) -> Result<f64> {
    let tree = tree(root)?;
    let counted = tree.iter().filter(|process| process.name != except);
    let kib: f64 = counted
        .filter_map(|process| resident(&fs::read_to_string(format!("/proc/{}/status", process.pid)).ok()?))
        .sum();
    ensure!(kib > 0.0, "nothing of process {root} is left to measure");
    Ok(kib * 1024.0 / 1e6)
}

/// VmRSS of a /proc/PID/status, in KiB; a zombie has none.
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
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
        assert!(resident_of_tree(own, "").unwrap() > 0.1);
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(resident("VmPeak:\t  99 kB\nVmRSS:\t    1234 kB\n"), Some(1234.0));
        assert_eq!(resident("Name:\tkthreadd\n"), None);
    }
}
