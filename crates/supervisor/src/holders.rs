//! Whether anybody still has a socket that is being connected.
//!
//! Nothing tells us when a guest closes one, and the duplicate that we hold keeps it alive. So we
//! look: at the descriptor that connect(2) named, which is where it usually still is, and only when it
//! has gone from there, at all descriptors of the guest's processes.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::Path;

use netshunt_notify::{Features, GuestThread, TargetFd, Tid};
use tracing::debug;

use crate::descendants;
use crate::sockets::Cookie;
use crate::sys;

/// Who called connect(2), and with which descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) tid: Tid,
    pub(crate) number: TargetFd,
}

/// A socket to look for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought {
    pub(crate) caller: Caller,
    pub(crate) cookie: Cookie,
    /// As fstat(2) gives it.
    pub(crate) inode: u64,
}

/// Those of them that no process of the guest has; in doubt, it has. `others` are children of ours that
/// are no guests. Takes a microsecond for each
/// socket in its place and for each descriptor of the guest otherwise: call it where that harms nobody.
///
/// What is in flight in an SCM_RIGHTS message (unix(7)) has no descriptor, and what a process
/// outside received is not looked for.
pub(crate) fn missing(sought: &[Sought], others: &[i32], features: &Features) -> Vec<Cookie> {
    let gone: Vec<&Sought> = sought.iter().filter(|one| !is_in_place(one, features)).collect();
    if gone.is_empty() {
        return Vec::new();
    }
    let mut inodes = gone.iter().map(|one| one.inode).collect();
    if let Err(error) = strike_out(&mut inodes, others) {
        debug!(%error, "cannot look for sockets: taken to be in use");
        return Vec::new();
    }
    gone.into_iter().filter(|one| inodes.contains(&one.inode)).map(|one| one.cookie).collect()
}

/// Whether the descriptor is what it was. The thread's id may have been reused: the cookie tells.
fn is_in_place(sought: &Sought, features: &Features) -> bool {
    let found = || -> io::Result<bool> {
        let thread = GuestThread::open(sought.caller.tid, features)?;
        let fd = thread.descriptor(sought.caller.number)?;
        Ok(sys::cookie(fd.as_fd(), libc::SO_COOKIE)? == sought.cookie.0)
    };
    found().unwrap_or(false)
}

/// Strikes out what the guest's processes have.
fn strike_out(inodes: &mut HashSet<u64>, others: &[i32]) -> io::Result<()> {
    for pid in descendants::list(others)? {
        // Threads may have tables of their own (unshare(2) with CLONE_FILES), and the first one's is
        // gone when it ends before the others.
        for task in entries(format!("/proc/{pid}/task").as_ref())? {
            let folder = format!("/proc/{pid}/task/{task}/fd");
            for number in entries(folder.as_ref())? {
                if let Some(inode) = socket(Path::new(&folder).join(number).as_ref()) {
                    inodes.remove(&inode);
                }
            }
            if inodes.is_empty() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The names in a folder of /proc; none if its process is gone.
fn entries(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The inode of a socket, from its link in /proc/PID/fd (proc_pid_fd(5)).
fn socket(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::process::{Command, Stdio};

    use super::*;

    fn sought(fd: &OwnedFd, number: i32) -> Sought {
        let tid = Tid(std::process::id().cast_signed());
        Sought {
            caller: Caller { tid, number: TargetFd(number) },
            cookie: Cookie(sys::cookie(fd.as_fd(), libc::SO_COOKIE).unwrap()),
            inode: sys::inode(fd.as_fd()).unwrap(),
        }
    }

    fn socket() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    #[test]
    fn a_socket_in_its_place_is_not_missing_and_another_there_is() {
        let features = Features::detect().unwrap();
        let (ours, other) = (socket(), socket());
        let (here, elsewhere) = (sought(&ours, ours.as_raw_fd()), sought(&ours, other.as_raw_fd()));
        assert_eq!(missing(&[here], &[], &features), []);
        // We are no descendant of ours.
        assert_eq!(missing(&[here, elsewhere], &[], &features), [elsewhere.cookie]);
    }

    #[test]
    fn a_socket_that_a_descendant_has_is_not_missing() {
        let features = Features::detect().unwrap();
        let (ours, closed) = (socket(), sought(&socket(), -1));
        let away = sought(&ours, -1);
        assert_eq!(missing(&[away], &[], &features), [away.cookie]);
        let script = "exec 3<&0 0</dev/null; while sleep 100; do :; done";
        let shell = Command::new("sh").args(["-c", script]).stdin(Stdio::from(ours)).spawn();
        let mut shell = shell.unwrap();
        assert_eq!(missing(&[away, closed], &[], &features), [closed.cookie]);
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
}
