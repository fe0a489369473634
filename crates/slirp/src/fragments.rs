//! IPv4 fragments are joined here: libslirp 4.7.0 must never see one.
//!
//! Its reassembly follows a wild pointer when the first fragment of a datagram that it sees is the
//! last one (offset not 0, no more fragments): a crash by a single frame, also when an earlier
//! fragment was merely lost. `tests/hostile.rs` keeps the frame. IPv6 fragments need nothing of the
//! kind: libslirp does not read that extension header and drops them.
//!
//! A local stack sends fragments in order, so a fragment out of order ends its datagram.

use std::collections::VecDeque;

/// Datagrams being joined at a time; a new one beyond that ends the oldest. Of 64 KiB each at most.
const PARTIAL: usize = 16;
/// The largest IPv4 datagram (RFC 791, section 3.1).
const LARGEST: usize = 65535;
/// Where the IPv4 header starts, and the least it can be.
const ETHERNET: usize = 14;
const HEADER: usize = 20;

/// Datagrams of which the beginning has arrived.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    partial: VecDeque<Partial>,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The last fragment: the whole datagram in one frame, its flags cleared.
    Complete(Vec<u8>),
    /// A fragment, kept or dropped.
    Held,
    /// Not a fragment: to be used as it is.
    Whole,
}

#[derive(Debug)]
struct Partial {
    key: Key,
    /// Ethernet and IPv4 header of the first fragment, and the data so far.
    frame: Vec<u8>,
    headers: usize,
}

/// Addresses, identification and protocol.
type Key = ([u8; 8], [u8; 2], u8);

struct Fragment<'a> {
    key: Key,
    headers: usize,
    offset: usize,
    more: bool,
    data: &'a [u8],
}

impl Fragments {
    /// Takes a frame if it is a fragment.
    pub(crate) fn offer(&mut self, frame: &[u8]) -> Joined {
        if !is_fragment(frame) {
            return Joined::Whole;
        }
        match parse(frame).and_then(|fragment| self.join(frame, &fragment)) {
            Some(complete) => Joined::Complete(complete),
            None => Joined::Held,
        }
    }

    fn join(&mut self, frame: &[u8], fragment: &Fragment<'_>) -> Option<Vec<u8>> {
        let at = self.partial.iter().position(|partial| partial.key == fragment.key);
        let earlier = at.and_then(|at| self.partial.remove(at));
        let mut partial = if fragment.offset == 0 {
            // An identification used again starts afresh.
            let frame = frame[..fragment.headers].to_vec();
            Partial { key: fragment.key, frame, headers: fragment.headers }
        } else {
            earlier?
        };
        let end = partial.frame.len() + fragment.data.len();
        if partial.frame.len() - partial.headers != fragment.offset || end - ETHERNET > LARGEST {
            return None;
        }
        partial.frame.extend_from_slice(fragment.data);
        if !fragment.more {
            return Some(partial.finish());
        }
        if self.partial.len() == PARTIAL {
            self.partial.pop_front();
        }
        self.partial.push_back(partial);
        None
    }
}

impl Partial {
    fn finish(mut self) -> Vec<u8> {
        let length = u16::try_from(self.frame.len() - ETHERNET).expect("join() keeps to LARGEST");
        let header = &mut self.frame[ETHERNET..self.headers];
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[6..8].fill(0);
        header[10..12].fill(0);
        let checksum = checksum(header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        self.frame
    }
}

/// IPv4 with "more fragments", an offset, or the reserved bit: all that libslirp would look at.
/// Frames without a whole header libslirp drops unread.
fn is_fragment(frame: &[u8]) -> bool {
    frame.len() >= ETHERNET + HEADER && frame[12..14] == [8, 0] && (frame[20] & 0xbf != 0 || frame[21] != 0)
}

/// A fragment's parts; `None` if its lengths contradict each other.
fn parse(frame: &[u8]) -> Option<Fragment<'_>> {
    let headers = ETHERNET + usize::from(frame[14] & 15) * 4;
    let end = ETHERNET + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let data = frame.get(headers..end).filter(|_| headers >= ETHERNET + HEADER)?;
    let more = frame[20] & 0x20 != 0;
    if data.is_empty() || (more && data.len() % 8 != 0) {
        return None;
    }
    Some(Fragment {
        key: (frame[26..34].try_into().ok()?, [frame[18], frame[19]], frame[23]),
        headers,
        offset: usize::from(u16::from_be_bytes([frame[20] & 0x1f, frame[21]])) * 8,
        more,
        data,
    })
}

