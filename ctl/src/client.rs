//! A request to one agent over its control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("cannot connect to {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke, or what came back is not HTTP.
    #[error("no valid answer from {}", socket.display())]
    Http {
        /// The socket.
        socket: PathBuf,
        /// Cause.
        #[source]
        source: hyper::Error,
    },
    /// The agent took too long.
    #[error("no answer from {} within {} s", socket.display(), after.as_secs_f64())]
    TimedOut {
        /// The socket.
        socket: PathBuf,
        /// Limit.
        after: Duration,
    },
    /// The agent answered with an error.
    #[error("{}: {}", error.code, error.message)]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its error body.
        error: api::control::Error,
    },
    /// The answer is not what this version of `rctl` expects.
    #[error("answer of {} is not understood (HTTP {status})", socket.display())]
    Body {
        /// The socket.
        socket: PathBuf,
        /// HTTP status.
        status: u16,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
    /// The runtime for the request could not be made.
    #[error("cannot start the client")]
    Runtime(#[source] std::io::Error),
}

/// Asks the agent behind one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client for the agent behind `socket`; a request gives up after `timeout`.
    #[must_use]
    pub fn new(socket: &Path, timeout: Duration) -> Self {
        Self { socket: socket.to_owned(), timeout }
    }

    /// The socket it asks.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET path` (for example `/v1/peers`), decoded.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        match tokio::time::timeout(self.timeout, self.exchange(path)).await {
            Ok(result) => result,
            Err(_elapsed) => {
                Err(ClientError::TimedOut { socket: self.socket.clone(), after: self.timeout })
            }
        }
    }

    /// Like [`Client::get`], for callers outside of a runtime.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get_blocking<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ClientError::Runtime)?
            .block_on(self.get(path))
    }

    async fn exchange<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let http = |source| ClientError::Http { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Connect { socket: self.socket.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = path.parse().unwrap_or_else(|_| hyper::Uri::from_static("/"));
        request
            .headers_mut()
            .insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("agent"));
        // Owns the sender: when it ends the connection ends too.
        let exchange = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, body))
        };
        // The connection must be polled for the exchange to move; why it closed is what the
        // exchange says.
        let (result, _closed) = tokio::join!(exchange, connection);
        let (status, body) = result.map_err(http)?;
        let not_understood = |source| ClientError::Body {
            socket: self.socket.clone(),
            status: status.as_u16(),
            source,
        };
        if status.is_success() {
            serde_json::from_slice(&body).map_err(not_understood)
        } else {
            let error = serde_json::from_slice(&body).map_err(not_understood)?;
            Err(ClientError::Refused { status: status.as_u16(), error })
        }
    }
}
