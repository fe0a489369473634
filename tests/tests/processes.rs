//! Sockets in every kind of process: threads, children that share some of what their parents have, daemons, programs
//! executed over a socket, namespaces; and in a thousand processes at once. Held line by line against what the same
//! program sees without netshunt.

use std::time::Duration;

use netshunt_tests::{FAR4, Path, Run, World};

const PORT: u16 = 7002;

/// How many processes have sockets at once.
const CROWD: usize = 1000;

/// A thousand processes, beside other tests.
const TIMEOUT: Duration = Duration::from_secs(300);

fn observe(world: &World, path: Path, program: &str) -> Run {
    let launch = match path {
        Path::Bypass => {
            let rules = ["tcp", "udp"].map(|proto| format!("--bypass={FAR4}:{PORT}/{proto}"));
            world.netshunt_with(["--net=link,host-bypass"]).option(&rules[0]).option(&rules[1])
        }
        Path::Native => world.native(),
        Path::Stack => world.netshunt_with(["--net=link"]),
    };
    let words = [program.to_owned(), PORT.to_string(), FAR4.to_string(), CROWD.to_string()];
    let run = launch.command(words).timeout(TIMEOUT).run();
    run.assert_success();
    run
}

/// There is nothing in which they may differ.
fn as_natively(path: Path) {
    let world = World::new();
    let program = world.compile("sockets/processes.c");
    let mut echo = world.native().far().command([&program, "echo", &PORT.to_string()]).start();
    echo.prints("ready");
    let (natively, run) = (observe(&world, Path::Native, &program), observe(&world, path, &program));
    let (expected, seen) = (natively.stdout(), run.stdout());
    let different: Vec<_> =
        expected.lines().zip(seen.lines()).filter(|(native, seen)| native != seen).collect();
    assert!(different.is_empty(), "natively, seen: {different:#?}");
    assert_eq!(expected.lines().count(), seen.lines().count(), "{seen}");
    assert!(expected.ends_with(&format!("servers={CROWD}, {CROWD}, {CROWD}\n")), "{expected}");
    let verdict = if path == Path::Bypass { "bypass" } else { "stack" };
    for proto in ["tcp", "udp"] {
        let of_far = run.flows.iter().filter(|flow| flow.dst.ip() == FAR4 && flow.proto == proto);
        assert!(of_far.clone().count() > CROWD, "{proto}");
        assert!(of_far.clone().all(|flow| flow.verdict == verdict), "{proto}");
    }
}

#[test]
fn every_process_has_what_it_has_natively() {
    as_natively(Path::Stack);
}

#[test]
fn every_process_has_what_it_has_natively_bypassed() {
    as_natively(Path::Bypass);
}
