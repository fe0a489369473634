//! The kernel's memory bank.

use std::io;
use std::ptr::{self, NonNull};

/// What the page allocator wants a bank aligned to, and its size a multiple of: its largest block.
const BANK: usize = 4 << 20;

/// Reserved memory for a kernel. It is never unmapped: kernel code keeps pointers into it.
#[derive(Debug)]
pub(crate) struct Memory {
    start: NonNull<libc::c_void>,
    length: usize,
}

impl Memory {
    /// Reserves `length` bytes, rounded up to whole banks. Pages come into being when touched.
    pub(crate) fn reserve(length: usize) -> io::Result<Self> {
        let too_much = || io::Error::from_raw_os_error(libc::ENOMEM);
        let length = length.checked_next_multiple_of(BANK).ok_or_else(too_much)?;
        let mapped = length.checked_add(BANK).ok_or_else(too_much)?;
        // SAFETY: an anonymous mapping at an address of the system's choice touches nothing else.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = base.map_addr(|base| base.next_multiple_of(BANK));
        Ok(Self { start: NonNull::new(start).expect("mmap(2) does not map page 0 unasked"), length })
    }

    pub(crate) fn start(&self) -> *mut libc::c_void {
        self.start.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Gives the pages back to the host; the addresses stay ours. For when the kernel is down, and
    /// only its refusals run any more: they read the library's own data, not this.
    pub(crate) fn release(&self) {
        // SAFETY: the range lies in our own mapping, and nobody reads it any more (see above).
        unsafe { libc::madvise(self.start(), self.length, libc::MADV_DONTNEED) };
    }
}
