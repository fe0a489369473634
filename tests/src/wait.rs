//! Waiting for a condition instead of for a while.

use std::thread;
use std::time::{Duration, Instant};

/// How long something local may take before it counts as never happening: generous, since the
/// machines of CI are small and shared, and a passing test never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(2);

/// Whether `condition` comes true before the deadline.
pub fn until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

/// Waits for `condition` and panics, saying `what`, when it does not come true in [`DEADLINE`].
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(until(DEADLINE, condition), "not in {DEADLINE:?}: {what}");
}
