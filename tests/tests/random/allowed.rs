//! Where a random sequence under netshunt may differ from the same without it, and why a user can live with it. An entry
//! that a run does not need fails its test.

use std::sync::atomic::{AtomicBool, Ordering};

use super::sequence::Call;

/// One difference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    /// The call, its result and the state of the sockets natively, and ours; `*` stands for anything.
    what: &'static str,
    natively: &'static str,
    ours: &'static str,
    /// Only after such a call.
    after: &'static str,
    /// What comes after it is another sequence: it is not compared.
    pub(crate) parts: bool,
    /// Not in every run of CI's size.
    pub(crate) rare: bool,
    pub(crate) reason: &'static str,
}

const LOSES_NAME: &str = "A failed attempt has no address any more: nothing is sent from it or arrives there";
const OTHER_REASON: &str =
    "Of two reasons to refuse a call the other one is told: the program did two things wrong";
const SILENT_SEND: &str = "A send without an address is the host's, which knows neither the peer nor the limits of the \
                           stack's socket: the datagram is lost, as it may be on a network (CHANGELOG.md)";
const NOT_SEEN_YET: &str = "That a datagram socket was closed is seen within a second: until then what is sent there is \
                            lost without an error, as on a network";
const OF_AN_END: &str = "The guest's end of a datagram socket is AF_UNIX: this is asked of streams only";
const NOT_SHUT: &str = "shutdown(2) is the host's, whose socket is always connected (CHANGELOG.md)";
const UNAPPLIED: &str = "An optimisation that is not applied: accepted in every state";
const ALONE: &str =
    "A send without an address is the host's: what is to follow does not join it (CHANGELOG.md)";
const NOT_BOUND: &str = "A call that is refused for its address has not given the socket a port yet";
const TOO_FAST: &str =
    "A reset takes a moment, as on a network: natively it is there before the call that caused it ends";
const OVER: &str =
    "The socket of a server or connection that was ended by force, or dissolved, is over: programs close it";
const RESET: &str = "A call without an address tells of a refused datagram by ECONNRESET (CHANGELOG.md)";
const NO_LENGTH: &str = "An address of no length is none, as sendmsg(2) has it";
const FEWER: &str =
    "A receive of several datagrams stops at the next sender, as it may: the rest is there for the next";
const BOTH: &str =
    "The host's end of an accepted connection takes both families, whatever it was accepted by";
const QUEUEING: &str = "The guest's own socket queues nothing on a network: its priority is without effect";
const TO_NOBODY: &str = "Natively what is sent to the family 0 by a socket that is connected to ::ffff:0.0.0.0 goes nowhere: \
                         here it goes where connect(2) led";
const NO_ROOM_MADE: &str = "Natively each datagram that leaves is an edge: there is room again. Here it has left when the call \
                            returns, and who was told that there is no room is told when there is";
const NOT_NAMED: &str = "A connect that is refused has not given the socket a name (SO_PASSCRED)";
const AS_IT_CAME: &str =
    "What accompanies a datagram is what the socket had asked for when it came, not when it is received";
const TO_ITSELF: &str = "After an attempt that failed a socket may be connected to its own address and port";
const SAME_PORT: &str = "A server that was ended by force keeps its address and port";
const FROM_LOOPBACK: &str = "Natively nothing answers what comes from ::1 to an address that is not the loopback's: the attempt is \
                             not refused for two minutes";
const DISSOLVED: &str =
    "Of an association that was dissolved the own address is left: what is sent to 0.0.0.0 goes there";
const QUEUED: &str = "An error that waits in the queue (IP_RECVERR) is announced once";

