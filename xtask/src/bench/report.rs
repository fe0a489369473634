//! The report: tables that read as well on a terminal as in Markdown, and JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::load::{GROUPS, Group, Metric, metrics};
use super::machine::Machine;
use super::samples::{Samples, Summary};
use super::target::{Bound, Verdict};
use super::way::Way;
use crate::shell::say;

/// Between these lines of a document stands the report.
const BEGIN: &str = "<!-- report: begin (cargo xtask bench --publish) -->";
const END: &str = "<!-- report: end -->";

/// Everything that a run found out.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) rounds: u32,
    pub(crate) took: Duration,
    pub(crate) load_after: String,
    pub(crate) samples: &'a Samples,
    pub(crate) verdicts: &'a [Verdict],
}

impl Report<'_> {
    /// For people.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for group in GROUPS {
            let rows = self.measured(group);
            if rows.len() > 1 {
                let _ = writeln!(text, "**{}**\n\n{}", group.title, table(&rows));
            }
        }
        if !self.verdicts.is_empty() {
            let _ = writeln!(text, "**Targets**\n\n{}", table(&self.judged()));
        }
        for missing in &self.samples.missing {
            let _ = writeln!(text, "- not measured: {missing}");
        }
        for failure in &self.samples.failures {
            let _ = writeln!(text, "- failed: {}", failure.trim_end());
        }
        for (name, value) in self.machine {
            let _ = writeln!(text, "- {name}: {value}");
        }
        let _ = writeln!(text, "- load average after: {}", self.load_after);
        let _ = writeln!(text, "- rounds: {}, in {:.0} s", self.rounds, self.took.as_secs_f64());
        text
    }

    /// For programs: every sample too.
    pub(crate) fn json(&self) -> String {
        let metrics: Vec<Value> = metrics().map(|metric| self.metric(metric)).collect();
        let machine: serde_json::Map<String, Value> =
            self.machine.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let verdicts: Vec<Value> = self
            .verdicts
            .iter()
            .map(|verdict| {
                let target = verdict.target;
                let (bound, value) = match target.bound {
                    Bound::AtLeast(value) => ("at_least", value),
                    Bound::AtMost(value) => ("at_most", value),
                };
                json!({ "metric": target.metric, "path": target.way.name(), "to": target.to.name(),
                    (bound): value, "ratio": summary(verdict.ratio), "met": verdict.met })
            })
            .collect();
        let whole = json!({
            "machine": machine,
            "load_average_after": self.load_after,
            "rounds": self.rounds,
            "seconds": self.took.as_secs_f64(),
            "metrics": metrics,
            "targets": verdicts,
            "failures": self.samples.failures,
            "missing": self.samples.missing,
        });
        format!("{whole:#}\n")
    }

    fn metric(&self, metric: &Metric) -> Value {
        let paths: serde_json::Map<String, Value> = Way::ALL
            .iter()
            .map(|&way| {
                let value = json!({
                    "samples": self.samples.row(metric.name, way),
                    "value": summary(self.samples.values(metric.name, way)),
                    "ratio": summary(self.samples.ratios(metric.name, way, Way::NATIVE)),
                });
                (way.name(), value)
            })
            .collect();
        json!({ "name": metric.name, "label": metric.label, "unit": metric.unit, "paths": paths })
    }

    /// A row for each way that has a value.
    fn measured(&self, group: &Group) -> Vec<Vec<String>> {
        let mut rows = vec![vec![String::new()]];
        rows[0].extend(group.metrics.iter().map(|metric| format!("{}, {}", metric.label, metric.unit)));
        for way in Way::ALL {
            let mut row = vec![way.name()];
            row.extend(group.metrics.iter().map(|metric| self.cell(metric, way)));
            if row[1..].iter().any(|cell| cell != "-") {
                rows.push(row);
            }
        }
        rows
    }

    /// Native with its spread; the others with their ratio to native and that one's spread.
    fn cell(&self, metric: &Metric, way: Way) -> String {
        let digits = metric.digits;
        let Some(value) = self.samples.values(metric.name, way) else { return "-".to_owned() };
        let median = format!("{:.digits$}", value.median);
        match self.samples.ratios(metric.name, way, Way::NATIVE).filter(|_| way != Way::NATIVE) {
            Some(ratio) => format!("{median}, ×{}", spread(ratio, 2)),
            None => format!("{median} ({:.digits$}..{:.digits$})", value.min, value.max),
        }
    }

    fn judged(&self) -> Vec<Vec<String>> {
        let head = ["target", "path", "over", "asked", "measured", "its median at 95 %", "pairs", ""];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.verdicts.iter().map(|verdict| {
            let target = verdict.target;
            let label = metrics().find(|metric| metric.name == target.metric).map_or("", |m| m.label);
            vec![
                label.to_owned(),
                target.way.name(),
                target.to.name(),
                match target.bound {
                    Bound::AtLeast(value) => format!("≥ {value:.2}"),
                    Bound::AtMost(value) => format!("≤ {value:.2}"),
                },
                verdict.ratio.map_or("not measured".to_owned(), |ratio| spread(ratio, 3)),
                verdict.ratio.map_or(String::new(), |ratio| format!("{:.3}..{:.3}", ratio.low, ratio.high)),
                verdict.ratio.map_or(0, |ratio| ratio.count).to_string(),
                said(verdict).to_owned(),
            ]
        }));
        rows
    }
}

