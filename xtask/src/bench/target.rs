//! What `--check` asks for.

use super::arena::Place;
use super::load::Load;
use super::samples::{Samples, Summary};
use super::way::Way;

/// What a ratio must be, by the median of the rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub(crate) fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }
}

/// The ratio of a way to another, in one metric.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    load: Load,
    pub(crate) metric: &'static str,
    pub(crate) way: Way,
    pub(crate) to: Way,
    pub(crate) bound: Bound,
}

const fn target(load: Load, metric: &'static str, way: Way, to: Way, bound: Bound) -> Target {
    Target { load, metric, way, to, bound }
}

/// A bypassed socket is the host's own: nothing of ours stands in the way of its bytes.
const fn bypassed(load: Load, metric: &'static str, way: Way) -> Target {
    target(load, metric, way, Way::NATIVE, Bound::AtLeast(0.97))
}

/// The best link against the peer that everybody has.
const fn more(load: Load, metric: &'static str) -> Target {
    target(load, metric, Way::PASST_BEST, Way::SLIRP4NETNS, Bound::AtLeast(1.0))
}

const fn less(load: Load, metric: &'static str) -> Target {
    target(load, metric, Way::PASST_BEST, Way::SLIRP4NETNS, Bound::AtMost(1.0))
}

/// At least as many bytes in a second of processor time: at most as many seconds for a byte.
const fn frugal(load: Load, metric: &'static str, way: Way, to: Way) -> Target {
    target(load, metric, way, to, Bound::AtMost(1.0))
}

const TARGETS: &[Target] = &[
    bypassed(Load::BulkOut(1), "tx1", Way::BYPASS),
    bypassed(Load::BulkOut(4), "tx4", Way::BYPASS),
    bypassed(Load::BulkIn(1), "rx1", Way::BYPASS),
    bypassed(Load::BulkIn(4), "rx4", Way::BYPASS),
    bypassed(Load::BulkOut(1), "tx1", Way::BYPASS_BESIDE),
    bypassed(Load::BulkOut(4), "tx4", Way::BYPASS_BESIDE),
    bypassed(Load::BulkIn(1), "rx1", Way::BYPASS_BESIDE),
    bypassed(Load::BulkIn(4), "rx4", Way::BYPASS_BESIDE),
    frugal(Load::BulkOut(1), "tx1_cpu", Way::PASST_BEST, Way::PASTA),
    frugal(Load::BulkOut(1), "tx1_cpu", Way::PASST_BEST, Way::PASTA_SID),
    frugal(Load::BulkOut(1), "tx1_cpu", Way::PASST_BEST_TUNED, Way::PASTA_TUNED),
    frugal(Load::BulkOut(1), "tx1_cpu", Way::PASST_BEST_TUNED, Way::PASTA_SID_TUNED),
    frugal(Load::BulkIn(1), "rx1_cpu", Way::PASST_BEST, Way::PASTA),
    frugal(Load::BulkIn(1), "rx1_cpu", Way::PASST_BEST, Way::PASTA_SID),
    more(Load::BulkOut(1), "tx1"),
    more(Load::BulkOut(4), "tx4"),
    more(Load::BulkIn(1), "rx1"),
    more(Load::BulkIn(4), "rx4"),
    less(Load::BulkOut(1), "tx1_cpu"),
    less(Load::BulkIn(1), "rx1_cpu"),
    less(Load::RoundTrips(Place::Pinned), "rr_pin_p50"),
    less(Load::RoundTrips(Place::Anywhere), "rr_p50"),
    more(Load::Connects(Place::Pinned), "crr_pin"),
    more(Load::Connects(Place::Anywhere), "crr"),
    less(Load::FirstByte, "first_byte"),
    less(Load::Exit, "exit"),
];

/// What came of a target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) target: &'static Target,
    /// `None` when one of the two was never measured.
    pub(crate) ratio: Option<Summary>,
    pub(crate) met: bool,
}

/// The loads that targets are about, each once.
pub(crate) fn loads() -> Vec<Load> {
    let mut loads: Vec<Load> = Vec::new();
    for target in TARGETS {
        if !loads.contains(&target.load) {
            loads.push(target.load);
        }
    }
    loads
}

/// The ways that the targets of a load are about.
pub(crate) fn concern(load: Load, way: Way) -> bool {
    TARGETS.iter().any(|target| target.load == load && (target.way == way || target.to == way))
}

/// Holds what was measured against every target.
pub(crate) fn judge(samples: &Samples) -> Vec<Verdict> {
    let judged = |target: &'static Target| {
        let ratio = samples.ratios(target.metric, target.way, target.to);
        let met = ratio.is_some_and(|ratio| target.bound.holds(ratio.median));
        Verdict { target, ratio, met }
    };
    TARGETS.iter().map(judged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::metrics;

    #[test]
    fn every_target_is_measured() {
        for target in TARGETS {
            assert!(metrics().any(|metric| metric.name == target.metric), "{target:?}");
            for way in [target.way, target.to] {
                assert!(Way::ALL.contains(&way) && target.load.is_for(way), "{target:?}");
                assert!(concern(target.load, way));
            }
        }
        assert_eq!(loads().len(), 10);
        assert!(!concern(Load::Exit, Way::PASTA));
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        assert!(judge(&Samples::default()).iter().all(|verdict| !verdict.met));
    }

    #[test]
    fn the_median_decides() {
        let mut samples = Samples::default();
        for ratio in [0.5, 0.98, 1.2] {
            samples.open_round();
            samples.put("tx1", Way::NATIVE, 10.0);
            samples.put("tx1", Way::BYPASS, 10.0 * ratio);
            samples.put("rx1", Way::NATIVE, 10.0);
            samples.put("rx1", Way::BYPASS, 10.0 * (ratio - 0.02));
            samples.put("exit", Way::SLIRP4NETNS, 10.0);
            samples.put("exit", Way::PASST_BEST, 10.0 * ratio);
        }
        let verdicts = judge(&samples);
        let met = |metric, way| {
            verdicts.iter().find(|v| v.target.metric == metric && v.target.way == way).unwrap().met
        };
        assert!(met("tx1", Way::BYPASS));
        assert!(!met("rx1", Way::BYPASS));
        assert!(met("exit", Way::PASST_BEST));
    }
}
