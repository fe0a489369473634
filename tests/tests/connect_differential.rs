//! connect(2) as a program sees it, by every way to call it, held line by line against what the same
//! program sees without netshunt.

mod allowed;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use allowed::ALLOWED;
use netshunt_tests::{FAR4, FAR6, Namespace, Path, Run, TestLink, World, until};
use nix::sys::socket::{setsockopt, sockopt};

const PORT: u16 = 7001;

/// Where nothing listens.
const CLOSED_PORT: u16 = 7999;

/// The answer to a lone SYN takes seconds; a machine under load some more.
const TIMEOUT: Duration = Duration::from_secs(45);

/// A place to connect to.
#[derive(Clone, Copy)]
struct Target {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    port: u16,
}

impl Target {
    const fn far(port: u16) -> Self {
        Target { v4: FAR4, v6: FAR6, port }
    }

    /// Host `last` of a network of the far side that leads nowhere (see the harness).
    const fn nowhere(third: [u8; 3], group: u16, last: u8) -> Self {
        let [a, b, c] = third;
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, group, 0, 0, 0, 0, last as u16);
        Target { v4: Ipv4Addr::new(a, b, c, last), v6, port: PORT }
    }

    const fn unreachable(last: u8) -> Self {
        Self::nowhere([198, 51, 100], 1, last)
    }

    const fn silent(last: u8) -> Self {
        Self::nowhere([203, 0, 113], 2, last)
    }
}

fn observe(world: &World, path: Path, outcome: &str, target: Target, pending: impl FnOnce()) -> Run {
    let words = [
        world.compile("sockets/connect.c"),
        outcome.to_owned(),
        target.port.to_string(),
        target.v4.to_string(),
        target.v6.to_string(),
    ];
    let launch = match path {
        // By address alone: a destination that does not exist is decided like any other.
        Path::Bypass => world.netshunt_with(["--net=link,host-bypass", "--bypass=*"]),
        Path::Native => world.native(),
        Path::Stack => world.netshunt_with(["--net=link,host-bypass"]),
    };
    let mut running = launch.command(words).timeout(TIMEOUT).start();
    if ["late", "silent"].contains(&outcome) {
        running.prints("pending\n");
    }
    pending();
    let run = running.wait();
    run.assert_success();
    let verdict = match path {
        Path::Bypass => "bypass",
        Path::Native => return run,
        Path::Stack => "stack",
    };
    let of_target: Vec<_> = run.flows.iter().filter(|flow| flow.dst.port() == target.port).collect();
    assert!(!of_target.is_empty(), "no flow was logged\n{}", run.describe());
    assert!(of_target.iter().all(|flow| flow.verdict == verdict), "{}", run.describe());
    run
}

/// What was seen, in the order of neither processes nor time.
fn lines(run: &Run) -> BTreeMap<String, String> {
    let text = run.stdout();
    let pairs = text.lines().filter(|&line| line != "pending");
    let pairs =
        pairs.map(|line| line.split_once('=').unwrap_or_else(|| panic!("{line}\n{}", run.describe())));
    let mut all = BTreeMap::new();
    for (what, value) in pairs {
        let double = all.insert(what.to_owned(), value.trim_end().to_owned());
        assert!(double.is_none(), "the program says {what:?} twice");
    }
    all
}

/// How often a difference makes us look at native again.
const LOOKS: usize = 5;

/// Holds one path against native. What natively depends on the moment is what native runs differ in: a
/// difference that several of them do not show is one.
fn compare(path: Path, link: TestLink, case: &str, ours: &Run, mut native: impl FnMut() -> Run) {
    let seen = lines(ours);
    let mut natives = Vec::new();
    let mut found = String::new();
    for _ in 0..LOOKS {
        natives.push(lines(&native()));
        found = differences(path, link, case, &natives, &seen);
        if found.is_empty() {
            return;
        }
    }
    panic!("{path:?} {case}:\n{found}\n{}", ours.describe());
}

