//! Every call that can wait, and what happens to it meanwhile: signals, stops, time-outs, cancellation, death. Held line
//! by line against what the same program sees without netshunt.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use netshunt_tests::{FAR4, FAR6, Namespace, Path, Run, World};

const PORT: u16 = 7001;

/// Where nobody answers (see the harness).
const SILENT: [&str; 2] = ["203.0.113.9", "2001:db8:2::9"];

/// How often a difference makes us look at both again: a signal may come just before a call waits, here and there.
const LOOKS: usize = 3;

/// Some cases that cannot go on are given up after ten seconds each.
const TIMEOUT: Duration = Duration::from_secs(300);

fn observe(world: &World, path: Path, words: &[String]) -> Run {
    let launch = match path {
        Path::Bypass => world.netshunt_with(["--net=link,host-bypass", "--bypass=*"]),
        Path::Native => world.native(),
        Path::Stack => world.netshunt_with(["--net=link,host-bypass"]),
    };
    let run = launch.command(words.iter().cloned()).timeout(TIMEOUT).run();
    run.assert_success();
    run
}

/// "FAMILY CALL: WHAT" and its value.
fn lines(run: &Run) -> BTreeMap<String, String> {
    let text = run.stdout();
    let pairs =
        text.lines().map(|line| line.split_once('=').unwrap_or_else(|| panic!("{line}\n{}", run.describe())));
    let mut all = BTreeMap::new();
    for (what, value) in pairs {
        assert!(all.insert(what.to_owned(), value.to_owned()).is_none(), "{what:?} twice");
    }
    all
}

/// There is nothing in which they may differ.
fn as_natively(world: &World, path: Path, words: &[String], least: usize) {
    let (mut natively, mut ours) = (Vec::new(), Vec::new());
    let mut found: Vec<String> = Vec::new();
    for _ in 0..LOOKS {
        natively.push(lines(&observe(world, Path::Native, words)));
        let run = observe(world, path, words);
        let verdict = if path == Path::Bypass { "bypass" } else { "stack" };
        assert!(run.flows.iter().any(|flow| flow.verdict == verdict), "{}", run.describe());
        ours.push(lines(&run));
        // What one of the runs here saw, one of those without netshunt must have seen.
        let seen = |what: &str, value: Option<&String>| natively.iter().any(|run| run.get(what) == value);
        let all = natively[0].keys().chain(ours[0].keys());
        found = all.filter(|what| !ours.iter().any(|run| seen(what, run.get(*what)))).cloned().collect();
        found.sort();
        found.dedup();
        if found.is_empty() {
            break;
        }
    }
    let last = |runs: &[BTreeMap<String, String>], what| runs.last().and_then(|run| run.get(what).cloned());
    for what in &found {
        eprintln!("{what}: {:?}, natively {:?}", last(&ours, what), last(&natively, what));
    }
    assert!(found.is_empty(), "{} differences", found.len());
    assert!(ours[0].len() >= least, "{} lines", ours[0].len());
}

fn all_calls(path: Path) {
    let world = World::new();
    let program = world.compile("sockets/waits.c");
    let mut holder = world.native().far().command([&program, "hold", &PORT.to_string()]).start();
    holder.prints("ready");
    let [v4, v6] = SILENT.map(str::to_owned);
    let words = [program, PORT.to_string(), FAR4.to_string(), FAR6.to_string(), v4, v6];
    as_natively(&world, path, &words, 1200);
}

#[test]
fn calls_through_the_stack_wait_as_natively() {
    all_calls(Path::Stack);
}

#[test]
fn bypassed_calls_wait_as_natively() {
    all_calls(Path::Bypass);
}

/// A datagram that waits for room on the host: told of neither signals nor room, it waited for ever.
#[test]
fn bypassed_datagrams_wait_for_room_as_natively() {
    let world = World::new();
    let program = world.compile("sockets/waits.c");
    let inside = |namespace: &Namespace, script: &str| {
        let mut command = Command::new("nsenter");
        let output = command.arg(format!("--net={}", namespace.path())).args(["sh", "-euc", script]).output();
        let output = output.expect("util-linux has nsenter");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    // The neighbour must be known: nobody could ask for it any more.
    let far = inside(&world.far, "ip -o link show far | grep -o 'link/ether [^ ]*' | cut -d' ' -f2");
    inside(
        &world.host,
        &format!(
            "ip neigh replace {FAR4} lladdr {far} dev near\n\
             tc qdisc add dev near root tbf rate 80bit burst 1600 limit 100000000"
        ),
    );
    let words = [program, "throttled".to_owned(), PORT.to_string(), FAR4.to_string()];
    as_natively(&world, Path::Bypass, &words, 60);
}
