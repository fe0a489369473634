//! A hostile guest: whatever system call it makes, as root or not, no forbidden server hears of it.
//!
//! The servers count, in the test's own process: accepted connections and received datagrams. Where
//! no server can see what was won (a pinned page, a listening port), the program says `OPEN: …`.
//! Every attack has a control: the same program without netshunt, which *must* succeed where this
//! kernel and user allow it, or the attack proves nothing.
//!
//! `NETSHUNT_HOSTILE_SECONDS` (default 20) is shared by the races; `cargo xtask test --nightly` makes
//! the first of them write an address 10 million times and connect 200,000 times.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use netshunt_tests::{DEADLINE, Launch, Run, World, eventually, is_nightly, until};
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
struct Range {
    world: World,
    allowed: Tally,
    denied: Tally,
}

impl Range {
    fn new() -> Self {
        let world = World::new();
        let (allowed, denied) = (Tally::default(), Tally::default());
        for address in FAR_ALLOWED {
            allowed.add(
                world.far.inside(|| TcpListener::bind(address)).expect("the world is the test's own"),
                TcpListener::set_nonblocking,
                |l| l.accept().map(drop),
            );
        }
        for address in FAR_DENIED {
            denied.add(
                world.far.inside(|| TcpListener::bind(address)).expect("the world is the test's own"),
                TcpListener::set_nonblocking,
                |l| l.accept().map(drop),
            );
            denied.add(
                world.far.inside(|| UdpSocket::bind(address)).expect("the world is the test's own"),
                UdpSocket::set_nonblocking,
                |s| s.recv(&mut [0; 64]).map(drop),
            );
        }
        denied.add(
            world.host.inside(|| TcpListener::bind(HOST_DENIED)).expect("the world is the test's own"),
            TcpListener::set_nonblocking,
            |l| l.accept().map(drop),
        );
        denied.add(
            world.host.inside(|| UdpSocket::bind(HOST_DENIED)).expect("the world is the test's own"),
            UdpSocket::set_nonblocking,
            |s| s.recv(&mut [0; 64]).map(drop),
        );
        Self { world, allowed, denied }
    }

    fn words(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let mut words = vec![self.world.compile(&format!("hostile/{program}.c"))];
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        words
    }

