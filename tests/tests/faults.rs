//! Each system call of the supervisor's fails once while its guests have sockets of every kind: none of their calls
//! hangs, no byte is wrong or missing unsaid, nothing that is denied is reached, and netshunt goes on.
//!
//! Which calls it makes is looked at each time; one that is not in faults/errnos.rs fails the test. strace(1) injects,
//! attached: a filter of seccomp cannot count, and to trace netshunt from its start on would be to trace its guests.

#[path = "faults/errnos.rs"]
mod errnos;
#[path = "faults/injector.rs"]
mod injector;
#[path = "faults/scene.rs"]
mod scene;

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use netshunt_tests::{FAR4, TestLink, World, is_nightly};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use injector::Fault;
use scene::{Scene, Served};

/// A seed and a part of a fault's name, to repeat what failed: `NETSHUNT_FAULTS=ppoll:ENOMEM:1`.
const SEED: &str = "NETSHUNT_FAULTS_SEED";
const ONLY: &str = "NETSHUNT_FAULTS";

/// Of CI's sample. At night all of it is tried.
const TIME: Duration = Duration::from_secs(40);

/// One netshunt's: what a fault leaves behind the next ones find.
const FAULTS: usize = 12;

/// At night each of the first so many calls of a thread fails.
const FIRST: usize = 12;

/// What faults have led to.
#[derive(Debug, Default)]
struct Tally {
    injected: usize,
    late: usize,
    unnoticed: usize,
    seen: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl Tally {
    /// A turn with a fault and one without. Whether netshunt goes on, as it must.
    fn try_one(&mut self, served: &mut Served<'_>, fault: &Fault) -> bool {
        let (turn, injected) = served.turn_with(fault);
        match injected.is_empty() {
            true => self.late += 1,
            false => self.injected += 1,
        }
        let mut wrong = served.panics();
        let told: Vec<_> = turn.iter().flatten().filter(|(_, came)| *came != "ok").collect();
        self.unnoticed += usize::from(told.is_empty() && !injected.is_empty());
        for (task, came) in told {
            *self.seen.entry(came.clone()).or_default() += 1;
            if !scene::is_excusable(came) {
                wrong.push(format!("{task}: {came}"));
            }
        }
        // It has passed, and is forgotten.
        match turn.and_then(|_| served.turn()) {
            None => wrong.push("it has ended".to_owned()),
            Some(after) => {
                let failed = after.iter().filter(|(_, came)| *came != "ok");
                wrong.extend(failed.map(|(task, came)| format!("in the turn after: {task}: {came}")));
            }
        }
        let goes_on = wrong.is_empty();
        if !goes_on {
            let told = format!("{fault:?}: {wrong:#?}\n{injected:#?}\n{}", served.last_words());
            println!("{told}");
            self.wrong.push(told);
        }
        goes_on
    }

    fn finish(self, scene: &Scene) {
        println!(
            "{} faults, {} of them unnoticed ({} more came too late), otherwise the guests saw {:?}",
            self.injected, self.unnoticed, self.late, self.seen
        );
        scene.assert_unreached();
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        assert!(self.injected > 0, "nothing was tried");
    }
}

/// All faults: each call that is made, each errno it may have, and after how many of a thread's such calls.
fn faults(made: &BTreeMap<String, usize>, link: TestLink, seed: u64) -> Vec<Fault> {
    let chance = |n: usize| usize::try_from(random(seed, n) >> 32).expect("half of it");
    let mut all = Vec::new();
    for (call, &most) in made {
        let errnos = errnos::of(call);
        let errnos = errnos.unwrap_or_else(|| panic!("{call}: which errnos it may have is not in errnos.rs"));
        for errno in errnos {
            let mut turns: Vec<usize> = (1..=if is_nightly() { FIRST.min(most) } else { 1 }).collect();
            turns.extend([most / 2, 1 + chance(all.len()) % most]);
            turns.retain(|&when| when > 0);
            turns.sort_unstable();
            turns.dedup();
            let thread = errnos::only_by(call, link);
            all.extend(turns.into_iter().map(|when| Fault { call: call.clone(), errno, when, thread }));
        }
    }
    // In an order of the seed's: a sample is of all.
    let mut keyed: Vec<_> = all.into_iter().enumerate().map(|(n, fault)| (random(!seed, n), fault)).collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, fault)| fault).collect()
}

