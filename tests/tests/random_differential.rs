//! Random sequences of socket calls, held call by call against what the same sequence does without netshunt: results,
//! errors, data, addresses, and after each call the events of every socket.
//!
//! `NETSHUNT_SEEDS=FIRST..LAST` chooses the sequences, `NETSHUNT_SEEDS=N..N+1` a single one.

#[path = "random/allowed.rs"]
mod allowed;
#[path = "random/sequence.rs"]
mod sequence;
#[path = "random/shrink.rs"]
mod shrink;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use allowed::{ALLOWED, Used};
use netshunt_tests::{World, is_nightly};
use sequence::{Difference, Job, Sequence};

/// In CI.
const FEW: u64 = 3000;
/// At night.
const MANY: u64 = 110_000;

/// Those beyond [`FEW`] that have shown a bug: an error queue read as data (11120, 17129), options of a socket of IPv6 that
/// is connected to IPv4 (10279), an error taken by a call that failed (36620), urgent datagrams of AF_UNIX (22760, 26657).
const FOUND: &[u64] = &[10279, 11120, 17129, 22760, 26657, 36620];

/// Sequences that one process performs.
const PORTION: usize = 500;

/// How often a difference makes us look again: what depends on the moment differs natively too.
const LOOKS: usize = 3;

/// Of each kind of difference, that many are looked at again.
const EXAMPLES: usize = 3;

/// For a state to come about: at first, and when it did not.
const PATIENCE: [u32; 2] = [100, 1000];

/// Kinds of differences that are made small and shown.
const SHOWN: usize = 12;

/// Both sides of a comparison.
struct Twins {
    world: World,
    program: String,
    files: AtomicUsize,
}

impl Twins {
    fn new() -> Self {
        let world = World::new();
        let program = world.compile("random");
        Self { world, program, files: AtomicUsize::new(0) }
    }

    fn file(&self, content: &str) -> PathBuf {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.world.folder().join(format!("random-{number}"));
        fs::write(&path, content).expect("a folder of ours");
        path
    }

    /// Performs the jobs natively. Their calls are in `jobs` afterwards.
    fn natively(&self, jobs: &[Job]) -> Vec<Sequence> {
        let input = self.file(&Job::lines(jobs));
        // What netshunt takes from root.
        let wrapper = ["setpriv", "--bounding-set=-net_admin,-net_raw,-net_bind_service,-sys_admin"];
        let mut launch = self.world.native().command([&self.program]).stdin_file(&input);
        if self.world.user().is_root() {
            launch = launch.wrapper(wrapper);
        }
        let run = launch.run();
        run.assert_success();
        Sequence::read(jobs, &run.stdout()).unwrap_or_else(|e| panic!("{e}\n{}", run.describe()))
    }

    /// Performs the jobs under netshunt, waiting so many milliseconds for what happened natively.
    fn under_netshunt(&self, jobs: &[Job], natively: &[Sequence], patience: u32) -> Vec<Sequence> {
        let input = self.file(&Job::lines(jobs));
        let other = self.file(&Sequence::lines(natively));
        let words = [self.program.clone(), other.display().to_string(), patience.to_string()];
        let launch = self.world.netshunt_with(["--net=link"]).command(words).stdin_file(&input);
        let run = launch.timeout(Duration::from_secs(600)).run();
        run.assert_success();
        Sequence::read(jobs, &run.stdout()).unwrap_or_else(|e| panic!("{e}\n{}", run.describe()))
    }

