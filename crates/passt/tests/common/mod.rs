//! A real passt in a network of its own, and a guest made of frames at the other end.
//!
//! Each case runs in a process of its own, behind unshare(1): with its own network, its own
//! resolv.conf, and as the user it is about. `NETSHUNT_TEST_PASST` lists the programs, separated by colons.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::fmt;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use etherparse::{PacketBuilder, TcpHeader};
use netshunt_backend::{Link, PollFd, Sent, Settings, Turned};
use netshunt_passt::{Passt, PasstLink, probe};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub(crate) const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd6e, 0x7368, 0x756e, 0, 0, 0, 0, 0x15);

/// The host's addresses in [`BOTH`].
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);

/// Sets up a host without a route.
pub(crate) const BARE: &str = "
    ip link set lo up
    ip link add near type veth peer name far
    ip link set near up
    ip link set far up
    echo nameserver 127.0.0.53 >resolv.conf
    mount --bind resolv.conf /etc/resolv.conf";
/// A host with IPv4.
pub(crate) const V4: &str = "ip addr add 192.0.2.2/24 dev near; ip route add default via 192.0.2.1";
/// A host with IPv6.
pub(crate) const V6: &str = "ip addr add fd01::2/64 dev near nodad; ip -6 route add default via fd01::1";

/// What is tried: every combination in turn.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) program: PathBuf,
    pub(crate) mode: String,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.program.display(), self.mode)
    }
}

const PROGRAM: &str = "NETSHUNT_CASE_PROGRAM";
const MODE: &str = "NETSHUNT_CASE_MODE";

/// The programs to try.
pub(crate) fn programs() -> Vec<PathBuf> {
    let list = std::env::var_os("NETSHUNT_TEST_PASST").unwrap_or("passt".into());
    std::env::split_paths(&list)
        .map(|name| probe(Some(&name)).expect("a passt to test with").program)
        .collect()
}

/// Runs `test` over every passt, in every mode, and as root and as nobody where we are root, on hosts
/// set up by the parts of a shell script. `name` is that of the test that calls.
pub(crate) fn each(name: &str, setup: &[&str], test: impl Fn(&Case)) {
    if let Some(program) = std::env::var_os(PROGRAM) {
        return test(&Case { program: program.into(), mode: std::env::var(MODE).unwrap() });
    }
    let root = nix::unistd::geteuid().is_root();
    for program in programs() {
        let found = probe(Some(&program)).unwrap();
        let modes: &[&str] =
            if found.offers("--vhost-user") { &["stream", "vhost-user"] } else { &["stream"] };
        for mode in modes {
            for user in if root { &["root", "nobody"][..] } else { &["self"] } {
                println!("{name}: {} {} {mode} as {user}", program.display(), found.version);
                behind(name, &setup.join("\n"), user, &program, mode);
            }
        }
    }
}

/// Runs this test again, in namespaces of its own.
fn behind(name: &str, setup: &str, user: &str, program: &Path, mode: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    // The build folder may not be open to nobody. By a process of its own: with the copy open for writing here, a
    // child that another test forks just then has it too, and until that executes something, ours is "busy".
    let exe = std::env::current_exe().unwrap();
    let copied = Command::new("cp").arg(exe).arg(folder.path().join("test")).status();
    assert!(copied.unwrap().success());
    let (drop, program) = match user {
        "nobody" => (
            "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all",
            within_reach(program, folder.path()),
        ),
        _ => ("env", program.to_owned()),
    };
    let script = format!("set -e\n{setup}\nexec {drop} ./test --exact {name} --nocapture");
    let mut unshare = Command::new("unshare");
    unshare.args(if user == "self" { &["-Urnm"][..] } else { &["-nm"] });
    unshare.args(["sh", "-c", &script]).current_dir(folder.path()).stdin(Stdio::null());
    unshare.env(PROGRAM, &program).env(MODE, mode);
    let output = unshare.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {} {mode} as {user}: {text}", program.display());
    // A name that is wrong would run no test, and pass.
    assert!(text.contains("1 passed"), "{text}");
}

/// The program, or a copy of it with what lies beside it: the build folder may not be open to nobody.
fn within_reach(program: &Path, folder: &Path) -> PathBuf {
    let own = program.parent().unwrap();
    if own.starts_with("/usr") {
        return program.to_owned();
    }
    let copy = folder.join("passt");
    assert!(Command::new("cp").arg("-r").arg(own).arg(&copy).status().unwrap().success());
    copy.join(program.file_name().unwrap())
}

/// The backend of a case, with more of its table.
pub(crate) fn backend(case: &Case, mtu: Option<u16>, more: &str) -> Passt {
    let mut settings = settings(case, more);
    settings.mtu = mtu;
    Passt::new(&settings).unwrap()
}

