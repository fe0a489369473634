//! Where hostile programs are let loose: servers that count who reaches them, and what runs them.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use netshunt_tests::{Launch, Run, TestLink, World, eventually};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// `--net=` and the rules: one server may be reached past the stack, and with a link another through it.
const COMPOSITIONS: &[&[&str]] = &[
    &["--net=host-bypass", "--bypass=192.0.2.10:7000/tcp", "--bypass=203.0.113.1/tcp"],
    &[
        "--net=link,host-bypass",
        "--bypass=192.0.2.10:7000/tcp",
        "--allow=192.0.2.10:7001/tcp",
        "--allow=203.0.113.1/tcp",
        "--deny=*",
    ],
];

/// Addresses and ports are those of `programs/hostile/hostile.h`.
const FAR_ALLOWED: [&str; 2] = ["192.0.2.10:7000", "192.0.2.10:7001"];
const FAR_DENIED: [&str; 2] = ["192.0.2.11:7100", "[2001:db8::10]:7100"];
const HOST_DENIED: &str = "127.0.0.1:7100";

/// How long an attack may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(40);

/// A [`World`] with forbidden servers, an allowed one, and the hostile programs.
pub(crate) struct Range {
    pub(crate) world: World,
    pub(crate) allowed: Tally,
    pub(crate) denied: Tally,
}

impl Range {
    pub(crate) fn new() -> Self {
        Self::of(World::new())
    }

    /// For a test that mostly waits.
    pub(crate) fn of_waiting() -> Self {
        Self::of(World::of_waiting())
    }

    fn of(world: World) -> Self {
        let (allowed, denied) = (Tally::default(), Tally::default());
        for address in FAR_ALLOWED {
            allowed.add(
                world.far.inside(|| TcpListener::bind(address)).expect("the world is the test's own"),
                TcpListener::set_nonblocking,
                |l| l.accept().map(drop),
            );
        }
        let far = FAR_DENIED.into_iter().map(|address| (&world.far, address));
        for (place, address) in far.chain([(&world.host, HOST_DENIED)]) {
            denied.add(
                place.inside(|| TcpListener::bind(address)).expect("the world is the test's own"),
                TcpListener::set_nonblocking,
                |l| l.accept().map(drop),
            );
            denied.add(
                place.inside(|| UdpSocket::bind(address)).expect("the world is the test's own"),
                UdpSocket::set_nonblocking,
                |s| s.recv(&mut [0; 64]).map(drop),
            );
        }
        Self { world, allowed, denied }
    }

    /// Those that say something over the link under test. What has none is tried over slirp only.
    pub(crate) fn compositions(&self) -> &'static [&'static [&'static str]] {
        &COMPOSITIONS[usize::from(self.world.link() != TestLink::Slirp)..]
    }

    fn words(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let mut words = vec![self.world.compile(&format!("hostile/{program}.c"))];
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        words
    }

