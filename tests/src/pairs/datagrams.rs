//! Programs that speak UDP.

use std::net::SocketAddr;

use serde_json::{Deserializer, Value};

use super::{PORT, Pair, Transport, certificate, split};
use crate::World;

impl Pair {
    /// OpenSSL's DTLS server, whose output is its input, so that it sends back what it gets; and its client.
    pub fn dtls(world: &World) -> Self {
        let (key, certificate) = certificate(world);
        let script = "mkfifo loop; exec 3<>loop; \
                      exec openssl s_server -dtls -quiet -accept \"$0\" -key \"$1\" -cert \"$2\" <&3 >&3";
        let client = world.program("pairs/dtls.sh");
        Self {
            transport: Transport::Udp,
            server: ["sh", "-euc", script, &PORT.to_string(), &key, &certificate].map(str::to_owned).to_vec(),
            client: Box::new(move |to: SocketAddr| {
                vec!["sh".into(), client.clone(), to.to_string(), certificate.clone()]
            }),
            is_right: Box::new(|said| said == "5000 lines came back\n"),
            payload: 20_000,
        }
    }

    /// iperf3, with two streams of TCP each way.
    pub fn iperf3(_: &World) -> Self {
        Self::of_iperf3(Transport::Tcp, "-n 64M -P 2", 64 << 20, |end, sent| {
            // The clock stops when the sender has sent all: the last of it may still be on its way.
            sum(end, "sum_sent", "bytes") >= sent && sum(end, "sum_received", "bytes") > sent / 2
        })
    }

    /// iperf3 with UDP each way, which makes a control connection of TCP to the same port.
    pub fn iperf3_udp(_: &World) -> Self {
        Self::of_iperf3(Transport::Both, "--udp --bandwidth 50M -n 2M --length 1400", 2 << 20, |end, sent| {
            // On a busy machine many may be lost, and each is accounted for.
            sum(end, "sum", "bytes") >= sent
                && sum(end, "sum", "lost_packets") * 2 <= sum(end, "sum", "packets")
        })
    }

    fn of_iperf3(
        transport: Transport,
        options: &'static str,
        amount: u64,
        is_right: fn(&Value, u64) -> bool,
    ) -> Self {
        Self {
            transport,
            server: split(&format!("iperf3 --server --port {PORT}")),
            client: Box::new(move |to: SocketAddr| {
                // Between two tests the server is away for a moment. A client that waits for an amount of datagrams
                // of which some were lost is left by the server.
                let script = "try() { \
                                  until iperf3 --json $options --client \"$to\" --port \"$port\" \"$@\" >report && \
                                      ! grep -q '\"error\"' report; \
                                  do grep -Eq 'Connection re(fused|set)|closed unexpectedly' report || break; done; \
                                  cat report; \
                              }; \
                              to=$0 port=$1 options=$2; try; try --reverse";
                let (ip, port) = (to.ip().to_string(), to.port().to_string());
                ["sh", "-eu", "-c", script, &ip, &port, options].map(str::to_owned).to_vec()
            }),
            is_right: Box::new(move |said| {
                let reports: Vec<Value> =
                    Deserializer::from_str(said).into_iter().map_while(Result::ok).collect();
                reports.len() == 2 && reports.iter().all(|report| is_right(&report["end"], amount))
            }),
            payload: amount,
        }
    }
}

/// A number of iperf3's summary.
fn sum(end: &Value, which: &str, what: &str) -> u64 {
    end[which][what].as_u64().unwrap_or_default()
}
