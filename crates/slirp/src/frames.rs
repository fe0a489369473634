//! Frames on their way to the stack: one buffer that grows to what a turn needs and is then reused.

/// Bytes of frames kept while nobody receives; more are dropped, as Ethernet may.
pub(crate) const LIMIT: usize = 16 << 20;
/// Capacity kept for the next turn, in bytes, after a burst.
const KEEP: usize = 2 << 20;

/// Frames end to end, and where each ends.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    /// Appends a frame, unless that would exceed [`LIMIT`].
    #[must_use]
    pub(crate) fn push(&mut self, frame: &[u8]) -> bool {
        if self.bytes.len() + frame.len() > LIMIT {
            return false;
        }
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
        true
    }

    /// Hands out every frame, oldest first; returns how many there were.
    pub(crate) fn drain(&mut self, deliver: &mut dyn FnMut(&[u8])) -> usize {
        let mut start = 0;
        for &end in &self.ends {
            deliver(&self.bytes[start..end]);
            start = end;
        }
        let count = self.ends.len();
        self.ends.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEEP);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut frames = Frames::default();
        for frame in [&b"one"[..], b"", b"three"] {
            assert!(frames.push(frame));
        }
        let mut seen = Vec::new();
        assert_eq!(frames.drain(&mut |frame| seen.push(frame.to_vec())), 3);
        assert_eq!(seen, [&b"one"[..], b"", b"three"]);
        assert_eq!(frames.drain(&mut |_| panic!("nothing is left")), 0);
    }

    #[test]
    fn a_full_queue_drops_and_recovers() {
        let mut frames = Frames::default();
        let frame = [7; 65534];
        let taken = (0..1000).take_while(|_| frames.push(&frame)).count();
        assert_eq!(taken, LIMIT / frame.len());
        assert_eq!(frames.drain(&mut |_| ()), taken);
        assert!(frames.bytes.capacity() <= KEEP);
        assert!(frames.push(&frame));
    }
}
