//! The regression suites of language runtimes, run natively and in netshunt: each test must say the same.

#[path = "allowed/suites.rs"]
mod allowed;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::Duration;

use allowed::ALLOWED;
use netshunt_tests::{FAR4, Launch, World, is_nightly};

/// What came of each test, by its name.
type Verdicts = BTreeMap<String, String>;

/// A test that depends on the clock or on a free port may fail anywhere: what differs is run again.
const LOOKS: usize = 4;

/// netshunt takes these from a root guest (SECURITY.md); the native run does without them too.
const WITHOUT: &str = "--bounding-set=-net_admin,-net_broadcast,-net_raw,-sys_admin,-sys_boot,-sys_ptrace,\
                       -sys_module,-sys_rawio,-bpf,-perfmon,-checkpoint_restore";

/// CPython's modules of tests that use sockets and take a few seconds each.
const CPYTHON: &[&str] = &[
    "test_asyncio.test_sock_lowlevel",
    "test_asyncore",
    "test_epoll",
    "test_httplib",
    "test_httpservers",
    "test_select",
    "test_socketserver",
];

/// All the others.
const CPYTHON_NIGHTLY: &[&str] = &[
    "test_asynchat",
    "test_asyncio.test_base_events",
    "test_asyncio.test_buffered_proto",
    "test_asyncio.test_events",
    "test_asyncio.test_selector_events",
    "test_asyncio.test_sendfile",
    "test_asyncio.test_server",
    "test_asyncio.test_ssl",
    "test_asyncio.test_sslproto",
    "test_asyncio.test_streams",
    "test_asyncio.test_subprocess",
    "test_asyncio.test_unix_events",
    "test_docxmlrpc",
    "test_eintr",
    "test_fcntl",
    "test_ftplib",
    "test_imaplib",
    "test_ioctl",
    "test_logging",
    "test_nntplib",
    "test_os",
    "test_poll",
    "test_poplib",
    "test_robotparser",
    "test_selectors",
    "test_signal",
    "test_smtpd",
    "test_smtplib",
    "test_socket",
    "test_ssl",
    "test_telnetlib",
    "test_urllib2",
    "test_urllib2_localnet",
    "test_wsgiref",
    "test_xmlrpc",
];

/// One side of a comparison: the same command, in netshunt or not, as the same user.
fn launch(world: &World, netshunt: bool) -> Launch<'_> {
    let launch = match netshunt {
        true => world.netshunt_with(["--net=link"]),
        false if world.user().is_root() => {
            world.native().wrapper(["setpriv", "--no-new-privs", WITHOUT, "--"])
        }
        false => world.native().wrapper(["setpriv", "--no-new-privs", "--"]),
    };
    // Names that /etc/hosts does not have are refused at once, and not looked for until a time-out.
    launch.resolver(&FAR4.to_string()).timeout(Duration::from_secs(3000))
}

fn cpython(world: &World, netshunt: bool, modules: &BTreeSet<&str>) -> Verdicts {
    let words = ["/usr/bin/python3".to_owned(), world.program("cpython_suite.py"), "verdicts".to_owned()];
    let modules = modules.iter().map(|&module| module.to_owned());
    let run = launch(world, netshunt).command(words.into_iter().chain(modules)).run();
    run.assert_success();
    let text = fs::read_to_string(run.folder.join("verdicts")).unwrap_or_default();
    let mut verdicts = Verdicts::new();
    for line in text.lines() {
        let mut fields = line.split('\t');
        let (name, verdict) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        match verdict {
            "begun" => drop(verdicts.insert(name.to_owned(), "hung".to_owned())),
            _ if verdict.starts_with("module") => println!("{line}"),
            _ => drop(verdicts.insert(name.to_owned(), verdict.to_owned())),
        }
    }
    verdicts
}

/// Runs the test program of a package of Go's standard library.
fn go(world: &World, netshunt: bool, package: &str) -> Verdicts {
    let folder = format!("/usr/lib/go-1.19/src/{package}");
    let program = go_program(world, package);
    let script = "cd \"$0\" && exec \"$@\" -test.v -test.short -test.timeout=600s";
    let run = launch(world, netshunt).command(["sh", "-c", script, &folder, &program]).run();
    let mut verdicts = Verdicts::new();
    for line in run.stdout().lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("==="), Some("RUN"), Some(name)) => {
                verdicts.insert(name.to_owned(), "hung".to_owned());
            }
            (Some("---"), Some(verdict @ ("PASS:" | "FAIL:" | "SKIP:")), Some(name)) => {
                let verdict = match verdict {
                    "PASS:" => "passed",
                    "FAIL:" => "failed",
                    _ => "skipped",
                };
                verdicts.insert(name.to_owned(), verdict.to_owned());
            }
            _ => {}
        }
    }
    verdicts
}

