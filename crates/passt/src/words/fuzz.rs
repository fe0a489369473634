//! What a child says, as much as it likes, in pieces as they come.

use netshunt_fuzz::{Input, fuzz};

use super::*;

fn said(input: &mut Input<'_>) {
    const WORDS: &[&[u8]] = &[
        b"\n",
        b"\r\n",
        b"\n\n",
        b"word",
        b" ",
        &[0xff; 9],
        "й".as_bytes(),
        &[b'x'; 299],
        b"Failed to send 7 bytes to syslog",
    ];
    let mut lines = Lines::default();
    let mut all = Vec::new();
    for _ in 0..input.up_to(30) {
        let piece = *input.pick(WORDS);
        all.extend(piece);
        lines.take(piece);
        assert!(lines.open.len() <= LINE && lines.last.len() <= LINES);
    }
    let whole = all.split(|byte| *byte == b'\n').map(|line| &line[..line.len().min(LINE)]);
    let whole = whole.map(|line| String::from_utf8_lossy(line).trim().to_owned());
    let mut last: Vec<String> = whole.filter(|line| !line.is_empty() && !is_noise(line)).collect();
    last.drain(..last.len().saturating_sub(LINES));
    input.reached((last.len(), all.is_ascii()));
    assert_eq!(lines.text(), last.join("; "));
}

#[test]
fn words_of_a_child() {
    fuzz("words_of_a_child", said);
}
