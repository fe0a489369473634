//! The driver's side of a split virtqueue (Virtual I/O Device 1.2, section 2.7).
//!
//! Only the used ring is read, and nothing in it believed: an entry counts when it names a buffer that
//! the device holds and no more bytes than that buffer has. What the driver must know is kept in
//! private memory; descriptors and the available ring are written and never looked at again.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::sys::Memory;

/// The device may write into the buffer (`VIRTQ_DESC_F_WRITE`); else it may only read it.
const WRITE: u16 = 2;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT`: the device need not call.
const NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY`: the driver need not kick.
const NO_NOTIFY: u16 = 1;

/// What the device did that no device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// It says that it has used more buffers than it was given.
    #[error("{used} buffers used, {held} held")]
    Count { used: u16, held: u16 },
    /// A buffer that it does not hold.
    #[error("buffer {id} used, which the device does not hold")]
    Id { id: u32 },
    /// More bytes than the buffer has room for.
    #[error("{len} bytes written into buffer {id}")]
    Length { id: u16, len: u32 },
}

/// Who writes into a ring's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// The device reads.
    Out,
    /// The device writes.
    In,
}

/// Where the parts of a ring are, as offsets into the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) size: u16,
    pub(super) descriptors: usize,
    pub(super) available: usize,
    pub(super) used: usize,
}

impl Layout {
    /// Bytes that a ring takes, from a multiple of 16 on.
    pub(super) const fn bytes(size: u16) -> usize {
        let size = size as usize;
        16 * size + (6 + 2 * size).next_multiple_of(4) + 6 + 8 * size
    }

    pub(super) fn at(offset: usize, size: u16) -> Self {
        assert!(size.is_power_of_two() && size <= 1 << 15, "the size of a ring is a power of two");
        assert!(offset.is_multiple_of(16), "descriptors are aligned");
        let available = offset + 16 * usize::from(size);
        let used = (available + 6 + 2 * usize::from(size)).next_multiple_of(4);
        Layout { size, descriptors: offset, available, used }
    }
}

/// A buffer that the device has given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) id: u16,
    /// Bytes that the device says it wrote: within the buffer.
    pub(super) len: u32,
}

/// One virtqueue. Buffer `id` has descriptor `id`: chains are not used.
#[derive(Debug)]
pub(super) struct Ring {
    memory: Arc<Memory>,
    layout: Layout,
    direction: Direction,
    /// Room in each buffer that the device holds; `None`: it is ours.
    held: Box<[Option<u32>]>,
    held_count: u16,
    /// The available index, and as much of it as the device was told.
    available: u16,
    published: u16,
    /// The used index up to which entries were taken, and up to which they are known to be there.
    taken: u16,
    seen: u16,
}

impl Ring {
    /// A ring in zeroed memory.
    pub(super) fn new(memory: Arc<Memory>, layout: Layout, direction: Direction) -> Self {
        let held = vec![None; layout.size.into()].into_boxed_slice();
        Ring { memory, layout, direction, held, held_count: 0, available: 0, published: 0, taken: 0, seen: 0 }
    }

    /// Buffers that the device holds.
    pub(super) fn held(&self) -> u16 {
        self.held_count
    }

    /// Gives the device a buffer; it learns of it by [`publish`](Self::publish).
    pub(super) fn offer(&mut self, id: u16, address: u64, len: u32) {
        let before = self.held[usize::from(id)].replace(len);
        assert!(before.is_none(), "buffer {id} is the device's already");
        self.held_count += 1;
        let flags = match self.direction {
            Direction::Out => 0,
            Direction::In => WRITE,
        };
        let mut descriptor = [0; 16];
        descriptor[..8].copy_from_slice(&address.to_le_bytes());
        descriptor[8..12].copy_from_slice(&len.to_le_bytes());
        descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
        self.memory.write(self.layout.descriptors + 16 * usize::from(id), &descriptor);
        let slot = usize::from(self.available % self.layout.size);
        self.memory.write(self.layout.available + 4 + 2 * slot, &id.to_le_bytes());
        self.available = self.available.wrapping_add(1);
    }

    /// How many buffers the device was ever shown, and how many were taken back: indices that wrap.
    pub(super) fn published(&self) -> u16 {
        self.published
    }

    pub(super) fn taken(&self) -> u16 {
        self.taken
    }

    /// Buffers offered that the device has not been shown.
    pub(super) fn unpublished(&self) -> u16 {
        self.available.wrapping_sub(self.published)
    }

    /// Shows the device every buffer offered so far. Returns how many are new.
    pub(super) fn publish(&mut self) -> u16 {
        let new = self.unpublished();
        if new != 0 {
            self.memory.store(self.layout.available + 2, self.available);
            self.published = self.available;
        }
        new
    }

    /// Whether the device wants to hear of published buffers.
    pub(super) fn wants_kick(&self) -> bool {
        // The index must be out before the flag is read: the device sets it the other way round.
        fence(Ordering::SeqCst);
        self.memory.load(self.layout.used) & NO_NOTIFY == 0
    }

    /// Asks the device to call when it has used a buffer, or not to.
    ///
    /// To sleep, ask first and look at [`arrived`](Self::arrived) after: a buffer used in between is
    /// seen there.
    pub(super) fn call(&self, wanted: bool) {
        self.memory.store(self.layout.available, if wanted { 0 } else { NO_INTERRUPT });
        fence(Ordering::SeqCst);
    }

    /// Buffers that the device has used and [`take`](Self::take) has not returned yet.
    pub(super) fn arrived(&mut self) -> Result<u16, Broken> {
        let seen = self.memory.load(self.layout.used + 2);
        let used = seen.wrapping_sub(self.taken);
        if used > self.held_count {
            return Err(Broken::Count { used, held: self.held_count });
        }
        self.seen = seen;
        Ok(used)
    }

    /// The oldest of the buffers that [`arrived`](Self::arrived) has counted. It is ours again.
    pub(super) fn take(&mut self) -> Result<Option<Used>, Broken> {
        if self.taken == self.seen {
            return Ok(None);
        }
        let slot = usize::from(self.taken % self.layout.size);
        let entry: [u8; 8] = self.memory.array(self.layout.used + 4 + 8 * slot);
        let [id, len] = [0, 4].map(|at| u32::from_le_bytes([0, 1, 2, 3].map(|i| entry[at + i])));
        let (id, room) = u16::try_from(id)
            .ok()
            .and_then(|short| Some((short, self.held.get_mut(usize::from(short))?.take()?)))
            .ok_or(Broken::Id { id })?;
        self.held_count -= 1;
        self.taken = self.taken.wrapping_add(1);
        match self.direction {
            // The length says nothing about a buffer that the device only reads.
            Direction::Out => Ok(Some(Used { id, len: 0 })),
            Direction::In if len > room => Err(Broken::Length { id, len }),
            Direction::In => Ok(Some(Used { id, len })),
        }
    }
}
