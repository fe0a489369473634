//! The other side, for tests: a device as simple as can be, over the same memory.

use std::sync::Arc;

use super::plan::{BASE, HEADER};
use super::ring::Layout;
use super::sys::Memory;

/// A buffer that the driver has made available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) id: u16,
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// One queue.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) memory: Arc<Memory>,
    layout: Layout,
    taken: u16,
    used: u16,
}

impl Device {
    pub(super) fn new(memory: Arc<Memory>, layout: Layout) -> Self {
        Device { memory, layout, taken: 0, used: 0 }
    }

    /// The next buffer, if one is available, and in the memory: a test may have written anything.
    pub(super) fn take(&mut self) -> Option<Given> {
        if self.memory.load(self.layout.available + 2) == self.taken {
            return None;
        }
        let slot = usize::from(self.taken % self.layout.size);
        self.taken = self.taken.wrapping_add(1);
        let id = u16::from_le_bytes(self.memory.array(self.layout.available + 4 + 2 * slot));
        let at = self.layout.descriptors + 16 * usize::from(id % self.layout.size);
        let address = u64::from_le_bytes(self.memory.array(at));
        let len = u32::from_le_bytes(self.memory.array(at + 8)) as usize;
        let offset = usize::try_from(address.checked_sub(BASE)?).ok()?;
        (offset.checked_add(len)? <= self.memory.len()).then_some(Given { id, offset, len })
    }

    /// Puts a buffer into the used ring; [`show`](Self::show) makes it count.
    pub(super) fn give(&mut self, id: u32, len: u32) {
        let at = self.layout.used + 4 + 8 * usize::from(self.used % self.layout.size);
        self.memory.write(at, &[id.to_le_bytes(), len.to_le_bytes()].concat());
        self.used = self.used.wrapping_add(1);
    }

    pub(super) fn show(&self) {
        self.show_index(self.used);
    }

    pub(super) fn show_index(&self, index: u16) {
        self.memory.store(self.layout.used + 2, index);
    }

    /// Shows more than there is.
    pub(super) fn show_ahead(&self, by: u16) {
        self.show_index(self.used.wrapping_add(by));
    }

    /// Whether the driver wants to be called.
    pub(super) fn wants_call(&self) -> bool {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.memory.load(self.layout.available) == 0
    }

    pub(super) fn want_kicks(&self, wanted: bool) {
        self.memory.store(self.layout.used, u16::from(!wanted));
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// The next frame that the driver sends, taken and given back but not shown.
    pub(super) fn frame(&mut self) -> Option<Vec<u8>> {
        let given = self.take()?;
        let mut frame = vec![0; given.len];
        self.memory.read(given.offset, &mut frame);
        self.give(given.id.into(), 0);
        assert_eq!(frame[..HEADER], [0; HEADER]);
        frame.drain(..HEADER);
        Some(frame)
    }

    /// Writes a frame into as many buffers as it takes, not shown; false, and nothing is written, if
    /// they are too few.
    pub(super) fn deliver(&mut self, frame: &[u8]) -> bool {
        let before = self.taken;
        let mut buffers = Vec::new();
        let mut room = 0;
        while room < HEADER + frame.len() {
            let Some(given) = self.take() else {
                self.taken = before;
                return false;
            };
            room += given.len;
            buffers.push(given);
        }
        let mut header = [0; HEADER];
        header[10..].copy_from_slice(&(buffers.len() as u16).to_le_bytes());
        let whole = [&header, frame].concat();
        let mut rest = &*whole;
        for given in buffers {
            let (part, after) = rest.split_at(rest.len().min(given.len));
            self.memory.write(given.offset, part);
            self.give(given.id.into(), part.len() as u32);
            rest = after;
        }
        true
    }
}