    fn guest(&self, options: &[&str], program: &str, arguments: &[&str]) -> Launch<'_> {
        let words = self.words(program, arguments);
        self.world.netshunt_with(options.iter().copied()).command(words).timeout(PATIENCE)
    }

    /// The control: no netshunt.
    fn native(&self, program: &str, arguments: &[&str]) -> Launch<'_> {
        // The shell takes the supervisor's place as parent, and is of the same user.
        let mut words: Vec<String> = ["sh", "-c", "\"$0\" \"$@\"; :"].map(str::to_owned).to_vec();
        words.extend(self.words(program, arguments));
        self.world.native().command(words).timeout(PATIENCE)
    }

    fn reached(&self) -> usize {
        self.denied.heard()
    }

    /// Runs an attack under netshunt; the servers must hear nothing and the program win nothing.
    #[track_caller]
    fn repelled(&self, options: &[&str], program: &str, arguments: &[&str]) -> Run {
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
    fn control(&self, program: &str, arguments: &[&str]) -> usize {
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
struct Tally(Arc<Mutex<Vec<Server>>>);

struct Server {
    heard: usize,
    /// Takes one connection or datagram that waits.
    take: Box<dyn FnMut() -> io::Result<()> + Send>,
}

impl Tally {
    /// Adds a server, which answers by itself until the test's process ends.
    fn add<S: AsFd + Send + Sync + 'static>(
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
    fn heard(&self) -> usize {
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
fn number(run: &Run, key: &str) -> u64 {
    let stdout = run.stdout();
    let Some((_, rest)) = stdout.rsplit_once(key) else { return 0 };
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse().unwrap_or(0)
}

/// Who can do it without netshunt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Natively {
    Anybody,
    /// Refused by this kernel, or not meant to reach anything by itself.
    Nobody,
    Root,
}

use Natively::{Anybody, Nobody, Root};

/// Runs one attack over every composition, after its control.
#[track_caller]
fn attack(program: &str, arguments: &[&str], natively: Natively) {
    let range = Range::new();
    let won = range.control(program, arguments);
    let expected = natively == Anybody || natively == Root && range.world.user().is_root();
    assert!(won > 0 || !expected, "the control reached nothing: the attack proves nothing");
    for options in COMPOSITIONS {
        range.repelled(options, program, arguments);
    }
}

macro_rules! attacks {
    ($($test:ident: $program:literal $name:literal $natively:ident;)+) => {
        $(#[test] fn $test() { attack($program, &[$name], $natively); })+
    };
}

attacks! {
    connect_in_every_spelling: "calls" "plain" Anybody;
    bpf_programs: "calls" "bpf" Root;
    fast_open_by_three_calls: "calls" "fast_open" Anybody;
    fast_open_by_option: "calls" "fast_open_connect" Anybody;
    garbage_in_the_high_halves: "calls" "high_halves" Anybody;
    io_uring: "calls" "io_uring" Anybody;
    listen_binds_by_itself: "calls" "auto_bind" Anybody;
    calls_of_32_bits: "calls" "int80" Anybody;
    options_that_redirect: "calls" "options" Anybody;
    other_protocols: "calls" "other_protocols" Anybody;
    raw_and_packet_sockets: "calls" "raw_and_packet" Root;
    dissolved_and_connected_again: "calls" "unspec" Anybody;
    x32: "calls" "x32" Nobody;

    sockets_carried_into_a_namespace: "nest" "carried" Anybody;
    sockets_carried_into_a_nested_namespace: "nest" "carried_twice" Anybody;
    a_family_without_namespaces: "nest" "family" Anybody;
    an_option_that_holds_an_address: "nest" "pointer_option" Nobody;
    setns: "nest" "set_namespace" Nobody;
    a_thread_in_another_namespace: "nest" "thread_enters" Anybody;

    bound_and_then_connected: "serve" "bound" Anybody;
    listening_while_others_meddle: "serve" "states" Anybody;
    a_listener_swapped_during_accept: "serve" "swapped_accept" Nobody;

    a_crowd_of_servers_killed_while_connections_come: "processes" "storm" Nobody;
    connects_that_wait_for_the_dead: "processes" "abandoned" Nobody;
    a_table_of_descriptors_shared_by_processes: "processes" "shared_table" Anybody;
    descriptors_taken_from_another_guest: "processes" "taken" Anybody;
    interfaces_of_the_host: "processes" "interfaces" Root;
    the_private_place_of_a_listener: "processes" "place" Anybody;
    typing_into_a_terminal: "processes" "terminal" Nobody;

    memory_of_the_supervisor: "supervisor" "memory" Anybody;
    descriptors_of_the_supervisor: "supervisor" "descriptors" Anybody;

    clones: "threads" "clones" Anybody;
    a_thread_with_its_own_descriptors: "threads" "descriptor_table" Anybody;
    a_process_without_its_leader: "threads" "leader_gone" Anybody;
    a_listener_of_its_own: "threads" "own_listener" Anybody;
    a_tracer_that_changes_the_call: "threads" "traced_entry" Anybody;
    filters_of_its_own: "threads" "own_filters" Anybody;
    processes_in_nested_namespaces: "threads" "nested_pids" Anybody;
    a_tracer_behind_a_filter: "threads" "traced_filter" Anybody;
    a_process_that_is_not_dumpable: "threads" "undumpable" Anybody;
    a_program_that_is_not_readable: "threads" "unreadable" Anybody;
}

/// A local process that is no guest connects to where a listener waits for the supervisor.
#[test]
fn strangers_at_the_private_place_of_a_listener() {
    let range = Range::new();
    let mut run = range.guest(&["--net=link"], "processes", &["besieged"]).start();
    run.prints("ready");
    // Nor of the same user, who may share a port (SO_REUSEPORT).
    let other = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "--"];
    let stranger = range.native("processes", &["knock"]).as_root().wrapper(other).run();
    let run = run.wait();
    assert!(number(&stranger, "knocked=") > 0, "it found no place\n{}", stranger.describe());
    assert!(!stranger.stdout().contains("shared a place"), "{}", stranger.describe());
    assert!(!run.stdout().contains("OPEN: "), "{}", run.describe());
    assert!(number(&run, "tries=") > 0, "it served nobody\n{}", run.describe());
}

/// Without the control: it would end the test.
#[test]
fn signals_to_the_supervisor() {
    let range = Range::new();
    for options in COMPOSITIONS {
        range.repelled(options, "supervisor", &["signals"]).assert_success();
    }
}

/// Without the control: it would starve the test.
#[test]
fn a_starved_supervisor_opens_nothing_and_recovers() {
    let range = Range::new();
    for options in COMPOSITIONS {
        range.repelled(options, "supervisor", &["starve"]).assert_success();
    }
}

/// The host's addresses are not only those that it had when the guest started: a wide rule names none of
/// its own, whenever they came.
#[test]
fn an_address_that_the_host_got_later() {
    let range = Range::new();
    let host = &range.world.host;
    let server = host.inside(|| TcpListener::bind("0.0.0.0:7102")).unwrap();
    range.denied.add(server, TcpListener::set_nonblocking, |l| l.accept().map(drop));
    let launch = range.guest(&["--net=host-bypass", "--bypass=*"], "calls", &["late_address"]).stdin_pipe();
    let mut run = launch.start();
    run.prints("ready");
    for change in ["address add 192.0.2.77/24 dev near", "route add local 198.18.0.0/15 dev lo"] {
        let status = host.inside(|| Command::new("ip").args(change.split(' ')).status()).unwrap();
        assert!(status.success(), "ip {change}");
    }
    run.write(b"x").unwrap();
    let run = run.wait();
    assert_eq!(range.reached(), 0, "{}", run.describe());
}

/// Datagrams: one server is open, through the stack and past it.
mod datagrams {
    use super::*;

    const COMPOSITIONS: &[&[&str]] = &[
        &["--net=link", "--allow=192.0.2.10:7001/udp", "--deny=*"],
        &["--net=link,host-bypass", "--bypass=192.0.2.10:7001/udp", "--deny=*"],
    ];

    #[track_caller]
    fn attack(name: &str, races: bool) {
        let range = Range::new();
        assert!(range.control("datagrams", &[name]) > 0, "the control reached nothing");
        let open = range.world.far.inside(|| UdpSocket::bind("192.0.2.10:7001"));
        let open = open.expect("the world is the test's own");
        range.allowed.add(open, UdpSocket::set_nonblocking, |s| s.recv(&mut [0; 64]).map(drop));
        for options in COMPOSITIONS {
            let run = range.repelled(options, "datagrams", &[name]);
            assert!(number(&run, "overlaps=") > 0 || !races, "{}", run.describe());
            eventually("what is open is reached", || range.allowed.heard() > 0);
        }
    }

    /// The guest's end by itself reaches nobody, and nobody reaches it.
    #[test]
    fn an_end_by_itself() {
        attack("alone", false);
    }

    /// Who fills a socket as fast as we empty it keeps nobody else waiting.
    #[test]
    fn a_socket_that_is_never_empty() {
        let range = Range::new();
        range.repelled(&["--net=link"], "datagrams", &["flood"]).assert_success();
    }

    /// Some thousand sockets and calls that wait cost us little, and nothing once they are gone.
    #[test]
    fn a_crowd_of_sockets_leaves_nothing_behind() {
        let range = Range::new();
        let mut run = range.guest(&["--net=link"], "datagrams", &["crowd"]).stdin_pipe().start();
        run.prints("before");
        let supervisor = run.pid();
        let before = Costs::of(supervisor);
        run.write(b"x").unwrap();
        run.prints("all of them");
        eventually("its calls wait", || Costs::of(supervisor).descriptors > before.descriptors + 3230);
        let during = Costs::of(supervisor);
        assert!(during.peak < before.peak + (64 << 10), "{before:?}, then {during:?}");
        run.write(b"x").unwrap();
        run.prints("gone");
        // The threads that called last stay known, 32 of them.
        eventually("all is given back", || Costs::of(supervisor).descriptors <= before.descriptors + 40);
        run.write(b"x").unwrap();
        run.wait().assert_success();
    }

    /// What the processes of a netshunt have: the largest of each.
    #[derive(Debug)]
    struct Costs {
        descriptors: usize,
        /// KiB.
        peak: u64,
    }

    impl Costs {
        fn of(front: i32) -> Self {
            let children = format!("/proc/{front}/task/{front}/children");
            let children = std::fs::read_to_string(children).unwrap_or_default();
            let ours = children.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([front]);
            let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let netshunt = name(&front);
            let each = ours.filter(|pid| name(pid) == netshunt).map(|pid| {
                let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
                (descriptors, peak.trim_end_matches("kB").trim().parse().unwrap_or(0))
            });
            let (descriptors, peak) = each.fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)));
            Costs { descriptors, peak }
        }
    }

    #[test]
    fn to_denied_servers_by_every_call() {
        attack("calls", false);
    }

    /// Interfaces, sources, source routes, groups.
    #[test]
    fn by_ways_of_the_guests_own() {
        attack("ways", false);
    }

    #[test]
    fn received_to_where_nobody_may_write() {
        let range = Range::new();
        let open = range.world.far.inside(|| UdpSocket::bind("192.0.2.10:7001"));
        let open = open.expect("the world is the test's own");
        range.allowed.add(open, UdpSocket::set_nonblocking, |s| s.recv(&mut [0; 64]).map(drop));
        let run = range.repelled(&["--net=link", "--deny=192.0.2.11"], "datagrams", &["pointers"]);
        run.assert_success();
        assert!(until(DEADLINE, || range.allowed.heard() > 0), "it serves no more\n{}", run.describe());
    }

    #[test]
    fn with_the_address_swapped_in_memory() {
        attack("swapped", true);
    }

    #[test]
    fn with_another_socket_put_in_the_place() {
        attack("exchanged", true);
    }
}

