//! A connection that nobody waits for any more is given up, all the way to the server: programs that
//! try several addresses at once close those that lose.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::process::Command;

use netshunt_tests::{DEADLINE, FAR4, Path, Run, Running, World, until};

const PORT: u16 = 7001;

/// Networks of which nobody answers, until an address of them is given to the far side.
const SILENT: [&str; 2] = ["203.0.113.", "2001:db8:2::"];

/// Hosts of them, as the program uses them.
const LOST: [u8; 3] = [1, 2, 3];
const KEPT: [u8; 4] = [11, 12, 13, 14];

fn addresses(hosts: &[u8]) -> BTreeSet<String> {
    SILENT.iter().flat_map(|prefix| hosts.iter().map(move |host| format!("{prefix}{host}"))).collect()
}

fn output(namespace: &str, words: &[&str]) -> String {
    let output = Command::new("nsenter").arg(format!("--net={namespace}")).args(words).output();
    let output = output.expect("util-linux has nsenter");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Where the host is connecting to, in the program's port.
fn connecting(world: &World) -> BTreeSet<String> {
    let sockets = output(&world.host.path(), &["ss", "-Htn", "state", "syn-sent"]);
    let peers = sockets.lines().filter_map(|line| line.split_whitespace().nth(3)?.rsplit_once(':'));
    let ours = peers.filter(|(_, port)| *port == PORT.to_string());
    ours.map(|(address, _)| address.trim_matches(['[', ']']).to_owned()).collect()
}

fn server(world: &World) -> Running<'_> {
    let listener = ["python3", &world.program("echo.py"), "0.0.0.0", "::", &PORT.to_string()];
    let script = "echo 1 >/proc/sys/net/ipv6/bindv6only; exec \"$@\"";
    let words = ["sh", "-c", script, "sh"].into_iter().chain(listener);
    let server = world.native().far().command(words).start();
    let listens = || world.host.inside(|| TcpStream::connect((FAR4, PORT)).is_ok());
    assert!(until(DEADLINE, listens), "the server is up");
    server
}

fn only_who_is_waited_for_is_connected(path: Path) -> Run {
    let world = World::new();
    let _server = server(&world);
    let launch = match path {
        Path::Native => world.native(),
        Path::Stack => world.netshunt_with(["--net=link"]),
        Path::Bypass => world.netshunt_with(["--net=host-bypass", "--bypass=*"]),
    };
    let program = world.program("abandoned.py");
    let words = ["python3", &program, &PORT.to_string(), SILENT[0], SILENT[1]];
    let mut running = launch.command(words).start();
    running.prints("pending\n");
    let (lost, kept) = (addresses(&LOST), addresses(&KEPT));
    let mut seen = BTreeSet::new();
    let given_up = until(DEADLINE, || {
        seen = connecting(&world);
        seen == kept
    });
    assert!(given_up, "being connected: {seen:?}");
    for address in lost.union(&kept) {
        let family = if address.contains(':') { ["-6", "128"] } else { ["-4", "32"] };
        let name = format!("{address}/{}", family[1]);
        let words = ["ip", family[0], "address", "add", &name, "dev", "far"];
        let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        output(&world.far.path(), &[&words[..], nodad].concat());
    }
    let run = running.wait();
    run.assert_success();
    let text = run.stdout();
    let mut came: Vec<&str> = text.lines().filter(|line| *line != "pending").collect();
    came.sort_unstable();
    let mut wanted: Vec<String> =
        KEPT.iter().flat_map(|host| [format!("{host} 0"), format!("{host} 0")]).collect();
    wanted.sort_unstable();
    assert_eq!(came, wanted, "{}", run.describe());
    run
}

#[test]
fn natively_only_who_is_waited_for_is_connected() {
    only_who_is_waited_for_is_connected(Path::Native);
}

#[test]
fn through_the_stack_only_who_is_waited_for_is_connected() {
    let run = only_who_is_waited_for_is_connected(Path::Stack);
    let of = |hosts: &[u8]| {
        let wanted = addresses(hosts);
        let flows = run.flows.iter().filter(|flow| wanted.contains(&flow.dst.ip().to_string()));
        flows.map(|flow| flow.errno.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(&LOST), vec![None; 6], "{}", run.describe());
    assert_eq!(of(&KEPT), vec![None; 8], "{}", run.describe());
}