/// Every difference must be an allowed one, and all of those needed.
fn differences(
    path: Path,
    link: TestLink,
    case: &str,
    natives: &[BTreeMap<String, String>],
    seen: &BTreeMap<String, String>,
) -> String {
    let entries: Vec<_> = ALLOWED.iter().filter(|entry| entry.concerns(path, link, case)).collect();
    let mut unexplained = String::new();
    let mut used = BTreeSet::new();
    let whats: BTreeSet<&String> = natives.iter().chain([seen]).flat_map(BTreeMap::keys).collect();
    for what in whats {
        let value = |lines: &BTreeMap<String, String>| lines.get(what).map_or("-", String::as_str).to_owned();
        let ours = value(seen);
        if natives.iter().any(|native| value(native) == ours) {
            continue;
        }
        let natively = value(&natives[0]);
        match entries.iter().position(|entry| entry.covers(what, &natively, &ours)) {
            Some(entry) => drop(used.insert(entry)),
            None => unexplained += &format!("{what}: {ours}, natively {natively}\n"),
        }
    }
    for (index, entry) in entries.iter().enumerate() {
        if !entry.sometimes && !used.contains(&index) {
            unexplained += &format!("allowed and not needed: {entry:?}\n");
        }
    }
    unexplained
}

macro_rules! like_native {
    ($($case:ident),+ $(,)?) => {
        mod bypass {
            $(#[test] fn $case() { super::$case(netshunt_tests::Path::Bypass); })+
        }
        mod stack {
            $(#[test] fn $case() { super::$case(netshunt_tests::Path::Stack); })+
        }
        const CASES: &[&str] = &[$(stringify!($case)),+];
    };
}

like_native! {
    abrupt, answered, late, no_route, prohibited, refused, reset, timed_out, unreachable,
}

#[test]
fn every_allowed_difference_belongs_to_a_case_and_has_a_reason() {
    for entry in ALLOWED {
        let known = entry.cases.iter().all(|case| CASES.contains(case));
        assert!(known && entry.path != Path::Native && entry.reason.len() > 20, "{entry:?}");
    }
}

fn like_native(path: Path, case: &str, outcome: &str, target: Target, world: &World) {
    meet(world);
    let ours = observe(world, path, outcome, target, || ());
    compare(path, world.link(), case, &ours, || observe(world, Path::Native, outcome, target, || ()));
}

fn answered(path: Path) {
    let world = World::of_waiting();
    world.echo(&[PORT]);
    like_native(path, "answered", "answer", Target::far(PORT), &world);
}

fn refused(path: Path) {
    like_native(path, "refused", "fail", Target::far(CLOSED_PORT), &World::of_waiting());
}

/// A router finds nobody at that address.
fn unreachable(path: Path) {
    let world = World::of_waiting();
    // A cable of its own, with nobody at its other end, and little patience for that.
    let script = "\
ip route del unreachable 198.51.100.0/24; ip -6 route del unreachable 2001:db8:1::/48
ip link add dead type veth peer name end; ip link set dead up; ip link set end up
ip address add 198.51.100.254/24 dev dead; ip -6 address add 2001:db8:1::fe/64 dev dead nodad
for family in ipv4 ipv6; do echo 200 >/proc/sys/net/$family/neigh/dead/retrans_time_ms; done
echo 0 >/proc/sys/net/ipv6/icmp/ratelimit";
    configure(&world, true, script);
    like_native(path, "unreachable", "fail", Target::unreachable(1), &world);
}

/// A router does not want to. It says so only about once a second (ip_error() in net/ipv4/route.c).
fn prohibited(path: Path) {
    let world = World::of_waiting();
    let script = "\
echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
ip route add prohibit 198.51.100.128/25; ip -6 route add prohibit 2001:db8:1::80/121";
    configure(&world, true, script);
    like_native(path, "prohibited", "rare", Target::unreachable(129), &world);
}

/// The host itself has no way: connect(2) fails at once, whoever would have connected.
fn no_route(path: Path) {
    // The last is as if there were none at all, which passt does not start without.
    for kind in ["blackhole", "prohibit", "unreachable", "throw"] {
        let world = World::of_waiting();
        let script = format!("ip route add {kind} 198.51.100.0/24; ip -6 route add {kind} 2001:db8:1::/48");
        configure(&world, false, &script);
        like_native(path, "no_route", "fail", Target::unreachable(1), &world);
    }
}

/// Nobody ever answers.
fn timed_out(path: Path) {
    like_native(path, "timed_out", "silent", Target::silent(1), &World::of_waiting());
}

/// Reset once a byte has come.
fn reset(path: Path) {
    let world = World::of_waiting();
    resetting(&world.far, true);
    like_native(path, "reset", "reset", Target::far(PORT), &world);
}

/// Reset as soon as it is accepted.
fn abrupt(path: Path) {
    let world = World::of_waiting();
    resetting(&world.far, false);
    like_native(path, "abrupt", "abrupt", Target::far(PORT), &world);
}

/// Silence until everybody waits, and then the answer to a retransmission: connected after all.
fn late(path: Path) {
    let world = World::of_waiting();
    let server = ["python3", &world.program("echo.py"), "0.0.0.0", "::", &PORT.to_string()];
    // The address it is reached by is not there yet.
    let script = "echo 1 >/proc/sys/net/ipv6/bindv6only; exec \"$@\"";
    let server = ["sh", "-c", script, "sh"].into_iter().chain(server);
    let _server = world.native().far().command(server).start();
    let listens = || world.host.inside(|| TcpStream::connect((FAR4, PORT)).is_ok());
    assert!(until(netshunt_tests::DEADLINE, listens), "the server is up");
    let appear = |last: u8| {
        let Target { v4, v6, .. } = Target::silent(last);
        configure(
            &world,
            true,
            &format!("ip address add {v4}/32 dev far; ip -6 address add {v6}/128 dev far nodad"),
        );
    };
    meet(&world);
    // Each needs an address that has not appeared yet.
    let mut addresses = 1..;
    let mut run = |path| {
        let last = addresses.next().expect("endless");
        observe(&world, path, "late", Target::silent(last), || appear(last))
    };
    let ours = run(path);
    compare(path, world.link(), "late", &ours, || run(Path::Native));
}

/// Lets the two sides find each other: the first packet by IPv6 may wait for that.
fn meet(world: &World) {
    for address in [IpAddr::V4(FAR4), IpAddr::V6(FAR6)] {
        // Refused or not, it was answered.
        let _ = world.host.inside(|| TcpStream::connect((address, CLOSED_PORT)));
    }
}

/// Runs a script on the host side or the far one.
fn configure(world: &World, far: bool, script: &str) {
    let namespace = if far { &world.far } else { &world.host };
    let status = Command::new("nsenter")
        .arg(format!("--net={}", namespace.path()))
        .args(["sh", "-euc", script])
        .status();
    assert!(status.expect("util-linux has nsenter").success(), "{script}");
}

/// Accepts, reads a byte if `wait`, and resets.
fn resetting(far: &Namespace, wait: bool) {
    static BYTE: AtomicU8 = AtomicU8::new(0);
    for address in [IpAddr::V4(FAR4), IpAddr::V6(FAR6)] {
        let listener = far.inside(|| TcpListener::bind((address, PORT))).expect("the port is free");
        // It ends with the test program; its socket keeps nothing but an empty namespace alive.
        std::thread::spawn(move || {
            for mut peer in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut byte = [0];
                    if wait && peer.read(&mut byte).is_ok() {
                        BYTE.store(byte[0], Ordering::Relaxed);
                    }
                    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                    setsockopt(&peer, sockopt::Linger, &linger).expect("SO_LINGER is always to be had");
                });
            }
        });
    }
}
