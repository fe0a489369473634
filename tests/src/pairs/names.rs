//! Name servers.

use std::net::SocketAddr;

use super::{PORT, Pair, Transport, split};
use crate::{FAR4, World};

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
        let script = "ask +notcp +short name.test A; ask +tcp +short name.test AAAA; \
                      ask +notcp +ignore long.test TXT | grep -c 'flags:.* tc'; \
                      ask long.test TXT | grep -c 'IN.TXT.*xxxx'; \
                      for i in $(seq 50); do echo \"n$i.name.test A\"; done >names; \
                      ask +short -f names | sort | uniq -c";
        Self {
            transport: Transport::Both,
            server,
            client: dig(script),
            is_right: Box::new(|said| {
                said.lines().map(str::trim).eq(["192.0.2.12", "2001:db8::10", "1", "40", "50 192.0.2.12"])
            }),
            payload: 4000,
        }
    }

    /// unbound, which asks a name server on the far side and remembers what it was told; and dig.
    pub fn unbound_dig(world: &World) -> Self {
        world.dnsmasq(&world.far, &FAR4.to_string());
        let configuration = world.file(
            "unbound.conf",
            &format!(
                "server:\n  do-daemonize: no\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  \
                   interface: 0.0.0.0\n  port: {PORT}\n  access-control: 0.0.0.0/0 allow_snoop\n  \
                   access-control: 127.0.0.0/8 allow_snoop\n  num-threads: 2\n  \
                   module-config: iterator\n  cache-min-ttl: 60\n  \
                   local-zone: \"test.\" nodefault\n\
                 forward-zone:\n  name: \".\"\n  forward-addr: {FAR4}\n\
                 remote-control:\n  control-enable: no\n"
            ),
        );
        // Without recursion it says what it remembers.
        let script = "for i in $(seq 50); do echo \"n$i.name.test A\"; done >names; \
                      for how in +notcp +tcp '+notcp +norecurse'; do ask +short $how -f names | sort | uniq -c; done";
        Self {
            transport: Transport::Both,
            server: ["unbound", "-d", "-c", &configuration].map(str::to_owned).to_vec(),
            client: dig(script),
            is_right: Box::new(|said| said.lines().map(str::trim).eq(["50 192.0.2.12"; 3])),
            payload: 4000,
        }
    }
}

/// A client that runs a script in which `ask` is dig for the server.
fn dig(script: &'static str) -> Box<dyn Fn(SocketAddr) -> Vec<String>> {
    Box::new(move |to| {
        let ask = "at=$0 port=$1; ask() { dig \"@$at\" -p \"$port\" +tries=1 +time=10 \"$@\"; }; ";
        let (script, ip, port) = (format!("{ask}{script}"), to.ip().to_string(), to.port().to_string());
        ["sh", "-euc", &script, &ip, &port].map(str::to_owned).to_vec()
    })
}
