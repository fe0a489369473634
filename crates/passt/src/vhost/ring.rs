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

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proptest::prelude::*;

    use super::super::device::Device;
    use super::super::plan::BASE;
    use super::*;

    const SIZE: u16 = 8;

    fn pair(direction: Direction) -> (Ring, Device) {
        let memory = Arc::new(Memory::new(NonZeroUsize::new(4096).unwrap()).unwrap());
        let layout = Layout::at(64, SIZE);
        (Ring::new(memory.clone(), layout, direction), Device::new(memory, layout))
    }

    fn offer(ring: &mut Ring, id: u16) {
        ring.offer(id, BASE + 1000 + u64::from(id), 100 + u32::from(id));
    }

    #[test]
    fn the_parts_lie_as_the_standard_says() {
        let layout = Layout::at(64, 8);
        assert_eq!((layout.descriptors, layout.available, layout.used), (64, 192, 216));
        assert_eq!(64 + Layout::bytes(8), 216 + 6 + 8 * 8);
        assert!((0..11).all(|n| Layout::at(0, 1 << n).used.is_multiple_of(4)));
    }

    #[test]
    fn indices_wrap() {
        let (mut ring, mut device) = pair(Direction::In);
        for round in 0..70_000_u32 {
            let id = (round % 5) as u16;
            offer(&mut ring, id);
            assert_eq!(device.take(), None);
            assert_eq!(ring.publish(), 1);
            let given = device.take().unwrap();
            assert_eq!(
                (given.id, given.offset, given.len),
                (id, 1000 + usize::from(id), 100 + usize::from(id))
            );
            device.give(id.into(), 7);
            assert_eq!(ring.arrived(), Ok(0));
            device.show();
            assert_eq!((ring.arrived(), ring.take()), (Ok(1), Ok(Some(Used { id, len: 7 }))));
            assert_eq!((ring.held(), ring.take()), (0, Ok(None)));
        }
    }

    #[test]
    fn more_buffers_than_the_device_holds() {
        let (mut ring, device) = pair(Direction::In);
        offer(&mut ring, 0);
        ring.publish();
        for index in [2, 9, 0x8000, 0xffff] {
            device.show_index(index);
            assert_eq!(ring.arrived(), Err(Broken::Count { used: index, held: 1 }));
        }
        device.show_index(0);
        assert_eq!(ring.arrived(), Ok(0));
    }

    #[test]
    fn buffers_that_the_device_does_not_hold() {
        for id in [1, 3, 8, 0x1_0000, u32::MAX] {
            let (mut ring, mut device) = pair(Direction::Out);
            (0..3).filter(|id| *id != 1).for_each(|id| offer(&mut ring, id));
            ring.publish();
            device.give(id, 0);
            device.show();
            assert_eq!((ring.arrived(), ring.take()), (Ok(1), Err(Broken::Id { id })));
        }
    }

    #[test]
    fn one_buffer_twice() {
        let (mut ring, mut device) = pair(Direction::Out);
        (0..3).for_each(|id| offer(&mut ring, id));
        ring.publish();
        (0..2).for_each(|_| device.give(1, 0));
        device.show();
        assert_eq!(ring.arrived(), Ok(2));
        assert_eq!((ring.take(), ring.take()), (Ok(Some(Used { id: 1, len: 0 })), Err(Broken::Id { id: 1 })));
    }

    #[test]
    fn a_length_counts_where_the_device_writes() {
        for (direction, expected) in [
            (Direction::In, Err(Broken::Length { id: 2, len: 103 })),
            (Direction::Out, Ok(Some(Used { id: 2, len: 0 }))),
        ] {
            let (mut ring, mut device) = pair(direction);
            offer(&mut ring, 2);
            ring.publish();
            device.give(2, 103);
            device.show();
            assert_eq!((ring.arrived(), ring.take()), (Ok(1), expected));
        }
    }

    #[test]
    #[should_panic(expected = "already")]
    fn a_buffer_is_offered_once() {
        let (mut ring, _) = pair(Direction::In);
        (0..2).for_each(|_| offer(&mut ring, 3));
    }

    #[test]
    fn each_side_says_whether_it_looks_by_itself() {
        let (ring, device) = pair(Direction::In);
        for wanted in [false, true, false] {
            ring.call(wanted);
            assert_eq!(device.wants_call(), wanted);
            device.want_kicks(wanted);
            assert_eq!(ring.wants_kick(), wanted);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Give { which: usize },
        Offer,
        Publish,
        Show,
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..8_usize).prop_map(|which| Step::Give { which }),
            Just(Step::Offer),
            Just(Step::Publish),
            Just(Step::Show),
            Just(Step::Take),
        ]
    }

    proptest! {
        /// Whatever the order, and in whichever order the device is done with them, each buffer comes
        /// back once for each time it was offered, and not before it was shown.
        #[test]
        fn every_buffer_comes_back_once(steps in proptest::collection::vec(step(), 1..400)) {
            let (mut ring, mut device) = pair(Direction::In);
            let mut free: Vec<u16> = (0..SIZE).collect();
            let (mut offered, mut with_device, mut given, mut shown) = (0, Vec::new(), Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Give { which } => {
                        while let Some(buffer) = device.take() {
                            with_device.push(buffer.id);
                        }
                        if !with_device.is_empty() {
                            let id = with_device.swap_remove(which % with_device.len());
                            device.give(id.into(), id.into());
                            given.push(id);
                        }
                    }
                    Step::Offer => {
                        if let Some(id) = free.pop() {
                            offer(&mut ring, id);
                            offered += 1;
                        }
                    }
                    Step::Publish => {
                        prop_assert_eq!(ring.publish(), offered);
                        offered = 0;
                    }
                    Step::Show => {
                        device.show();
                        shown = given.len();
                    }
                    Step::Take => {
                        prop_assert_eq!(usize::from(ring.arrived().unwrap()), shown);
                        for id in given.drain(..shown) {
                            prop_assert_eq!(ring.take(), Ok(Some(Used { id, len: id.into() })));
                            free.push(id);
                        }
                        prop_assert_eq!(ring.take(), Ok(None));
                        shown = 0;
                    }
                }
                prop_assert_eq!(usize::from(ring.held()) + free.len(), usize::from(SIZE));
            }
        }
    }
}
