//! The loop.

use std::collections::BTreeSet;
use std::env;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Input;
use crate::attempt::{Outcome, attempt};
use crate::cases;
use crate::random::Random;
use crate::shrink::shrink;
use crate::watch::Watch;

/// How long each body is tried.
const SECONDS: u64 = 2;
const AT_NIGHT: u64 = 60;
/// How often it is tried to make a case smaller.
const TRIES_OF_A_FAILURE: usize = 2000;
const TRIES_OF_A_STEP: usize = 100;
/// As many are kept of one body by `NETSHUNT_FUZZ_KEEP`.
const KEPT: usize = 24;

/// Calls the body with each case that was kept under that name, and then with new ones, for as long as README.md says.
///
/// # Panics
/// When the body does, with the smallest case that was found and where to keep it.
pub fn fuzz(name: &str, body: impl Fn(&mut Input<'_>)) {
    let seed = number("NETSHUNT_FUZZ_SEED").unwrap_or_else(now);
    let mut run =
        Run { name, body: &body, watch: Watch::over(name), pool: Vec::new(), reached: BTreeSet::new() };
    let kept = cases::read(name);
    kept.iter().for_each(|case| run.one(case));
    // A place for those that reach nothing of their own: they are there for a failure that was.
    run.pool.clone_from(&kept);
    let (before, mut count, mut random) = (run.pool.len(), 0, Random(seed));
    let (began, time) = (Instant::now(), time());
    while began.elapsed() < time {
        let case = random.case(&run.pool);
        run.one(&case);
        count += 1;
    }
    let per_second = f64::from(count) / began.elapsed().as_secs_f64();
    println!(
        "{name}: {} kept and {count} new cases, {per_second:.0} a second, {} places, seed {seed}",
        kept.len(),
        run.reached.len()
    );
    if number("NETSHUNT_FUZZ_KEEP") == Some(1) {
        let new: Vec<_> = run.pool[before..].iter().take(KEPT.saturating_sub(kept.len())).cloned().collect();
        cases::keep(name, &new);
    }
}

struct Run<'a> {
    name: &'a str,
    body: &'a dyn Fn(&mut Input<'_>),
    watch: Watch,
    /// Those that reached something new.
    pool: Vec<Vec<u8>>,
    reached: BTreeSet<u64>,
}

impl Run<'_> {
    fn one(&mut self, case: &[u8]) {
        self.watch.runs(case);
        match attempt(self.body, case) {
            Outcome::Failed(_) => self.fail(case),
            Outcome::Passed(reached) => {
                let new: BTreeSet<u64> = reached.difference(&self.reached).copied().collect();
                if !new.is_empty() {
                    let reaches = |case: &[u8]| {
                        self.watch.runs(case);
                        matches!(attempt(self.body, case), Outcome::Passed(reached) if reached.is_superset(&new))
                    };
                    self.pool.push(shrink(case.to_vec(), TRIES_OF_A_STEP, reaches));
                    self.reached.extend(new);
                }
            }
        }
    }

    fn fail(&self, case: &[u8]) {
        let fails = |case: &[u8]| {
            self.watch.runs(case);
            matches!(attempt(self.body, case), Outcome::Failed(_))
        };
        let case = shrink(case.to_vec(), TRIES_OF_A_FAILURE, fails);
        let why = match attempt(self.body, &case) {
            Outcome::Failed(why) => why,
            // It was none of the bytes.
            Outcome::Passed(_) => "not again".to_owned(),
        };
        let (name, path, case) = (self.name, cases::path(self.name), cases::hex(&case));
        panic!("{name} fails: {why}\nTo keep the case, add to {}:\n{case}", path.display());
    }
}

fn time() -> Duration {
    let night = number("NETSHUNT_NIGHTLY") == Some(1);
    let usual = if night { AT_NIGHT } else { SECONDS };
    Duration::from_secs(number("NETSHUNT_FUZZ_SECONDS").unwrap_or(usual))
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not `{text}`")))
}

/// Another seed each time.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(body: &dyn Fn(&mut Input<'_>), cases: u32) -> Run<'_> {
        let mut run = Run {
            name: "test",
            body,
            watch: Watch::over("test"),
            pool: Vec::new(),
            reached: BTreeSet::new(),
        };
        let mut random = Random(1);
        for _ in 0..cases {
            let case = random.case(&run.pool);
            run.one(&case);
        }
        run
    }

    /// Four bytes that must be right, one after the other: chance alone would take 2^32 cases.
    fn deep(input: &mut Input<'_>) {
        for (n, byte) in b"deep".iter().enumerate() {
            if input.byte() != *byte {
                return;
            }
            input.reached(n);
        }
        panic!("found");
    }

    #[test]
    fn what_reached_something_leads_further() {
        let found = std::panic::catch_unwind(|| run(&deep, 200_000));
        let why = found.err().and_then(|why| why.downcast::<String>().ok()).expect("it fails");
        assert!(why.contains("found") && why.ends_with("add to fuzz/test:\n64656570"), "{why}");
    }

    #[test]
    fn a_case_that_reaches_nothing_new_is_not_changed_further() {
        let run = run(&|input| input.reached(input.is_empty()), 1000);
        assert_eq!((run.pool.len(), run.reached.len()), (2, 2));
    }
}
