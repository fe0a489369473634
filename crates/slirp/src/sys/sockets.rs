//! Calls on a socket that libslirp owns. The number may be anything: the kernel says what it is.

use std::os::fd::RawFd;

use libc::c_int;

/// SO_ERROR of a socket (socket(7)), which is forgotten by that; 0 for none.
pub(crate) fn take_error(fd: RawFd) -> i32 {
    let mut errno: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: `errno` has `len` writable bytes, and `len` is writable.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut errno).cast(), &raw mut len)
    };
    if result < 0 { 0 } else { errno }
}

/// connect(2) with AF_UNSPEC: nothing more is sent for this connection (tcp_disconnect() in
/// net/ipv4/tcp.c).
pub(crate) fn disconnect(fd: RawFd) {
    let unspecified = [0u8; size_of::<libc::sockaddr_in>()];
    let len = unspecified.len() as libc::socklen_t;
    // SAFETY: `unspecified` has `len` readable bytes.
    unsafe { libc::connect(fd, unspecified.as_ptr().cast(), len) };
}

/// Lets as many connections wait on a listener as the system allows (`net.core.somaxconn`); does nothing to
/// other sockets.
pub(crate) fn lengthen_queue(fd: RawFd) {
    let mut listens: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: `listens` has `len` writable bytes, and `len` is writable.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, (&raw mut listens).cast(), &raw mut len)
    };
    if result == 0 && listens != 0 {
        // SAFETY: no pointers.
        unsafe { libc::listen(fd, c_int::MAX) };
    }
}
