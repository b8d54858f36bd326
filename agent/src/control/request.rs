//! `rampart control METHOD PATH [BODY]`: one request to the agent of this machine, over its socket.
//!
//! This is how `rctl` reaches an agent from elsewhere: it runs this command in the agent's pod, so
//! that no port is ever opened and RBAC of `pods/exec` decides who may ask. The answer's body goes
//! to standard output as it came; nothing else does.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use api::constant::{RUN_DIR, SOCKET_NAME};
use clap::{Args as Arguments, ValueEnum};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Examples of the command.
pub const HELP: &str = "\
Examples:
  rampart control GET /v1/status
  rampart control GET '/v1/synced?timeout_ms=5000'

Exit code: 0 answered, 1 answered with an error, 3 no answer.";

/// The exit code when nobody answers: `rctl` tells it from a refusal.
const SILENT: u8 = 3;

/// Arguments of `rampart control`.
#[derive(Clone, Debug, Arguments)]
pub struct Args {
    /// HTTP method
    #[arg(value_enum, ignore_case = true)]
    pub method: Verb,
    /// Path, with its query
    #[arg(value_parser = path)]
    pub path: Uri,
    /// Body, JSON
    pub body: Option<String>,
    /// Run directory of the agent
    #[arg(long, value_name = "DIR", env = "RAMPART_RUN_DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
}

/// Methods that the control socket knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    /// Reads.
    #[value(name = "GET")]
    Get,
    /// Changes.
    #[value(name = "POST")]
    Post,
}

impl From<Verb> for Method {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Get => Self::GET,
            Verb::Post => Self::POST,
        }
    }
}

fn path(text: &str) -> Result<Uri, String> {
    if !text.starts_with('/') {
        return Err("a path starts with /, as /v1/status".to_owned());
    }
    text.parse().map_err(|error: http::uri::InvalidUri| error.to_string())
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody listens.
    #[error("no agent answers on {}", .0.display())]
    Connect(PathBuf, #[source] io::Error),
    /// It broke off, or is not HTTP.
    #[error("no valid answer")]
    Http(#[source] hyper::Error),
    /// Too slow.
    #[error("no answer within {0} s")]
    TimedOut(u64),
    /// The runtime cannot be started.
    #[error("cannot start the client")]
    Runtime(#[source] io::Error),
}

/// Sends the request, prints the answer.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &Args) -> io::Result<ExitCode> {
    match answer(args) {
        Ok((status, body)) => {
            let mut out = io::stdout().lock();
            out.write_all(&body)?;
            out.flush()?;
            Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            writeln!(io::stderr(), "error: {error}{}", cause.unwrap_or_default())?;
            Ok(SILENT.into())
        }
    }
}

fn answer(args: &Args) -> Result<(StatusCode, Bytes), RequestError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RequestError::Runtime)?;
    let limit = Duration::from_secs(args.timeout);
    runtime.block_on(async {
        match tokio::time::timeout(limit, exchange(args)).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::TimedOut(args.timeout)),
        }
    })
}

async fn exchange(args: &Args) -> Result<(StatusCode, Bytes), RequestError> {
    let socket = args.run_dir.join(SOCKET_NAME);
    let stream = connect(&socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(RequestError::Http)?;
    let body = args.body.clone().unwrap_or_default();
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = args.method.into();
    *request.uri_mut() = args.path.clone();
    request.headers_mut().insert(HOST, HeaderValue::from_static("agent"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Owns the sender: when it ends, the connection ends, too.
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>((status, body))
    };
    // Why the connection closed is what the exchange says.
    let (result, _closed) = tokio::join!(exchange, connection);
    result.map_err(RequestError::Http)
}

async fn connect(socket: &Path) -> Result<TokioIo<UnixStream>, RequestError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| RequestError::Connect(socket.to_owned(), error))?;
    Ok(TokioIo::new(stream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixListener;

    fn args(run_dir: &Path, verb: Verb, body: Option<&str>) -> Args {
        Args {
            method: verb,
            path: Uri::from_static("/v1/status?x=1"),
            body: body.map(str::to_owned),
            run_dir: run_dir.to_owned(),
            timeout: 5,
        }
    }

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn the_request_arrives_as_given_and_status_and_body_come_back() {
        let directory = directory("rampart-control");
        let listener = UnixListener::bind(directory.join(SOCKET_NAME)).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"{\"a\":1}") {
                let mut octets = [0; 1024];
                let n = stream.read(&mut octets).unwrap();
                assert!(n > 0, "{}", String::from_utf8_lossy(&seen));
                seen.extend_from_slice(&octets[..n]);
            }
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope").unwrap();
            String::from_utf8(seen).unwrap()
        });
        let (status, body) = answer(&args(&directory, Verb::Post, Some("{\"a\":1}"))).unwrap();
        assert_eq!((status, &body[..]), (StatusCode::NOT_FOUND, &b"nope"[..]));
        assert!(server.join().unwrap().starts_with("POST /v1/status?x=1 HTTP/1.1\r\n"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn an_absent_agent_is_told_from_one_that_refuses() {
        let directory = directory("rampart-control-absent");
        let error = answer(&args(&directory, Verb::Get, None)).unwrap_err();
        assert!(matches!(error, RequestError::Connect(_, _)), "{error}");
        assert!(error.to_string().contains("agent.sock"), "{error}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_path_starts_at_the_root() {
        assert!(path("/v1/status").is_ok());
        assert!(path("v1/status").is_err());
        assert!(path("/v1/a b").is_err());
    }
}
