//! Connections that both sides have finished, while libslirp may still hold bytes for the host.
//!
//! libslirp 4.7 tells the stack that its buffer has room again even after the stack has sent its last byte. If the far
//! side had finished before, the stack's socket is gone by then (RFC 9293, 3.6: only who closes first waits), and the
//! stack answers by a reset. For that libslirp closes the host's socket, with what it has not passed on: the far side
//! sees the stream end early, and in order. Such a reset says nothing new, so libslirp is not told.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::attempts::{Ends, FIN, RST, SYN, flags};

/// As many are remembered at least, those finished last; at most twice as many.
const KEPT: usize = 4096;

/// Connections of which the far side has finished, and whether the stack has after it.
#[derive(Debug, Default)]
pub(crate) struct Farewells {
    recent: HashMap<Pair, bool>,
    older: HashMap<Pair, bool>,
}

/// The stack's address and the far side's.
type Pair = (SocketAddr, SocketAddr);

impl Farewells {
    /// A frame of the stack's: whether libslirp is to see it.
    pub(crate) fn sends(&mut self, frame: &[u8]) -> bool {
        let Some((flags, Ends { from, to, .. })) = telling(frame) else { return true };
        let known = self.known((from, to), flags);
        if known.is_some() && flags & FIN != 0 {
            self.remember((from, to), true);
        }
        flags & RST == 0 || known != Some(true)
    }

    /// A frame of libslirp's.
    pub(crate) fn receives(&mut self, frame: &[u8]) {
        let Some((flags, Ends { from, to, .. })) = telling(frame) else { return };
        let known = self.known((to, from), flags);
        if flags & FIN != 0 {
            self.remember((to, from), known.unwrap_or(false));
        }
    }

    fn known(&mut self, pair: Pair, flags: u8) -> Option<bool> {
        if flags & SYN != 0 {
            // Another connection.
            self.recent.remove(&pair);
            self.older.remove(&pair);
        }
        self.recent.get(&pair).or_else(|| self.older.get(&pair)).copied()
    }

    fn remember(&mut self, pair: Pair, stack: bool) {
        if self.recent.len() >= KEPT {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(pair, stack);
    }
}

/// The flags and ends of a segment that begins or ends a connection. Every frame passes by.
fn telling(frame: &[u8]) -> Option<(u8, Ends)> {
    let flags = flags(frame).filter(|flags| flags & (FIN | RST | SYN) != 0)?;
    Some((flags, Ends::of(frame)?))
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const STACK: ([u8; 4], u16) = ([10, 0, 2, 15], 8080);
    const FAR: ([u8; 4], u16) = ([10, 0, 2, 2], 40000);

    fn segment(from: ([u8; 4], u16), to: ([u8; 4], u16), flags: u8) -> Vec<u8> {
        let tcp = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from.0, to.0, 64).tcp(from.1, to.1, 7, 1000);
        let tcp = if flags & FIN != 0 { tcp.fin().ack(9) } else { tcp };
        let tcp = if flags & SYN != 0 { tcp.syn() } else { tcp };
        let tcp = if flags & RST != 0 { tcp.rst() } else { tcp };
        let mut frame = Vec::new();
        tcp.write(&mut frame, &[]).unwrap();
        frame
    }

    #[test]
    fn a_reset_after_both_have_finished_is_not_told() {
        let mut farewells = Farewells::default();
        farewells.receives(&segment(FAR, STACK, FIN));
        assert!(farewells.sends(&segment(STACK, FAR, FIN)));
        assert!(!farewells.sends(&segment(STACK, FAR, RST)));
        assert!(farewells.sends(&segment((STACK.0, 81), FAR, RST)), "of another connection");
    }

    #[test]
    fn a_reset_while_one_may_still_send_is_told() {
        for (from, to) in [(FAR, STACK), (STACK, FAR)] {
            let mut farewells = Farewells::default();
            match from == FAR {
                true => farewells.receives(&segment(from, to, FIN)),
                false => assert!(farewells.sends(&segment(from, to, FIN))),
            }
            assert!(farewells.sends(&segment(STACK, FAR, RST)));
        }
    }

    /// The stack has waited for it as long as it does (tcp_fin_timeout), and knows nothing of it any more.
    #[test]
    fn a_reset_that_answers_a_late_end_is_told() {
        let mut farewells = Farewells::default();
        assert!(farewells.sends(&segment(STACK, FAR, FIN)));
        farewells.receives(&segment(FAR, STACK, FIN));
        assert!(farewells.sends(&segment(STACK, FAR, RST)));
    }

    #[test]
    fn a_new_connection_between_the_same_ends_is_reset_as_any() {
        let mut farewells = Farewells::default();
        farewells.receives(&segment(FAR, STACK, FIN));
        farewells.sends(&segment(STACK, FAR, FIN));
        farewells.receives(&segment(FAR, STACK, SYN));
        assert!(farewells.sends(&segment(STACK, FAR, RST)));
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let mut farewells = Farewells::default();
        for port in 0..3 * KEPT as u16 {
            farewells.receives(&segment((FAR.0, port), STACK, FIN));
            farewells.sends(&segment(STACK, (FAR.0, port), FIN));
            assert!(!farewells.sends(&segment(STACK, (FAR.0, port), RST)));
            assert!(farewells.recent.len() + farewells.older.len() <= 2 * KEPT);
        }
    }
}
