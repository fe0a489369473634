//! Name servers.

use std::net::SocketAddr;

use super::{PORT, Pair, Transport, split};
use crate::World;

impl Pair {
    /// dnsmasq, and dig by UDP, by TCP, and by TCP after a truncated answer of UDP.
    pub fn dnsmasq_dig(world: &World) -> Self {
        let lines: String =
            (0..40).map(|i| format!("txt-record=long.test,{i:02}{}\n", "x".repeat(98))).collect();
        let configuration = world.file(
            "dnsmasq.conf",
            &format!("{lines}address=/name.test/192.0.2.12\naddress=/name.test/2001:db8::10\n"),
        );
        let mut server = split("dnsmasq --keep-in-foreground --no-resolv --no-hosts --user= --pid-file=");
        server.extend([format!("--conf-file={configuration}"), format!("--port={PORT}")]);
        Self {
            transport: Transport::Both,
            server,
            client: Box::new(|to: SocketAddr| {
                let script = "ask() { dig \"@$at\" -p \"$port\" +tries=1 +time=10 \"$@\"; }; at=$0 port=$1; \
                              ask +notcp +short name.test A; ask +tcp +short name.test AAAA; \
                              ask +notcp +ignore long.test TXT | grep -c 'flags:.* tc'; \
                              ask long.test TXT | grep -c 'IN.TXT.*xxxx'; \
                              for i in $(seq 50); do echo \"n$i.name.test A\"; done >names; \
                              ask +short -f names | sort | uniq -c";
                ["sh", "-eu", "-c", script, &to.ip().to_string(), &to.port().to_string()]
                    .map(str::to_owned)
                    .to_vec()
            }),
            is_right: Box::new(|said| {
                said.lines().map(str::trim).eq(["192.0.2.12", "2001:db8::10", "1", "40", "50 192.0.2.12"])
            }),
            payload: 4000,
        }
    }
}
