//! A request to one agent over its control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::cluster::ClusterError;

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
    #[error("answer of {agent} is not understood")]
    Body {
        /// The socket, or the node.
        agent: String,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
    /// The agent of a node cannot be asked through the cluster.
    #[error("no answer of node {node}: {source}")]
    Cluster {
        /// Node.
        node: String,
        /// Cause.
        #[source]
        source: ClusterError,
    },
    /// The agent's pod runs, and the agent in it does not answer.
    #[error("the agent of node {node} does not answer in its pod {pod}")]
    Silent {
        /// Node.
        node: String,
        /// Pod.
        pod: String,
        /// What its client said.
        why: String,
    },
    /// A node without an agent.
    #[error("node {node} has no agent pod")]
    NoPod {
        /// Node.
        node: String,
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
        decode(&self.socket.display(), &self.request(&Method::GET, path, "").await?)
    }

    /// Any request; the body of the answer as it came.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn request(
        &self,
        method: &Method,
        path: &str,
        body: &str,
    ) -> Result<Bytes, ClientError> {
        match tokio::time::timeout(self.timeout, self.exchange(method, path, body)).await {
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

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        body: &str,
    ) -> Result<Bytes, ClientError> {
        let http = |source| ClientError::Http { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Connect { socket: self.socket.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let mut request = Request::new(Full::new(Bytes::from(body.to_owned())));
        *request.method_mut() = method.clone();
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
        if status.is_success() {
            Ok(body)
        } else {
            let error = decode(&self.socket.display(), &body)?;
            Err(ClientError::Refused { status: status.as_u16(), error })
        }
    }
}

/// The body of an answer of `agent`, as a type of the contract.
pub(crate) fn decode<T: DeserializeOwned>(
    agent: &dyn std::fmt::Display,
    body: &[u8],
) -> Result<T, ClientError> {
    serde_json::from_slice(body)
        .map_err(|source| ClientError::Body { agent: agent.to_string(), source })
}
