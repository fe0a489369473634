//! Where everything lies in the shared memory.

use std::num::NonZeroUsize;
use std::ops::Range;

use super::ring::Layout;

/// Bytes of the header before each frame: `struct virtio_net_hdr_mrg_rxbuf`, which `VIRTIO_F_VERSION_1`
/// makes the only form (Virtual I/O Device 1.2, section 5.1.6).
pub(super) const HEADER: usize = 12;

/// The largest frame: an IP packet of 65,520 bytes has 65,534.
pub(super) const FRAME: usize = 65_535;

/// The address that the peer knows the memory's first byte by. It is neither null nor ours.
pub(super) const BASE: u64 = 1 << 20;

const PAGE: usize = 4096;

/// Equal buffers, one after the other. Buffer `ids.start` is the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Buffers {
    pub(super) ids: Range<u16>,
    pub(super) size: usize,
    offset: usize,
}

impl Buffers {
    pub(super) fn contains(&self, id: u16) -> bool {
        self.ids.contains(&id)
    }

    /// Where a buffer begins in the memory.
    pub(super) fn offset(&self, id: u16) -> usize {
        assert!(self.contains(id), "buffer {id} is none of {:?}", self.ids);
        self.offset + self.size * usize::from(id - self.ids.start)
    }

    /// The same, as the peer counts.
    pub(super) fn address(&self, id: u16) -> u64 {
        BASE + self.offset(id) as u64
    }
}

/// Sizes, in buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Buffers to receive into: fewer than 1,024.
    pub(super) receive: u16,
    /// Bytes of each. Larger frames take several.
    pub(super) receive_bytes: usize,
    /// Buffers for small and for all frames to send: together a power of two, at most 1,024.
    pub(super) small: u16,
    pub(super) large: u16,
}

/// Chosen by measuring bulk transfers both ways and round trips, and so that passt seldom finds no buffer to receive into:
/// it then takes what it has still to read for the end of it, on connections that the far side has half-closed, and
/// resets them. With 1,024, the size of its own table, it aborts when it uses all of them at once.
impl Default for Sizes {
    fn default() -> Self {
        Sizes { receive: 1008, receive_bytes: 16 * 1024, small: 224, large: 32 }
    }
}

/// Bytes of a small buffer: any frame of an MTU of 1,500.
const SMALL: usize = 2048;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) receive_ring: Layout,
    pub(super) transmit_ring: Layout,
    pub(super) receive: Buffers,
    pub(super) small: Buffers,
    pub(super) large: Buffers,
    pub(super) bytes: NonZeroUsize,
}

impl Plan {
    pub(super) fn new(sizes: Sizes) -> Self {
        let mut end = 0_usize;
        let mut take = |bytes: usize, align: usize| {
            let offset = end.next_multiple_of(align);
            end = offset + bytes;
            offset
        };
        let transmit = sizes.small + sizes.large;
        // A ring has a power of two of entries; they need not all be used.
        let receive = sizes.receive.next_power_of_two();
        let receive_ring = Layout::at(take(Layout::bytes(receive), PAGE), receive);
        let transmit_ring = Layout::at(take(Layout::bytes(transmit), PAGE), transmit);
        let mut buffers = |ids: Range<u16>, size: usize| {
            let offset = take(ids.len() * size, PAGE);
            Buffers { ids, size, offset }
        };
        let receive = buffers(0..sizes.receive, sizes.receive_bytes);
        let small = buffers(0..sizes.small, SMALL);
        let large = buffers(sizes.small..transmit, (HEADER + FRAME).next_multiple_of(PAGE));
        let bytes = end.next_multiple_of(PAGE);
        let bytes = NonZeroUsize::new(bytes).expect("the rings take some");
        Plan { receive_ring, transmit_ring, receive, small, large, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps_and_all_is_inside() {
        let plan = Plan::new(Sizes::default());
        let ring = |layout: Layout| layout.descriptors..layout.descriptors + Layout::bytes(layout.size);
        let all = |b: &Buffers| b.offset(b.ids.start)..b.offset(b.ids.end - 1) + b.size;
        let mut parts = [
            ring(plan.receive_ring),
            ring(plan.transmit_ring),
            all(&plan.receive),
            all(&plan.small),
            all(&plan.large),
        ];
        parts.sort_by_key(|part| part.start);
        for pair in parts.windows(2) {
            assert!(pair[0].end <= pair[1].start, "{pair:?}");
        }
        assert!(parts[4].end <= plan.bytes.get());
    }

    #[test]
    fn passt_is_never_given_as_many_buffers_as_make_it_abort() {
        let Sizes { receive, .. } = Sizes::default();
        assert!(receive < 1024);
        assert_eq!(Plan::new(Sizes::default()).receive_ring.size, 1024);
    }

    #[test]
    fn every_frame_fits() {
        let plan = Plan::new(Sizes::default());
        assert!(plan.large.size >= HEADER + FRAME);
        assert!(plan.receive.size * plan.receive.ids.len() >= HEADER + FRAME);
    }

    #[test]
    #[should_panic(expected = "none of")]
    fn a_buffer_of_another_kind_has_no_place() {
        let plan = Plan::new(Sizes::default());
        plan.small.offset(plan.large.ids.start);
    }
}
