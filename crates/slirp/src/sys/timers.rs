//! Timers that libslirp creates. 4.7 has one: the next IPv6 router advertisement.

use std::ptr;

use libc::c_void;

use super::ffi::TimerId;

/// The timers of one instance. libslirp holds each by a pointer that is really a slot's number.
#[derive(Debug, Default)]
pub(super) struct Timers {
    slots: Vec<Option<Timer>>,
}

#[derive(Debug)]
struct Timer {
    id: TimerId,
    opaque: *mut c_void,
    /// In milliseconds of the clock; `None` while not running.
    due: Option<i64>,
}

impl Timers {
    /// A new timer, not running. The pointer is never null and never to be followed.
    pub(super) fn add(&mut self, id: TimerId, opaque: *mut c_void) -> *mut c_void {
        let timer = Some(Timer { id, opaque, due: None });
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.slots.len());
        match free {
            Some(free) => self.slots[free] = timer,
            None => self.slots.push(timer),
        }
        ptr::without_provenance_mut(slot + 1)
    }

    /// Forgets a timer; unknown ones are ignored.
    pub(super) fn remove(&mut self, timer: *mut c_void) {
        if let Some(slot) = self.slot(timer) {
            *slot = None;
        }
    }

    /// Starts a timer, or moves it.
    pub(super) fn set(&mut self, timer: *mut c_void, due: i64) {
        if let Some(Some(timer)) = self.slot(timer) {
            timer.due = Some(due);
        }
    }

    /// When the first timer is due, in milliseconds.
    pub(super) fn next(&self) -> Option<i64> {
        self.slots.iter().flatten().filter_map(|timer| timer.due).min()
    }

    /// How many slots there are, for [`take_due`](Self::take_due).
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Stops the timer of `slot` if it is due at `now`, and returns what it was made with.
    pub(super) fn take_due(&mut self, slot: usize, now: i64) -> Option<(TimerId, *mut c_void)> {
        let timer = self.slots.get_mut(slot)?.as_mut()?;
        timer.due.take_if(|due| *due <= now)?;
        Some((timer.id, timer.opaque))
    }

    fn slot(&mut self, timer: *mut c_void) -> Option<&mut Option<Timer>> {
        self.slots.get_mut(timer.addr().checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_once_and_can_be_moved() {
        let mut timers = Timers::default();
        let (a, b) = (timers.add(3, ptr::null_mut()), timers.add(4, ptr::null_mut()));
        assert!(!a.is_null() && a != b);
        assert_eq!(timers.next(), None);
        timers.set(a, 100);
        timers.set(b, 50);
        timers.set(b, 200);
        assert_eq!(timers.next(), Some(100));
        assert_eq!(timers.take_due(0, 99), None);
        assert_eq!(timers.take_due(0, 100), Some((3, ptr::null_mut())));
        assert_eq!(timers.take_due(0, 100), None);
        assert_eq!(timers.next(), Some(200));
    }

    #[test]
    fn freed_slots_are_used_again_and_stale_handles_do_nothing() {
        let mut timers = Timers::default();
        let first = timers.add(0, ptr::null_mut());
        timers.set(first, 1);
        timers.remove(first);
        timers.set(first, 1);
        timers.remove(ptr::null_mut());
        assert_eq!(timers.next(), None);
        assert_eq!(timers.take_due(0, 9), None);
        assert_eq!(timers.add(1, ptr::null_mut()), first);
        assert_eq!(timers.len(), 1);
    }
}
