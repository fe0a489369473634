//! Ten thousand sockets of one guest's at the same time, and what they cost.

use std::fs;

use std::time::Duration;

use netshunt_tests::{FAR4, TestLink, World, is_nightly, until};
use rustix::process::{Resource, getrlimit};

const PORT: u16 = 7001;
const MANY: usize = 10_000;
const FEWER: usize = 2000;
/// Descriptors for everything else.
const SPARE: usize = 1000;
/// Of netshunt's own memory and its link's, for a socket that has little to say: docs/performance.md says what it was
/// when it was measured.
const EACH: usize = 32 << 10;
/// It takes seconds where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(200);
/// Whatever a run costs without them.
const BASE: usize = 64 << 20;

/// As many as the hard limit of open files allows: a connection of the guest's needs up to two in one process, the
/// supervisor's or passt's.
fn many(world: &World) -> usize {
    let limit = getrlimit(Resource::Nofile).maximum.map_or(usize::MAX, |limit| limit as usize);
    let many = MANY.min(limit.saturating_sub(SPARE) / 2);
    match world.link() {
        // Two minutes: libslirp looks at every socket in every turn.
        TestLink::Slirp if !is_nightly() => many.min(FEWER),
        _ => many,
    }
}

/// Bytes of all processes below `pid`, and itself, but for the guest's (proc_pid_smaps(5), `Pss`).
fn memory(pid: i32) -> usize {
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    if of("comm").starts_with("python") {
        return 0;
    }
    let rollup = of("smaps_rollup");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    let own: usize = line.trim().trim_end_matches(" kB").parse().unwrap_or_default();
    let children =
        fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().flat_map(|task| {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            children.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<i32>>()
        });
    own * 1024 + children.map(memory).sum::<usize>()
}

fn crowd(kind: &str) {
    let world = World::new();
    let many = many(&world);
    match kind {
        "tcp" => world.echo(&[PORT]),
        _ => world.datagram_echo(PORT),
    }
    let words = ["python3".to_owned(), world.program("crowd.py"), kind.to_owned(), many.to_string()];
    let words = words.into_iter().chain([FAR4.to_string(), PORT.to_string()]);
    let mut running = world.netshunt_with(["--net=link"]).command(words).stdin_pipe().start();
    let done = format!("ok {many}");
    until(PATIENCE, || running.stdout().contains(&done));
    running.prints(&done);
    let memory = memory(running.pid());
    println!("{many} sockets of {kind}: {} KiB", memory >> 10);
    running.close_stdin();
    let run = running.wait();
    run.assert_success();
    assert!(memory < BASE + many * EACH, "{memory} bytes\n{}", run.describe());
    assert!(memory > many << 10, "that little cannot be: {memory}\n{}", run.describe());
}

#[test]
fn ten_thousand_connections() {
    crowd("tcp");
}

#[test]
fn ten_thousand_datagram_sockets() {
    crowd("udp");
}
