//! For tests: memory at a place of its own with nothing behind it, and system calls on it, as a guest makes them.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use netshunt_notify::{Fault, TargetAddr};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use crate::calls::Arguments;

/// Bytes of it.
pub(crate) const SIZE: usize = 4096;
/// Behind it.
const GUARD: usize = 64 << 10;
/// No address of this or a higher one is a process's own.
const USER_END: u64 = 1 << 47;

/// The memory that system calls see.
pub(crate) struct Arena {
    memory: NonNull<u8>,
    /// Nothing is mapped below.
    lowest: u64,
}

impl Arena {
    pub(crate) fn new() -> Self {
        let all = NonZeroUsize::new(SIZE + GUARD).unwrap();
        let private = MapFlags::MAP_PRIVATE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { mmap_anonymous(None, all, ProtFlags::PROT_NONE, private) }.unwrap();
        // SAFETY: the beginning of that mapping, which nobody else knows.
        unsafe { mprotect(base, SIZE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) }.unwrap();
        Arena { memory: base.cast(), lowest: lowest() }
    }

    pub(crate) fn base(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    /// Performs a system call on a socket (SIOCGIFCONF is the only ioctl(2)), on memory that is as `bytes`, and changes them as it does.
    ///
    /// # Panics
    /// If a register or a word of the memory could lead somewhere else.
    pub(crate) fn call(&mut self, number: i64, args: [u64; 6], bytes: &mut [u8]) -> Result<usize, i32> {
        assert_eq!(bytes.len(), SIZE);
        let words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
        for word in words.chain(args) {
            assert!(self.is_harmless(word), "{word:#x}");
        }
        // SAFETY: `SIZE` bytes of the mapping, which are only accessed here.
        unsafe { self.memory.copy_from_nonoverlapping(NonNull::from(&mut *bytes).cast(), SIZE) };
        let [a, b, c, d, e, f] = args;
        // SAFETY: calls of sockets read and write what their registers, and words at multiples of 8 behind these, lead
        // to. Each leads into the arena, to memory that is nobody's, or is no address (checked above); and they go from
        // there on upwards without a gap, so that what is longer ends at the guard, with EFAULT.
        let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
        let result =
            usize::try_from(result).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap());
        // SAFETY: as above.
        unsafe { self.memory.copy_to_nonoverlapping(NonNull::from(bytes).cast(), SIZE) };
        result
    }

    /// Whether a number, taken for an address, is none of this process's but the arena's; aligned, so that what it leads
    /// to is made of whole words, too.
    pub(crate) fn is_harmless(&self, number: u64) -> bool {
        let arena = self.base()..self.base() + SIZE as u64;
        number < self.lowest
            || number >= USER_END
            || (number.is_multiple_of(8) && arena.contains(&number))
            || (arena.end..arena.end + GUARD as u64 - 4096).contains(&number)
    }
}

/// Where the first mapping begins, but 4 GiB at most: a process's memory grows down from the top, far from there.
fn lowest() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let first = maps.split('-').next().and_then(|first| u64::from_str_radix(first, 16).ok()).unwrap();
    first.min(1 << 32)
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and nothing refers to it any more.
        let _ = unsafe { munmap(self.memory.cast(), SIZE + GUARD) };
    }
}

/// A call with the arena's memory, as a supervisor sees it.
pub(crate) struct Call<'a> {
    pub(crate) base: u64,
    pub(crate) args: [u64; 6],
    pub(crate) memory: std::cell::RefCell<&'a mut [u8]>,
}

impl Call<'_> {
    fn place(&self, at: TargetAddr, length: usize) -> Result<std::ops::Range<usize>, Fault> {
        let start =
            at.0.checked_sub(self.base).and_then(|start| usize::try_from(start).ok()).ok_or(Fault::Access)?;
        let end = start.checked_add(length).filter(|end| *end <= SIZE).ok_or(Fault::Access)?;
        Ok(start..end)
    }
}

impl Arguments for Call<'_> {
    fn arg(&self, i: usize) -> u64 {
        self.args[i]
    }

    fn read(&self, at: TargetAddr, into: &mut [u8]) -> Result<(), Fault> {
        if !into.is_empty() {
            into.copy_from_slice(&self.memory.borrow()[self.place(at, into.len())?]);
        }
        Ok(())
    }

    fn write(&self, at: TargetAddr, bytes: &[u8]) -> Result<(), Fault> {
        if !bytes.is_empty() {
            let place = self.place(at, bytes.len())?;
            self.memory.borrow_mut()[place].copy_from_slice(bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_is_nobodys() {
        let arena = Arena::new();
        let end = arena.base() + SIZE as u64;
        assert!(
            [0, 1000, end - 8, end, end + 8, 1 << 47, u64::MAX].iter().all(|word| arena.is_harmless(*word))
        );
        assert!(
            ![end - 1, arena.base() - 8, 1 << 40, end + (1 << 20)]
                .iter()
                .any(|word| arena.is_harmless(*word))
        );
    }
}
