//! Reads what libtest prints: how many tests ran, and which were ignored.

/// The sum over all test programs of a run.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
    /// The tests that were left out on demand; libtest never does so unless asked.
    pub(crate) filtered: usize,
    /// Names of ignored tests.
    pub(crate) ignored_names: Vec<String>,
    /// Names of failed tests.
    pub(crate) failed_names: Vec<String>,
}

impl Tally {
    /// Takes one line of output.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += number_before(result, "passed");
            self.failed += number_before(result, "failed");
            self.ignored += number_before(result, "ignored");
            self.filtered += number_before(result, "filtered out");
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        {
            // "name ... ok", "name ... FAILED", "name ... ignored", "name ... ignored, why";
            // a test that must panic carries " - should panic" in its name.
            let name = name.trim_end_matches(" - should panic").to_owned();
            if outcome == "ignored" || outcome.starts_with("ignored, ") {
                self.ignored_names.push(name);
            } else if outcome == "FAILED" {
                self.failed_names.push(name);
            }
        }
    }
}

fn number_before(text: &str, word: &str) -> usize {
    text.split([';', '.'])
        .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up_over_programs() {
        let mut tally = Tally::default();
        for line in "\
running 3 tests
test rule::a ... ok
test rule::b - should panic ... FAILED
test rule::c ... ignored, needs a second machine
test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

test src/lib.rs - (line 9) ... ok
test result: ok. 41 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 3.20s"
            .lines()
        {
            tally.line(line);
        }
        assert_eq!((tally.passed, tally.failed, tally.ignored, tally.filtered), (42, 1, 1, 2));
        assert_eq!(tally.ignored_names, ["rule::c"]);
        assert_eq!(tally.failed_names, ["rule::b"]);
    }
}