/// SplitMix64.
fn random(seed: u64, n: usize) -> u64 {
    let mut z = seed.wrapping_add((n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn each_call_of_the_supervisor_fails_during_transfers() {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
    println!("{SEED}={seed}");
    let scene = Scene::new();
    let mut served = scene.start_warm();
    let made = served.calls_made();
    println!("made by one thread, at most: {made:?}");
    let mut all = faults(&made, scene.link(), seed);
    if let Ok(only) = std::env::var(ONLY) {
        all.retain(|fault| format!("{fault:?}").contains(&only));
    }
    let (begin, mut tally, mut tried) = (Instant::now(), Tally::default(), 0);
    let mut rest = all.chunks(FAULTS).peekable();
    while let Some(chunk) = rest.next() {
        for fault in chunk {
            tried += 1;
            if !tally.try_one(&mut served, fault) {
                served.kill();
                served = scene.start_warm();
            }
        }
        let over = rest.peek().is_none() || (!is_nightly() && begin.elapsed() > TIME);
        served.finish();
        if over {
            break;
        }
        served = scene.start_warm();
    }
    println!("{tried} of {} tried", all.len());
    tally.finish(&scene);
}

/// These and no others, of a netshunt that has just started or has done everything once.
fn these(is_warm: bool, faults: &[(&str, &'static str, usize)], thread: Option<&'static str>) {
    let (scene, mut tally) = (Scene::new(), Tally::default());
    for &(call, errno, when) in faults {
        let mut served = if is_warm { scene.start_warm() } else { scene.start() };
        let fault = Fault { call: call.to_owned(), errno, when, thread };
        match tally.try_one(&mut served, &fault) {
            true => served.finish(),
            false => served.kill(),
        }
    }
    tally.finish(&scene);
}

/// A guest waited for ever whose answer met a signal of the supervisor's.
#[test]
fn an_answer_that_a_signal_interrupts_is_given_again() {
    these(true, &[("ioctl", "EINTR", 1), ("ioctl", "EINTR", 2), ("ioctl", "EINTR", 3)], None);
}

/// From then on an address was taken for the host's own.
#[test]
fn a_route_that_could_not_be_asked_for_is_asked_for_again() {
    let watch = Some("netshunt-watch");
    these(true, &[("sendto", "ENOBUFS", 1), ("recvfrom", "ENOMEM", 1), ("recvfrom", "ENOBUFS", 3)], watch);
}

/// The stack ended, guests' connections did so in order, and who connected waited for ever.
#[test]
fn a_poll_without_memory_does_not_end_the_stack() {
    these(true, &[("ppoll", "ENOMEM", 1), ("ppoll", "ENOMEM", 7)], Some("netshunt-stack"));
}

/// They were told EBADF, EFAULT and EPERM, which say that they made a mistake themselves.
#[test]
fn guests_are_told_that_the_supervisor_is_short_of_something() {
    let faults = [
        ("pidfd_getfd", "EMFILE", 3),
        ("pidfd_open", "ENOMEM", 2),
        ("process_vm_readv", "ENOMEM", 5),
        ("openat", "EMFILE", 4),
        ("pwrite64", "ENOMEM", 1),
    ];
    these(true, &faults, Some("netshunt-watch"));
}

/// It was a panic, on the stack's thread the end of all connections. Guests can use up the processes of our user.
#[test]
fn a_thread_that_is_not_to_be_had_is_an_error() {
    these(false, &[("clone3", "EAGAIN", 1), ("clone3", "EAGAIN", 2), ("clone3", "EAGAIN", 3)], None);
}

/// Who polled for it polled for minutes.
#[test]
fn a_connection_that_cannot_be_brought_to_its_socket_has_failed() {
    let faults = [1, 2, 3, 4].map(|when| ("bind", "ENOMEM", when));
    these(true, &faults, Some("netshunt-stack"));
}

/// It was up already, and closed in order: the guest read the end of a stream of which nothing had come.
#[test]
fn a_connection_that_is_joined_and_cannot_be_watched_is_reset() {
    let faults = [1, 2, 3, 5, 6, 7, 8].map(|when| ("epoll_ctl", "ENOMEM", when));
    these(true, &faults, Some("netshunt-stack"));
}

/// Of two guests that were connected the one that had connected waited for ever.
#[test]
fn a_connection_between_guests_that_cannot_be_brought_is_reset() {
    let faults = [9, 10, 11, 12].map(|when| ("epoll_ctl", "ENOMEM", when));
    these(true, &faults, Some("netshunt-stack"));
}

/// Part of a stream looked like all of it.
#[test]
fn connections_of_a_supervisor_that_is_killed_are_reset() {
    let world = World::of_waiting();
    world.echo(&[scene::STACK]);
    let words = ["python3".to_owned(), world.program("cut.py"), FAR4.to_string(), scene::STACK.to_string()];
    let mut running = world.netshunt_with(["--net=link"]).command(words).stdin_pipe().start();
    running.prints("going\n");
    let supervisor = scene::supervisor(running.pid());
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).expect("it lives");
    running.close_stdin();
    running.prints("ECONNRESET\n");
}

/// A log without room is no guest's affair: what is missing is told, and what is there is whole.
#[test]
fn a_flow_log_on_a_full_disk_stops_nobody() {
    const CONNECTIONS: usize = 200;
    let world = World::new();
    world.echo(&[scene::STACK]);
    let (disk, kept) = (world.folder().join("disk"), world.folder().join("kept.json"));
    fs::create_dir(&disk).expect("a folder of ours");
    // Three pages, which some fifty records fill.
    let script = "mount -t tmpfs -o size=12k,mode=777 tmpfs \"$0\" && kept=$1 && shift && code=0
                  \"$@\" || code=$?
                  cp \"$0/flows.json\" \"$kept\" && exit $code";
    let mut words = ["unshare", "--mount", "sh", "-eu", "-c", script].map(str::to_owned).to_vec();
    words.extend([disk.display().to_string(), kept.display().to_string()]);
    if !world.user().is_root() {
        let nobody =
            ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--bounding-set=-all"];
        words.extend(nobody.map(str::to_owned));
    }
    let link = world.link().backend();
    words.extend([world.folder().join("bin/netshunt").display().to_string(), format!("--net={link}")]);
    words.extend([format!("--flow-log={}", disk.join("flows.json").display()), "--".to_owned()]);
    words.extend(["python3".to_owned(), world.program("log_full.py"), FAR4.to_string()]);
    words.extend([scene::STACK.to_string(), CONNECTIONS.to_string()]);
    let run = world.native().as_root().command(words).run();
    run.assert_success();
    assert_eq!(run.stdout(), "ok\n", "{}", run.describe());
    let told = run.stderr();
    let lines: Vec<&str> = told.lines().filter(|line| line.contains("flow log")).collect();
    let [first, last] = lines[..] else { panic!("{}", run.describe()) };
    assert!(first.contains("No space left on device"), "{}", run.describe());
    let missing = last.split_whitespace().find_map(|word| word.parse::<usize>().ok());
    let log = fs::read_to_string(kept).expect("it was copied");
    let whole = log.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count();
    println!("{whole} records, {missing:?} missing");
    assert!(whole > 10 && log.lines().count() <= whole + 1, "{log}");
    assert_eq!(whole + missing.expect("their number is told"), CONNECTIONS, "{}", run.describe());
}

/// The kernel library has a fixed amount of memory. Who uses it up is told, and when it is free again all is as before.
#[test]
fn memory_of_the_stack_that_is_used_up_is_an_errno() {
    const FULL: usize = 20;
    // A socket keeps a fifth of a megabyte of answers that nobody reads, of 256.
    const QUESTIONERS: usize = 1600;
    const SILENT: u16 = 7002;
    let world = World::new();
    world.echo(&[scene::STACK]);
    let _silent = world.far.inside(|| TcpListener::bind((FAR4, SILENT))).expect("nobody else's");
    let mut words = vec!["python3".to_owned(), world.program("fill.py"), FAR4.to_string()];
    words.extend([SILENT, scene::STACK].map(|port| port.to_string()));
    words.extend([FULL, QUESTIONERS].map(|count| count.to_string()));
    let run = world.netshunt_with(["--net=link"]).command(words).run();
    run.assert_success();
    let report = run.stdout();
    println!("{report}");
    assert!(report.ends_with("\nok\n"), "{}", run.describe());
    let counts: BTreeMap<String, u64> =
        serde_json::from_str(report.lines().next().unwrap_or_default()).expect("one object");
    let errnos: Vec<&str> = counts.keys().filter_map(|key| key.split_once(": ")).map(|(_, e)| e).collect();
    // ECONNRESET: what a send without an address says of an error of the stack's (CHANGELOG.md, known issues).
    let told = ["EAGAIN", "ECONNRESET", "ENOBUFS", "ENOMEM"];
    assert!(errnos.iter().all(|errno| told.contains(errno)), "{counts:?}");
    assert!(errnos.iter().any(|errno| ["ENOBUFS", "ENOMEM"].contains(errno)), "there was enough: {counts:?}");
    assert!(!run.stderr().contains("panicked"), "{}", run.describe());
}