mod races {
    use super::*;

    const MODES: [&str; 6] = ["address", "bind", "connect", "listen", "sendmsg", "setsockopt"];

    fn seconds() -> f64 {
        let total = std::env::var("NETSHUNT_HOSTILE_SECONDS").ok().and_then(|s| s.parse().ok());
        total.unwrap_or(20.0) / (MODES.len() * COMPOSITIONS.len()) as f64
    }

    /// One thread calls, another changes what the call is about.
    #[test]
    fn address_and_descriptor_swapped_during_calls() {
        let range = Range::new();
        let (writes, connects) = if is_nightly() { ("10000000", "200000") } else { ("0", "0") };
        for options in COMPOSITIONS {
            for mode in MODES {
                let least = if mode == "address" { (writes, connects) } else { ("0", "0") };
                let before = range.allowed.heard();
                let (denied, time) = (range.reached(), seconds().to_string());
                let launch = range.guest(options, "race", &[mode, &time, least.0, least.1]);
                let run = launch.timeout(Duration::from_secs(if is_nightly() { 3600 } else { 120 })).run();
                let (tries, changes, overlaps) =
                    (number(&run, "tries="), number(&run, "changes="), number(&run, "overlaps="));
                let reached = range.reached() - denied;
                let allowed = range.allowed.heard() - before;
                println!(
                    "{} {mode}: tries {tries}, changes {changes}, overlaps {overlaps}, verdicts {} granted {} \
                     refused, allowed server {allowed}, reached {reached}",
                    options[0],
                    number(&run, "granted="),
                    number(&run, "refused="),
                );
                assert_eq!(reached, 0, "{}", run.describe());
                assert!(!run.stdout().contains("OPEN: "), "{}", run.describe());
                assert!(overlaps > 0 && tries > 0, "no overlap: it proves nothing\n{}", run.describe());
                if mode == "address" {
                    // Both values were judged: else nothing was swapped at the right time.
                    let both = number(&run, "granted=") > 0 && number(&run, "refused=") > 0;
                    assert!(both && allowed > 0, "{}", run.describe());
                }
            }
        }
    }

