//! Where connect(2) under netshunt may differ from connect(2) without it, and why a user can live
//! with it. An entry that a run does not need fails its test.

use netshunt_tests::{Path, TestLink};

/// One difference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    pub(crate) path: Path,
    pub(crate) cases: &'static [&'static str],
    /// The links that it is due to.
    links: &'static [TestLink],
    /// Part of "FAMILY WAY: WHAT".
    what: &'static str,
    natively: &'static str,
    ours: &'static str,
    /// Depends on who is faster, so that a run need not show it.
    pub(crate) sometimes: bool,
    pub(crate) reason: &'static str,
}

impl Allowed {
    pub(crate) fn concerns(&self, path: Path, link: TestLink, case: &str) -> bool {
        self.path == path && self.links.contains(&link) && self.cases.contains(&case)
    }

    pub(crate) fn covers(&self, what: &str, natively: &str, ours: &str) -> bool {
        what.contains(self.what) && matches(self.natively, natively) && matches(self.ours, ours)
    }
}

/// A pattern with a `*` somewhere matches by what is around it.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => text.starts_with(start) && text.ends_with(end),
        None => pattern == text,
    }
}

/// Every case whose connections fail.
const FAILING: &[&str] = &["prohibited", "refused", "timed_out", "unreachable"];

/// Those of them that a router ends.
const NO_WAY: &[&str] = &["prohibited", "unreachable"];

/// Over every link.
const ANY: &[TestLink] = &[TestLink::Passt, TestLink::PasstVhostUser, TestLink::Slirp];
const PASST: &[TestLink] = &[TestLink::Passt, TestLink::PasstVhostUser];

const NO_SECOND: &str = "Natively what a router says may reach the socket twice, and stays in its queue of errors: \
                         here it is told once, and the socket is then as any other whose attempt has failed";
const ALL_REFUSED: &str =
    "passt tells of every connection that fails on the host by a reset: to the stack a refusal";
const TOO_SOON: &str =
    "The link has not yet answered the guest when the server's reset comes: to the stack a refusal";
const TWO_STEPS: &str = "A failed attempt is ended in two steps: who waits for edges and is woken between them is \
                         woken once more, with the same events";
const NO_NAME: &str = "A failed attempt has no address any more: nothing is sent from it or arrives there";
const QUEUEING: &str = "The guest's own socket queues nothing on a network: its priority is without effect";

pub(crate) const ALLOWED: &[Allowed] = &[
    on_stack(&["answered", "late"], "SO_PRIORITY", "*", "*", QUEUEING),
    on_stack(FAILING, "getsockname afterwards", "*, port some", "*, any, port 0", NO_NAME),
    on_stack(&["late", "timed_out"], "getsockname dissolved", "*, port some", "*, any, port 0", NO_NAME),
    now_and_then(&["abrupt"], "", "*", "ECONNREFUSED", TOO_SOON),
    over(PASST, on_stack(NO_WAY, "", "E*", "ECONNREFUSED", ALL_REFUSED)),
    now_and_then(FAILING, "epoll-edge: events again", "none", "*ERR HUP", TWO_STEPS),
    now_and_then(NO_WAY, "SO_ERROR", "E*", "0", NO_SECOND),
    now_and_then(NO_WAY, "events", "*ERR HUP", "*HUP", NO_SECOND),
    now_and_then(NO_WAY, "events of that", "ERR", "*ERR HUP", NO_SECOND),
    now_and_then(NO_WAY, "and after that", "E*", "E*", NO_SECOND),
];

const fn on_stack(
    cases: &'static [&'static str],
    what: &'static str,
    natively: &'static str,
    ours: &'static str,
    reason: &'static str,
) -> Allowed {
    Allowed { path: Path::Stack, cases, links: ANY, what, natively, ours, sometimes: false, reason }
}

const fn now_and_then(
    cases: &'static [&'static str],
    what: &'static str,
    natively: &'static str,
    ours: &'static str,
    reason: &'static str,
) -> Allowed {
    Allowed { sometimes: true, ..on_stack(cases, what, natively, ours, reason) }
}

const fn over(links: &'static [TestLink], entry: Allowed) -> Allowed {
    Allowed { links, ..entry }
}
