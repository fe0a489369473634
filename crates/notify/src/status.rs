//! `/proc/TID/status` (proc(5)), as far as signals and thread groups go.

use std::fs;
use std::io;
use std::path::Path;

use crate::Tid;

/// What a thread's status file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The thread's process.
    pub(crate) tgid: i32,
    /// It has exited and waits to be reaped (`Z`, `X`).
    pub(crate) dead: bool,
    /// How many threads the process has.
    threads: u32,
    /// Signals pending for this thread.
    pending: u64,
    /// Signals pending for the process.
    shared: u64,
    /// Signals this thread blocks.
    blocked: u64,
}

impl Status {
    pub(crate) fn read(tid: Tid) -> io::Result<Status> {
        let text = text(format!("/proc/{tid}/status").as_ref())?;
        Status::parse(&text).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }

    fn parse(text: &str) -> Option<Status> {
        let mut status = Status::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            let mask = || u64::from_str_radix(value, 16).ok();
            match key {
                "State" => status.dead = value.starts_with(['X', 'Z']),
                "Tgid" => status.tgid = value.parse().ok()?,
                "Threads" => status.threads = value.parse().ok()?,
                "SigPnd" => status.pending = mask()?,
                "ShdPnd" => status.shared = mask()?,
                "SigBlk" => status.blocked = mask()?,
                _ => {}
            }
        }
        (status.tgid != 0).then_some(status)
    }
}

/// The text of a file of /proc that tells a thread's name: any bytes, or a part of what was text, as it is cut.
pub(crate) fn text(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// Whether a pending signal will be taken by this thread and no other.
///
/// A signal to the process is given to its leader if that does not block it, else to some thread
/// that does not (kernel/signal.c, `complete_signal`); a thread that has the process to itself takes
/// all. To answer -ERESTARTSYS to a thread that gets no signal would leak errno 512 to it.
pub(crate) fn will_take_signal(tid: Tid) -> io::Result<bool> {
    let status = Status::read(tid)?;
    if status.pending & !status.blocked != 0 {
        return Ok(true);
    }
    let mut shared = status.shared & !status.blocked;
    if shared == 0 || status.threads <= 1 || status.tgid == tid.0 {
        return Ok(shared != 0);
    }
    for entry in fs::read_dir(format!("/proc/{tid}/task"))? {
        let name = entry?.file_name();
        let Some(other) = name.to_str().and_then(|name| name.parse().ok()).map(Tid) else { continue };
        if other == tid {
            continue;
        }
        match Status::read(other) {
            // A thread that has exited takes nothing.
            Ok(other) if other.dead => {}
            Ok(other) => shared &= other.blocked,
            // Gone between listing and reading.
            Err(_) => {}
        }
        if shared == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_file_is_read() {
        let text = "Name:\ta: b\nState:\tS (sleeping)\nTgid:\t12\nPid:\t13\nThreads:\t2\n\
                    SigPnd:\t0000000000000200\nShdPnd:\t0000000000000001\nSigBlk:\t8000000000000000\n";
        let status = Status::parse(text).unwrap();
        assert_eq!(
            status,
            Status {
                tgid: 12,
                dead: false,
                threads: 2,
                pending: 0x200,
                shared: 1,
                blocked: 0x8000_0000_0000_0000
            }
        );
        assert!(Status::parse(&text.replace("S (sleeping)", "Z (zombie)")).unwrap().dead);
        assert_eq!(Status::parse(""), None);
    }

    #[test]
    fn a_thread_may_have_any_name() {
        // A text of two-byte letters, cut after 15 bytes.
        nix::sys::prctl::set_name(c"\xd0\xbf\xd0\xbf\xd0\xbf\xd0\xbf\xd0\xbf\xd0\xbf\xd0\xbf\xd0\xbf")
            .unwrap();
        let tid = Tid(nix::unistd::gettid().as_raw());
        assert_eq!(Status::read(tid).unwrap().tgid, std::process::id().cast_signed());
        assert!(!will_take_signal(tid).unwrap());
    }

    #[test]
    fn a_thread_that_is_gone_is_an_error() {
        assert!(will_take_signal(Tid(i32::MAX)).is_err());
    }
}
