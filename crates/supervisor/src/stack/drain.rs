//! The end: the command has ended, and what it sent before it closed its sockets is still on its way. A kernel
//! that lives on goes on sending; so does this one, for a while.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::connections::Connection;
use super::neighbours;
use super::thread::Machine;

/// How long nothing may move: a far side that is slower than that is taken for gone.
const STALLED: Duration = Duration::from_secs(3);
/// How long it may take in all.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much is done before a look.
const ROUNDS: u32 = 64;
/// After how long is looked: at first, each time after twice as long, and at last.
const LOOKS: [Duration; 2] = [Duration::from_micros(500), Duration::from_millis(20)];

impl Machine {
    pub(super) fn drain(&mut self, survivors: bool) {
        self.flush_datagrams();
        if survivors {
            self.cut_survivors();
        }
        let start = Instant::now();
        let mut moved = (start, u64::MAX);
        let [mut pause, longest] = LOOKS;
        loop {
            // Processes that outlive the command can keep it busy for ever.
            let _ = (0..ROUNDS).find(|_| !self.work());
            let deadline = self.kernel.run();
            let left = self.unsent();
            if left == 0 {
                return debug!("nothing is left to be sent");
            }
            let now = Instant::now();
            if left != moved.1 {
                moved = (now, left);
            }
            if now - moved.0 >= STALLED || now - start >= PATIENCE || self.dead {
                return warn!(left, "sent by the command, and not taken by the far side: lost");
            }
            let look = self.kernel.now() + pause.as_nanos() as u64;
            pause = longest.min(pause * 2);
            if let Err(error) = self.wait(Some(deadline.map_or(look, |at| at.min(look)))) {
                return debug!(%error, "cannot wait");
            }
        }
    }

    /// Ends the connections of processes that outlive the command, as they end when we do. What we cannot
    /// tell from them are connections whose last bytes fill the queue before the end.
    fn cut_survivors(&mut self) {
        let alive = |connection: &Connection| match connection {
            Connection::Open { relay, .. } => !relay.guest_has_closed(),
            Connection::Opening { .. } | Connection::Direct(_) => false,
        };
        let ids: Vec<_> = self.connections.iter().filter(|(_, c)| alive(c)).map(|(&id, _)| id).collect();
        for id in ids {
            if let Some(Connection::Open { relay, .. }) = self.connections.get(&id) {
                relay.cut(&self.kernel);
            }
            self.end(id);
        }
    }

    /// What no far side has yet, as far as we can know: in relays, in the stack, and in the link. Mostly bytes,
    /// and 0 for nothing.
    fn unsent(&self) -> u64 {
        let relayed = self.connections.values().map(|connection| match connection {
            Connection::Open { relay, .. } => relay.unsent(),
            Connection::Opening { .. } | Connection::Direct(_) => 0,
        });
        let stack =
            ["net/tcp", "net/tcp6"].map(|table| queued(&self.kernel.read_proc(table).unwrap_or_default()));
        // A datagram's socket may be gone by now.
        let sought = neighbours::sought(&self.kernel).unwrap_or_else(|error| {
            debug!(%error, "cannot ask who is waited for");
            0
        });
        let link = self.wire.link.borrow_mut().unsent(Instant::now());
        relayed.sum::<u64>() + stack.iter().sum::<u64>() + sought as u64 + link
    }
}

/// The sum of `tx_queue` in proc_net(5)'s table: what is not acknowledged, of sockets that are or were
/// connected.
fn queued(table: &str) -> u64 {
    /// `TCP_SYN_SENT`, `TCP_SYN_RECV`, `TCP_TIME_WAIT`, `TCP_CLOSE`, `TCP_LISTEN` of include/net/tcp_states.h.
    const OTHERS: [&str; 5] = ["02", "03", "06", "07", "0A"];
    let of_line = |line: &str| {
        let mut words = line.split_whitespace().skip(3);
        let state = words.next().filter(|state| !OTHERS.contains(state));
        let queue = state.and(words.next())?.split_once(':')?.0;
        u64::from_str_radix(queue, 16).ok()
    };
    table.lines().skip(1).filter_map(of_line).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_is_summed_up() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000007:00000000 00:00000000 00000000     0        0 1
   1: 0F02000A:A1B2 0A0200C0:1F90 01 00000010:00000000 00:00000000 00000000     0        0 2
   2: 0F02000A:A1B4 0A0200C0:1F90 04 00000001:00000000 00:00000000 00000000     0        0 0
";
        assert_eq!(queued(table), 17);
        assert_eq!(queued(""), 0);
    }
}
