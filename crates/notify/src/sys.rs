//! The system calls that no crate wraps: seccomp(2), its notification ioctls, a few probes.
//!
//! The only module that may be unsafe: every function is one call that takes plain values or
//! references, and returns `io::Result` and owned descriptors.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp, seccomp_notif_sizes, sock_filter};

// include/uapi/linux/seccomp.h: the ioctl numbers below contain these sizes.
const _: () = assert!(size_of::<seccomp_notif>() == 80);
const _: () = assert!(size_of::<seccomp_notif_resp>() == 24);
const _: () = assert!(size_of::<seccomp_notif_addfd>() == 24);

mod ioctl {
    use libc::{seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp};

    nix::ioctl_readwrite!(recv, b'!', 0, seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, seccomp_notif_resp);
    nix::ioctl_write_ptr!(id_valid, b'!', 2, u64);
    nix::ioctl_write_ptr!(addfd, b'!', 3, seccomp_notif_addfd);
    // The argument is the value itself, though the number is declared with eight bytes.
    nix::ioctl_write_int_bad!(set_flags, nix::request_code_write!(b'!', 4, 8));
}

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (Linux 6.6).
const SYNC_WAKE_UP: i32 = 1;

/// `PIDFD_THREAD` (Linux 6.9) is `O_EXCL`.
pub(crate) const PIDFD_THREAD: u32 = libc::O_EXCL as u32;

/// Receives a notification; blocks when none is waiting, even on a non-blocking listener.
pub(crate) fn recv(listener: BorrowedFd<'_>) -> io::Result<seccomp_notif> {
    // SAFETY: a plain C struct of integers, for which all zeroes is a value. The kernel demands them.
    let mut notif: seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: NOTIF_RECV writes one `seccomp_notif`, whose size is asserted above.
    unsafe { ioctl::recv(listener.as_raw_fd(), &mut notif) }?;
    Ok(notif)
}

/// Repeats a call that a signal has interrupted. Those on a listener wait for its lock, and a signal of ours ends that
/// with `EINTR` whatever SA_RESTART says (kernel/seccomp.c: mutex_lock_interruptible()): an answer that is not given again
/// is one that the guest never gets.
fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

/// Answers a notification.
pub(crate) fn send(listener: BorrowedFd<'_>, mut answer: seccomp_notif_resp) -> io::Result<()> {
    // SAFETY: NOTIF_SEND reads one `seccomp_notif_resp`, which outlives the call.
    again(|| unsafe { ioctl::send(listener.as_raw_fd(), &mut answer) }).map(drop)
}

/// Whether the thread still waits for the answer to this notification (`ENOENT` if not).
pub(crate) fn id_valid(listener: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    // SAFETY: NOTIF_ID_VALID reads one u64, which outlives the call.
    again(|| unsafe { ioctl::id_valid(listener.as_raw_fd(), &id) }).map(drop)
}

/// Adds a descriptor to the notifying thread; the number there is returned.
pub(crate) fn addfd(listener: BorrowedFd<'_>, request: &seccomp_notif_addfd) -> io::Result<RawFd> {
    // SAFETY: NOTIF_ADDFD reads one `seccomp_notif_addfd`, which outlives the call.
    again(|| unsafe { ioctl::addfd(listener.as_raw_fd(), request) })
}

/// Makes wake-ups synchronous: both sides take turns, so both may stay on one processor.
pub(crate) fn set_sync_wake_up(listener: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is an integer.
    unsafe { ioctl::set_flags(listener.as_raw_fd(), SYNC_WAKE_UP) }?;
    Ok(())
}

/// Installs `program` on this thread and returns the number of the new listener, if the flags ask for one, else 0.
///
/// Async-signal-safe: two system calls, no allocation, errors are errno values.
pub(crate) fn install(program: &[sock_filter], flags: libc::c_ulong) -> io::Result<RawFd> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // The kernel only reads through `filter`.
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let zero: libc::c_ulong = 0;
    let one: libc::c_ulong = 1;
    // SAFETY: PR_SET_NO_NEW_PRIVS takes integers only.
    check(i64::from(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) }))?;
    // SAFETY: `program` describes `len` initialised instructions that outlive the call, which copies them.
    let number = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            flags,
            &raw const program,
        )
    })?;
    // A descriptor number fits an int.
    Ok(number as RawFd)
}

/// Whether seccomp(2) knows these filter flags: `EFAULT` for the missing program comes only after
/// unknown flags were refused with `EINVAL` (seccomp(2), "ERRORS").
pub(crate) fn knows_filter_flags(flags: libc::c_ulong) -> bool {
    // SAFETY: the program is NULL, which the kernel answers with EFAULT: nothing is installed.
    let answer = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            flags,
            ptr::null::<libc::sock_fprog>(),
        )
    });
    answer.is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT))
}

/// The sizes of this kernel's notification structures.
pub(crate) fn notif_sizes() -> io::Result<seccomp_notif_sizes> {
    let mut sizes = seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    // SAFETY: GET_NOTIF_SIZES writes one `seccomp_notif_sizes`.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_GET_NOTIF_SIZES),
            0 as libc::c_ulong,
            &raw mut sizes,
        )
    })?;
    Ok(sizes)
}

/// The Landlock ABI of this kernel (landlock_create_ruleset(2), `LANDLOCK_CREATE_RULESET_VERSION`).
pub(crate) fn landlock_abi() -> io::Result<u32> {
    // SAFETY: with the VERSION flag there is no attribute (NULL, 0), and the answer is a number.
    let version = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<libc::c_void>(),
            0 as libc::size_t,
            1 as libc::c_ulong,
        )
    })?;
    u32::try_from(version).map_err(io::Error::other)
}

/// pidfd_open(2). Rustix does not name `PIDFD_THREAD`, and its `Pid` cannot say "thread".
pub(crate) fn pidfd_open(id: i32, flags: u32) -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    let number = check(unsafe {
        libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(id), libc::c_ulong::from(flags))
    })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number as RawFd) })
}

fn check(answer: i64) -> io::Result<i64> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// dup3(2) over a descriptor that others share: they keep a valid number, for another file.
pub(crate) fn replace(by: BorrowedFd<'_>, old: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: both are open, and the owner of `old` keeps owning its number.
    check(i64::from(unsafe { libc::dup3(by.as_raw_fd(), old.as_raw_fd(), flags) }))?;
    Ok(())
}
