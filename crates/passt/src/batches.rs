//! What passt of 2023 must not read at once.
//!
//! It takes all segments of one connection that it reads together for a batch. Where a segment opens the
//! connection, or the guest has sent its FIN, it handles the first of the batch once for each of them, and
//! the others never (`tcp_tap_handler()` in its tcp.c). If the connection begins or ends by that, it counts
//! past zero, and loops for ever (`tap4_handler()` in its tap.c).
//!
//! So such a segment goes alone: the next of its connection waits here until passt has read it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::mend::Peers;

/// With more connections than this remembered, those that nothing was sent on for [`IDLE`] are forgotten.
const MANY: usize = 4096;
const IDLE: Duration = Duration::from_secs(1);
/// As many frames wait at most; one more is lost, as on any link that is full.
const MOST: usize = 1024;
/// After how long is looked whether passt has read: at first, each time after twice as long, and at last.
const LOOKS: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(10)];

/// The segments that passt may not have read, and those that wait for it.
#[derive(Debug)]
pub(crate) struct Batches {
    /// The guest has sent its FIN; when it sent something last.
    closing: HashMap<Peers, Instant>,
    /// When idle ones were forgotten last.
    swept: Option<Instant>,
    /// Connections of which a segment that must be alone may be unread.
    alone: HashSet<Peers>,
    /// Oldest first, each as it goes into the socket.
    waiting: Vec<(Peers, Vec<u8>)>,
    pause: Duration,
}

/// What a segment does to its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// SYN: it begins.
    Opens,
    /// FIN: the guest sends no more.
    Closes,
    /// RST: it is gone.
    Resets,
    Continues,
}

impl Batches {
    pub(crate) fn new() -> Self {
        Batches {
            closing: HashMap::new(),
            swept: None,
            alone: HashSet::new(),
            waiting: Vec::new(),
            pause: LOOKS[0],
        }
    }

    /// A segment for passt: whether it must wait until passt has read everything.
    pub(crate) fn must_wait(&mut self, peers: Peers, kind: Kind) -> bool {
        let now = Instant::now();
        match kind {
            Kind::Opens => drop(self.closing.remove(&peers)),
            Kind::Closes => self.closes(peers, now),
            Kind::Resets | Kind::Continues => {}
        }
        let closing = self.closing.get_mut(&peers).map(|last| *last = now).is_some();
        let alone = closing || matches!(kind, Kind::Opens | Kind::Resets);
        // One that is unread stands before all others of its connection; without room for another, all stand.
        if self.alone.contains(&peers) || alone && self.alone.len() >= MANY {
            return true;
        }
        if alone {
            self.alone.insert(peers);
        }
        false
    }

    /// Keeps a frame that must wait, unless there are too many.
    pub(crate) fn keep(&mut self, peers: Peers, frame: Vec<u8>) {
        if self.waiting.len() < MOST {
            self.waiting.push((peers, frame));
        }
    }

    /// A segment from passt.
    pub(crate) fn received(&mut self, peers: &Peers, kind: Kind) {
        if matches!(kind, Kind::Opens | Kind::Resets) {
            self.closing.remove(peers);
        }
    }

    /// passt has read everything: those that may go now, one of each connection, are appended to `outbox`.
    pub(crate) fn read(&mut self, outbox: &mut Vec<u8>) {
        self.alone.clear();
        self.pause = LOOKS[0];
        let alone = &mut self.alone;
        self.waiting.retain(|(peers, frame)| {
            let goes = alone.insert(*peers);
            if goes {
                outbox.extend_from_slice(frame);
            }
            !goes
        });
    }

    /// Bytes that wait.
    pub(crate) fn unsent(&self) -> usize {
        self.waiting.iter().map(|(_, frame)| frame.len()).sum()
    }

