//! A wire that drops, delays and reorders. For tests only: never a registered backend.

use std::io::IoSlice;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netshunt_backend::{Error, Link, Network, PollFd, Sent, Turned};

/// Every so many frames one is lost.
const LOSS: u32 = 23;

/// What befell frames so far.
#[derive(Debug, Default)]
pub(crate) struct Mishaps {
    pub(crate) dropped: u32,
    pub(crate) delayed: u32,
    pub(crate) reordered: u32,
}

/// Wraps a link: some frames are lost, all take 1 to 4 ms, so some overtake others.
#[derive(Debug)]
pub(crate) struct Rough {
    link: Box<dyn Link>,
    out: Lane,
    back: Lane,
    mishaps: Arc<Mutex<Mishaps>>,
}

/// The frames under way in one direction.
#[derive(Debug, Default)]
struct Lane {
    frames: Vec<(Instant, u32, Vec<u8>)>,
    entered: u32,
    newest: u32,
}

impl Rough {
    pub(crate) fn new(link: Box<dyn Link>) -> Self {
        Rough { link, out: Lane::default(), back: Lane::default(), mishaps: Arc::default() }
    }

    pub(crate) fn mishaps(&self) -> Arc<Mutex<Mishaps>> {
        self.mishaps.clone()
    }
}

impl Lane {
    fn enter(&mut self, frame: Vec<u8>, mishaps: &mut Mishaps) {
        self.entered += 1;
        if self.entered.is_multiple_of(LOSS) {
            mishaps.dropped += 1;
            return;
        }
        mishaps.delayed += 1;
        let delay = Duration::from_millis(1 + u64::from(self.entered * 7 % 4));
        self.frames.push((Instant::now() + delay, self.entered, frame));
    }

    fn leave(&mut self, now: Instant, mishaps: &mut Mishaps) -> Vec<Vec<u8>> {
        let (mut due, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.frames).into_iter().partition(|(at, ..)| *at <= now);
        self.frames = waiting;
        due.sort_by_key(|(at, ..)| *at);
        for (_, number, _) in &due {
            mishaps.reordered += u32::from(*number < self.newest);
            self.newest = self.newest.max(*number);
        }
        due.into_iter().map(|(.., frame)| frame).collect()
    }

    fn next(&self) -> Option<Instant> {
        self.frames.iter().map(|(at, ..)| *at).min()
    }
}

impl Link for Rough {
    fn network(&self) -> &Network {
        self.link.network()
    }

    fn send(&mut self, frame: &[IoSlice<'_>]) -> Sent {
        let frame = frame.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.out.enter(frame, &mut self.mishaps.lock().unwrap());
        Sent::Taken
    }

    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> bool {
        let mut mishaps = self.mishaps.lock().unwrap();
        for frame in self.out.leave(Instant::now(), &mut mishaps) {
            // slirp takes every frame.
            let _ = self.link.send(&[IoSlice::new(&frame)]);
        }
        self.link.receive(&mut |frame| self.back.enter(frame.to_vec(), &mut mishaps));
        let due = self.back.leave(Instant::now(), &mut mishaps);
        due.iter().for_each(|frame| deliver(frame));
        !due.is_empty()
    }

    fn interests(&mut self, now: Instant, fds: &mut Vec<PollFd>) -> Option<Instant> {
        let own = [self.out.next(), self.back.next(), self.link.interests(now, fds)];
        own.into_iter().flatten().min()
    }

    fn turn(&mut self, now: Instant, fds: &[PollFd]) -> Result<Turned, Error> {
        self.link.turn(now, fds)
    }
}
