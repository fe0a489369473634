//! A world with servers of every kind, and a netshunt in it whose guest talks to all of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use netshunt_tests::{FAR4, HOST4, Running, TestLink, Trap, World, eventually, listens, until};

use crate::injector::{Fault, Injector, most_by_a_thread};

pub(crate) const STACK: u16 = 7001;
const BYPASS: u16 = 9001;
const DENIED: u16 = 7777;
const UDP: u16 = 7100;
const UDP_BYPASS: u16 = 9100;
const SERVED: u16 = 8000;
const PUBLISHED: u16 = 8080;

/// The guest gives its own calls twenty seconds.
const PATIENCE: Duration = Duration::from_secs(40);

/// What came of each task of a turn.
pub(crate) type Turn = BTreeMap<String, String>;

/// Errors that a kernel under pressure gives natively, or that a connection ends with whose far side has failed.
const EXCUSABLE: &[&str] = &[
    "ENOMEM",
    "ENOBUFS",
    "EMFILE",
    "ENFILE",
    "EAGAIN",
    "EINTR",
    "ECONNRESET",
    "ECONNREFUSED",
    "ECONNABORTED",
    // What libslirp says when it can make no socket.
    "ENETUNREACH",
    // What getpeername(2) says of a connection that has been reset.
    "ENOTCONN",
    "ETIMEDOUT",
    "EPIPE",
    NOTHING,
];

/// libslirp closes in order what the guest has reset, where it had read all that there was: a client outside whose
/// connection was never accepted may hear nothing else.
const NOTHING: &str = "nothing from libslirp";

pub(crate) fn is_excusable(came: &str) -> bool {
    EXCUSABLE.contains(&came)
}

pub(crate) struct Scene {
    world: World,
    program: String,
    private: PathBuf,
    outside: PathBuf,
    trap: Trap,
    datagrams: UdpSocket,
    local: UnixListener,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let world = World::new();
        world.echo(&[STACK, BYPASS]);
        world.datagram_echo(UDP);
        world.datagram_echo(UDP_BYPASS);
        world.dnsmasq(&world.far, &FAR4.to_string());
        let denied = SocketAddr::from((FAR4, DENIED));
        let trap = world.far.trap(&denied.to_string());
        let datagrams = world.far.inside(|| UdpSocket::bind(denied)).expect("nobody else's");
        datagrams.set_nonblocking(true).expect("a socket");
        let everybody = |path: &PathBuf| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("a folder of ours");
        };
        let private = world.folder().join("private");
        fs::create_dir(&private).expect("a folder of ours");
        everybody(&private);
        let outside = world.folder().join("outside.sock");
        let local = UnixListener::bind(&outside).expect("a folder of ours");
        local.set_nonblocking(true).expect("a socket");
        everybody(&outside);
        let program = world.program("faults.py");
        Scene { world, program, private, outside, trap, datagrams, local }
    }

    pub(crate) fn link(&self) -> TestLink {
        self.world.link()
    }

    /// Starts netshunt and its guest.
    pub(crate) fn start(&self) -> Served<'_> {
        let private = self.private.display().to_string();
        let options = [
            "--net=link,host-bypass".to_owned(),
            format!("--bypass={FAR4}:{BYPASS}/tcp"),
            format!("--bypass={FAR4}:{UDP_BYPASS}/udp"),
            format!("--deny={FAR4}:{DENIED}"),
            format!("--unix={private}"),
            format!("--publish={PUBLISHED}:{SERVED}"),
        ];
        let mut words = vec!["python3".to_owned(), self.program.clone(), FAR4.to_string()];
        words.extend([STACK, BYPASS, DENIED, UDP, UDP_BYPASS, SERVED].map(|port| port.to_string()));
        words.extend([private.clone(), self.outside.display().to_string()]);
        let launch = self.world.netshunt_with(options).resolver(&FAR4.to_string());
        let launch = launch.env("TMPDIR", &private).env("XDG_RUNTIME_DIR", &private);
        let launch = launch.env("XDG_CACHE_HOME", &private).timeout(Duration::from_secs(600));
        let mut running = launch.command(words).stdin_pipe().start();
        running.prints("ready\n");
        let supervisor = supervisor(running.pid());
        Served { scene: self, running, supervisor, turns: 0, heard: 0 }
    }

    /// The same, and has done everything once: threads are there.
    pub(crate) fn start_warm(&self) -> Served<'_> {
        let mut served = self.start();
        let first = served.turn().expect("nothing is injected");
        assert!(first.values().all(|came| came == "ok"), "{first:#?}");
        served
    }

    /// Nothing that is denied was reached.
    pub(crate) fn assert_unreached(&self) {
        assert_eq!(self.trap.caught(), 0, "the denied port");
        assert!(self.datagrams.recv(&mut [0]).is_err(), "the denied port of UDP");
        assert!(self.local.accept().is_err(), "the denied socket file");
    }
}

/// The front's only child.
pub(crate) fn supervisor(front: i32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{front}/task/{front}/children")).unwrap_or_default();
    children.trim().parse().unwrap_or_else(|_| panic!("children of the front: {children:?}"))
}

/// A netshunt with its guest.
pub(crate) struct Served<'s> {
    scene: &'s Scene,
    running: Running<'s>,
    supervisor: i32,
    turns: usize,
    /// How much of what netshunt says.
    heard: usize,
}

