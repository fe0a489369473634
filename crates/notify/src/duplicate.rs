//! Duplicates of a guest's descriptors, which may be the last of theirs when they are closed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{getsockopt, sockopt};
use tracing::error;

/// A duplicate of a guest's descriptor. Closing it does not wait, whatever the guest has made of the socket.
///
/// The last close(2) of a TCP socket with `SO_LINGER` waits until its far side has taken what was sent, for as long as the
/// option says; and ours is the last if the guest has closed its own meanwhile.
#[derive(Debug)]
pub struct Duplicate(Option<OwnedFd>);

impl Duplicate {
    fn fd(&self) -> &OwnedFd {
        self.0.as_ref().expect("taken only when it is dropped or given away")
    }

    /// Another one.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.fd().try_clone().map(Self::from)
    }

    /// As a descriptor like any other, whose last close may wait.
    #[must_use]
    pub fn into_fd(mut self) -> OwnedFd {
        self.0.take().expect("taken only when it is dropped or given away")
    }
}

impl From<OwnedFd> for Duplicate {
    fn from(fd: OwnedFd) -> Self {
        Duplicate(Some(fd))
    }
}

impl AsFd for Duplicate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd().as_fd()
    }
}

impl AsRawFd for Duplicate {
    fn as_raw_fd(&self) -> RawFd {
        self.fd().as_raw_fd()
    }
}

impl Drop for Duplicate {
    fn drop(&mut self) {
        let Some(fd) = self.0.take() else { return };
        LOOKING.fetch_add(1, Ordering::SeqCst);
        let may_linger = SETTING.load(Ordering::SeqCst) > 0
            || getsockopt(&fd, sockopt::Linger)
                .is_ok_and(|linger| linger.l_onoff != 0 && linger.l_linger > 0);
        let slow = if may_linger {
            Some(fd)
        } else {
            drop(fd);
            None
        };
        LOOKING.fetch_sub(1, Ordering::SeqCst);
        if let Some(Err(error)) = slow.map(close_without_lingering) {
            error!(%error, "a guest's socket that may linger cannot be closed, and stays open");
        }
    }
}

/// How many threads are between the question whether a socket lingers and its close.
static LOOKING: AtomicUsize = AtomicUsize::new(0);
/// How many set `SO_LINGER` for guests.
static SETTING: AtomicUsize = AtomicUsize::new(0);

/// Sets `SO_LINGER` of a guest's socket, which must not happen between that question and the close.
pub fn setting_linger<T>(set: impl FnOnce() -> T) -> T {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            SETTING.fetch_sub(1, Ordering::SeqCst);
        }
    }
    SETTING.fetch_add(1, Ordering::SeqCst);
    let _over = Over;
    // Two system calls that do not wait.
    while LOOKING.load(Ordering::SeqCst) > 0 {
        thread::yield_now();
    }
    set()
}

/// Closes a descriptor on a thread that ends with it: in one that exits no close waits (inet_release() in net/ipv4/af_inet.c).
/// On an error it stays open.
fn close_without_lingering(fd: OwnedFd) -> io::Result<()> {
    let (tell, told) = mpsc::channel();
    let (closed, until_closed) = mpsc::channel::<()>();
    // Should there be no thread, the descriptor must not be closed with the closure.
    let fd = std::mem::ManuallyDrop::new(fd);
    thread::Builder::new().name("netshunt-close".into()).spawn(move || {
        // From here on it has a table of its own, with all that is in ours.
        let _ = tell.send(unshare(CloneFlags::CLONE_FILES));
        // Nobody sends.
        let _ = until_closed.recv();
    })?;
    told.recv().map_err(io::Error::other)??;
    // Not the last: that one goes with the thread.
    drop(std::mem::ManuallyDrop::into_inner(fd));
    drop(closed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_close_of_a_socket_that_lingers_does_not_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut guest = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        guest.set_nonblocking(true).unwrap();
        let mut sent = 0;
        loop {
            match guest.write(&[7; 65536]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let linger = libc::linger { l_onoff: 1, l_linger: 3600 };
        nix::sys::socket::setsockopt(&guest, sockopt::Linger, &linger).unwrap();
        let (done, closed) = mpsc::channel();
        thread::spawn(move || {
            drop(Duplicate::from(OwnedFd::from(guest)));
            done.send(()).unwrap();
        });
        closed.recv_timeout(Duration::from_secs(60)).expect("it does not wait for the far side");
        // It is closed, and in order.
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), sent);
    }

    #[test]
    fn what_is_no_socket_is_closed() {
        let (end, other) = nix::unistd::pipe().unwrap();
        drop(Duplicate::from(other));
        assert_eq!(std::fs::File::from(end).read(&mut [0]).unwrap(), 0);
    }
}