pub(crate) const ALLOWED: &[Allowed] = &[
    parts("argument *:p* / *:0*", "*", "*", LOSES_NAME),
    parts("getsockname*", "0 *:p*", "0 *:0, * bytes*", LOSES_NAME),
    parts("shutdown*", "ENOTCONN*", "0*", NOT_SHUT),
    after("shutdown*", parts("send*", "EPIPE*", "*", NOT_SHUT)),
    rare(after("shutdown*", parts("recv*", "*", "EAGAIN*", NOT_SHUT))),
    on("bind*", "EADDRNOTAVAIL*", "EINVAL*", OTHER_REASON),
    on("bind*", "EINVAL*", "EADDRINUSE*", OTHER_REASON),
    on("bind*", "EADDRINUSE*", "EINVAL*", OTHER_REASON),
    rare(on("setsockopt * bad", "E*", "E*", OTHER_REASON)),
    rare(parts("send*", "ECONN*", "EFAULT*", OTHER_REASON)),
    on("send*", "E*", "EFAULT*", OTHER_REASON),
    rare(parts("connect*", "EAFNOSUPPORT*", "EINPROGRESS*", OTHER_REASON)),
    rare(parts("sendmsg * length -1 at null", "*", "EINVAL*", OTHER_REASON)),
    parts("sendto * length 0", "EINVAL*", "*", NO_LENGTH),
    rare(parts("send *", "EINVAL*", "*", SILENT_SEND)),
    rare(parts("write*", "EINVAL*", "*", SILENT_SEND)),
    parts("send *", "*", "EOPNOTSUPP*", OF_AN_END),
    after("shutdown * 0", parts("send*", "*IOR/*", "*IOR/0*", NOT_SHUT)),
    on("connect*", "EAFNOSUPPORT*", "ENETUNREACH*", OTHER_REASON),
    on("send*", "EDESTADDRREQ*", "EMSGSIZE*", OTHER_REASON),
    on("send*", "EOPNOTSUPP*", "EAFNOSUPPORT*", OTHER_REASON),
    rare(parts("send*", "EOPNOTSUPP*", "ECONNREFUSED*", OTHER_REASON)),
    rare(on("send*", "EOPNOTSUPP*", "EINVAL*", OTHER_REASON)),
    parts("send*", "EINVAL*", "ECONNREFUSED*", OTHER_REASON),
    on("getsockopt * length -1", "*", "EINVAL*", OTHER_REASON),
    on("ioctl * SIOCATMARK", "ENOTTY*", "EOPNOTSUPP*", OF_AN_END),
    rare(on("ioctl * FIONREAD", "E*", "0*", OF_AN_END)),
    parts("recv* flags *", "*", "EOPNOTSUPP*", OF_AN_END),
    parts("write*", "EDESTADDRREQ*", "*", SILENT_SEND),
    parts("send *", "EDESTADDRREQ*", "*", SILENT_SEND),
    parts("sendto * at null", "EDESTADDRREQ*", "*", SILENT_SEND),
    parts("write* 70000", "EMSGSIZE*", "70000*", SILENT_SEND),
    parts("send * 70000 *", "EMSGSIZE*", "70000*", SILENT_SEND),
    on("write*", "ECONNREFUSED*", "ECONNRESET*", RESET),
    on("send *", "ECONNREFUSED*", "ECONNRESET*", RESET),
    on("re*", "ECONNREFUSED*", "ECONNRESET*", RESET),
    on("setsockopt * TCP_FASTOPEN *", "EINVAL*", "0*", UNAPPLIED),
    after("send* more*", parts("*", "*", "*", ALONE)),
    rare(after("send*", parts("bind*", "EINVAL*", "0*", NOT_BOUND))),
    rare(after("send*", parts("bind*", "EINVAL*", "EADDRNOTAVAIL*", NOT_BOUND))),
    rare(after("send*", parts("setsockopt * IPV6_V6ONLY *", "EINVAL*", "0*", NOT_BOUND))),
    parts("write*", "*E/*", "*", NOT_SEEN_YET),
    parts("send*", "*E/*", "*", NOT_SEEN_YET),
    rare(after("setsockopt * UDP_CORK *", parts("send*", "*", "E*", OTHER_REASON))),
    rare(parts("recvmmsg*", "2*", "1*", FEWER)),
    rare(on("getsockopt * IPV6_V6ONLY *", "0 *", "0 *", BOTH)),
    rare(on("getsockopt * SO_PRIORITY *", "0 *", "0 *", QUEUEING)),
    rare(after("setsockopt * TCP_NOTSENT_LOWAT *", parts("*", "*", "*", UNAPPLIED))),
    rare(parts("sendmmsg*", "1*", "2*", TOO_FAST)),
    rare(after("shutdown*", parts("connect*", "EINVAL*", "ECONNABORTED*", OVER))),
    rare(parts("connect*", "ENETUNREACH*", "EINPROGRESS*", OTHER_REASON)),
    rare(parts("connect*", "EAFNOSUPPORT*", "EINVAL*", OTHER_REASON)),
    rare(parts("sendmmsg * length -1 at null", "*", "EINVAL*", OTHER_REASON)),
    rare(parts("send*", "EINVAL*", "EMSGSIZE*", OTHER_REASON)),
    rare(parts("connect*", "EINVAL*", "EISCONN*", OVER)),
    parts("bind*", "0 | *", "EINVAL*", OVER),
    after("shutdown*", parts("connect*", "E*", "EISCONN*", OVER)),
    rare(after("shutdown*", parts("connect*", "EINVAL*", "ECONNREFUSED*", OVER))),
    after("shutdown*", parts("listen*", "EADDRINUSE*", "0*", OVER)),
    after("connect*", parts("listen*", "0*", "EACCES*", OVER)),
    rare(after("accept*", parts("listen*", "0*", "EINVAL*", OVER))),
    rare(after("accept*", parts("setsockopt * IPV6_V6ONLY *", "0*", "EINVAL*", OVER))),
    after("connect * family 0*", parts("listen*", "EADDRINUSE*", "EACCES*", OVER)),
    after("connect * family 0*", parts("argument *:A* / *:0*", "*", "*", OVER)),
    after("connect * family 0*", parts("getsockname*", "0 *:A*", "0 *:0, *", OVER)),
    after("write*", on("recv*", "EAGAIN*", "ECONNREFUSED*", RESET)),
    rare(after("send*", on("recv*", "EAGAIN*", "ECONNREFUSED*", RESET))),
    after("setsockopt * IP*_RECVERR *", parts("recv*", "*E/*", "*O/*", QUEUED)),
    rare(after("connect * [::ffff:0.0.0.0*", parts("send* to family 0", "*", "*", TO_NOBODY))),
    rare(after("epoll_ctl * 80000004", parts("epoll_wait*", "1 *:4 *", "0 *", NO_ROOM_MADE))),
    rare(after("setsockopt * SO_PASSCRED *", parts("bind*", "EINVAL*", "0*", NOT_NAMED))),
    rare(after("setsockopt * IP*", parts("recvmsg*", "* control *", "*", AS_IT_CAME))),
    rare(after(
        "connect * own:p0",
        parts("connect * 127.0.0.1:p0", "EINPROGRESS*", "EINPROGRESS*", TO_ITSELF),
    )),
    rare(after("shutdown*", parts("send*", "*IORH/*", "*IORH/0*", NOT_SHUT))),
    rare(after("shutdown*", parts("write*", "*IORH/*", "*IORH/0*", NOT_SHUT))),
    rare(after("shutdown*", parts("argument *:p* / *:p0*", "*", "*", SAME_PORT))),
    rare(after("shutdown * 0", parts("write*", "*IOR/*", "*IOR/0*", NOT_SHUT))),
    rare(after("connect*", parts("bind*", "EINVAL*", "0*", NOT_BOUND))),
    rare(on("getsockopt * IP_BIND_ADDRESS_NO_PORT *", "0 1 *", "0 0 *", UNAPPLIED)),
    rare(on("getsockopt * TCP_DEFER_ACCEPT *", "0 *", "0 *", UNAPPLIED)),
    rare(on("getsockopt * 1 *", "ENOPROTOOPT*", "EOPNOTSUPP*", OTHER_REASON)),
    rare(parts("sendto * at null", "EMSGSIZE*", "70000*", SILENT_SEND)),
    rare(parts("write*", "EMSGSIZE*", "EPIPE*", OTHER_REASON)),
    rare(parts("send*", "ENETUNREACH*", "EINVAL*", OTHER_REASON)),
    rare(parts("send*", "EINVAL*", "EAFNOSUPPORT*", OTHER_REASON)),
    rare(after("setsockopt * SO_PASSCRED *", parts("* to unix auto", "*", "ECONNREFUSED*", NOT_NAMED))),
    rare(after("setsockopt * SO_PASSCRED *", parts("connect * unix auto", "0*", "ECONNREFUSED*", NOT_NAMED))),
    rare(after("shutdown*", parts("connect*", "0*", "EISCONN*", OVER))),
    rare(after("connect * family 0", parts("connect*", "EADDRNOTAVAIL*", "EINPROGRESS*", OVER))),
    rare(after("connect * family 0", parts("connect*", "ENETUNREACH*", "ECONNREFUSED*", OVER))),
    rare(after("connect * family 0", parts("argument *:B* / *:0*", "*", "*", OVER))),
    rare(after("connect * family 0", parts("send* to 0.0.0.0:*", "*", "*", DISSOLVED))),
    rare(parts("connect *:p0", "ECONNREFUSED*", "0*", TO_ITSELF)),
    rare(after("connect*", parts("argument *:p1* / *:p0*", "*", "*", SAME_PORT))),
    rare(on("getsockname*", "0 0.0.0.0:*", "0 127.0.0.1:*", SAME_PORT)),
    rare(on("getsockname*", "0 [::%0]:*", "0 [::1*", SAME_PORT)),
    rare(after("connect * [own%0]:0", parts("*", "* | *", "* | *IOREH*", FROM_LOOPBACK))),
    rare(after("setsockopt * IP*", parts("recvmmsg*", "* flags 8 *", "*", AS_IT_CAME))),
];