    /// The same race where nothing forbids it. On a busy machine a second may pass without an overlap.
    #[test]
    fn without_the_check_the_race_reaches_the_server() {
        const RACE: [&str; 4] = ["address", "1", "0", "0"];
        let range = Range::new();
        assert!((0..10).any(|_| range.control("race", &RACE) > 0), "natively");
        let before = range.reached();
        let open = ["--net=host-bypass", "--bypass=192.0.2.0/24:7000-7100/tcp"];
        let reaches = |_| {
            range.guest(&open, "race", &RACE).run().assert_success();
            range.reached() > before
        };
        assert!((0..10).any(reaches), "with a rule that names it");
    }
}

mod local {
    use super::*;

    /// Services outside: by path name, refused and allowed, and by abstract name.
    struct Services {
        range: Range,
        folder: String,
        name: String,
    }

    impl Services {
        /// The folder is the guest's user's: the worst case, a service of the same user.
        fn new() -> Self {
            let range = Range::new();
            let folder = range.world.folder().join("services");
            std::fs::create_dir_all(folder.join("datagram")).expect("the world is the test's own");
            // In the host's namespace: elsewhere they would be refused for that, whatever they are called.
            let host = &range.world.host;
            for (file, counter) in [("docker.sock", &range.denied), ("plain.sock", &range.allowed)] {
                let (stream, datagram) = (folder.join(file), folder.join("datagram").join(file));
                accept(
                    host.inside(|| UnixListener::bind(stream)).expect("the world is the test's own"),
                    counter,
                );
                receive(
                    host.inside(|| UnixDatagram::bind(datagram)).expect("the world is the test's own"),
                    counter,
                );
            }
            let owner = if range.world.user().is_root() { None } else { Some(user_id()) };
            for file in
                ["", "docker.sock", "plain.sock", "datagram", "datagram/docker.sock", "datagram/plain.sock"]
            {
                let path = folder.join(file);
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))
                    .expect("the world is the test's own");
                std::os::unix::fs::chown(&path, owner, owner).expect("the world is the test's own");
            }
            let name =
                format!("netshunt-hostile-{}-{}", std::process::id(), folder.display()).replace('/', "-");
            Self { folder: folder.display().to_string(), range, name }
        }

        fn take_name(&self, name: &str) -> SocketAddr {
            SocketAddr::from_abstract_name(name).expect("the world is the test's own")
        }
    }

    fn user_id() -> u32 {
        let name = std::env::var("NETSHUNT_TEST_USER").expect("the world is the test's own");
        nix::unistd::User::from_name(&name)
            .expect("the world is the test's own")
            .expect("the world is the test's own")
            .uid
            .as_raw()
    }

    fn accept(listener: UnixListener, tally: &Tally) {
        tally.add(listener, UnixListener::set_nonblocking, |l| l.accept().map(drop));
    }

    fn receive(socket: UnixDatagram, tally: &Tally) {
        tally.add(socket, UnixDatagram::set_nonblocking, |s| s.recv(&mut [0; 8]).map(drop));
    }

    /// The way to the socket `docker.sock`, which `--unix=default` refuses wherever it is.
    #[track_caller]
    fn attack(name: &str) {
        let services = Services::new();
        let arguments = [name, services.folder.as_str(), services.name.as_str()];
        assert!(services.range.control("local", &arguments) > 0, "the control reached nothing");
        services.range.repelled(COMPOSITIONS[0], "local", &arguments);
    }

    #[test]
    fn a_refused_service_by_all_its_names() {
        attack("names");
    }

    #[test]
    fn a_refused_service_by_a_hard_link() {
        attack("hard_link");
    }

    /// The supervisor resolves a guest's paths: by the guest's root, and as little by its own /proc/self.
    #[test]
    fn a_path_that_leads_out_of_the_guests_root() {
        let services = Services::new();
        let range = &services.range;
        let arguments = ["out_of_root", services.folder.as_str(), services.name.as_str()];
        assert_eq!(range.control("local", &arguments), 0, "natively it does not lead out");
        let before = range.allowed.heard();
        let run = range.repelled(COMPOSITIONS[0], "local", &arguments);
        assert_eq!(range.allowed.heard(), before, "{}", run.describe());
        assert!(run.stdout().contains("inside: 0"), "{}", run.describe());
    }

    #[test]
    fn a_refused_service_renamed() {
        attack("renamed");
    }

    #[test]
    fn a_refused_service_mounted_elsewhere() {
        attack("bind_mount");
    }

    #[test]
    fn a_path_swapped_in_memory() {
        attack("path_race");
    }

    #[test]
    fn a_path_swapped_in_the_file_system() {
        attack("link_race");
    }

    #[test]
    fn datagrams_to_a_refused_service() {
        attack("datagrams");
    }

    /// One thread sends, others change what about.
    #[track_caller]
    fn send_race(name: &str, both: bool) {
        let services = Services::new();
        let range = &services.range;
        let arguments = [name, services.folder.as_str(), services.name.as_str()];
        assert!(range.control("local", &arguments) > 0, "the control reached nothing");
        // The first datagram socket is a moment of its own, and comes once in each run.
        for _ in 0..if both { 1 } else { 8 } {
            let before = range.allowed.heard();
            let run = range.repelled(COMPOSITIONS[0], "local", &arguments);
            run.assert_success();
            let count = |key| number(&run, key);
            assert!(count("changes=") > 0 && count("overlaps=") > 0, "it proves nothing\n{}", run.describe());
            if both {
                let judged = count("granted=") > 0 && count("refused=") > 0;
                assert!(judged && range.allowed.heard() > before, "{}", run.describe());
            }
        }
        // The check switched off.
        let before = range.reached();
        range.guest(&["--net=host-bypass", "--unix=allow"], "local", &arguments).run().assert_success();
        assert!(range.reached() > before, "with a policy that allows it");
    }

    #[test]
    fn a_datagrams_path_swapped_in_memory() {
        send_race("send_path_race", true);
    }

    #[test]
    fn a_datagrams_address_swapped_in_memory() {
        send_race("send_pointer_race", true);
    }

    #[test]
    fn a_datagram_socket_swapped_for_a_stream() {
        send_race("descriptor_race", false);
    }

    #[test]
    fn an_abstract_name_of_the_outside() {
        let services = Services::new();
        let (stream, datagram) =
            (services.take_name(&services.name), services.take_name(&format!("{}-datagram", services.name)));
        let range = &services.range;
        accept(range.world.host.inside(|| UnixListener::bind_addr(&stream)).unwrap(), &range.denied);
        receive(range.world.host.inside(|| UnixDatagram::bind_addr(&datagram)).unwrap(), &range.denied);
        let arguments = ["abstract_name", services.folder.as_str(), services.name.as_str()];
        assert!(range.control("local", &arguments) > 0, "the control reached nothing");
        range.repelled(COMPOSITIONS[0], "local", &arguments);
    }

    /// A name that a guest bound and gave up is not its own any more.
    #[test]
    fn an_abstract_name_that_was_the_guests_once() {
        let services = Services::new();
        let range = &services.range;
        let arguments = ["stale_abstract", services.folder.as_str(), services.name.as_str()];
        let mut run = range.guest(COMPOSITIONS[0], "local", &arguments).stdin_pipe().start();
        run.prints("given up");
        let name = services.take_name(&services.name);
        accept(range.world.host.inside(|| UnixListener::bind_addr(&name)).unwrap(), &range.denied);
        run.write(b"x").unwrap();
        let run = run.wait();
        assert_eq!(range.reached(), 0, "{}", run.describe());
    }
}