/// RFC 1071, of a header: its length is a multiple of 4, at most 60 bytes.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    // At most 30 words: adding the carry once leaves none.
    !(sum as u16)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use etherparse::{Ipv4HeaderSlice, PacketBuilder};
    use proptest::prelude::*;

    use super::*;

    fn datagram(id: u8, length: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([10, 0, 2, 15], [10, 0, 2, 2], 64)
            .udp(1, 2)
            .write(&mut frame, &payload)
            .unwrap();
        frame[19] = id;
        frame[20..22].fill(0);
        Partial { key: Key::default(), headers: 34, frame }.finish()
    }

    fn cut(datagram: &[u8], size: usize) -> Vec<Vec<u8>> {
        let (header, data) = datagram.split_at(34);
        let count = data.len().div_ceil(size);
        let pieces = data.chunks(size).enumerate().map(|(i, piece)| {
            let mut frame = [header, piece].concat();
            let total = u16::try_from(20 + piece.len()).unwrap();
            frame[16..18].copy_from_slice(&total.to_be_bytes());
            let more = if i + 1 < count { 0x2000 } else { 0 };
            let offset = u16::try_from(i * size / 8).unwrap();
            frame[20..22].copy_from_slice(&(more | offset).to_be_bytes());
            frame
        });
        pieces.collect()
    }

    proptest! {
        #[test]
        fn what_was_cut_is_joined(length in 1000_usize..65_508, size in (1_usize..8000).prop_map(|n| n * 8)) {
            let whole = datagram(7, length.min(65_507));
            let mut fragments = Fragments::default();
            let pieces = cut(&whole, size);
            let (last, first) = pieces.split_last().unwrap();
            for piece in first {
                prop_assert_eq!(fragments.offer(piece), Joined::Held);
            }
            let expected = if first.is_empty() { Joined::Whole } else { Joined::Complete(whole.clone()) };
            prop_assert_eq!(fragments.offer(last), expected);
            prop_assert!(fragments.partial.is_empty());
            prop_assert!(Ipv4HeaderSlice::from_slice(&whole[14..]).is_ok());
        }

        #[test]
        fn nothing_that_is_passed_on_is_a_fragment(frame in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut frame = frame;
            if frame.len() > 14 {
                frame[12..14].copy_from_slice(&[8, 0]);
                frame[14] = 0x45;
            }
            let mut fragments = Fragments::default();
            match fragments.offer(&frame) {
                Joined::Complete(frame) => prop_assert!(!is_fragment(&frame)),
                Joined::Held => (),
                Joined::Whole => prop_assert!(!is_fragment(&frame)),
            }
        }
    }

    #[test]
    fn datagrams_may_interleave_and_their_number_is_bounded() {
        let mut fragments = Fragments::default();
        let wholes: Vec<_> = (0..20).map(|id| datagram(id, 3000)).collect();
        let pieces: Vec<_> = wholes.iter().map(|whole| cut(whole, 2000)).collect();
        for piece in &pieces {
            assert_eq!(fragments.offer(&piece[0]), Joined::Held);
        }
        assert_eq!(fragments.partial.len(), PARTIAL);
        // The first four made room.
        assert_eq!(fragments.offer(&pieces[3][1]), Joined::Held);
        for (piece, whole) in pieces.iter().zip(&wholes).skip(4) {
            assert_eq!(fragments.offer(&piece[1]), Joined::Complete(whole.clone()));
        }
    }

    #[test]
    fn a_gap_an_overlap_and_an_excess_end_the_datagram() {
        let whole = datagram(1, 5000);
        let pieces = cut(&whole, 1600);
        let mut fragments = Fragments::default();
        for order in [[0, 2, 3], [0, 0, 2], [1, 2, 3], [0, 1, 1]] {
            for piece in order {
                assert_eq!(fragments.offer(&pieces[piece]), Joined::Held, "{order:?}");
            }
            assert_eq!(fragments.offer(&pieces[3]), Joined::Held, "{order:?}");
            assert!(fragments.partial.is_empty(), "{order:?}");
        }
        // The ping of death: fragments that add up to more than 65,535 bytes.
        let mut ping = pieces[0].clone();
        ping.truncate(34 + 1600);
        for offset in (0..0x1fff_u16).step_by(200) {
            ping[20..22].copy_from_slice(&(0x2000 | offset).to_be_bytes());
            assert_eq!(fragments.offer(&ping), Joined::Held);
        }
        assert!(fragments.partial.is_empty());
    }
}
