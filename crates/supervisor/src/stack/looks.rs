//! Connections that are being opened for sockets which the guest may have closed: looked for about
//! once a second, away from the stack's thread.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netshunt_backend::on_a_thread;
use netshunt_notify::Features;
use tokio::runtime::Handle;

use super::{Command, Shared};
use crate::holders::{Sought, missing};
use crate::sockets::Cookie;

/// How long a connection is opened before its socket is looked for, and again. Most are up by then.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many times in a row a socket must be missing: it may have been on its way from one process
/// to another.
pub(super) const MISSES: u8 = 2;

/// Looking takes at most this part of a processor, however many descriptors the guest has.
const SHARE: u32 = 20;

/// When to look for which sockets.
pub(super) struct Looks {
    features: Features,
    runtime: Handle,
    /// The next to be looked for stands first.
    due: VecDeque<(Instant, Cookie)>,
    /// Somebody looks at this moment.
    looking: bool,
    pause: Duration,
}

impl Looks {
    pub(super) fn new(features: Features, runtime: Handle) -> Self {
        Looks { features, runtime, due: VecDeque::new(), looking: false, pause: INTERVAL }
    }

    /// A connection is being opened.
    pub(super) fn add(&mut self, cookie: Cookie, now: Instant) {
        self.due.push_back((now + self.pause, cookie));
    }

    /// How long until [`Looks::take`] has something; `None` while it would not. `is_opening` says
    /// which sockets are still of interest.
    pub(super) fn wait(&mut self, now: Instant, is_opening: impl Fn(Cookie) -> bool) -> Option<Duration> {
        if self.looking {
            return None;
        }
        while let Some(&(due, cookie)) = self.due.front() {
            if is_opening(cookie) {
                return Some(due.saturating_duration_since(now));
            }
            self.due.pop_front();
        }
        None
    }

    /// The sockets whose turn it is, each once, however often it was connected anew.
    pub(super) fn take(&mut self, now: Instant) -> BTreeSet<Cookie> {
        let count = self.due.iter().take_while(|(due, _)| *due <= now).count();
        self.due.drain(..count).map(|(_, cookie)| cookie).collect()
    }

    /// Looks for them; the outcome is a [`Command::Looked`].
    pub(super) fn look(&mut self, sought: Vec<Sought>, shared: &Arc<Shared>) {
        self.looking = true;
        let features = self.features;
        let (known, asker) = (sought.iter().map(|one| one.cookie).collect::<Vec<_>>(), shared.clone());
        let (looked, others) = (known.clone(), shared.clone());
        let look = move || {
            let start = Instant::now();
            let missing = missing(&sought, &others.others(), &features);
            others.ask(Command::Looked { looked, missing, took: start.elapsed() });
        };
        // Asked for here, a thread for it would be started by this one, and be as confined (`confine`).
        self.runtime.spawn(async move {
            if on_a_thread(look).is_err() {
                // The next time, then. Nobody is missing who was not looked for.
                asker.ask(Command::Looked { looked: known, missing: Vec::new(), took: Duration::ZERO });
            }
        });
    }

    /// Somebody has looked.
    pub(super) fn looked(&mut self, took: Duration) {
        self.looking = false;
        self.pause = INTERVAL.max(took * SHARE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(runtime: &tokio::runtime::Runtime) -> Looks {
        Looks::new(Features::detect().unwrap(), runtime.handle().clone())
    }

    #[test]
    fn a_connection_that_is_up_soon_is_never_looked_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut looks, now) = (looks(&runtime), Instant::now());
        looks.add(Cookie(1), now);
        looks.add(Cookie(2), now);
        assert_eq!(looks.wait(now, |_| true), Some(INTERVAL));
        assert_eq!(looks.wait(now, |_| false), None);
        assert!(looks.take(now + INTERVAL).is_empty());
    }

    #[test]
    fn looking_does_not_take_more_than_its_share() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut looks, now) = (looks(&runtime), Instant::now());
        for _ in 0..3 {
            looks.add(Cookie(1), now);
        }
        assert_eq!(Vec::from_iter(looks.take(now + INTERVAL)), [Cookie(1)]);
        looks.looking = true;
        looks.looked(Duration::from_millis(100));
        looks.add(Cookie(1), now);
        assert_eq!(looks.wait(now, |_| true), Some(Duration::from_secs(2)));
        assert!(!looks.looking);
    }
}
