//! Reads what libtest prints: how many tests ran, which were ignored, and what the failed ones said.

/// Of what a failed test said, its first lines are kept: the message, before any backtrace.
const LINES_KEPT: usize = 60;

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
    /// What each failed test said before its backtrace, headed by its name.
    pub(crate) last_words: Vec<String>,
    /// Which part of a program's output is being read.
    pub(crate) part: Part,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Part {
    /// What the tests say is not wanted: they passed, or none has begun.
    #[default]
    Other,
    /// After "failures:".
    Failures,
    /// What one of the failed tests said.
    Words,
}

impl Tally {
    /// Takes one line of output.
    pub(crate) fn line(&mut self, line: &str) {
        self.listen(line);
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

    /// libtest writes "failures:", and for each "---- name stdout ----" with what it said; then the names again.
    fn listen(&mut self, line: &str) {
        let header = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        match (header, self.part) {
            _ if line == "failures:" => self.part = Part::Failures,
            _ if line == "successes:" || line.starts_with("test result: ") => self.part = Part::Other,
            (Some(name), Part::Failures | Part::Words) => {
                self.last_words.push(name.to_owned());
                self.part = Part::Words;
            }
            (None, Part::Words) if line == "stack backtrace:" => self.part = Part::Failures,
            (None, Part::Words) => {
                let words = self.last_words.last_mut().expect("its name has been read");
                if words.lines().count() < LINES_KEPT {
                    *words += "\n";
                    *words += line;
                }
            }
            _ => {}
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

successes:

---- rule::a stdout ----
All is well.

failures:

---- rule::b stdout ----

thread 'rule::b' panicked at src/rule.rs:7:9:
no rule
stack backtrace:
   0: __rustc::rust_begin_unwind

failures:
    rule::b

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
        assert_eq!(tally.last_words, ["rule::b\n\nthread 'rule::b' panicked at src/rule.rs:7:9:\nno rule"]);
    }
}