/// One guest makes the supervisor wait; its neighbour's calls must not.
mod stalls {
    use super::*;

    #[track_caller]
    fn attack(name: &str) {
        attack_over(name, COMPOSITIONS);
    }

    #[track_caller]
    fn attack_over(name: &str, compositions: &[&[&str]]) {
        let range = Range::new();
        // Where only root may open /dev/fuse, others get it in another way (fusermount3): this is ours.
        let fuse = range.world.folder().join("fuse").display().to_string();
        let made = Command::new("mknod").args(["-m", "666", &fuse, "c", "10", "229"]).status();
        assert!(made.is_ok_and(|status| status.success()), "root makes device nodes");
        for options in compositions {
            let before = range.allowed.heard();
            let run = range.guest(options, "stall", &[name, &fuse]).run();
            println!("{} {name}: {}", options[0], run.stdout().lines().last().unwrap_or_default());
            assert!(!run.stdout().contains("no FUSE here"), "{}", run.describe());
            assert!(!run.stdout().contains("it holds nothing"), "{}", run.describe());
            assert!(!run.stdout().contains("OPEN: "), "{}", run.describe());
            assert!(range.allowed.heard() > before, "the neighbour got nowhere\n{}", run.describe());
            // Calls that still wait at the end are nobody's fault.
            assert!(!run.stderr().contains("unanswered"), "{}", run.describe());
            assert_eq!(range.reached(), 0, "{}", run.describe());
        }
    }

