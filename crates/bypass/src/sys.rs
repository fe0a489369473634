//! connect(2) with Rust addresses, and a signal whose only effect is `EINTR`. Unsafe because
//! nix's connect wants its own address types and sigaction(2) and pthread_kill(3) are unsafe.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{SockaddrIn, SockaddrIn6, SockaddrLike};

/// connect(2), once: no retry on `EINTR`, which leaves a socket connecting.
///
/// An IPv4 address on an AF_INET6 socket must be given v4-mapped by the caller.
///
/// # Errors
/// The errno of connect(2); `EINPROGRESS` is one.
pub fn connect(socket: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()> {
    let (v4, v6);
    let address: &dyn SockaddrLike = match to {
        SocketAddr::V4(to) => {
            v4 = SockaddrIn::from(to);
            &v4
        }
        SocketAddr::V6(to) => {
            v6 = SockaddrIn6::from(to);
            &v6
        }
    };
    // SAFETY: `address` points to a sockaddr of `len()` bytes that lives through the call.
    let result = unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr(), address.len()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A thread, as pthread_kill(3) names it. Only valid while that thread runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread(libc::pthread_t);

impl Thread {
    pub(crate) fn current() -> Self {
        // SAFETY: no arguments, cannot fail.
        Thread(unsafe { libc::pthread_self() })
    }

    /// Interrupts the system call that the thread waits in, if any, with `EINTR`.
    ///
    /// The caller guarantees that the thread still runs.
    pub(crate) fn interrupt(self) {
        static HANDLER: OnceLock<()> = OnceLock::new();
        HANDLER.get_or_init(|| {
            let ignore = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
            // SAFETY: the handler does nothing, which is async-signal-safe; SIGURG is ignored by
            // default (signal(7)), so nobody relies on its default action.
            unsafe { sigaction(Signal::SIGURG, &ignore) }.expect("SIGURG may be caught");
        });
        // SAFETY: the thread runs (the caller's promise), so its id is valid.
        unsafe { libc::pthread_kill(self.0, libc::SIGURG) };
    }
}

extern "C" fn nothing(_: libc::c_int) {}
