//! What a person reads.
//!
//! `print!` and `eprintln!` panic when nobody listens any more; a closed pipe must not turn into
//! an exit status of ours.

use std::fmt;
use std::io::{self, Write};

/// One message on standard error, with our name before it: the command writes there too.
pub(crate) fn line(message: fmt::Arguments<'_>) {
    // In one piece, so that the command's own lines do not fall in between.
    let text = format!("netshunt: {message}\n");
    // Nowhere left to say that standard error is gone.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// A report on standard output.
///
/// # Errors
/// Those of write(2), but for `EPIPE`: a reader that has seen enough is content.
pub(crate) fn out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