/// Seen at night at least.
const fn rare(entry: Allowed) -> Allowed {
    Allowed { rare: true, ..entry }
}

const fn after(call: &'static str, entry: Allowed) -> Allowed {
    Allowed { after: call, ..entry }
}

const fn on(what: &'static str, natively: &'static str, ours: &'static str, reason: &'static str) -> Allowed {
    Allowed { what, natively, ours, after: "*", parts: false, rare: false, reason }
}

const fn parts(
    what: &'static str,
    natively: &'static str,
    ours: &'static str,
    reason: &'static str,
) -> Allowed {
    Allowed { parts: true, ..on(what, natively, ours, reason) }
}

/// Which entries were needed.
pub(crate) struct Used(Vec<AtomicBool>);

impl Used {
    pub(crate) fn new() -> Self {
        Self(ALLOWED.iter().map(|_| AtomicBool::new(false)).collect())
    }

    pub(crate) fn is(&self, entry: usize) -> bool {
        self.0[entry].load(Ordering::Relaxed)
    }

    /// The entry that allows this difference.
    pub(crate) fn covering(&self, before: &[Call], native: &Call, ours: &Call) -> Option<&'static Allowed> {
        let plain = |call: &Call| call.what.strip_prefix("child ").unwrap_or(&call.what).to_owned();
        let what = match (plain(native), plain(ours)) {
            (native, ours) if native == ours => native,
            // The address of another socket, as getsockname(2) told it.
            (native, ours) => format!("argument {native} / {ours}"),
        };
        let covers = |entry: &Allowed| {
            matches(entry.what, &what)
                && before.iter().chain([native]).any(|call| matches(entry.after, &plain(call)))
                && matches(entry.natively, &native.seen)
                && matches(entry.ours, &ours.seen)
        };
        let entry = ALLOWED.iter().position(covers)?;
        self.0[entry].store(true, Ordering::Relaxed);
        Some(&ALLOWED[entry])
    }
}

/// Whether a text is one that the pattern stands for.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    let mut ends = (0..=text.len()).filter(|&at| text.is_char_boundary(at));
    ends.any(|at| matches(rest, &text[at..]))
}
