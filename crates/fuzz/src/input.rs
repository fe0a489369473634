//! A case as a body sees it: bytes to take, which never run out.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The bytes of a case. When all are taken, zeroes follow.
#[derive(Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
    pub(crate) reached: BTreeSet<u64>,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Input { rest: bytes, reached: BTreeSet::new() }
    }

    /// Tells where the case has come to (which error, how many parts): one that comes to a new place is changed further.
    /// There should be hundreds of places at most.
    pub fn reached(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        self.reached.insert(hasher.finish());
    }

    /// Whether there is more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.rest.split_at(self.rest.len().min(N));
        self.rest = rest;
        std::array::from_fn(|i| taken.get(i).copied().unwrap_or_default())
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    /// A number of 16 bits.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// A number of 32 bits.
    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// A number of 64 bits.
    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number up to this, which is small when there is nothing left.
    pub fn up_to(&mut self, most: usize) -> usize {
        match most {
            0 => 0,
            1..=0xff => usize::from(self.byte()) % (most + 1),
            0x100..=0xffff => usize::from(self.short()) % (most + 1),
            _ => self.word() as usize % (most + 1),
        }
    }

    /// One of `count` times out of that many, `true`; `false` when nothing is left.
    pub fn one_in(&mut self, count: usize) -> bool {
        !self.is_empty() && self.up_to(count - 1) == count - 1
    }

    /// One of them.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'b, T>(&mut self, from: &'b [T]) -> &'b T {
        &from[self.up_to(from.len() - 1)]
    }

    /// At most so many bytes; fewer when there are no more.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let count = self.up_to(most).min(self.rest.len());
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        taken.to_vec()
    }

    /// A length as liars write it: near one of `near`, near a power of two, or anything.
    pub fn length(&mut self, near: &[u64]) -> u64 {
        let base = match self.up_to(3) {
            0 | 1 if !near.is_empty() => *self.pick(near),
            3 => return self.long(),
            _ => 1_u64.wrapping_shl(self.byte().into()),
        };
        match self.up_to(9) {
            0 => base.wrapping_sub(1),
            1 => base.wrapping_add(1),
            2 => base.wrapping_neg(),
            3 => base.wrapping_add(self.byte().into()),
            _ => base,
        }
    }

    /// A text of these words and a few odd characters.
    pub fn text(&mut self, words: &[&str], most: usize) -> String {
        const ODD: &[&str] = &[
            " ", "\t", "\n", "\0", "\u{7f}", "\u{85}", "\u{a0}", "é", "İ", "\u{202e}", "𝟘", "\u{feff}", "%",
            "\"", "\\",
        ];
        let mut text = String::new();
        for _ in 0..self.up_to(most) {
            match self.up_to(15) {
                0 => text.push_str(self.pick::<&str>(ODD)),
                1 => text.push(char::from(self.byte() % 128)),
                2 => text.push_str(&self.short().to_string()),
                _ => text.push_str(self.pick::<&str>(words)),
            }
        }
        text
    }

    /// Does up to three things to bytes that were well formed, or nothing.
    pub fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.up_to(3) {
            let at = self.up_to(bytes.len().saturating_sub(1));
            let end = at + self.up_to((bytes.len() - at).min(255));
            match self.up_to(5) {
                0 => bytes.truncate(at),
                1 => bytes.extend(self.bytes(32)),
                2 => {
                    bytes.drain(at..end);
                }
                3 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                4 => {
                    let value = *self.pick(&[0, 1, 0x7f, 0x80, 0xff]);
                    bytes[at..end.min(at + 8)].fill(value);
                }
                _ => {
                    let value = self.byte();
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = value;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_never_runs_out() {
        let mut input = Input::new(&[1, 2, 3]);
        assert_eq!((input.byte(), input.word(), input.long()), (1, 0x302, 0));
        assert!(input.is_empty() && !input.one_in(1) && input.bytes(10).is_empty());
        assert_eq!((input.up_to(9), *input.pick(&[7, 8]), input.text(&["a"], 9)), (0, 7, String::new()));
        let mut bytes = vec![1, 2];
        input.spoil(&mut bytes);
        assert_eq!(bytes, [1, 2]);
    }

    #[test]
    fn nothing_is_beyond_its_bounds() {
        for byte in 0..=255 {
            let bytes = [byte; 64];
            let mut input = Input::new(&bytes);
            for most in [0, 1, 254, 255, 256, 65_535, 65_536] {
                assert!(input.up_to(most) <= most);
            }
            assert!(input.bytes(5).len() <= 5);
            let mut spoilt = vec![1; 10];
            input.spoil(&mut spoilt);
            let mut nothing = Vec::new();
            Input::new(&bytes).spoil(&mut nothing);
        }
    }
}
