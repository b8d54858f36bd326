//! One file a verb: request -> view -> text or JSON.

pub mod describe;
pub mod diag;
pub mod doctor;
pub mod explain;
pub mod get;
pub mod install;
pub mod resource;
pub mod status;
pub mod uninstall;
pub mod version;
pub mod wait;

use std::io::Write as _;

use crate::failure::{Exit, Failure};

/// Writes to standard output. A reader that has gone (`| head`) is no error: there is just nobody
/// left to tell, so `false`.
///
/// # Errors
/// Any other failure to write.
pub fn print(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::plain(Exit::Negative, "cannot write to standard output", "")
            .because(error.to_string())),
    }
}

/// Writes a remark for people to standard error; a closed standard error is nobody's trouble.
pub fn remark(text: &str) {
    match std::io::stderr().lock().write_all(text.as_bytes()) {
        Ok(()) | Err(_) => {}
    }
}
