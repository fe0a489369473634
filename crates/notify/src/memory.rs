//! The guest's memory.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::Tid;

/// An address in the guest. Nothing is known about it until it is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetAddr(pub u64);

impl TargetAddr {
    /// Whether it is NULL.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address `bytes` further on, or `None` past the end of the address space.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Option<TargetAddr> {
        self.0.checked_add(bytes).map(TargetAddr)
    }
}

/// The guest's memory could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Also when the thread no longer waits, or its memory may hold us up. No difference is made: the answer is the same,
    /// or goes nowhere.
    #[error("the guest's memory cannot be accessed")]
    Access,
    /// It is not the guest's fault: we have no descriptors or no memory.
    #[error("there is too little memory, or no free descriptor, to access the guest's memory")]
    Shortage,
}

impl Fault {
    /// What the call that named the memory is to fail with: `EFAULT` or `ENOBUFS`.
    #[must_use]
    pub fn errno(self) -> i32 {
        match self {
            Fault::Access => libc::EFAULT,
            Fault::Shortage => libc::ENOBUFS,
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Fault::Shortage,
            _ => Fault::Access,
        }
    }
}

/// Reads all of `into`. The caller checks afterwards that it was the right thread.
pub(crate) fn read(tid: Tid, at: TargetAddr, into: &mut [u8]) -> Result<(), Fault> {
    let len = into.len();
    if len == 0 {
        return Ok(());
    }
    let base = usize::try_from(at.0).map_err(|_| Fault::Access)?;
    let remote = [RemoteIoVec { base, len }];
    // Stops at the first page that is not there, with what it has.
    match process_vm_readv(Pid::from_raw(tid.0), &mut [IoSliceMut::new(into)], &remote) {
        Ok(read) if read == len => Ok(()),
        Ok(_) => Err(Fault::Access),
        Err(errno) => Err(Fault::of(&errno.into())),
    }
}

/// Opens the memory that the thread has now: whatever becomes of the thread and its id, this stays
/// bound to it.
pub(crate) fn open(tid: Tid) -> Result<File, Fault> {
    File::options().write(true).open(format!("/proc/{tid}/mem")).map_err(|error| Fault::of(&error))
}

/// Writes all of `bytes`.
pub(crate) fn write(memory: &File, at: TargetAddr, bytes: &[u8]) -> Result<(), Fault> {
    memory.write_all_at(bytes, at.0).map_err(|error| Fault::of(&error))
}
