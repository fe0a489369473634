//! The supervisor's end of the filter.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::{Features, sys};

/// The number of a listener in the process that installed the filter: plain data, fit for a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ListenerNumber(pub RawFd);

/// The descriptor on which notifications arrive. When it closes, guests get `ENOSYS` from every
/// mediated call.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    /// Put in its place when it closes. Open from the start: later guests may have used up all descriptors.
    nothing: File,
}

impl Listener {
    /// Takes the listener out of the `child` (a pidfd), which must still have it open.
    ///
    /// pidfd_getfd(2) and not `SCM_RIGHTS`: sending would need a call that the child's own filter may
    /// notify.
    ///
    /// # Errors
    /// Those of pidfd_getfd(2): `EPERM` without ptrace rights over the child, `EBADF` for a wrong number,
    /// `ESRCH` when it is gone.
    pub fn take(child: BorrowedFd<'_>, number: ListenerNumber, features: &Features) -> io::Result<Listener> {
        // The duplicate is close-on-exec.
        let fd = pidfd_getfd(child, number.0, PidfdGetfdFlags::empty())?;
        if features.sync_wake_up {
            // Judged by the version, so EINVAL may still come; it costs speed alone.
            let _ = sys::set_sync_wake_up(fd.as_fd());
        }
        Ok(Listener { fd, nothing: File::open("/dev/null")? })
    }

    /// Closes the listener for every thread that holds a share in it, though its number stays taken:
    /// the guests' pending and later calls get `ENOSYS`, our later answers go nowhere.
    pub(crate) fn close(&self) -> io::Result<()> {
        sys::replace(self.nothing.as_fd(), self.fd.as_fd(), OFlag::O_CLOEXEC.bits())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
