//! Talking to the agent: blocking HTTP/1.1 over its control socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use api::cni::Refused;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// More than this is no answer of an agent.
const ANSWER_LIMIT: u64 = 4 << 20;
/// An agent that is being replaced is back within seconds.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);
/// The agent keeps its own time; this is how much later its answer may come.
const GRACE: Duration = Duration::from_millis(500);

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    /// Nobody listens, or nobody answers.
    #[error("the agent does not answer on {socket}: {source}")]
    Silent {
        /// Path of the socket.
        socket: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The agent says no.
    #[error("{} ({})", .0.message, .0.code)]
    Refused(Box<Refused>),
    /// The answer makes no sense.
    #[error("the agent's answer cannot be read ({status}): {body}")]
    Unreadable {
        /// HTTP status, 0 if there was none.
        status: u16,
        /// What came, shortened.
        body: String,
    },
}

/// The agent's socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agent<'a> {
    socket: &'a Path,
}

impl<'a> Agent<'a> {
    pub(super) fn new(socket: &'a Path) -> Self {
        Self { socket }
    }

    /// Sends a request and reads the answer. While nobody listens the connection is tried again until
    /// `timeout` is over; with `patient` false just once.
    pub(super) fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Q>,
        timeout: Duration,
        patient: bool,
    ) -> Result<A, AgentError> {
        let silent =
            |source| AgentError::Silent { socket: self.socket.display().to_string(), source };
        let deadline = Instant::now() + timeout;
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| silent(error.into()))?,
            None => Vec::new(),
        };
        let mut stream = self.connect(deadline, patient).map_err(silent)?;
        let exchange = |stream: &mut UnixStream| -> io::Result<Vec<u8>> {
            let left = deadline.saturating_duration_since(Instant::now()) + GRACE;
            stream.set_read_timeout(Some(left))?;
            stream.set_write_timeout(Some(left))?;
            let length = body.len();
            let head = format!(
                "{method} {path}{} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\
                 content-type: application/json\r\ncontent-length: {length}\r\n\r\n",
                query(path, deadline)
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body)?;
            let mut answer = Vec::new();
            stream.take(ANSWER_LIMIT).read_to_end(&mut answer)?;
            Ok(answer)
        };
        let answer = exchange(&mut stream).map_err(silent)?;
        read(&answer)
    }

    fn connect(&self, deadline: Instant, patient: bool) -> io::Result<UnixStream> {
        loop {
            match UnixStream::connect(self.socket) {
                Ok(stream) => return Ok(stream),
                Err(error) if !patient || Instant::now() + CONNECT_PAUSE >= deadline => {
                    return Err(error);
                }
                Err(_) => std::thread::sleep(CONNECT_PAUSE),
            }
        }
    }
}

/// Only ADD is told how long it may take.
fn query(path: &str, deadline: Instant) -> String {
    if path != "/v1/cni/add" {
        return String::new();
    }
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    format!("?timeout_ms={left}")
}

fn read<A: DeserializeOwned>(answer: &[u8]) -> Result<A, AgentError> {
    let text = String::from_utf8_lossy(answer);
    let unreadable = |status, body: &str| AgentError::Unreadable {
        status,
        body: body.chars().take(200).collect(),
    };
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(unreadable(0, &text));
    };
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    if status == 200 {
        return serde_json::from_str(body).map_err(|_| unreadable(status, body));
    }
    match serde_json::from_str::<Refused>(body) {
        Ok(refused) => Err(AgentError::Refused(Box::new(refused))),
        Err(_) => Err(unreadable(status, body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::cni::Added;

    #[test]
    fn answers_are_read_or_told_what_they_were() {
        let good =
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{\"generation\":7,\"gateMicros\":9}";
        assert_eq!(read::<Added>(good).unwrap().generation, 7);
        let no = b"HTTP/1.1 504 X\r\n\r\n{\"code\":4020,\"message\":\"m\",\"next\":\"n\"}";
        assert!(matches!(read::<Added>(no), Err(AgentError::Refused(r)) if r.message == "m"));
        for bad in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n{}", b"HTTP/1.1 500 X\r\n\r\n\xff"] {
            assert!(matches!(read::<Added>(bad), Err(AgentError::Unreadable { .. })));
        }
    }
}
