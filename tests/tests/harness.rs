//! The harness itself, without netshunt: a failure here is no failure of netshunt.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use netshunt_tests::{FAR4, HOST4, Trap, World, sha256, until};

#[test]
fn the_far_side_is_reached_natively_and_bytes_arrive_whole() {
    let world = World::new();
    let web = world.nginx(1 << 20);
    for url in [web.url(), web.url6()] {
        let run = world.native().command(["curl", "-sS", &url]).run();
        run.assert_success();
        assert_eq!(run.stdout_sha256(), web.file.sha256, "{}", run.describe());
    }
}

#[test]
fn an_upload_arrives_whole() {
    let world = World::new();
    let web = world.nginx(1 << 20);
    let (from, to) = (web.file.path.display().to_string(), format!("http://{}/put/up", web.address()));
    world.native().command(["curl", "-sS", "--fail", "-T", &from, &to]).run().assert_success();
    assert_eq!(sha256(&web.root.join("put/up")), web.file.sha256);
}

#[test]
fn every_server_starts() {
    let world = World::new();
    let servers = [world.redis().port, world.iperf3().port, world.sshd().port];
    world.echo(&[7001, 7002]);
    for port in servers.into_iter().chain([7001, 7002]) {
        assert!(world.host.inside(|| TcpStream::connect((FAR4, port))).is_ok(), "port {port}");
    }
}

#[test]
fn unreachable_and_silent_destinations_behave() {
    let world = World::new();
    let connect = |to: &str| {
        let run = world.native().command(["curl", "-sS", "--max-time", "2", to]).run();
        (run.status.code(), run.stderr())
    };
    let (code, why) = connect("http://198.51.100.1/");
    assert_eq!(code, Some(7), "unreachable: {why}");
    let (code, why) = connect("http://203.0.113.1/");
    assert_eq!(code, Some(28), "silent: {why}");
}

#[test]
fn the_host_loopback_belongs_to_the_world() {
    let world = World::new();
    let trap = world.host.trap("127.0.0.1:0");
    let run =
        world.native().command(["curl", "-sS", "--http0.9", &format!("http://{}/", trap.address)]).run();
    assert!(run.stdout() == Trap::GREETING || run.stderr().contains("reset"), "{}", run.describe());
    assert_eq!(trap.caught(), 1);
    assert!(TcpStream::connect(trap.address).is_err(), "it is not the machine's");
}

/// What `NETSHUNT_TEST_USER` promises: run by itself it means nothing for root, so both are asserted.
#[test]
fn the_user_of_netshunt_is_who_it_should_be() {
    let world = World::new();
    let run = world.native().command(["cat", "/proc/self/status"]).run();
    run.assert_success();
    let status = run.stdout();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    if world.user().is_root() {
        assert_eq!(field("Uid:"), ["0"; 4]);
        return;
    }
    assert!(field("Uid:").iter().all(|uid| uid != "0"), "{status}");
    assert!(field("Gid:").iter().all(|gid| gid != "0"), "{status}");
    assert!(field("Groups:").is_empty(), "{status}");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set} of {status}");
    }
}

#[test]
fn a_program_that_hangs_is_killed_with_its_descendants() {
    let world = World::new();
    let launch = world.native().command(["sh", "-c", "sleep 1000 & setsid sleep 1000 & wait"]);
    let start = Instant::now();
    let hung = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        launch.timeout(Duration::from_millis(300)).run();
    }));
    assert!(hung.is_err());
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn nothing_outlives_a_world() {
    let world = World::new();
    let folder = world.folder().to_owned();
    world.redis();
    // One that hides: no parent, no environment, another session.
    world.native().command(["sh", "-c", "env -i setsid sleep 1234 & exit 0"]).run().assert_success();
    let namespace = world.host.path();
    let inode = fs::metadata(&namespace).unwrap();
    drop(world);
    assert!(!folder.exists());
    let lives = || {
        use std::os::unix::fs::MetadataExt;
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes.filter_map(|p| fs::metadata(p.path().join("ns/net")).ok()).any(|ns| ns.ino() == inode.ino())
    };
    assert!(until(Duration::from_secs(5), || !lives()), "a process is still in the namespace");
}

#[test]
fn the_world_has_the_addresses_it_says() {
    let world = World::new();
    let run = world.native().command(["ip", "-brief", "address"]).run();
    assert!(run.stdout().contains(&HOST4.to_string()), "{}", run.describe());
    assert!(world.host.inside(|| TcpStream::connect((FAR4, 9))).is_err(), "nothing listens unasked");
}
