//! Pairs of programs that talk to each other, each of which is a guest in turn.
//!
//! A [`Pair`] says how its server and its client are started and what the client prints when every
//! byte, row and answer was right. The ways that its connections can take are the same for all.

mod databases;
mod datagrams;
mod names;
mod runtimes;
mod web;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use crate::run::Run;
use crate::{FAR4, HOST4, Launch, Path, Running, World, eventually, hears_datagrams, listens};

/// Where every server listens, at all addresses of IPv4.
const PORT: u16 = 8000;
/// Of the host, and published to [`PORT`] of the guest.
const PUBLISHED: u16 = 8080;
/// The guest's own, by default of every link.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// What a server listens by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// TCP alone.
    Tcp,
    /// UDP alone.
    Udp,
    /// Both, on one port; TCP first or for good.
    Both,
}

impl Transport {
    fn protocols(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &["tcp"],
            Self::Udp => &["udp"],
            Self::Both => &["tcp", "udp"],
        }
    }
}

/// A server and a client.
pub struct Pair {
    transport: Transport,
    /// A command that listens on [`PORT`] and stays in the foreground.
    server: Vec<String>,
    /// The command of a client for the server at this address.
    client: Box<dyn Fn(SocketAddr) -> Vec<String>>,
    /// Whether this is what the client prints.
    is_right: Box<dyn Fn(&str) -> bool>,
    /// The least bytes that go over the wire.
    payload: u64,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Pair {
    /// The client is a guest and reaches the server on the far side through the stack, or past it; or, as the control,
    /// without netshunt.
    #[track_caller]
    pub fn client(&self, world: &World, path: Path) {
        let server = self.start(world, world.native().far());
        let to = SocketAddr::new(IpAddr::V4(FAR4), PORT);
        let mut options = vec!["--net=link,host-bypass".to_owned()];
        if path == Path::Bypass {
            options.extend(self.rules(&format!("{FAR4}")));
        }
        let launch = if path == Path::Native { world.native() } else { world.netshunt_with(options) };
        let run = launch.command((self.client)(to)).run();
        self.check(&run);
        run.assert_path(path, to, self.payload);
        stop(server).assert_success();
    }

    /// The server is a guest; its port is published, and the client is on the far side.
    #[track_caller]
    pub fn published(&self, world: &World) {
        let mut options = vec!["--net=link".to_owned()];
        for protocol in self.transport.protocols() {
            options.push(format!("--publish={PUBLISHED}:{PORT}/{protocol}"));
        }
        let server = self.start(world, world.netshunt_with(options));
        self.far_client(world, PUBLISHED);
        let run = stop(server);
        run.assert_success();
        assert!(run.stats.as_ref().is_some_and(|stats| stats.bytes() >= self.payload), "{}", run.describe());
    }

    /// The server is a guest and listens on the host itself, since an `in:` rule lets it.
    #[track_caller]
    pub fn on_the_host(&self, world: &World) {
        let options = ["--net=link,host-bypass".to_owned()].into_iter();
        let rules = ["in:0.0.0.0/0", "in:[::/0]"].into_iter().flat_map(|any| self.rules(any));
        let words = self.words(world, "watched");
        let launch = world.netshunt_with(options.chain(rules)).command(words).stdin_pipe();
        let server = launch.start();
        let is_there = if self.transport == Transport::Udp { hears_datagrams } else { listens };
        eventually("the guest listens on the host", || world.host.inside(|| is_there(PORT)));
        self.far_client(world, PORT);
        let run = stop(server);
        run.assert_success();
        let listens = |flow: &&crate::Flow| flow.direction == "in" && flow.dst.port() == PORT;
        let flow = run.flows.iter().find(listens).expect("it was logged");
        assert_eq!(flow.verdict, "bypass", "{}", run.describe());
    }

    /// Both are guests of one netshunt, and meet over its loopback and over its own address.
    #[track_caller]
    pub fn inside(&self, world: &World) {
        let mut script = format!(
            "set -eu\nmkfifo hold\n{} <hold >ready &\nexec 9>hold\n\
             until grep -q ready ready; do\n    kill -0 $! || exit 1\n    sleep 0.02\ndone\n",
            quoted(&self.words(world, self.transport.protocols()[0]))
        );
        let addresses = [Ipv4Addr::LOCALHOST, GUEST];
        for address in addresses {
            let words = (self.client)(SocketAddr::new(IpAddr::V4(address), PORT));
            script.push_str(&format!("{} 9>&- >of-{address}\n", quoted(&words)));
        }
        script.push_str("exec 9>&-\nwait $!\n");
        let path = world.file("inside.sh", &script);
        let run = world.netshunt_with(["--net=link"]).command(["sh", &path]).run();
        run.assert_success();
        for address in addresses {
            let file = run.folder.join(format!("of-{address}"));
            let said = std::fs::read_to_string(&file).unwrap_or_default();
            assert!((self.is_right)(&said), "{address}: {said}\n{}", run.describe());
        }
    }

    fn far_client(&self, world: &World, port: u16) {
        let to = SocketAddr::new(IpAddr::V4(HOST4), port);
        self.check(&world.native().far().command((self.client)(to)).run());
    }

    #[track_caller]
    fn check(&self, client: &Run) {
        client.assert_success();
        assert!((self.is_right)(&client.stdout()), "{}", client.describe());
    }

    /// Bypass rules for the server at `address`, by each protocol.
    fn rules(&self, address: &str) -> Vec<String> {
        let rule = |protocol| format!("--bypass={address}:{PORT}/{protocol}");
        self.transport.protocols().iter().map(rule).collect()
    }

    fn start<'w>(&self, world: &'w World, launch: Launch<'w>) -> Running<'w> {
        let words = self.words(world, self.transport.protocols()[0]);
        let mut server = launch.command(words).stdin_pipe().start();
        server.prints("ready");
        server
    }

    /// The server, in what ends it in order and tells when it listens.
    fn words(&self, world: &World, protocol: &str) -> Vec<String> {
        let mut words =
            vec!["sh".to_owned(), world.program("serve.sh"), PORT.to_string(), protocol.to_owned()];
        words.extend_from_slice(&self.server);
        words
    }
}

/// Ends a server.
fn stop(mut server: Running<'_>) -> Run {
    server.close_stdin();
    server.wait()
}

/// As a shell reads them.
fn quoted(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    quoted.join(" ")
}

/// A key, and a certificate for netshunt.test that it has signed itself: their paths.
fn certificate(world: &World) -> (String, String) {
    let [key, certificate] = ["key.pem", "certificate.pem"].map(|name| world.folder().join(name));
    let mut openssl = Command::new("openssl");
    openssl
        .args(split(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=netshunt.test",
        ))
        .args(split("-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:netshunt.test"))
        .args(["-keyout".as_ref(), key.as_os_str(), "-out".as_ref(), certificate.as_os_str()]);
    let made = openssl.output().expect("Debian's openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    world.user().own(&key);
    (key.display().to_string(), certificate.display().to_string())
}

/// Words that were written as one.
fn split(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
