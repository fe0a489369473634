//! The cases that were kept: `fuzz/NAME` of the crate whose tests run.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Where a body's cases are. Cargo runs tests in the folder of their package.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from("fuzz").join(name)
}

/// Those of a body; none if there is no such file.
pub(crate) fn read(name: &str) -> Vec<Vec<u8>> {
    let path = path(name);
    match fs::read_to_string(&path) {
        Ok(text) => {
            parse(&text).unwrap_or_else(|line| panic!("{}:{line}: no hexadecimal digits", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => panic!("cannot read {}: {error}", path.display()),
    }
}

/// Adds to a body's.
pub(crate) fn keep(name: &str, cases: &[Vec<u8>]) {
    let path = path(name);
    let mut text = fs::read_to_string(&path).unwrap_or_default();
    // The empty one is the first that every run comes to.
    for case in cases.iter().filter(|case| !case.is_empty()) {
        text.push_str(&hex(case));
        text.push('\n');
    }
    let written = fs::create_dir_all("fuzz").and_then(|()| fs::write(&path, text));
    written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// A case in one line.
pub(crate) fn hex(case: &[u8]) -> String {
    case.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The number of the line that is none is the error.
fn parse(text: &str) -> Result<Vec<Vec<u8>>, usize> {
    let lines =
        text.lines().enumerate().map(|(n, line)| (n + 1, line.split('#').next().unwrap_or("").trim()));
    let digits = |line: &str| -> Option<Vec<u8>> {
        let pairs = line.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok().filter(|_| pair.len() == 2))
            .collect()
    };
    lines.filter(|(_, line)| !line.is_empty()).map(|(n, line)| digits(line).ok_or(n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_as_it_was_written() {
        let case: Vec<u8> = (0..=255).collect();
        let text = format!("# all bytes\n{}  # and more\n\n00\n", hex(&case));
        assert_eq!(parse(&text), Ok(vec![case, vec![0]]));
        for wrong in ["0", "000", "0g", "00 00"] {
            assert_eq!(parse(&format!("00\n{wrong}\n")), Err(2), "{wrong}");
        }
    }
}
