//! passt beyond what every link must do: that it is killed, missing, or without a network, and the
//! choice that `--net=auto` makes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use netshunt_tests::{DEADLINE, FAR4, FAR6, Run, TestLink, World, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

const PORT: u16 = 7001;

/// Within this the next connection works.
const AGAIN: Duration = Duration::from_secs(1);

/// What `killed.py` says at its end.
#[derive(Debug, Deserialize)]
struct Seen {
    short: usize,
    long_errors: usize,
    hangs: usize,
    again_ms: u64,
}

/// The living passts of the world.
fn passts(world: &World) -> Vec<Pid> {
    let network = fs::metadata(world.host.path()).expect("it lives").ino();
    let pids = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_passt = |pid: &i32| {
        let of = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        // sid's runs under its own loader.
        let names = ["passt", "ld-linux"];
        let program = fs::read_link(of("exe")).unwrap_or_default();
        let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        names.iter().any(|name| program.starts_with(name))
            && fs::metadata(of("ns/net")).is_ok_and(|net| net.ino() == network)
    };
    pids.filter(is_passt).map(Pid::from_raw).collect()
}

/// The guest sees errors and no hang, the next connection works, and nothing is left over.
fn killed_during_transfers(link: TestLink) {
    let world = World::new();
    world.echo(&[PORT]);
    let config = world.passt_option(link).expect("it is a passt");
    let private = world.folder().join("private");
    fs::create_dir(&private).expect("a folder of ours");
    fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("ours");
    let words = ["python3".to_owned(), world.program("killed.py"), FAR4.to_string(), PORT.to_string()];
    let folder = private.display().to_string();
    let mut running = world
        .netshunt_with(["--net=passt,host-bypass", &config])
        .env("TMPDIR", &folder)
        .env("XDG_RUNTIME_DIR", &folder)
        .command(words)
        .stdin_pipe()
        .start();
    running.prints("busy\n");
    let victims = passts(&world);
    assert_eq!(victims.len(), 1, "{victims:?}");
    kill(victims[0], Signal::SIGKILL).expect("it lives: it was busy");
    running.write(b"killed\n").expect("it waits for that");
    let run = running.wait();
    run.assert_success();
    let report = run.stdout();
    let seen: Seen = serde_json::from_str(report.lines().last().unwrap_or_default()).expect("one object");
    println!("{link:?}: {seen:?}");
    assert_eq!((seen.long_errors, seen.hangs), (20, 0), "{}", run.describe());
    assert!(seen.short >= 80, "{}", run.describe());
    assert!(Duration::from_millis(seen.again_ms) < AGAIN, "{}", run.describe());
    assert!(run.stderr().contains("passt"), "its end is told\n{}", run.describe());
    eventually("no passt is left", || passts(&world).is_empty());
    let left: Vec<_> = fs::read_dir(&private).expect("ours").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn stream_killed_during_a_hundred_transfers() {
    killed_during_transfers(TestLink::Passt);
}

#[test]
fn vhost_user_killed_during_a_hundred_transfers() {
    killed_during_transfers(TestLink::PasstVhostUser);
}

/// A passt that does not move: calls end by their time-outs, what is between guests goes on, and so does a connection
/// when it moves again. Stopped once more, it does not keep netshunt from ending.
fn stopped(link: TestLink) {
    let world = World::of_waiting();
    world.echo(&[PORT]);
    let config = world.passt_option(link).expect("it is a passt");
    let words = ["python3".to_owned(), world.program("stopped.py"), FAR4.to_string(), PORT.to_string()];
    let mut running = world.netshunt_with(["--net=passt", &config]).command(words).stdin_pipe().start();
    running.prints("going\n");
    let passts = passts(&world);
    let send = |signal| passts.iter().for_each(|&pid| kill(pid, signal).expect("it lives: it was asked"));
    send(Signal::SIGSTOP);
    running.write(b"stopped\n").expect("it waits for that");
    running.prints("\nstopped\n");
    send(Signal::SIGCONT);
    running.write(b"continued\n").expect("it waits for that");
    running.prints("\nagain\n");
    send(Signal::SIGSTOP);
    let begin = Instant::now();
    let run = running.wait();
    let took = begin.elapsed();
    run.assert_success();
    let expected = "\
going
received: Resource temporarily unavailable in time
connected: Operation now in progress in time
datagram: Resource temporarily unavailable in time
inside: 127.0.0.1 in time
polled: [] in time
stopped
after: behind in time
filled: full in time
again
";
    assert_eq!(run.stdout(), expected, "{}", run.describe());
    assert!(took < DEADLINE, "{took:?} to end\n{}", run.describe());
    eventually("no passt is left", || self::passts(&world).is_empty());
}

#[test]
fn stream_stopped_during_a_transfer() {
    stopped(TestLink::Passt);
}

#[test]
fn vhost_user_stopped_during_a_transfer() {
    stopped(TestLink::PasstVhostUser);
}

/// A configuration that names a passt which is not there.
fn nowhere(world: &World) -> String {
    let file = world.folder().join("nowhere.toml");
    fs::write(&file, "[passt]\nprogram = \"/nowhere/passt\"\n").expect("a folder of ours");
    format!("--config={}", file.display())
}

#[test]
fn named_and_missing_it_is_an_error_and_no_other_link_is_taken() {
    let world = World::new();
    for net in ["--net=passt", "--net=passt,host-bypass"] {
        let run = world.netshunt_with([net, &nowhere(&world)]).command(["echo", "ran"]).run();
        run.assert_code(125);
        assert_eq!(run.stdout(), "", "{}", run.describe());
        let told = run.stderr();
        assert!(told.contains("/nowhere/passt") && told.contains("package passt"), "{}", run.describe());
    }
}

/// A GET over the link that `auto` takes, and which one that is.
fn fetched(world: &World, options: &[&str], url: &str) -> (String, Run) {
    let options = options.iter().copied().chain(["--net=auto", "-v"]);
    let run = world.netshunt_with(options).command(["curl", "-sS", "--fail", "--max-time", "20", url]).run();
    let told = run.stderr();
    let line = told.lines().find(|line| line.contains("chosen by --net=auto")).unwrap_or_default();
    (line.split('"').nth(1).unwrap_or_default().to_owned(), run)
}

#[test]
fn auto_takes_passt_where_it_works() {
    let world = World::new();
    let web = world.nginx(64 << 10);
    let (link, run) = fetched(&world, &[], &web.url());
    run.assert_success();
    assert_eq!((link.as_str(), run.stdout_sha256()), ("passt", web.file.sha256), "{}", run.describe());
}

#[test]
fn auto_takes_slirp_where_passt_is_missing_and_says_why() {
    let world = World::new();
    let web = world.nginx(64 << 10);
    let (link, run) = fetched(&world, &[&nowhere(&world)], &web.url());
    run.assert_success();
    assert_eq!((link.as_str(), run.stdout_sha256()), ("slirp", web.file.sha256), "{}", run.describe());
    let passed_over = run.stderr().lines().any(|line| {
        ["passed over by --net=auto", "passt", "/nowhere/passt"].iter().all(|word| line.contains(word))
    });
    assert!(passed_over, "{}", run.describe());
}

/// On a host that was changed by a script, `auto` finds a link over which the server answers.
fn auto_copes(script: &str, url: fn(&netshunt_tests::Web) -> String) {
    let world = World::new();
    let web = world.nginx(64 << 10);
    let status = world.host.inside(|| Command::new("sh").args(["-euc", script]).status());
    assert!(status.expect("there is a shell").success(), "{script}");
    let (link, run) = fetched(&world, &[], &url(&web));
    run.assert_success();
    println!("{link}");
    assert!(["passt", "slirp"].contains(&link.as_str()), "{}", run.describe());
    assert_eq!(run.stdout_sha256(), web.file.sha256, "{}", run.describe());
}

#[test]
fn auto_copes_with_a_host_without_ipv6() {
    auto_copes("ip -6 address flush dev near; ip -6 address flush dev lo", netshunt_tests::Web::url);
}

#[test]
fn auto_copes_with_a_host_without_ipv4() {
    auto_copes("ip -4 address flush dev near", netshunt_tests::Web::url6);
}

#[test]
fn auto_copes_with_a_host_without_a_default_route() {
    auto_copes("ip route del default; ip -6 route del default", netshunt_tests::Web::url);
}

/// What the host itself cannot reach fails in the guest, and does not hang it.
#[test]
fn auto_copes_with_a_host_without_any_route() {
    let world = World::new();
    let script = "ip -4 address flush dev near; ip -6 address flush dev near";
    assert!(world.host.inside(|| Command::new("sh").args(["-euc", script]).status()).unwrap().success());
    for address in [FAR4.to_string(), format!("[{FAR6}]")] {
        let (_, run) = fetched(&world, &[], &format!("http://{address}:9/"));
        assert!([Some(7), Some(28)].contains(&run.status.code()), "{}", run.describe());
    }
}
