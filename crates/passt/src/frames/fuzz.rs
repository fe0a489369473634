//! The stream protocol from a peer that lies about lengths.

use netshunt_fuzz::{Input, fuzz};

use super::*;

/// What a reader finds that has all bytes before it: frames as places, and whether a length was no frame's.
fn plainly(bytes: &[u8]) -> (Vec<&[u8]>, bool) {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        if !(14..=65_535).contains(&length) {
            return (frames, true);
        }
        if behind.len() < length {
            break;
        }
        frames.push(&behind[..length]);
        rest = &behind[length..];
    }
    (frames, false)
}

fn decoded(input: &mut Input<'_>) {
    let mut bytes = Vec::new();
    for n in 0..input.up_to(12) {
        let length = match input.up_to(3) {
            0 => *input.pick(&[SHORTEST, LONGEST, 1514, 9014]),
            1 => 14 + input.up_to(100),
            _ => input.up_to(LONGEST),
        };
        let lied =
            if input.one_in(12) { input.length(&[14, 65_535, length as u64]) as u32 } else { length as u32 };
        bytes.extend(lied.to_be_bytes());
        bytes.resize(bytes.len() + length, n as u8);
    }
    bytes.extend(input.bytes(20));
    let (frames, wrong) = plainly(&bytes);
    let (mut decoder, mut rest, mut next) = (Decoder::new(), &*bytes, frames.iter());
    let failed = loop {
        let room = decoder.room();
        assert!(!room.is_empty());
        let piece = if input.one_in(3) { input.up_to(300_000) } else { input.up_to(600) }.max(1);
        let piece = if input.is_empty() { rest.len() } else { piece };
        let count = rest.len().min(room.len()).min(piece);
        room[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        decoder.filled(count);
        let found = loop {
            match decoder.next() {
                Ok(Some(frame)) => assert!(Some(&&*frame) == next.next()),
                Ok(None) => break None,
                Err(_) => break Some(true),
            }
        };
        if found.is_some() || rest.is_empty() {
            break found.is_some();
        }
    };
    input.reached((frames.len(), wrong, bytes.len() / BUFFER));
    assert_eq!((failed, next.len()), (wrong, 0));
    assert_eq!(decoder.buffer.len(), BUFFER);
}

#[test]
fn frames_of_a_stream() {
    fuzz("frames_of_a_stream", decoded);
}
