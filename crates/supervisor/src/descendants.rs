//! The guest's processes: our descendants. We are their subreaper (prctl(2)), so none escapes.

use std::fs;
use std::io;

/// Those that have not ended, by their ids, without the processes `but` and their descendants.
///
/// # Errors
/// Those of reading /proc; `NotFound` where it does not show even us.
pub(crate) fn list(but: &[i32]) -> io::Result<Vec<i32>> {
    let own = std::process::id().cast_signed();
    let parents: Vec<(i32, i32)> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| Some((pid, parent(pid)?)))
        .collect();
    if !parents.iter().any(|(pid, _)| *pid == own) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut found = vec![own];
    let mut seen = 0;
    while seen < found.len() {
        let parent = found[seen];
        let children = parents.iter().filter(|(pid, p)| *p == parent && !but.contains(pid));
        found.extend(children.map(|(pid, _)| *pid));
        seen += 1;
    }
    found.remove(0);
    Ok(found)
}

/// The parent of a process that has not ended.
fn parent(pid: i32) -> Option<i32> {
    // A name may be any bytes.
    read(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
}

/// The parent, from `/proc/PID/stat` (proc_pid_stat(5)).
fn read(stat: &str) -> Option<i32> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let (state, parent, threads) = (fields.first()?, fields.get(1)?, fields.get(17)?);
    // A process lives on when its first thread has ended before the others (pthread_exit(3)).
    let ended = matches!(*state, "X" | "Z") && threads.parse().is_ok_and(|threads: u32| threads <= 1);
    if ended { None } else { parent.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        nix::sys::prctl::set_name(c"\xff) Z 1").unwrap();
        let parent_of_us = parent(nix::unistd::gettid().as_raw());
        assert_eq!(parent_of_us, Some(nix::unistd::getppid().as_raw()));
    }

    #[test]
    fn a_process_ends_with_its_last_thread() {
        let stat = |state, threads| {
            format!("7 (a) b) {state} 3 7 7 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 {threads} 0 900 0 0\n")
        };
        assert_eq!(read(&stat("S", 1)), Some(3));
        assert_eq!(read(&stat("Z", 2)), Some(3));
        assert_eq!(read(&stat("Z", 1)), None);
        assert_eq!(read("7"), None);
    }

    #[test]
    fn a_child_of_ours_is_listed_while_it_lives() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let id = child.id().cast_signed();
        assert!(list(&[]).unwrap().contains(&id));
        assert!(!list(&[id]).unwrap().contains(&id));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!list(&[]).unwrap().contains(&id));
    }
}
