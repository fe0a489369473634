//! What `--check` asks for.

use super::load::Load;
use super::samples::{Samples, Summary};
use super::way::Way;

/// The least ratio to native that a path must reach, by the median of the rounds.
#[derive(Clone, Copy, Debug)]
struct Target {
    load: Load,
    metric: &'static str,
    way: Way,
    at_least: f64,
}

const fn bulk(load: Load, metric: &'static str, way: Way) -> Target {
    Target { load, metric, way, at_least: 0.97 }
}

/// A bypassed socket is the host's own: nothing of ours stands in the way of its bytes.
const TARGETS: &[Target] = &[
    bulk(Load::BulkOut(1), "tx1", Way::Bypass),
    bulk(Load::BulkOut(4), "tx4", Way::Bypass),
    bulk(Load::BulkIn(1), "rx1", Way::Bypass),
    bulk(Load::BulkIn(4), "rx4", Way::Bypass),
    bulk(Load::BulkOut(1), "tx1", Way::Both),
    bulk(Load::BulkOut(4), "tx4", Way::Both),
    bulk(Load::BulkIn(1), "rx1", Way::Both),
    bulk(Load::BulkIn(4), "rx4", Way::Both),
];

/// What came of a target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) metric: &'static str,
    pub(crate) way: Way,
    pub(crate) at_least: f64,
    /// `None` when it was never measured.
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

/// Holds what was measured against every target.
pub(crate) fn judge(samples: &Samples) -> Vec<Verdict> {
    let judged = |target: &Target| {
        let ratio = samples.ratios(target.metric, target.way);
        let met = ratio.is_some_and(|ratio| ratio.median >= target.at_least);
        Verdict { metric: target.metric, way: target.way, at_least: target.at_least, ratio, met }
    };
    TARGETS.iter().map(judged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::METRICS;

    #[test]
    fn every_target_is_measured() {
        assert!(TARGETS.iter().all(|target| METRICS.iter().any(|metric| metric.name == target.metric)));
        assert_eq!(loads().len(), 4);
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
            samples.put("tx1", Way::Native, 10.0);
            samples.put("tx1", Way::Bypass, 10.0 * ratio);
            samples.put("rx1", Way::Native, 10.0);
            samples.put("rx1", Way::Bypass, 10.0 * (ratio - 0.02));
        }
        let verdicts = judge(&samples);
        let met = |metric| verdicts.iter().find(|v| v.metric == metric && v.way == Way::Bypass).unwrap().met;
        assert!(met("tx1"));
        assert!(!met("rx1"));
    }
}