    /// After how long to look whether passt has read, if that matters.
    pub(crate) fn look(&mut self) -> Option<Duration> {
        let [_, longest] = LOOKS;
        let pause = self.pause;
        (!self.waiting.is_empty()).then(|| {
            self.pause = longest.min(pause * 2);
            pause
        })
    }

    fn closes(&mut self, peers: Peers, now: Instant) {
        if self.closing.len() >= MANY && self.swept.is_none_or(|swept| now - swept >= IDLE) {
            self.closing.retain(|_, last| now - *last < IDLE);
            self.swept = Some(now);
        }
        self.closing.insert(peers, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Peers = ([1; 16], 80, 40_000);
    const OTHER: Peers = ([1; 16], 80, 40_001);

    /// Whether the segments of a connection may be read together.
    fn together(kinds: &[Kind]) -> bool {
        let mut batches = Batches::new();
        let waits = kinds.iter().map(|&kind| batches.must_wait(FIRST, kind)).collect::<Vec<_>>();
        waits.iter().all(|waits| !waits)
    }

    #[test]
    fn a_segment_that_opens_closes_or_resets_is_alone() {
        use Kind::{Closes, Continues, Opens, Resets};
        assert!(together(&[Continues, Continues, Closes]));
        for first in [Opens, Closes, Resets] {
            for second in [Opens, Closes, Resets, Continues] {
                assert!(!together(&[first, second]), "{first:?} {second:?}");
            }
        }
    }

    #[test]
    fn after_the_fin_each_is_alone_until_the_connection_is_gone() {
        let ends: [&dyn Fn(&mut Batches); 3] = [
            &|batches| assert!(!batches.must_wait(FIRST, Kind::Opens)),
            &|batches| batches.received(&FIRST, Kind::Opens),
            &|batches| batches.received(&FIRST, Kind::Resets),
        ];
        for end in ends {
            let mut batches = Batches::new();
            assert!(!batches.must_wait(FIRST, Kind::Closes));
            for _ in 0..3 {
                batches.read(&mut Vec::new());
                assert!(!batches.must_wait(FIRST, Kind::Continues));
                assert!(batches.must_wait(FIRST, Kind::Continues));
                assert!(!batches.must_wait(OTHER, Kind::Continues));
            }
            batches.read(&mut Vec::new());
            end(&mut batches);
            batches.read(&mut Vec::new());
            assert!(!batches.must_wait(FIRST, Kind::Continues));
            assert!(!batches.must_wait(FIRST, Kind::Continues));
        }
    }

    #[test]
    fn one_of_each_connection_goes_each_time_that_all_is_read() {
        let mut batches = Batches::new();
        assert_eq!(batches.look(), None);
        for (peers, name) in [(FIRST, 1), (FIRST, 2), (OTHER, 3), (FIRST, 4), (OTHER, 5)] {
            batches.keep(peers, vec![name]);
        }
        assert_eq!(batches.unsent(), 5);
        let looks: Vec<_> = (0..9).filter_map(|_| batches.look()).collect();
        assert_eq!((looks[0], looks[1], looks[8]), (LOOKS[0], LOOKS[0] * 2, LOOKS[1]));
        for expected in [&[1, 3][..], &[2, 5], &[4], &[]] {
            let mut outbox = Vec::new();
            batches.read(&mut outbox);
            assert_eq!(outbox, expected);
        }
        assert_eq!((batches.unsent(), batches.look()), (0, None));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut batches = Batches::new();
        let peers = (0..=u16::MAX).map(|port| ([1; 16], 80, port));
        for peers in peers.clone() {
            batches.must_wait(peers, Kind::Closes);
            batches.keep(peers, vec![0]);
        }
        assert_eq!((batches.alone.len(), batches.waiting.len()), (MANY, MOST));
        batches.closing.values_mut().for_each(|last| *last -= IDLE);
        batches.swept = None;
        batches.must_wait(FIRST, Kind::Closes);
        assert_eq!(batches.closing.len(), 1);
    }
}
