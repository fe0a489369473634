//! From a guest's call to one [`Flow`] record.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use netshunt_policy::{Direction, Verdict};
use tracing::{debug, warn};

use crate::flow::{Flow, FlowSink};

/// A flow that has been decided and whose outcome is awaited. Reported once, at the latest when
/// dropped.
#[derive(Debug)]
pub(crate) struct Open {
    flow: Flow,
    since: Instant,
    sink: Option<Arc<dyn FlowSink>>,
}

/// Who asks, and where to.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) pid: i32,
    pub(crate) comm: String,
    /// "icmp", "tcp" or "udp".
    pub(crate) proto: &'static str,
    pub(crate) destination: SocketAddr,
    pub(crate) since: Instant,
}

impl Open {
    pub(crate) fn new(
        asked: Asked,
        verdict: Verdict,
        rule: Option<String>,
        sink: Option<Arc<dyn FlowSink>>,
    ) -> Self {
        let Asked { pid, comm, proto, destination, since } = asked;
        let flow = Flow {
            time: SystemTime::now() - since.elapsed(),
            pid,
            comm,
            proto,
            destination,
            direction: Direction::Out,
            source: None,
            verdict,
            rule,
            errno: None,
            elapsed: since.elapsed(),
        };
        Open { flow, since, sink }
    }

    /// Somebody reaches the guest, or is to.
    pub(crate) fn inbound(mut self, source: Option<SocketAddr>) -> Self {
        (self.flow.direction, self.flow.source) = (Direction::In, source);
        self
    }

    /// Reports the outcome.
    pub(crate) fn close(mut self, result: Result<(), i32>) {
        self.flow.errno = result.err();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.flow.elapsed = self.since.elapsed();
        let Flow { pid, comm, destination, direction, verdict, rule, errno, .. } = &self.flow;
        match verdict {
            Verdict::Deny(_) => {
                warn!(pid, comm, dst = %destination, ?direction, rule, "denied");
            }
            Verdict::Bypass | Verdict::Stack => {
                debug!(pid, comm, dst = %destination, ?direction, ?verdict, rule, errno, "flow");
            }
        }
        if let Some(sink) = &self.sink {
            sink.flow(&self.flow);
        }
    }
}