/// The settings of a case, with more of its table.
pub(crate) fn settings(case: &Case, more: &str) -> Settings {
    let mut settings = Settings::default();
    let (program, mode) = (case.program.display(), &case.mode);
    settings.backends = format!("[passt]\nprogram = '{program}'\nmode = '{mode}'\n{more}").parse().unwrap();
    settings
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// An open link and its guest.
pub(crate) struct Wire {
    pub(crate) link: PasstLink,
    pub(crate) mac: [u8; 6],
    pub(crate) renewed: usize,
}

impl Wire {
    pub(crate) fn open(case: &Case) -> Wire {
        Wire::new(runtime().block_on(backend(case, None, "").link()).unwrap())
    }

    pub(crate) fn new(link: PasstLink) -> Wire {
        let mac = link.network().mac;
        Wire { link, mac, renewed: 0 }
    }

    /// Sends a frame in two pieces, as a stack with separate headers does.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        let (head, tail) = frame.split_at(frame.len() / 2);
        let end = Instant::now() + DEADLINE;
        while self.link.send(&[IoSlice::new(head), IoSlice::new(tail)]) == Sent::Busy {
            assert!(Instant::now() < end, "busy for {DEADLINE:?}: {:?}", self.link);
            self.turn();
        }
    }

    /// The frames that have arrived; if none, those of one turn, which waits up to 20 ms.
    pub(crate) fn turn(&mut self) -> Vec<Vec<u8>> {
        let frames = self.receive();
        if !frames.is_empty() {
            return frames;
        }
        let mut fds = Vec::new();
        let now = Instant::now();
        let wait = self.link.interests(now, &mut fds).map_or(DEADLINE, |due| due.duration_since(now));
        poll(&mut fds, wait.min(Duration::from_millis(20)));
        if self.link.turn(Instant::now(), &fds).unwrap() == Turned::Renewed {
            self.renewed += 1;
        }
        self.receive()
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        self.link.receive(&mut |frame| frames.push(frame.to_vec()));
        frames
    }

    /// Takes turns until `wanted` makes something of a frame.
    pub(crate) fn expect<T>(&mut self, what: &str, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            for frame in self.turn() {
                if let Some(found) = wanted(&frame) {
                    return found;
                }
            }
        }
        panic!("no {what} within {DEADLINE:?}; {:?}", self.link);
    }

    /// Takes turns until `done`.
    pub(crate) fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Some(result) = done(self) {
                return result;
            }
            self.turn();
        }
        panic!("no {what} within {DEADLINE:?}; {:?}", self.link);
    }

    /// Asks for the gateway's Ethernet address.
    pub(crate) fn arp(&mut self) -> [u8; 6] {
        let request = arp_request(self.mac, GUEST, GATEWAY);
        self.send(&request);
        self.expect("ARP reply", |frame| arp_reply(frame, GATEWAY))
    }
}

/// Waits for a condition.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

/// poll(2), counting a signal as no descriptor ready.
pub(crate) fn poll(fds: &mut [PollFd], wait: Duration) {
    let wait = i32::try_from(wait.as_millis()).unwrap();
    // SAFETY: `fds` is a whole slice of initialised pollfds, exclusively ours for the call.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, wait) };
    assert!(ready >= 0 || std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted);
}

/// The processes that live and have these words in a row in their command lines.
pub(crate) fn processes(words: &str) -> Vec<i32> {
    let words = words.replace(' ', "\0") + "\0";
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        // A zombie's is empty.
        .filter(|pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&words)
        })
        .collect()
}

/// RFC 826: who has `target`? Tell `from`.
pub(crate) fn arp_request(mac: [u8; 6], from: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac].concat();
    frame.extend(from.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// The Ethernet address of `of`, if the frame is an ARP reply that tells it.
pub(crate) fn arp_reply(frame: &[u8], of: Ipv4Addr) -> Option<[u8; 6]> {
    let arp = frame.get(14..42)?;
    let reply = frame[12..14] == [8, 6] && arp[..8] == [0, 1, 8, 0, 6, 4, 0, 2];
    (reply && arp[14..18] == of.octets()).then(|| arp[8..14].try_into().unwrap())
}

const ROUTER_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x6e, 0x73, 0x02];

/// A UDP frame of the guest.
pub(crate) fn udp(mac: [u8; 6], to: IpAddr, from_port: u16, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(mac, ROUTER_MAC);
    let ip = match to {
        IpAddr::V4(to) => ethernet.ipv4(GUEST.octets(), to.octets(), 64),
        IpAddr::V6(to) => ethernet.ipv6(GUEST_V6.octets(), to.octets(), 64),
    };
    ip.udp(from_port, port).write(&mut frame, payload).unwrap();
    frame
}

/// A connection request of the guest.
pub(crate) fn syn(mac: [u8; 6], to: IpAddr, from_port: u16, port: u16) -> Vec<u8> {
    let mut header = TcpHeader::new(from_port, port, 1, 65535);
    header.syn = true;
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(mac, ROUTER_MAC);
    let ip = match to {
        IpAddr::V4(to) => ethernet.ipv4(GUEST.octets(), to.octets(), 64),
        IpAddr::V6(to) => ethernet.ipv6(GUEST_V6.octets(), to.octets(), 64),
    };
    ip.tcp_header(header).write(&mut frame, &[]).unwrap();
    frame
}
