//! A hostile guest: whatever system call it makes, as root or not, no forbidden server hears of it.
//!
//! The servers count, in the test's own process: accepted connections and received datagrams. Where
//! no server can see what was won (a pinned page, a listening port), the program says `OPEN: …`.
//! Every attack has a control: the same program without netshunt, which *must* succeed where this
//! kernel and user allow it, or the attack proves nothing.
//!
//! `NETSHUNT_HOSTILE_SECONDS` (default 20) is shared by the races; `cargo xtask test --nightly` makes
//! the first of them write an address 10 million times and connect 200,000 times.

#[path = "hostile/range.rs"]
mod range;

use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use netshunt_tests::{DEADLINE, eventually, is_nightly, until};
use range::{Range, number};

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
    for options in range.compositions() {
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

/// Where the guest may connect to itself, so that there is something to dissolve.
#[test]
fn dissolved_ends_of_a_connection_of_its_own() {
    const COMPOSITIONS: &[&[&str]] = &[
        &["--net=host-bypass", "--bypass=192.0.2.10:7000/tcp", "--bypass=127.0.0.1:7000/tcp"],
        &["--net=link,host-bypass", "--bypass=192.0.2.10:7000/tcp", "--deny=192.0.2.11"],
    ];
    let range = Range::new();
    assert!(
        range.control("serve", &["dissolved"]) > 0,
        "the control reached nothing: the attack proves nothing"
    );
    for options in COMPOSITIONS {
        let run = range.repelled(options, "serve", &["dissolved"]);
        assert!(!run.stdout().contains("its own: -1"), "{}", run.describe());
    }
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
    for options in range.compositions() {
        range.repelled(options, "supervisor", &["signals"]).assert_success();
    }
}

/// Without the control: it would starve the test.
#[test]
fn a_starved_supervisor_opens_nothing_and_recovers() {
    let range = Range::new();
    for options in range.compositions() {
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

    fn seconds(compositions: usize) -> f64 {
        let total = std::env::var("NETSHUNT_HOSTILE_SECONDS").ok().and_then(|s| s.parse().ok());
        total.unwrap_or(20.0) / (MODES.len() * compositions) as f64
    }

    /// One thread calls, another changes what the call is about.
    #[test]
    fn address_and_descriptor_swapped_during_calls() {
        let range = Range::new();
        let (writes, connects) = if is_nightly() { ("10000000", "200000") } else { ("0", "0") };
        let compositions = range.compositions();
        for options in compositions {
            for mode in MODES {
                let least = if mode == "address" { (writes, connects) } else { ("0", "0") };
                let before = range.allowed.heard();
                let (denied, time) = (range.reached(), seconds(compositions.len()).to_string());
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

/// One guest makes the supervisor wait; its neighbour's calls must not.
mod stalls {
    use super::*;

    /// Where only root may open /dev/fuse, others get it in another way (fusermount3): this is ours.
    fn fuse(range: &Range) -> String {
        let folder = range.world.folder().join("open").display().to_string();
        let fuse = format!("{folder}/fuse");
        if !std::path::Path::new(&fuse).exists() {
            let made =
                [&["mkdir", "-m", "777", &folder][..], &["mknod", "-m", "666", &fuse, "c", "10", "229"]]
                    .map(|words| Command::new(words[0]).args(&words[1..]).status());
            assert!(
                made.iter().all(|s| s.as_ref().is_ok_and(std::process::ExitStatus::success)),
                "root makes device nodes"
            );
        }
        fuse
    }

    #[track_caller]
    fn attack(range: &Range, name: &str) {
        attack_over(range, name, range.compositions());
    }

    #[track_caller]
    fn attack_over(range: &Range, name: &str, compositions: &[&[&str]]) {
        let fuse = fuse(range);
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
        attack(&Range::of_waiting(), "page");
    }

    /// A send copies from the guest's page with the socket locked, and what we do to the socket waits for that.
    #[test]
    fn a_socket_locked_by_a_send() {
        attack(&Range::of_waiting(), "locked_option");
    }

    #[test]
    fn a_socket_locked_by_a_send_and_connected_again() {
        attack(&Range::of_waiting(), "locked_connect");
    }

    #[test]
    fn a_socket_that_lingers_closed_during_a_call() {
        attack(&Range::of_waiting(), "linger");
    }

    #[test]
    fn an_accepted_socket_that_lingers_with_the_supervisor() {
        attack_over(&Range::of_waiting(), "returned", &[&["--net=link", "--deny=192.0.2.11"]]);
    }

    /// By a program outside that it was lent to, and that has connected it elsewhere.
    #[test]
    fn a_socket_that_is_being_connected_locked_outside() {
        let range = Range::of_waiting();
        let mut borrower = range.native("stall", &["borrower", &fuse(&range)]).start();
        borrower.prints("ready");
        attack_over(&range, "lent", &[&["--net=link", "--deny=192.0.2.11"]]);
        let borrower = borrower.wait();
        assert!(borrower.stdout().contains("somebody else: 0"), "{}", borrower.describe());
        assert!(!borrower.stdout().contains("it holds nothing"), "{}", borrower.describe());
    }

    /// Past the stack, where we have forgotten it.
    #[test]
    fn a_bypassed_socket_locked_by_a_send() {
        attack(&Range::of_waiting(), "locked_past");
    }

    #[test]
    fn a_socket_locked_by_a_send_and_bound() {
        attack(&Range::of_waiting(), "locked_bind");
    }

    /// The queue of a datagram socket, and one process after another that wants something out of it.
    #[test]
    fn a_queue_locked_by_a_receive() {
        attack_over(&Range::of_waiting(), "locked_queue", &[&["--net=link", "--deny=192.0.2.11"]]);
    }

    #[test]
    fn a_datagram_in_a_page_that_never_comes() {
        attack_over(
            &Range::of_waiting(),
            "datagram_page",
            &[&["--net=link,host-bypass", "--bypass=192.0.2.10:7000", "--deny=192.0.2.11"]],
        );
    }

    #[test]
    fn a_page_held_by_userfaultfd() {
        attack(&Range::of_waiting(), "uffd");
    }

    #[test]
    fn a_path_that_never_resolves() {
        attack(&Range::of_waiting(), "path");
    }

    #[test]
    fn flags_that_change_during_connect() {
        attack(&Range::new(), "flag");
    }

    #[test]
    fn more_waiting_calls_than_threads() {
        attack(&Range::of_waiting(), "crowd");
    }

    /// Past the stack each takes a thread of the supervisor's.
    #[test]
    fn hundreds_of_connects_that_wait() {
        attack(&Range::new(), "connects");
    }
}
