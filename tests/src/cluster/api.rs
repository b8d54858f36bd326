//! Requests to the API server without a process for each: plain HTTP over a unix socket, which
//! `kubectl proxy` in the control plane's namespace turns into the administrator's requests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Cluster, process};

/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A client of the API server, as its administrator.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

/// What the API server said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body of a good answer.
    ///
    /// # Errors
    /// When it is not good, with what the API server says.
    pub fn json(&self) -> anyhow::Result<Value> {
        if !(200..300).contains(&self.status) {
            bail!("HTTP {}: {}", self.status, String::from_utf8_lossy(&self.body));
        }
        Ok(serde_json::from_slice(&self.body)?)
    }
}

impl Cluster {
    pub(super) fn start_api_socket(&self) -> anyhow::Result<()> {
        let socket = self.directory().join("api.sock");
        let mut command = Command::new(self.programs().path("kubectl")?);
        command.arg("--kubeconfig").arg(self.directory().join("admin.conf"));
        command.args(["proxy", "--reject-paths=^$", "--unix-socket"]).arg(&socket);
        process::start(self.name(), "cp", "api-socket", &mut command)?;
        self.eventually(Duration::from_secs(10), "kubectl proxy listens", || Ok(socket.exists()))
    }

    /// The API without a process for each request.
    #[must_use]
    pub fn api(&self) -> Api {
        Api { socket: self.directory().join("api.sock") }
    }
}

impl Api {
    /// Sends a request; the body, if any, is JSON of the given kind (`application/json`,
    /// `application/merge-patch+json`).
    ///
    /// # Errors
    /// When nobody answers.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> anyhow::Result<Answer> {
        let stream =
            UnixStream::connect(&self.socket).with_context(|| self.socket.display().to_string())?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        let body = match body {
            Some((kind, body)) => {
                let text = body.to_string();
                request += &format!("content-type: {kind}\r\ncontent-length: {}\r\n", text.len());
                text
            }
            None => String::new(),
        };
        (&stream).write_all(format!("{request}\r\n{body}").as_bytes())?;
        read_answer(&mut BufReader::new(stream)).with_context(|| format!("{method} {path}"))
    }

    /// `GET`, good.
    ///
    /// # Errors
    /// When it is not good.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.request("GET", path, None)?.json()
    }

    /// `POST`, good.
    ///
    /// # Errors
    /// When it is not good.
    pub fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        self.request("POST", path, Some(("application/json", object)))?.json()
    }

    /// Merge patch, good.
    ///
    /// # Errors
    /// When it is not good.
    pub fn patch(&self, path: &str, patch: &Value) -> anyhow::Result<Value> {
        self.request("PATCH", path, Some(("application/merge-patch+json", patch)))?.json()
    }

    /// `DELETE`, good.
    ///
    /// # Errors
    /// When it is not good.
    pub fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.request("DELETE", path, None)?.json()
    }
}

fn read_answer(stream: &mut BufReader<UnixStream>) -> anyhow::Result<Answer> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).context("an HTTP status")?.parse()?;
    let (mut length, mut chunked) = (None, false);
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = Some(value.trim().parse()?);
        }
        chunked |=
            header.strip_prefix("transfer-encoding:").is_some_and(|it| it.trim() == "chunked");
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16)?;
            // After each chunk, the last one too, comes an empty line.
            stream.by_ref().take(size).read_to_end(&mut body)?;
            stream.read_line(&mut line)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = length {
        stream.take(length).read_to_end(&mut body)?;
    } else {
        stream.read_to_end(&mut body)?;
    }
    Ok(Answer { status, body })
}
