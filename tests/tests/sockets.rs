//! Sockets of both kinds in one process, and what becomes of a socket that is passed on.

use netshunt_tests::{FAR4, Path, Run, World};

/// One echo server, on a port for each path.
const STACK_PORT: u16 = 7001;
const BYPASS_PORT: u16 = 9001;

const EACH: usize = 500;
/// How much each socket sends. The bypassed ones send so much more that what went over the link shows
/// that they did not go there, whatever TCP had to send twice.
const STACK_AMOUNT: usize = 8 << 10;
const BYPASS_AMOUNT: usize = 64 << 10;

fn many(trigger: &str) {
    let world = World::new();
    world.echo(&[STACK_PORT, BYPASS_PORT]);
    let numbers = [EACH, STACK_PORT.into(), STACK_AMOUNT, BYPASS_PORT.into(), BYPASS_AMOUNT];
    let mut words =
        vec!["python3".to_owned(), world.program("many.py"), trigger.to_owned(), FAR4.to_string()];
    words.extend(numbers.map(|number: usize| number.to_string()));
    let control = world.native().command(words.clone()).run();
    assert_eq!(control.stdout().trim(), format!("ok {}", 2 * EACH), "{}", control.describe());
    let run = world.netshunt(Path::Bypass, &[BYPASS_PORT]).command(words).run();
    run.assert_success();
    assert_eq!(run.stdout().trim(), format!("ok {}", 2 * EACH), "{}", run.describe());
    let verdicts = |port: u16, verdict: &str| {
        run.flows.iter().filter(|flow| flow.dst.port() == port && flow.verdict == verdict).count()
    };
    assert_eq!(verdicts(STACK_PORT, "stack"), EACH, "{}", run.describe());
    assert_eq!(verdicts(BYPASS_PORT, "bypass"), EACH, "{}", run.describe());
    let [stack, bypass] = [STACK_AMOUNT, BYPASS_AMOUNT].map(|amount| (2 * EACH * amount) as u64);
    let bytes = run.stats.as_ref().expect("statistics").bytes();
    assert!(
        (stack..bypass).contains(&bytes),
        "{bytes} over the link: {stack} were to go there, {bypass} were not\n{}",
        run.describe()
    );
}

#[test]
fn a_thousand_sockets_of_both_kinds_share_a_level_triggered_epoll() {
    many("level");
}

#[test]
fn a_thousand_sockets_of_both_kinds_share_an_edge_triggered_epoll() {
    many("edge");
}

fn handover(path: Path) {
    let world = World::new();
    world.echo(&[STACK_PORT]);
    let words =
        ["python3".to_owned(), world.program("handover.py"), FAR4.to_string(), STACK_PORT.to_string()];
    let run = world.netshunt(path, &[STACK_PORT]).command(words).run();
    run.assert_success();
    assert_eq!(run.stdout().lines().count(), 10, "{}", run.describe());
    run.assert_path(path, (FAR4, STACK_PORT).into(), 0);
}

#[test]
fn a_native_socket_survives_dup_fork_exec_and_scm_rights() {
    handover(Path::Native);
}

#[test]
fn a_stack_socket_survives_dup_fork_exec_and_scm_rights() {
    handover(Path::Stack);
}

#[test]
fn a_bypassed_socket_survives_dup_fork_exec_and_scm_rights() {
    handover(Path::Bypass);
}

/// How often netshunt is asked does not depend on how much is sent: reading, writing, polling and
/// closing are the kernel's alone, on both paths.
fn rounds_cost_no_notification(path: Path) {
    let world = World::new();
    world.echo(&[STACK_PORT]);
    let rounds = |number: usize| -> Run {
        let mut words = vec!["python3".to_owned(), world.program("rounds.py"), FAR4.to_string()];
        words.extend([STACK_PORT.to_string(), number.to_string()]);
        let run = world.netshunt(path, &[STACK_PORT]).command(words).run();
        run.assert_success();
        run.assert_path(path, (FAR4, STACK_PORT).into(), 0);
        run
    };
    let notifications = |run: &Run| run.stats.as_ref().expect("statistics").notifications.clone();
    let (few, many) = (rounds(10), rounds(2000));
    assert!(notifications(&few).get("connect").is_some_and(|&count| count > 0), "{}", few.describe());
    assert_eq!(notifications(&few), notifications(&many), "{}", many.describe());
}

#[test]
fn a_bypassed_connection_causes_no_notification_after_connect() {
    rounds_cost_no_notification(Path::Bypass);
}

#[test]
fn a_stack_connection_causes_no_notification_after_connect() {
    rounds_cost_no_notification(Path::Stack);
}