fn go_program(world: &World, package: &str) -> String {
    let program = world.folder().join(format!("{}.test", package.replace('/', "-")));
    let program = program.display().to_string();
    if !fs::exists(&program).unwrap_or_default() {
        let cache = world.folder().join("go-cache").display().to_string();
        let build = world.native().as_root().env("GOCACHE", cache).timeout(Duration::from_secs(600));
        build
            .command(["/usr/lib/go-1.19/bin/go", "test", "-c", "-o", &program, package])
            .run()
            .assert_success();
    }
    program
}

/// Compares all `parts` of a suite; `look` runs some of them, `part` says which one a test is of.
fn compare<'p>(
    suite: &str,
    world: &World,
    parts: BTreeSet<&'p str>,
    look: impl Fn(bool, &BTreeSet<&'p str>) -> Verdicts + Sync,
    part: impl Fn(&str) -> Option<&'p str>,
    least: usize,
) {
    let (mut natives, mut ours) = (Vec::new(), Vec::new());
    let mut wanted = parts;
    let mut different = BTreeSet::new();
    let mut used = BTreeSet::new();
    for number in 0..LOOKS {
        // At the same time: their networks are not the same, and much of it is waiting.
        let (native, own) = thread::scope(|scope| {
            let native = scope.spawn(|| look(false, &wanted));
            let own = look(true, &wanted);
            (native.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), own)
        });
        if number == 0 {
            tell("natively", &native);
            tell("in netshunt", &own);
        }
        natives.push(native);
        ours.push(own);
        let names: BTreeSet<&String> = natives[0].keys().chain(ours[0].keys()).collect();
        let said = |looks: &[Verdicts], name: &str| -> BTreeSet<String> {
            // What a set-up that fails is reported as is there only when it fails.
            looks.iter().map(|look| look.get(name).cloned().unwrap_or_default()).collect()
        };
        let differs = |name: &&&String| said(&natives, name).is_disjoint(&said(&ours, name));
        let found = names.iter().filter(differs).map(|name| (*name).clone());
        different = found
            .filter(|name| {
                let entry = ALLOWED.iter().position(|entry| entry.covers(suite, name));
                if let Some(entry) = entry.filter(|entry| used.insert(*entry)) {
                    println!("{name}: {}", ALLOWED[entry].reason);
                }
                entry.is_none()
            })
            .collect::<BTreeSet<String>>();
        let known = |name: &String| part(name).unwrap_or_else(|| panic!("{name} is of no part of {suite}"));
        wanted = different.iter().map(known).collect();
        if different.is_empty() {
            break;
        }
    }
    let ran = |entry: &allowed::Allowed| natives[0].keys().any(|name| entry.covers(suite, name));
    let unused: Vec<_> = ALLOWED
        .iter()
        .enumerate()
        .filter(|(number, entry)| !entry.sometimes && ran(entry) && !used.contains(number))
        .map(|(_, entry)| entry.test)
        .collect();
    let first = |looks: &[Verdicts], name: &String| looks[0].get(name).cloned().unwrap_or_default();
    let different: Vec<_> = different
        .iter()
        .map(|name| format!("{name}: {} natively, {} in netshunt", first(&natives, name), first(&ours, name)))
        .collect();
    assert!(different.is_empty(), "{suite} as {:?}: {different:#?}", world.user());
    assert!(unused.is_empty(), "allowed differences of {suite} that are none: {unused:?}");
    let passed = ours[0].values().filter(|verdict| *verdict == "passed").count();
    assert!(passed >= least, "{suite}: only {passed} tests passed");
}

/// For the reader of the log, and docs/suites.md.
fn tell(whose: &str, verdicts: &Verdicts) {
    let mut counts = BTreeMap::<&str, usize>::new();
    for verdict in verdicts.values() {
        *counts.entry(verdict).or_default() += 1;
    }
    println!("{whose}: {counts:?}");
}

fn module_of<'p>(modules: &BTreeSet<&'p str>, name: &str) -> Option<&'p str> {
    modules.iter().find(|module| name.contains(&format!("test.{module}"))).copied()
}

#[test]
fn cpythons_own() {
    let world = World::new();
    let mut modules: BTreeSet<&str> = CPYTHON.iter().copied().collect();
    if is_nightly() {
        modules.extend(CPYTHON_NIGHTLY);
    }
    compare(
        "cpython",
        &world,
        modules.clone(),
        |netshunt, only| cpython(&world, netshunt, only),
        |name| module_of(&modules, name),
        if is_nightly() { 3000 } else { 300 },
    );
}

/// Of the package `net`, and at night of `net/http`.
#[test]
fn gos_own() {
    let world = World::new();
    let all = [("net", 300), ("net/http", 600)];
    for (package, least) in &all[..if is_nightly() { 2 } else { 1 }] {
        go_program(&world, package);
        let look = |netshunt, _: &_| go(&world, netshunt, package);
        compare(package, &world, [*package].into(), look, |_| Some(*package), *least);
    }
}
