//! The stream protocol: each Ethernet frame behind its length, four bytes, big endian.

use std::borrow::Cow;

/// Bytes of the length before a frame.
pub(crate) const PREFIX: usize = 4;
/// The longest frame that either side sends, in bytes.
pub(crate) const LONGEST: usize = 65_535;
/// The shortest frame: an Ethernet header.
pub(crate) const SHORTEST: usize = 14;

/// What is received at a time, at most: some frames of the largest MTU.
const BUFFER: usize = 512 << 10;
/// With less room than this behind the bytes that wait, they move to the front.
const SCANT: usize = 128 << 10;

/// The length before a frame.
pub(crate) fn prefix(length: usize) -> [u8; PREFIX] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Bytes in, frames out. Holds one buffer of a fixed size, whatever the far side sends.
pub(crate) struct Decoder {
    buffer: Box<[u8]>,
    /// Where the bytes that wait begin and end.
    start: usize,
    end: usize,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Decoder { buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Where the next bytes belong: never empty once [`next`](Self::next) has returned `None`.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start != 0 && self.buffer.len() - self.end < SCANT {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// `count` bytes were written into the room.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end = self.buffer.len().min(self.end + count);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// A length that no frame has. What follows it is noise.
    pub(crate) fn next(&mut self) -> Result<Option<&mut [u8]>, Cow<'static, str>> {
        let waiting = &mut self.buffer[self.start..self.end];
        let Some((prefix, rest)) = waiting.split_first_chunk_mut::<PREFIX>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if !(SHORTEST..=LONGEST).contains(&length) {
            return Err(format!("a frame of {length} bytes, not {SHORTEST} to {LONGEST}").into());
        }
        let Some(frame) = rest.get_mut(..length) else { return Ok(None) };
        self.start += PREFIX + length;
        Ok(Some(frame))
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("waiting", &(self.end - self.start)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes` in pieces of these lengths, over and over; the frames, and the error that ended them.
    fn decode(bytes: &[u8], pieces: &[usize]) -> (Vec<Vec<u8>>, Option<Cow<'static, str>>) {
        let (mut decoder, mut frames, mut rest) = (Decoder::new(), Vec::new(), bytes);
        for piece in pieces.iter().cycle() {
            let room = decoder.room();
            assert!(!room.is_empty());
            let count = rest.len().min(room.len()).min(*piece);
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            decoder.filled(count);
            loop {
                match decoder.next() {
                    Ok(Some(frame)) => frames.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        (frames, None)
    }

    fn encoded(frames: &[Vec<u8>]) -> Vec<u8> {
        frames.iter().flat_map(|frame| [&prefix(frame.len())[..], frame].concat()).collect()
    }

    #[test]
    fn any_split_gives_the_same_frames() {
        let frames: Vec<Vec<u8>> = [14, 15, 60, 200].map(|length| vec![length as u8; length]).to_vec();
        let bytes = encoded(&frames);
        for first in 1..bytes.len() {
            assert_eq!(decode(&bytes, &[first, bytes.len()]), (frames.clone(), None), "split at {first}");
        }
    }

    #[test]
    fn many_of_the_longest_frames_pass() {
        let frames: Vec<Vec<u8>> = (0..40).map(|n| vec![n; LONGEST - usize::from(n)]).collect();
        for piece in [1 << 20, 100_000, 4093] {
            assert!(decode(&encoded(&frames), &[piece]) == (frames.clone(), None), "pieces of {piece}");
        }
    }

    #[test]
    fn a_length_that_no_frame_has_ends_it() {
        let good = vec![7; 60];
        for length in [0_u32, 1, 13, 65_536, u32::MAX] {
            let bytes = [encoded(std::slice::from_ref(&good)), length.to_be_bytes().to_vec()].concat();
            for piece in 1..bytes.len() {
                let (frames, error) = decode(&bytes, &[piece]);
                assert_eq!(frames, std::slice::from_ref(&good));
                assert!(error.unwrap().contains(&format!("{length} bytes")));
            }
        }
    }

    #[test]
    fn a_truncated_frame_is_none() {
        let bytes = encoded(&[vec![7; 60]]);
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length], &[length.max(1)]), (Vec::new(), None));
        }
    }

    proptest! {
        #[test]
        fn frames_survive(
            frames in vec(vec(any::<u8>(), SHORTEST..2000), 0..40),
            pieces in vec(1_usize..5000, 1..9),
        ) {
            prop_assert_eq!(decode(&encoded(&frames), &pieces), (frames, None));
        }

        #[test]
        fn noise_gives_frames_or_an_error(bytes in vec(any::<u8>(), 0..5000), pieces in vec(1_usize..99, 1..5)) {
            let (frames, _) = decode(&bytes, &pieces);
            let whole: usize = frames.iter().map(|frame| PREFIX + frame.len()).sum();
            prop_assert!(whole <= bytes.len());
        }
    }
}
