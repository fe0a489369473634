//! A thousand connections of both kinds in one epoll, handed on by every way there is, on the way.

use std::fs;

use netshunt_tests::{FAR4, Path, World};

const STACK_PORT: u16 = 7001;
const BYPASS_PORT: u16 = 9001;
const EACH: usize = 500;

/// Connected by one holder, used by another; without netshunt too, which is the control.
fn handed(way: &str) {
    let world = World::new();
    world.echo(&[STACK_PORT, BYPASS_PORT]);
    let program = world.folder().join("handed.py");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/sockets/handed.py");
    fs::copy(source, &program).expect("a folder of ours");
    let wanted = format!("ok {}", 2 * EACH);
    for trigger in ["level", "edge"] {
        let numbers = [STACK_PORT.into(), BYPASS_PORT.into(), EACH].map(|n: usize| n.to_string());
        let words = ["python3".to_owned(), program.display().to_string(), way.to_owned(), trigger.to_owned()];
        let words = [&words[..], &[FAR4.to_string()], &numbers].concat();
        let control = world.native().command(words.clone()).run();
        assert_eq!(control.stdout().trim(), wanted, "{}", control.describe());
        let run = world.netshunt(Path::Bypass, &[BYPASS_PORT]).command(words).run();
        run.assert_success();
        assert_eq!(run.stdout().trim(), wanted, "{}", run.describe());
        for (port, verdict) in [(STACK_PORT, "stack"), (BYPASS_PORT, "bypass")] {
            let flows = run.flows.iter().filter(|flow| flow.dst.port() == port && flow.verdict == verdict);
            assert_eq!(flows.count(), EACH, "{}", run.describe());
        }
        // connect() once for each socket; whoever has it then reads, writes and waits unasked.
        let notifications = &run.stats.as_ref().expect("statistics").notifications;
        assert_eq!(notifications.get("connect"), Some(&(2 * EACH as u64)), "{}", run.describe());
        for call in
            ["read", "write", "sendto", "recvfrom", "epoll_wait", "epoll_ctl", "dup", "close", "shutdown"]
        {
            assert_eq!(notifications.get(call), None, "{call}: {}", run.describe());
        }
    }
}

#[test]
fn a_thousand_connections_under_other_numbers() {
    handed("dup");
}

#[test]
fn a_thousand_connections_in_a_child() {
    handed("fork");
}

#[test]
fn a_thousand_connections_in_another_program() {
    handed("exec");
}

#[test]
fn a_thousand_connections_in_another_process_by_scm_rights() {
    handed("rights");
}
