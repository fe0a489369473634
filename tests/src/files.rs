//! Files of known content.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

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
        let sha256 = sha256(&path);
        Self { path, len, sha256 }
    }
}

/// The SHA-256 of a file, by sha256sum(1): an independent witness, and fast in a debug build too.
pub fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg("--").arg(path).output().expect("coreutils has sha256sum");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().expect("sum and name").trim_start_matches('\\').to_owned()
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