/// A target that was missed may have been missed by chance only: more rounds tell.
fn said(verdict: &Verdict) -> &'static str {
    let bound = verdict.target.bound;
    match verdict.ratio {
        _ if verdict.met => "met",
        Some(ratio) if bound.holds(ratio.low) || bound.holds(ratio.high) => "MISSED, perhaps by chance",
        _ => "MISSED",
    }
}

fn spread(summary: Summary, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$}..{:.digits$})", summary.median, summary.min, summary.max)
}

fn summary(summary: Option<Summary>) -> Value {
    let Some(Summary { median, low, high, min, max, count }) = summary else { return Value::Null };
    json!({ "median": median, "low": low, "high": high, "min": min, "max": max, "count": count })
}

/// Aligned columns; the first row is the head.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text += "|\n";
        if index == 0 {
            widths.iter().for_each(|width| text += &format!("|{}", "-".repeat(width + 2)));
            text += "|\n";
        }
    }
    text
}

/// Puts the report into a document, in place of the one there.
pub(crate) fn publish(document: &Path, report: &str) -> Result<()> {
    let name = document.display();
    let text = fs::read_to_string(document).with_context(|| format!("cannot read {name}"))?;
    let new = replaced(&text, report).with_context(|| format!("{name} lacks the lines {BEGIN} and {END}"))?;
    fs::write(document, new).with_context(|| format!("cannot write {name}"))?;
    say(format!("published in {name}"));
    Ok(())
}

fn replaced(text: &str, report: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{report}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_keeps_what_stands_around_the_report() {
        let text = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        assert_eq!(replaced(&text, "new\n").unwrap(), format!("head\n{BEGIN}\nnew\n{END}\ntail\n"));
        assert_eq!(replaced("no marks", "new"), None);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["".to_owned(), "µs".to_owned()], vec!["round trip".to_owned(), "1".to_owned()]];
        assert_eq!(table(&rows), "|            | µs  |\n|------------|-----|\n| round trip | 1   |\n");
    }

    #[test]
    fn a_run_without_samples_is_a_report_too() {
        let mut samples = Samples::default();
        samples.failures.push("slirp: gone".to_owned());
        samples.missing.push("pasta: not there".to_owned());
        let report = Report {
            machine: &vec![("kernel", "Linux".to_owned())],
            rounds: 1,
            took: Duration::from_secs(2),
            load_after: String::new(),
            samples: &samples,
            verdicts: &[],
        };
        assert!(
            report
                .markdown()
                .contains("- not measured: pasta: not there\n- failed: slirp: gone\n- kernel: Linux\n")
        );
        assert!(serde_json::from_str::<Value>(&report.json()).is_ok());
    }
}
