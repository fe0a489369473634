//! Forking, and what signals do by default.
//!
//! The one place with unsafe code: what runs after fork(2) may find locks held for ever; signal(2)
//! can install handlers, so no crate offers it safely; and nix's signal type knows no real-time
//! signals, of which a command may die as well.
#![allow(unsafe_code)]

use std::io;

use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::ForkResult;

/// fork(2).
///
/// # Errors
/// Those of fork(2), and `ResourceBusy` in a process with several threads: in the child, whatever
/// the others held would be held for ever.
pub(crate) fn fork() -> io::Result<ForkResult> {
    if std::fs::read_dir("/proc/self/task")?.nth(1).is_some() {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    // SAFETY: the only thread forks (counted above, and none can start meanwhile but by this one),
    // so the child is as free as its parent.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Sets what a signal does back to its default.
pub(crate) fn default_action(signal: Signal) {
    // SAFETY: SIG_DFL installs no code of ours.
    unsafe { libc::signal(signal as libc::c_int, libc::SIG_DFL) };
}

/// Makes a write beyond RLIMIT_FSIZE fail with EFBIG, a log's or a memfd's, instead of killing us and
/// the command's network. By a handler: one is gone after execve(2), so the command is killed as ever.
pub(crate) fn survive_file_limits() {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing, which may be done at any time.
    let Ok(before) = (unsafe { sigaction(Signal::SIGXFSZ, &handler) }) else { return };
    if let SigHandler::SigIgn = before.handler() {
        // What was ignored before us is the command's to ignore, and spares us as well.
        // SAFETY: as above: SIG_IGN runs nothing.
        let _ = unsafe { sigaction(Signal::SIGXFSZ, &before) };
    }
}

/// Kills this process by `signal`, without a core file: the command's own is the one to read.
/// Returns only if the signal does not kill.
pub(crate) fn die_of(signal: libc::c_int) {
    // Not RLIMIT_CORE: a core_pattern that is a pipe ignores a limit of 0 (core(5)).
    let _ = prctl::set_dumpable(false);
    // SAFETY: SIG_DFL installs no code of ours; a number that is no signal gives SIG_ERR.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) writes one sigset_t to where `set` has room for one.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `set` was initialised by the line above.
    unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    // SAFETY: reads `set`; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: raise(3) takes a number; the disposition is the default, so no handler runs.
    unsafe { libc::raise(signal) };
}