    pub(crate) fn guest(&self, options: &[&str], program: &str, arguments: &[&str]) -> Launch<'_> {
        let words = self.words(program, arguments);
        self.world.netshunt_with(options.iter().copied()).command(words).timeout(PATIENCE)
    }

    /// The control: no netshunt.
    pub(crate) fn native(&self, program: &str, arguments: &[&str]) -> Launch<'_> {
        // The shell takes the supervisor's place as parent, and is of the same user.
        let mut words: Vec<String> = ["sh", "-c", "\"$0\" \"$@\"; :"].map(str::to_owned).to_vec();
        words.extend(self.words(program, arguments));
        self.world.native().command(words).timeout(PATIENCE)
    }

    pub(crate) fn reached(&self) -> usize {
        self.denied.heard()
    }

    /// Runs an attack under netshunt; the servers must hear nothing and the program win nothing.
    #[track_caller]
    pub(crate) fn repelled(&self, options: &[&str], program: &str, arguments: &[&str]) -> Run {
        let before = self.reached();
        let run = self.guest(options, program, arguments).run();
        let reached = self.reached() - before;
        let (tries, overlaps) = (number(&run, "tries="), number(&run, "overlaps="));
        println!(
            "{} {program} {arguments:?}: tries {tries}, overlaps {overlaps}, reached {reached}",
            options[0]
        );
        assert_eq!(reached, 0, "{}", run.describe());
        assert!(!run.stdout().contains("OPEN: "), "{}", run.describe());
        assert!(tries > 0, "it tried nothing\n{}", run.describe());
        run
    }

    /// Runs the control; what it won, counted by the servers or said by the program.
    #[track_caller]
    pub(crate) fn control(&self, program: &str, arguments: &[&str]) -> usize {
        let before = self.reached();
        let run = self.native(program, arguments).run();
        // The kernel goes on with what was closed: it must not count as an attack's.
        eventually("the control's connections have come", || self.is_quiet());
        let won = self.reached() - before + run.stdout().matches("OPEN: ").count();
        println!("native {program} {arguments:?}: tries {}, won {won}", number(&run, "tries="));
        won
    }

    /// Whether no connection to a forbidden server is about to begin (proc_net(5)), and no datagram for one waits
    /// until it is known where that is (ip-neighbour(8)).
    fn is_quiet(&self) -> bool {
        let server = format!(":{:04X}", 7100);
        // TCP_SYN_SENT and TCP_SYN_RECV of include/net/tcp_states.h.
        let is_past = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().take(4).collect();
            let [_, local, remote, state] = words[..] else { return false };
            !(local.ends_with(&server) || remote.ends_with(&server)) || !matches!(state, "02" | "03")
        };
        let table = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        let tables = || ["tcp", "tcp6"].map(|name| table(name).expect("/proc is mounted"));
        let places = [&self.world.host, &self.world.far];
        let waiting = places.iter().map(|place| {
            let words = ["neigh", "show", "nud", "incomplete"];
            let listed = place.inside(|| Command::new("ip").args(words).output()).expect("iproute2 has ip");
            String::from_utf8_lossy(&listed.stdout).into_owned()
        });
        let is_server = |line: &str| {
            FAR_DENIED.iter().any(|server| {
                let server: std::net::SocketAddr = server.parse().expect("a constant");
                line.split(' ').next() == Some(server.ip().to_string().as_str())
            })
        };
        let mut lists = places.iter().flat_map(|place| place.inside(tables));
        lists.all(|table| table.lines().skip(1).all(is_past))
            && waiting.into_iter().all(|list| !list.lines().any(is_server))
    }
}

/// What some servers have heard. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<Vec<Server>>>);

struct Server {
    heard: usize,
    /// Takes one connection or datagram that waits.
    take: Box<dyn FnMut() -> io::Result<()> + Send>,
}

impl Tally {
    /// Adds a server, which answers by itself until the test's process ends.
    pub(crate) fn add<S: AsFd + Send + Sync + 'static>(
        &self,
        socket: S,
        set_nonblocking: fn(&S, bool) -> io::Result<()>,
        take: fn(&S) -> io::Result<()>,
    ) {
        set_nonblocking(&socket, true).expect("the world is the test's own");
        let socket = Arc::new(socket);
        let ours = Arc::clone(&socket);
        let server = Server { heard: 0, take: Box::new(move || take(&ours)) };
        self.0.lock().expect("nothing panics while it is held").push(server);
        let tally = self.clone();
        // Guests that block must be let in; what counts is `heard`, which does not rely on this.
        thread::spawn(move || {
            loop {
                let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::NONE);
                tally.heard();
            }
        });
    }

    /// All that has come, also what still waits to be taken: nothing is missed by asking early.
    pub(crate) fn heard(&self) -> usize {
        let mut servers = self.0.lock().expect("nothing panics while it is held");
        for server in servers.iter_mut() {
            while (server.take)().is_ok() {
                server.heard += 1;
            }
        }
        servers.iter().map(|server| server.heard).sum()
    }
}

/// The number after `key` in what a program printed last.
pub(crate) fn number(run: &Run, key: &str) -> u64 {
    let stdout = run.stdout();
    let Some((_, rest)) = stdout.rsplit_once(key) else { return 0 };
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse().unwrap_or(0)
}
