//! What was measured, and what numbers say about it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::way::Way;

/// One value per round and way of each metric, where the attempt succeeded.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Samples {
    /// By metric and way; the index is the round.
    values: BTreeMap<(String, String), Vec<Option<f64>>>,
    rounds: usize,
    /// Every attempt that failed, and why.
    pub(crate) failures: Vec<String>,
    /// Every way that this machine cannot go, and why.
    pub(crate) missing: Vec<String>,
}

impl Samples {
    /// From here on it is the next round.
    pub(crate) fn open_round(&mut self) {
        self.rounds += 1;
    }

    /// The value of `metric` in this round.
    pub(crate) fn put(&mut self, metric: &str, way: Way, value: f64) {
        let row = self.values.entry((metric.to_owned(), way.name())).or_default();
        row.resize(self.rounds, None);
        row[self.rounds - 1] = Some(value);
    }

    /// Notes what is not there to be measured, and says it at once.
    pub(crate) fn lack(&mut self, what: String) {
        crate::shell::say(format!("not measured: {what}"));
        self.missing.push(what);
    }

    /// Notes what failed, and says it at once.
    pub(crate) fn fail(&mut self, why: String) {
        crate::shell::say(format!("failed: {why}"));
        self.failures.push(why);
    }

    /// What was measured of `metric`.
    pub(crate) fn values(&self, metric: &str, way: Way) -> Option<Summary> {
        Summary::of(self.row(metric, way).iter().flatten().copied())
    }

    /// `metric` over another way's of the same round.
    pub(crate) fn ratios(&self, metric: &str, way: Way, to: Way) -> Option<Summary> {
        let pairs = self.row(metric, way).iter().zip(self.row(metric, to));
        Summary::of(pairs.filter_map(|(ours, others)| Some((*ours)? / (*others)?)))
    }

    /// Every value of `metric`, round by round.
    pub(crate) fn row(&self, metric: &str, way: Way) -> &[Option<f64>] {
        self.values.get(&(metric.to_owned(), way.name())).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let rows: Vec<Value> =
            self.values.iter().map(|((metric, way), row)| json!([metric, way, row])).collect();
        let text = json!({ "rounds": self.rounds, "rows": rows, "failures": self.failures,
            "missing": self.missing });
        fs::write(path, text.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut whole: Value = serde_json::from_slice(&text)?;
        let rows: Vec<(String, String, Vec<Option<f64>>)> = serde_json::from_value(whole["rows"].take())?;
        Ok(Self {
            values: rows.into_iter().map(|(metric, way, row)| ((metric, way), row)).collect(),
            rounds: serde_json::from_value(whole["rounds"].take())?,
            failures: serde_json::from_value(whole["failures"].take())?,
            missing: serde_json::from_value(whole["missing"].take())?,
        })
    }
}

/// Some numbers in a few.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    /// Between these lies, at 95 %, what the median of endless rounds would be.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) count: usize,
}

impl Summary {
    /// `None` for no numbers.
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let count = sorted.len();
        let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
        let outside = outside(count);
        let (low, high) = (sorted[outside], sorted[count - 1 - outside]);
        Some(Self { median, low, high, min, max, count })
    }
}

/// How many of `count` sorted numbers to leave out at each end for the interval of their median.
///
/// A number lies below the true median as a coin falls: whatever noise there is, no more is assumed.
fn outside(count: usize) -> usize {
    let mut outside = 0;
    // Exactly `below` of `count` coins, and that many or fewer.
    let mut exactly = 0.5_f64.powf(count as f64);
    let mut fewer = exactly;
    for below in 1..=count / 2 {
        if fewer > 0.025 {
            break;
        }
        outside = below - 1;
        exactly *= (count - below + 1) as f64 / below as f64;
        fewer += exactly;
    }
    outside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let summary = Summary::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(summary, Summary { median: 2.5, low: 1.0, high: 4.0, min: 1.0, max: 4.0, count: 4 });
        assert_eq!(Summary::of([]), None);
    }

    /// Against the table of the sign test: for 15 numbers the fourth and the fourth from the end.
    #[test]
    fn the_interval_of_a_median_is_the_sign_tests() {
        assert_eq!([1, 5, 6, 9, 15, 25].map(outside), [0, 0, 0, 1, 3, 7]);
        let summary = Summary::of((1..=15).map(f64::from)).unwrap();
        assert_eq!((summary.low, summary.high), (4.0, 12.0));
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let mut samples = Samples::default();
        for (native, bypass) in [(Some(10.0), Some(5.0)), (None, Some(7.0)), (Some(2.0), Some(2.0))] {
            samples.open_round();
            for (way, value) in [(Way::NATIVE, native), (Way::BYPASS, bypass)] {
                value.into_iter().for_each(|value| samples.put("tx1", way, value));
            }
        }
        let ratios = samples.ratios("tx1", Way::BYPASS, Way::NATIVE).unwrap();
        assert_eq!((ratios.median, ratios.min, ratios.max, ratios.count), (0.75, 0.5, 1.0, 2));
        assert_eq!(samples.ratios("tx1", Way::SLIRP, Way::NATIVE), None);
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let mut samples = Samples::default();
        samples.open_round();
        samples.open_round();
        samples.put("rx1", Way::BYPASS_BESIDE, 1.5);
        samples.fail("one".to_owned());
        samples.lack("another".to_owned());
        let path = std::env::temp_dir().join(format!("netshunt-xtask-samples-{}", std::process::id()));
        samples.save(&path).unwrap();
        let loaded = Samples::load(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(loaded.unwrap(), samples);
    }
}
