//! Descriptors that the command inherits, and the sockets among them.
//!
//! A connected internet socket leads out past everything; a datagram one leads anywhere, as sends
//! with an address are not mediated on it.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use tracing::warn;

use crate::{Error, sys};

/// Looks at the standard descriptors and those of `keep`.
///
/// # Errors
/// [`Error::Inherited`] for an internet socket that is not TCP.
pub(crate) fn check(keep: &[RawFd]) -> Result<(), Error> {
    for number in (0..3).chain(keep.iter().copied()) {
        let Some(fd) = sys::inherited(number) else { continue };
        match internet_protocol(fd) {
            Ok(Some(libc::IPPROTO_TCP)) => {
                warn!(fd = number, "the command inherits a TCP socket: its connection is not ours to judge");
            }
            Ok(Some(_)) => return Err(Error::Inherited { number }),
            // Not a socket, or not one of the internet.
            Ok(None) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether there is an AF_UNIX socket among them that takes an address with each send.
pub(crate) fn has_datagram(keep: &[RawFd]) -> bool {
    let option = |fd, name| sys::int_option(fd, libc::SOL_SOCKET, name).ok();
    (0..3).chain(keep.iter().copied()).filter_map(sys::inherited).any(|fd| {
        option(fd, libc::SO_DOMAIN) == Some(libc::AF_UNIX)
            && option(fd, libc::SO_TYPE) == Some(libc::SOCK_DGRAM)
    })
}

fn internet_protocol(fd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    match sys::int_option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)? {
        libc::AF_INET | libc::AF_INET6 => sys::int_option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL).map(Some),
        libc::AF_PACKET | libc::AF_VSOCK => Ok(Some(-1)),
        _ => Ok(None),
    }
}
