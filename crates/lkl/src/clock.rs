//! The kernel's notion of time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Which time a kernel lives in.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The host's `CLOCK_MONOTONIC`, and its wall clock, which is looked at every second at most.
    Host,
    /// Time that passes only when the test says so.
    Virtual(VirtualClock),
}

impl Clock {
    /// Now, in ns.
    pub fn now(&self) -> u64 {
        match self {
            Self::Host => nanoseconds(ClockId::CLOCK_MONOTONIC),
            Self::Virtual(clock) => clock.now(),
        }
    }

    /// The wall clock, in ns since 1970.
    pub(crate) fn realtime(&self) -> u64 {
        match self {
            Self::Host => nanoseconds(ClockId::CLOCK_REALTIME),
            // 2001-09-09: far from every border.
            Self::Virtual(clock) => 1_000_000_000_000_000_000 + clock.wall.get() + clock.now(),
        }
    }

    /// Waits: for the host's clock by sleeping, for a virtual one by advancing it.
    pub(crate) fn wait_until(&self, deadline: u64) {
        let left = deadline.saturating_sub(self.now());
        match self {
            Self::Host => std::thread::sleep(Duration::from_nanos(left)),
            Self::Virtual(clock) => clock.advance(Duration::from_nanos(left)),
        }
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("the clock exists on every Linux");
    Duration::from(time).as_nanos().try_into().unwrap_or(u64::MAX)
}

/// A clock for tests; clones share one time.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    now: Rc<Cell<u64>>,
    /// How far its wall clock has been set.
    wall: Rc<Cell<u64>>,
}

impl VirtualClock {
    /// A clock that shows one second: 0 is no time to boot at.
    pub fn new() -> Self {
        Self { now: Rc::new(Cell::new(1_000_000_000)), wall: Rc::default() }
    }

    /// Now, in ns.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.now.set(self.now.get().saturating_add(by));
    }

    /// Sets its wall clock so far ahead of when it was made.
    pub fn set_wall(&self, ahead: Duration) {
        self.wall.set(u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Sets the time to `at` ns, if that is later than now.
    pub fn advance_to(&self, at: u64) {
        self.now.set(self.now.get().max(at));
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}