    #[test]
    fn a_page_that_never_comes() {
        attack("page");
    }

    /// A send copies from the guest's page with the socket locked, and what we do to the socket waits for that.
    #[test]
    fn a_socket_locked_by_a_send() {
        attack("locked_option");
    }

    #[test]
    fn a_socket_locked_by_a_send_and_connected_again() {
        attack("locked_connect");
    }

    /// Past the stack, where we have forgotten it.
    #[test]
    fn a_bypassed_socket_locked_by_a_send() {
        attack("locked_past");
    }

    #[test]
    fn a_socket_locked_by_a_send_and_bound() {
        attack("locked_bind");
    }

    /// The queue of a datagram socket, and one process after another that wants something out of it.
    #[test]
    fn a_queue_locked_by_a_receive() {
        attack_over("locked_queue", &[&["--net=link", "--deny=192.0.2.11"]]);
    }

    #[test]
    fn a_datagram_in_a_page_that_never_comes() {
        attack_over(
            "datagram_page",
            &[&["--net=link,host-bypass", "--bypass=192.0.2.10:7000", "--deny=192.0.2.11"]],
        );
    }

    #[test]
    fn a_page_held_by_userfaultfd() {
        attack("uffd");
    }

    #[test]
    fn a_path_that_never_resolves() {
        attack("path");
    }

    #[test]
    fn flags_that_change_during_connect() {
        attack("flag");
    }

    #[test]
    fn more_waiting_calls_than_threads() {
        attack("crowd");
    }

    /// Past the stack each takes a thread of the supervisor's.
    #[test]
    fn hundreds_of_connects_that_wait() {
        attack("connects");
    }
}