impl Served<'_> {
    /// Has the guest do everything once; `None` if it came to an end.
    pub(crate) fn turn(&mut self) -> Option<Turn> {
        self.turns += 1;
        let seed = self.turns;
        self.running.write(format!("{seed}\n").as_bytes()).ok()?;
        let client = thread::scope(|scope| {
            let client =
                scope.spawn(|| self.scene.world.far.inside(|| from_outside(seed, self.scene.link())));
            client.join().expect("it panics at nothing")
        });
        let line = |text: &str| {
            // The last one may not be written to its end.
            let whole =
                text.split_inclusive('\n').filter(|line| line.starts_with('{') && line.ends_with('\n'));
            whole.map(str::to_owned).nth(seed - 1)
        };
        let mut found = None;
        until(PATIENCE, || {
            found = line(&self.running.stdout());
            found.is_some() || !self.is_alive()
        });
        let mut turn: Turn = serde_json::from_str(&found?).expect("one object a turn");
        turn.insert("from outside".to_owned(), client);
        Some(turn)
    }

    /// The same while a call of the supervisor's fails; the lines of strace's that say so.
    pub(crate) fn turn_with(&mut self, fault: &Fault) -> (Option<Turn>, Vec<String>) {
        let injector = Injector::attach(self.supervisor, self.scene.world.folder(), Some(fault));
        let turn = self.turn();
        let injected = injector.detach();
        let injected = injected.lines().filter(|line| line.contains("(INJECTED)"));
        (turn, injected.map(str::to_owned).collect())
    }

    /// Which calls the supervisor makes in a turn, and how often the busiest thread does.
    pub(crate) fn calls_made(&mut self) -> BTreeMap<String, usize> {
        let injector = Injector::attach(self.supervisor, self.scene.world.folder(), None);
        let turn = self.turn().expect("nothing is injected");
        let log = injector.detach();
        assert!(turn.values().all(|came| came == "ok"), "{turn:#?}");
        most_by_a_thread(&log)
    }

    pub(crate) fn is_alive(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.supervisor))
            .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.starts_with(" Z")))
    }

    /// Those since the last time.
    pub(crate) fn panics(&mut self) -> Vec<String> {
        let said = self.running.stderr();
        let new = said.get(self.heard..).unwrap_or_default().to_owned();
        self.heard = said.len();
        new.lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect()
    }

    /// The end of what netshunt and its guest have said.
    pub(crate) fn last_words(&self) -> String {
        let said = self.running.stderr();
        let lines: Vec<&str> = said.lines().filter(|line| !line.contains("warning: denied")).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Lets the guest end, and netshunt with it. Nothing is left of either.
    pub(crate) fn finish(mut self) {
        self.running.close_stdin();
        let ended = until(PATIENCE, || !self.is_alive());
        assert!(ended, "netshunt does not end\n{}", self.last_words());
        let run = self.running.wait();
        run.assert_success();
        let nothing_lives = until(PATIENCE, || run.survivors().is_empty());
        assert!(nothing_lives, "{:#?}\n{}", run.survivors(), run.describe());
        let left: Vec<_> = fs::read_dir(&self.scene.private).expect("ours").flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    pub(crate) fn kill(mut self) {
        self.running.kill();
        // What it had published is free again only then.
        eventually("the supervisor ends with its front", || !self.is_alive());
        let free = || self.scene.world.host.inside(|| !listens(PUBLISHED));
        eventually("its link does, too", free);
        for left in fs::read_dir(&self.scene.private).expect("ours").flatten() {
            let _ = fs::remove_file(left.path());
        }
    }
}

/// Connects from the far side to the guest's server, which sends back what it gets.
fn from_outside(seed: usize, link: TestLink) -> String {
    let block: Vec<u8> = (0..100_000_usize).map(|n| ((n * n + seed * 7919) >> 3) as u8).collect();
    let talk = || -> std::io::Result<Vec<u8>> {
        let patience = Duration::from_secs(20);
        let address = SocketAddr::from((HOST4, PUBLISHED));
        let mut peer = TcpStream::connect_timeout(&address, patience)?;
        peer.set_read_timeout(Some(patience))?;
        peer.set_write_timeout(Some(patience))?;
        let mut got = Vec::new();
        let mut writer = peer.try_clone()?;
        thread::scope(|scope| {
            let sent = scope.spawn(|| {
                writer.write_all(&block)?;
                writer.shutdown(Shutdown::Write)
            });
            let read = peer.read_to_end(&mut got).map(drop);
            sent.join().expect("it panics at nothing").and(read)
        })?;
        Ok(got)
    };
    match talk() {
        Ok(got) if got == block => "ok".to_owned(),
        Ok(got) if got.is_empty() && link == TestLink::Slirp => NOTHING.to_owned(),
        Ok(got) if got.len() < block.len() && block.starts_with(&got) => {
            format!("WRONG the end in order after {} of {}", got.len(), block.len())
        }
        Ok(got) => format!("WRONG {} bytes that were not sent", got.len()),
        Err(error) => match error.raw_os_error().map(nix::errno::Errno::from_raw) {
            Some(nix::errno::Errno::EAGAIN) => "HANG from outside".to_owned(),
            Some(errno) => format!("{errno:?}"),
            None => "ETIMEDOUT".to_owned(),
        },
    }
}