    /// The differences, by job. What native runs differ in is none.
    fn differences(&self, jobs: &[Job], used: &Used) -> BTreeMap<usize, Difference> {
        let native = self.natively(jobs);
        let ours = self.under_netshunt(jobs, &native, PATIENCE[0]);
        let pairs = native.iter().zip(&ours).enumerate();
        let found =
            pairs.filter_map(|(job, (native, ours))| Some((job, Difference::first(native, ours, used)?)));
        let mut found: BTreeMap<usize, Difference> = found.collect();
        let (mut examined, mut confirmed) = (BTreeSet::new(), BTreeSet::new());
        loop {
            // A few of each kind are looked at again. If these remain, so do the others.
            let mut chosen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for (&job, difference) in found.iter().filter(|(job, _)| !examined.contains(*job)) {
                let of_kind = chosen.entry(difference.kind()).or_default();
                if of_kind.len() < EXAMPLES && !confirmed.contains(&difference.kind()) {
                    of_kind.push(job);
                }
            }
            let mut chosen: Vec<usize> = chosen.into_values().flatten().collect();
            if chosen.is_empty() {
                return found;
            }
            examined.extend(chosen.clone());
            for _ in 0..LOOKS {
                let again: Vec<Job> = chosen.iter().map(|&job| jobs[job].clone()).collect();
                let native = self.natively(&again);
                let ours = self.under_netshunt(&again, &native, PATIENCE[1]);
                let mut pairs = native.iter().zip(&ours);
                chosen.retain(|&job| {
                    let (native, ours) = pairs.next().expect("one for each");
                    let difference = Difference::first(native, ours, used);
                    match &difference {
                        Some(difference) => drop(found.insert(job, difference.clone())),
                        None => drop(found.remove(&job)),
                    }
                    difference.is_some()
                });
                if chosen.is_empty() {
                    break;
                }
            }
            confirmed.extend(chosen.iter().map(|job| found[job].kind()));
        }
    }
}

fn seeds() -> Vec<u64> {
    match env::var("NETSHUNT_SEEDS") {
        Ok(chosen) => {
            let words = chosen.split_once("..");
            let range = words.and_then(|(first, end)| Some(first.parse::<u64>().ok()?..end.parse().ok()?));
            range.unwrap_or_else(|| panic!("NETSHUNT_SEEDS={chosen} is not FIRST..END")).collect()
        }
        Err(_) if is_nightly() => (1..=MANY).collect(),
        Err(_) => (1..=FEW).chain(FOUND.iter().copied()).collect(),
    }
}

#[test]
fn random_sequences_do_what_they_do_natively() {
    let twins = Twins::new();
    let seeds = seeds();
    let portions = Mutex::new(seeds.chunks(PORTION));
    let used = Used::new();
    let all = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let portion = portions.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(portion) = portion else { return };
            let jobs: Vec<Job> = portion.iter().copied().map(Job::whole).collect();
            let found = twins.differences(&jobs, &used);
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(found.into_iter().map(|(job, difference)| (jobs[job].seed, difference)));
        }
    };
    // Two at once: each process and its supervisor keep one processor busy.
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut kinds: BTreeMap<String, Vec<(u64, Difference)>> = BTreeMap::new();
    for (seed, difference) in all {
        kinds.entry(difference.kind()).or_default().push((seed, difference));
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, examples)| std::cmp::Reverse(examples.len()));
    for (number, (kind, examples)) in kinds.iter().enumerate() {
        eprintln!("\n{} times {kind}", examples.len());
        let shortest = examples.iter().min_by_key(|(_, difference)| difference.at).expect("one at least");
        if number < SHOWN {
            eprintln!("{}", shrink::smallest(&twins, shortest.0, &shortest.1));
        } else {
            eprintln!("seed {}: {}", shortest.0, shortest.1);
        }
    }
    assert!(kinds.is_empty(), "{} kinds of differences", kinds.len());
    if env::var_os("NETSHUNT_SEEDS").is_none() {
        let unused: Vec<_> = ALLOWED.iter().enumerate().filter(|(entry, _)| !used.is(*entry)).collect();
        let unused: Vec<_> = unused.iter().filter(|(_, entry)| is_nightly() || !entry.rare).collect();
        assert!(unused.is_empty(), "allowed and not needed: {unused:#?}");
    }
}

#[test]
fn every_allowed_difference_of_sequences_has_a_reason() {
    for entry in ALLOWED {
        assert!(entry.reason.len() > 20, "{entry:?}");
    }
}
