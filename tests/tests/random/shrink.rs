//! Makes a sequence that differs as short as it can be.

use super::Twins;
use super::allowed::Used;
use super::sequence::{Difference, Job, Sequence};

/// For a state to come about, in milliseconds: long enough that what does not come is a difference.
const PATIENCE: u32 = 400;

/// Leaves out calls as long as the same difference remains, and shows what is left.
pub(crate) fn smallest(twins: &Twins, seed: u64, difference: &Difference) -> String {
    let mut calls = difference.calls.clone();
    loop {
        let without = |left_out: &[usize]| {
            let calls = calls.iter().copied().filter(|call| !left_out.contains(call)).collect();
            Job { seed, calls }
        };
        // The last is the one that differs.
        let removable = &calls[..calls.len() - 1];
        let jobs: Vec<Job> = removable.iter().map(|&call| without(&[call])).collect();
        let same = remaining(twins, &jobs, difference);
        let needless: Vec<usize> =
            removable.iter().zip(&same).filter(|(_, same)| **same).map(|(&call, _)| call).collect();
        // All at once, if they do not depend on each other, or only the last.
        let all = without(&needless);
        calls = match needless.last() {
            None => break,
            Some(_) if remaining(twins, std::slice::from_ref(&all), difference)[0] => all.calls,
            Some(&last) => without(&[last]).calls,
        };
        if calls.len() == 1 {
            break;
        }
    }
    let job = [Job { seed, calls }];
    let native = twins.natively(&job);
    let ours = twins.under_netshunt(&job, &native, PATIENCE);
    let mut text = format!("{}:\n", job[0]);
    for (native, ours) in native[0].calls.iter().zip(&ours[0].calls) {
        text += &format!("  {} = {}\n", ours.what, ours.seen);
        if native != ours {
            text += &format!("      natively: {} = {}\n", native.what, native.seen);
        }
    }
    text
}

/// Which of the jobs still show it.
fn remaining(twins: &Twins, jobs: &[Job], difference: &Difference) -> Vec<bool> {
    if jobs.is_empty() {
        return Vec::new();
    }
    let native = twins.natively(jobs);
    let ours = twins.under_netshunt(jobs, &native, PATIENCE);
    let shows = |(native, ours): (&Sequence, &Sequence)| {
        Difference::first(native, ours, &Used::new()).is_some_and(|found| found.kind() == difference.kind())
    };
    native.iter().zip(&ours).map(shows).collect()
}
