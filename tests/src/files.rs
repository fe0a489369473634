//! Files of known content.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

const BLOCK: usize = 1 << 20;

/// A file of bytes that do not compress and do not repeat.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Where it is.
    pub path: PathBuf,
    /// In bytes.
    pub len: u64,
    /// Of its content, in hexadecimal.
    pub sha256: String,
}

impl Blob {
    /// Writes `len` bytes, the same for the same length.
    pub fn write(path: PathBuf, len: u64) -> Self {
        let mut file = BufWriter::new(File::create(&path).expect("a folder of ours"));
        let mut block = noise(BLOCK);
        let mut left = len;
        let mut number = 0_u64;
        while left > 0 {
            // Blocks differ by their number, so that a lost or swapped one shows.
            block[..8].copy_from_slice(&number.to_le_bytes());
            number += 1;
            let take = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            file.write_all(&block[..take]).expect("the disk has room");
            left -= take as u64;
        }
        file.into_inner().expect("the disk has room");
        // What was written once need not be read again by every test.
        static SUMS: Mutex<BTreeMap<u64, String>> = Mutex::new(BTreeMap::new());
        let mut sums = SUMS.lock().unwrap_or_else(PoisonError::into_inner);
        let sha256 = sums.entry(len).or_insert_with(|| sha256(&path)).clone();
        drop(sums);
        Self { path, len, sha256 }
    }
}

/// The SHA-256 of a file, by openssl(1): an independent witness, and several times as fast as sha256sum(1), which does
/// not use what processors have for it.
pub fn sha256(path: &Path) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-r"]).stdin(File::open(path).expect("a file of the test's"));
    let output = openssl.output().expect("Debian's openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().expect("sum and name").to_owned()
}

/// Compiles C to a program; whether another test of this process has already done so does not show.
pub(crate) fn compile(sources: &[PathBuf], program: &Path) {
    /// By their sources. A file that is open may be removed, and copied.
    static COMPILED: Mutex<BTreeMap<Vec<PathBuf>, File>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = compiled.get(sources) {
        let from = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        assert!(copy_program(from.as_ref(), program), "{from} is open");
        return;
    }
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-pthread", "-Wall", "-Wextra", "-Werror"]);
    // What hostile programs do.
    gcc.args(
        ["missing-field-initializers", "restrict", "stringop-truncation", "unused-result"]
            .map(|w| format!("-Wno-{w}")),
    );
    let made = gcc.arg("-o").arg(program).args(sources).output();
    let made = made.expect("the end-to-end tests need gcc");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    compiled.insert(sources.to_vec(), File::open(program).expect("gcc has made it"));
}

/// Bytes of Marsaglia's xorshift64.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(len.div_ceil(8)).flatten().take(len).collect()
}

/// Copies a program that will be executed; whether that worked. By a process of its own: with the file open for
/// writing here, a child that another thread forks just then has it too, and until that child executes
/// something, execve(2) of the copy is `ETXTBSY`.
pub fn copy_program(from: &Path, to: &Path) -> bool {
    Command::new("cp").arg("--preserve=mode").arg(from).arg(to).status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_has_its_length_and_the_sum_that_sha256sum_knows() {
        let folder = tempfile::tempdir().unwrap();
        let empty = Blob::write(folder.path().join("empty"), 0);
        assert_eq!(empty.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let odd = Blob::write(folder.path().join("odd"), (1 << 20) + 3);
        assert_eq!(odd.path.metadata().unwrap().len(), odd.len);
    }
}
