//! `connect()` as a program sees it, held against what it sees without netshunt.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use netshunt_tests::{FAR4, FAR6, Path, World};
use serde_json::Value;

const ECHO_PORT: u16 = 7001;

/// Where nothing listens.
const CLOSED_PORT: u16 = 7999;

/// Differences from a native run that we accept: path, case, what differs, and why.
/// An entry that no run needs is an error.
const ALLOWED: &[(Path, &str, &str, &str)] = &[];

/// The entries that were needed so far in one test.
type Used = Mutex<BTreeSet<usize>>;

fn observe(world: &World, path: Path, case: &str, how: &str, to: IpAddr, port: u16) -> Value {
    let mut words =
        vec!["python3".into(), world.program("connect.py"), how.into(), to.to_string(), port.to_string()];
    if case == "silent" {
        words.push("pending".to_owned());
    }
    // The rules match by address alone: a destination that does not exist is decided like any other.
    let launch = match path {
        Path::Bypass => world.netshunt_with(["--net=slirp,host-bypass", "--bypass=*"]),
        Path::Native | Path::Stack => world.netshunt(path, &[port]),
    };
    let run = launch.command(words).run();
    run.assert_success();
    if path != Path::Native {
        assert!(run.flows.iter().any(|flow| flow.dst == (to, port).into()), "no flow\n{}", run.describe());
    }
    serde_json::from_str(&run.stdout()).unwrap_or_else(|e| panic!("{e}\n{}", run.describe()))
}

/// One destination, blocking and not, on one path: the same as natively, but for what is allowed.
fn compare(path: Path, case: &str, to: impl Into<IpAddr>, port: u16, world: &World) {
    let to = to.into();
    let used = Used::default();
    for how in ["blocking", "nonblocking"] {
        let (native, ours) =
            (observe(world, Path::Native, case, how, to, port), observe(world, path, case, how, to, port));
        let (native, ours) = (native.as_object().expect("an object"), ours.as_object().expect("an object"));
        let labels: BTreeSet<&String> = native.keys().chain(ours.keys()).collect();
        for label in labels {
            if native.get(label) == ours.get(label) {
                continue;
            }
            let what = format!("{how}: {label}");
            let allowed = ALLOWED.iter().position(|&(p, c, w, _)| p == path && c == case && w == what);
            let Some(allowed) = allowed else {
                panic!(
                    "{path:?} {case} {what}: {:?}, natively {:?}\nours: {ours:#?}\nnative: {native:#?}",
                    ours.get(label),
                    native.get(label)
                );
            };
            used.lock().unwrap_or_else(PoisonError::into_inner).insert(allowed);
        }
    }
    let used = used.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (index, (p, c, what, _)) in ALLOWED.iter().enumerate() {
        assert!(
            (*p, *c) != (path, case) || used.contains(&index),
            "allowed and not needed: {path:?} {case} {what}"
        );
    }
}

macro_rules! like_native {
    ($($case:ident),+ $(,)?) => {
        mod bypass {
            $(#[test] fn $case() { super::$case(netshunt_tests::Path::Bypass); })+
        }
        mod stack {
            $(#[test] fn $case() { super::$case(netshunt_tests::Path::Stack); })+
        }
    };
}

like_native! { refused, refused_ipv6, reset, silent, succeeds, succeeds_ipv6, unreachable }

fn succeeds(path: Path) {
    let world = World::new();
    world.echo(&[ECHO_PORT]);
    compare(path, "succeeds", FAR4, ECHO_PORT, &world);
}

fn succeeds_ipv6(path: Path) {
    let world = World::new();
    world.echo(&[ECHO_PORT]);
    compare(path, "succeeds_ipv6", FAR6, ECHO_PORT, &world);
}

fn refused(path: Path) {
    compare(path, "refused", FAR4, CLOSED_PORT, &World::new());
}

fn refused_ipv6(path: Path) {
    compare(path, "refused_ipv6", FAR6, CLOSED_PORT, &World::new());
}

fn unreachable(path: Path) {
    compare(path, "unreachable", [198, 51, 100, 1], 80, &World::new());
}

fn silent(path: Path) {
    compare(path, "silent", [203, 0, 113, 1], 80, &World::new());
}

/// Accepted, and reset as soon as a byte has come.
fn reset(path: Path) {
    let world = World::new();
    let words = ["python3", &world.program("reset.py"), &FAR4.to_string(), &ECHO_PORT.to_string()];
    let mut server = world.native().far().command(words).start();
    server.prints("ready");
    compare(path, "reset", FAR4, ECHO_PORT, &world);
}
