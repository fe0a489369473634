//! The only module of this crate, beside the shared rings, with unsafe code: poll(2) over entries that
//! others fill, what a child does between fork and exec, and two ioctl(2)s.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

use libc::{c_int, c_ulong};
use netshunt_backend::PollFd;

/// poll(2), for at most `wait`; a signal counts as no descriptor ready.
pub(crate) fn poll(fds: &mut [PollFd], wait: Duration) -> io::Result<()> {
    // Rounded up: what is due in half a millisecond would otherwise be asked for until then.
    let wait = c_int::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX);
    // SAFETY: `fds` is a slice of that many initialised pollfds, exclusively ours for the call.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, wait) };
    if ready >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// Starts a child in a session of its own that inherits no descriptor above 2 but `socket`.
pub(crate) fn spawn(command: &mut Command, socket: Option<&OwnedFd>) -> io::Result<Child> {
    let keep = socket.map(AsRawFd::as_raw_fd);
    // SAFETY: between fork and exec `settle` makes plain system calls only, and allocates nothing.
    unsafe { command.pre_exec(move || settle(keep)) };
    command.spawn()
}

/// The child, before it becomes another program.
fn settle(keep: Option<RawFd>) -> io::Result<()> {
    // The terminal's signals are for the command: passt lives on.
    nix::unistd::setsid()?;
    // SAFETY: close_range(2) with this flag (Linux 5.11) only marks descriptors, and closes none.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked != 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(fd) = keep else { return Ok(()) };
    // SAFETY: F_SETFD on a descriptor takes an int and touches no memory.
    let kept = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    if kept == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that the other end of a Unix socket has not read, with what the kernel needs to hold them (`SIOCOUTQ`,
/// which is 0 only when there are none).
pub(crate) fn unread(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: c_int = 0;
    // SAFETY: the request writes an int.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 { Ok(bytes.max(0) as u64) } else { Err(io::Error::last_os_error()) }
}

/// `struct pidfd_info` of linux/pidfd.h, as of Linux 6.15.
#[derive(Debug, Default)]
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: c_ulong = 3 << 30 | (size_of::<PidfdInfo>() as c_ulong) << 16 | 0xff << 8 | 11;
/// `PIDFD_INFO_EXIT`
const PIDFD_INFO_EXIT: u64 = 1 << 3;

const _: () = assert!(size_of::<PidfdInfo>() == 64, "PIDFD_INFO_SIZE_VER0");

/// How a process ended that somebody else has reaped, as wait(2) says it. Linux 6.15.
pub(crate) fn exit_code(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request carries the size of `info`, which the kernel reads and writes within.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (done == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}
