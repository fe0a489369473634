//! One record per decided flow: what the flow log prints.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use netshunt_policy::{Direction, Verdict};

/// A decided flow, reported when its outcome is known.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Flow {
    /// When the guest asked.
    pub time: SystemTime,
    /// The guest's process (not thread) id.
    pub pid: i32,
    /// Its name, as in /proc/PID/comm.
    pub comm: String,
    /// "icmp", "tcp" or "udp". Of datagrams there is one record for each destination of a socket.
    pub proto: &'static str,
    /// Where to; of a flow to the guest, the address of its own that was reached, or is listened on.
    pub destination: SocketAddr,
    /// Who started it: `In` for connections that the guest accepts, and for its wish to listen.
    pub direction: Direction,
    /// Where an accepted connection comes from.
    pub source: Option<SocketAddr>,
    /// What was decided.
    pub verdict: Verdict,
    /// The rule that decided, as its user wrote it; `None` for a default.
    pub rule: Option<String>,
    /// How it ended; `None` for success, and for a connection still pending when the guest closed it.
    pub errno: Option<i32>,
    /// From the guest's call to the outcome.
    pub elapsed: Duration,
}

/// Takes flows. Called on the threads that serve guests: must not block.
pub trait FlowSink: Send + Sync + fmt::Debug {
    /// One flow was decided.
    fn flow(&self, flow: &Flow);
}
