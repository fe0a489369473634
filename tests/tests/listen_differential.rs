//! bind(2), listen(2) and accept(2) as a program sees them, held line by line against what the same program sees
//! without netshunt. There is nothing in which they may differ.

use std::collections::BTreeMap;

use netshunt_tests::{Run, World};

/// How often a difference makes us look at native again: what depends on the moment differs there too.
const LOOKS: usize = 5;

/// "FAMILY CASE: WHAT" and its value.
fn lines(run: &Run) -> BTreeMap<String, String> {
    run.assert_success();
    let text = run.stdout();
    let pairs =
        text.lines().map(|line| line.split_once('=').unwrap_or_else(|| panic!("{line}\n{}", run.describe())));
    let mut all = BTreeMap::new();
    for (what, value) in pairs {
        // The same question twice has two answers.
        let mut what = what.to_owned();
        while all.contains_key(&what) {
            what.push('\'');
        }
        all.insert(what, value.trim_end().to_owned());
    }
    all
}

#[test]
fn a_server_sees_what_it_sees_natively() {
    let world = World::new();
    let program = world.compile("sockets/listen.c");
    let run = world.netshunt_with(["--net=link"]).command([&program]).run();
    let ours = lines(&run);
    let mut natives: Vec<BTreeMap<String, String>> = Vec::new();
    let mut found = Vec::new();
    for _ in 0..LOOKS {
        natives.push(lines(&world.native().command([&program]).run()));
        let natively = |what: &str, value| natives.iter().any(|native| native.get(what) == value);
        let all = natives[0].keys().chain(ours.keys());
        found = all.filter(|what| !natively(what, ours.get(*what))).cloned().collect();
        if found.is_empty() {
            break;
        }
    }
    for what in &found {
        eprintln!("{what}: {:?}, natively {:?}", ours.get(what), natives[0].get(what));
    }
    assert!(found.is_empty() && ours.len() > 300, "{} lines\n{}", ours.len(), run.describe());
    // Over the stack's own loopback: nothing of it is for the link.
    assert!(run.flows.iter().any(|flow| flow.direction == "in" && flow.verdict == "stack"));
}
