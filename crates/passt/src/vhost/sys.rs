//! The memory that both sides map. Unsafe code is for this alone: another process writes here at any
//! time, so nothing inside is ever a Rust value or reference, except atomics; everything else is
//! copied in or out, once, and judged on the copy.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A sealed memfd, mapped.
///
/// The seals (memfd_create(2), Linux 3.17) keep its size: a peer that could shrink the file could
/// raise SIGBUS here.
#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    len: NonZeroUsize,
    file: File,
}

// SAFETY: the mapping belongs to this value alone within the process, is valid on every thread, and
// is accessed only by copies and atomics.
unsafe impl Send for Memory {}

// SAFETY: as above; methods that take `&self` and write race only as the peer does already, and no
// Rust reference to plain data inside exists that such a write could contradict.
unsafe impl Sync for Memory {}

impl Memory {
    /// Zeroed memory of this many bytes.
    pub(super) fn new(len: NonZeroUsize) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(c"netshunt-vhost", flags)?);
        file.set_len(len.get() as u64)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Self::map(file, len)
    }

    /// Maps so much of a file that is sealed, and at least as long.
    pub(super) fn map(file: File, len: NonZeroUsize) -> io::Result<Self> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { mmap(None, len, access, MapFlags::MAP_SHARED, &file, 0) }?;
        Ok(Memory { base: base.cast(), len, file })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(super) fn len(&self) -> usize {
        self.len.get()
    }

    /// Reads a number that the peer may be writing; what it wrote before is visible after.
    pub(super) fn load(&self, offset: usize) -> u16 {
        u16::from_le(self.atomic(offset).load(Ordering::Acquire))
    }

    /// Writes a number that the peer may be reading; what we wrote before is visible to it first.
    pub(super) fn store(&self, offset: usize, value: u16) {
        self.atomic(offset).store(value.to_le(), Ordering::Release);
    }

    /// Copies bytes out. Of bytes that the peer is writing just now, any mixture may come.
    pub(super) fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: `at` has checked that the range lies inside the mapping; `into` is private memory
        // and cannot overlap it.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }

    /// Copies a few bytes out.
    pub(super) fn array<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes);
        bytes
    }

    /// Copies bytes in.
    pub(super) fn write(&self, offset: usize, from: &[u8]) {
        let into = self.at(offset, from.len());
        // SAFETY: as in `read`.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), into, from.len()) }
    }

    fn atomic(&self, offset: usize) -> &AtomicU16 {
        let pointer = self.at(offset, size_of::<u16>()).cast::<u16>();
        assert!(pointer.is_aligned(), "an odd offset");
        // SAFETY: inside the mapping (`at`), aligned (above), and never accessed otherwise here; that
        // another process writes it is what an atomic is for.
        unsafe { AtomicU16::from_ptr(pointer) }
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len.get());
        assert!(inside, "{len} bytes at {offset} are not within {}", self.len);
        // SAFETY: at most the mapping's length is added, by the assertion.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.base.cast(), self.len.get()) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Memory {
        Memory::new(NonZeroUsize::new(4096).unwrap()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_by_another_mapping() {
        let memory = page();
        memory.write(10, b"frame");
        memory.store(100, 0x1234);
        assert_eq!(&memory.array::<5>(10), b"frame");
        assert_eq!(memory.array(100), [0x34, 0x12]);
        let mut file = [0; 5];
        nix::sys::uio::pread(memory.fd(), &mut file, 10).unwrap();
        assert_eq!(&file, b"frame");
    }

    #[test]
    fn nobody_changes_its_size() {
        let memory = page();
        for len in [0, 1, 4095, 8192] {
            assert!(nix::unistd::ftruncate(memory.fd(), len).is_err(), "{len}");
        }
    }

    #[test]
    #[should_panic(expected = "not within")]
    fn a_range_that_ends_outside_is_refused() {
        page().write(4090, b"1234567");
    }

    #[test]
    #[should_panic(expected = "not within")]
    fn a_range_that_wraps_is_refused() {
        page().array::<8>(usize::MAX - 3);
    }
}
