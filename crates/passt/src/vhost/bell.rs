//! Kicks and calls: 8 bytes that say "look at your ring".
//!
//! The protocol has eventfds for these. A pipe is read and written alike, costs the same, and its two
//! ends are two open files: with an eventfd the peer could clear `O_NONBLOCK` under us, fill or drain
//! the counter, and have us wait for ever.
//!
//! A write to a peer that is gone raises SIGPIPE, which must stay ignored, as Rust's runtime leaves it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read, write};

/// The end that rings, and the end that hears: one is kept, the other is the peer's.
#[derive(Debug)]
pub(super) struct Bell<const RINGS: bool>(OwnedFd);

/// Rings.
pub(super) type Button = Bell<true>;
/// Hears.
pub(super) type Ear = Bell<false>;

/// Both ends; neither waits.
pub(super) fn bell() -> io::Result<(Button, Ear)> {
    let (ear, button) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    Ok((Bell(button), Bell(ear)))
}

impl Button {
    pub(super) fn ring(&self) {
        // EAGAIN: there is plenty to hear. EPIPE: the socket tells that the peer is gone.
        let _ = write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl Ear {
    /// Forgets the rings so far, or 512 of them.
    pub(super) fn hear(&self) {
        // EAGAIN: the peer has not rung, or holds both ends and has heard it itself.
        let _ = read(&self.0, &mut [0; 4096]);
    }
}

impl<const RINGS: bool> AsFd for Bell<RINGS> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
