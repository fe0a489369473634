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
}

impl Samples {
    /// From here on it is the next round.
    pub(crate) fn open_round(&mut self) {
        self.rounds += 1;
    }

    /// The value of `metric` in this round.
    pub(crate) fn put(&mut self, metric: &str, way: Way, value: f64) {
        let row = self.values.entry((metric.to_owned(), way.name().to_owned())).or_default();
        row.resize(self.rounds, None);
        row[self.rounds - 1] = Some(value);
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

    /// `metric` over native's of the same round.
    pub(crate) fn ratios(&self, metric: &str, way: Way) -> Option<Summary> {
        let pairs = self.row(metric, way).iter().zip(self.row(metric, Way::Native));
        Summary::of(pairs.filter_map(|(ours, native)| Some((*ours)? / (*native)?)))
    }

    /// Every value of `metric`, round by round.
    pub(crate) fn row(&self, metric: &str, way: Way) -> &[Option<f64>] {
        self.values.get(&(metric.to_owned(), way.name().to_owned())).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let rows: Vec<Value> =
            self.values.iter().map(|((metric, way), row)| json!([metric, way, row])).collect();
        let text = json!({ "rounds": self.rounds, "rows": rows, "failures": self.failures }).to_string();
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut whole: Value = serde_json::from_slice(&text)?;
        let rows: Vec<(String, String, Vec<Option<f64>>)> = serde_json::from_value(whole["rows"].take())?;
        Ok(Self {
            values: rows.into_iter().map(|(metric, way, row)| ((metric, way), row)).collect(),
            rounds: serde_json::from_value(whole["rounds"].take())?,
            failures: serde_json::from_value(whole["failures"].take())?,
        })
    }
}

/// Some numbers in three.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
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
        Some(Self { median, min, max, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let summary = Summary::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(summary, Summary { median: 2.5, min: 1.0, max: 4.0, count: 4 });
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let mut samples = Samples::default();
        for (native, bypass) in [(Some(10.0), Some(5.0)), (None, Some(7.0)), (Some(2.0), Some(2.0))] {
            samples.open_round();
            for (way, value) in [(Way::Native, native), (Way::Bypass, bypass)] {
                value.into_iter().for_each(|value| samples.put("tx1", way, value));
            }
        }
        let ratios = samples.ratios("tx1", Way::Bypass).unwrap();
        assert_eq!(ratios, Summary { median: 0.75, min: 0.5, max: 1.0, count: 2 });
        assert_eq!(samples.ratios("tx1", Way::Slirp), None);
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let mut samples = Samples::default();
        samples.open_round();
        samples.open_round();
        samples.put("rx1", Way::Both, 1.5);
        samples.fail("one".to_owned());
        let path = std::env::temp_dir().join(format!("netshunt-xtask-samples-{}", std::process::id()));
        samples.save(&path).unwrap();
        let loaded = Samples::load(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(loaded.unwrap(), samples);
    }
}
