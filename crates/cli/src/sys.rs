//! Dying of a signal.
//!
//! The one place with unsafe code: signal(2) can install handlers, so no crate offers it safely,
//! and nix's signal type knows no real-time signals, of which a command may die as well.
#![allow(unsafe_code)]

use nix::sys::prctl;

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
