//! LIST and WATCH over HTTP: requests out, octets and classified failures in.

use std::time::Duration;

use api::constant::{GROUP, VERSION};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::core::params::{ListParams, WatchParams};
use kube::core::request::Request;
use tokio::time::{Instant, timeout_at};

use super::client::Connection;
use crate::source::Kind;

/// A page of a list, or one object of a watch, is not larger; what is would eat our memory.
const LARGEST: usize = 64 << 20;
/// Of an error answer no more is read.
const LARGEST_ERROR: usize = 64 << 10;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// No connection, or it was cut.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// 401.
    #[error("the API server does not accept our credentials")]
    Unauthorized,
    /// 403, with the API server's words.
    #[error("{0}")]
    Forbidden(String),
    /// 404: there is no such kind.
    #[error("the API server does not know the kind")]
    NotFound,
    /// 410: the resourceVersion or the continue token is too old.
    #[error("the API server has forgotten the version that we ask from")]
    Gone,
    /// 429, or 5xx with Retry-After.
    #[error("the API server asks to come back later")]
    Busy(Duration),
    /// Any other status.
    #[error("status {0}: {1}")]
    Status(u16, String),
    /// The answer is not what the API promises.
    #[error("the answer cannot be read: {0}")]
    Garbled(String),
    /// The answer is too large to be taken.
    #[error("the answer is larger than {LARGEST} octets")]
    Oversize,
    /// The list is older than what we have.
    #[error("the list is of version {listed}, but version {known} was read before")]
    Stale {
        /// Version of the list.
        listed: u64,
        /// Ours.
        known: u64,
    },
}

/// What is listed and watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A kind, in all namespaces.
    Kind(Kind),
    /// One Secret.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Subject {
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Kind(kind) => *kind,
            Self::Secret { .. } => Kind::Secret,
        }
    }

    /// Its name among files, and in messages.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Kind(kind) => kind.name().to_owned(),
            Self::Secret { name, .. } => format!("Secret.{name}"),
        }
    }

    fn path(&self) -> String {
        match self {
            Self::Kind(kind) => path(*kind),
            Self::Secret { namespace, .. } => format!("/api/v1/namespaces/{namespace}/secrets"),
        }
    }

    /// RBAC by `resourceNames` holds for requests with exactly this.
    fn field_selector(&self) -> Option<String> {
        match self {
            Self::Kind(_) => None,
            Self::Secret { name, .. } => Some(format!("metadata.name={name}")),
        }
    }
}

/// Path of a kind in all namespaces.
fn path(kind: Kind) -> String {
    let ours = |plural: &str| format!("/apis/{GROUP}/{VERSION}/{plural}");
    match kind {
        Kind::Node => "/api/v1/nodes".to_owned(),
        Kind::Namespace => "/api/v1/namespaces".to_owned(),
        Kind::Pod => "/api/v1/pods".to_owned(),
        Kind::NetworkPolicy => "/apis/networking.k8s.io/v1/networkpolicies".to_owned(),
        Kind::BgpConfiguration => ours("bgpconfigurations"),
        Kind::BgpPeer => ours("bgppeers"),
        Kind::NetworkConfiguration => ours("networkconfigurations"),
        Kind::Secret => "/api/v1/secrets".to_owned(),
    }
}

/// One page of a list of at most `limit` objects, answered completely within `patience`.
pub(super) async fn list(
    connection: &Connection,
    subject: &Subject,
    limit: u32,
    token: Option<&str>,
    patience: Duration,
) -> Result<Bytes, Failure> {
    let mut params = ListParams::default().limit(limit);
    params.continue_token = token.map(str::to_owned);
    params.field_selector = subject.field_selector();
    let request = Request::new(subject.path()).list(&params).map_err(unsendable)?;
    let deadline = Instant::now() + patience;
    let answer = async {
        let response = send(connection, request).await?;
        read_all(response.into_body(), LARGEST).await
    };
    timeout_at(deadline, answer).await.unwrap_or(Err(Failure::TimedOut(patience)))
}

/// Opens a watch from `version`; answered within `patience`. The API server ends it after `length`.
pub(super) async fn watch(
    connection: &Connection,
    subject: &Subject,
    version: &str,
    length: Duration,
    patience: Duration,
) -> Result<Stream, Failure> {
    let seconds = u32::try_from(length.as_secs()).unwrap_or(u32::MAX);
    let mut params = WatchParams::default().timeout(seconds);
    params.field_selector = subject.field_selector();
    let request = Request::new(subject.path()).watch(&params, version).map_err(unsendable)?;
    let deadline = Instant::now() + patience;
    let response = timeout_at(deadline, send(connection, request))
        .await
        .unwrap_or(Err(Failure::TimedOut(patience)))?;
    Ok(Stream { body: response.into_body(), buffer: BytesMut::new(), scanned: 0 })
}

/// The lines of a watch.
pub(super) struct Stream {
    body: Body,
    buffer: BytesMut,
    /// So much of the buffer has no line end.
    scanned: usize,
}

impl Stream {
    /// The next line; `None` when the API server ended the watch. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(line) = self.buffered() {
                return Ok(Some(line));
            }
            if self.buffer.len() > LARGEST {
                return Err(Failure::Oversize);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(Failure::Unreachable(reason(&error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// The next line, if it was received already.
    pub(super) fn buffered(&mut self) -> Option<Bytes> {
        loop {
            let rest = self.buffer.get(self.scanned..)?;
            let Some(end) = rest.iter().position(|octet| *octet == b'\n') else {
                self.scanned = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.scanned.saturating_add(end)).freeze();
            self.buffer.advance(1);
            self.scanned = 0;
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some(line);
            }
        }
    }
}

async fn send(
    connection: &Connection,
    request: http::Request<Vec<u8>>,
) -> Result<http::Response<Body>, Failure> {
    let sent = connection.client().send(request.map(Body::from)).await;
    let response = sent.map_err(|error| Failure::Unreachable(reason(&error)))?;
    let (status, later) = (response.status(), retry_after(response.headers()));
    if status.is_success() {
        return Ok(response);
    }
    let body = read_all(response.into_body(), LARGEST_ERROR).await.unwrap_or_default();
    Err(classify(status, later, &body))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What an error answer means.
pub(super) fn classify(status: StatusCode, later: Option<Duration>, body: &[u8]) -> Failure {
    #[derive(serde::Deserialize)]
    struct Status {
        message: Option<String>,
    }
    let status_object = serde_json::from_slice::<Status>(body).ok();
    let message = status_object.and_then(|status| status.message);
    let message = message.map_or_else(|| "without a reason".to_owned(), |m| one_line(&m));
    // Of a state that went back: the version is as useless as a forgotten one.
    if message.starts_with("Too large resource version") {
        return Failure::Gone;
    }
    match (status, later) {
        (StatusCode::UNAUTHORIZED, _) => Failure::Unauthorized,
        (StatusCode::FORBIDDEN, _) => Failure::Forbidden(message),
        (StatusCode::NOT_FOUND, _) => Failure::NotFound,
        (StatusCode::GONE, _) => Failure::Gone,
        (StatusCode::TOO_MANY_REQUESTS, later) => {
            Failure::Busy(later.unwrap_or(Duration::from_secs(1)))
        }
        (status, Some(later)) if status.is_server_error() => Failure::Busy(later),
        (status, _) => Failure::Status(status.as_u16(), message),
    }
}

async fn read_all(mut body: Body, most: usize) -> Result<Bytes, Failure> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Unreachable(reason(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len().saturating_add(data.len()) > most {
            return Err(Failure::Oversize);
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

fn unsendable(error: kube::core::request::Error) -> Failure {
    Failure::Garbled(reason(&error))
}

/// An error with its causes. Each cause once: many errors repeat what they wrap.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = one_line(&error.to_string());
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Text of others: no control characters, and not endless.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::watched::WATCHED;

    #[test]
    fn every_watched_kind_has_its_path_and_nothing_else_is_watched() {
        let declared: Vec<(String, String)> = WATCHED
            .iter()
            .map(|w| {
                let root =
                    if w.group.is_empty() { "api".into() } else { format!("apis/{}", w.group) };
                (w.kind.to_owned(), format!("/{root}/{}/{}", w.version, w.plural))
            })
            .collect();
        let followed: Vec<(String, String)> =
            Kind::WATCHED.iter().map(|kind| (kind.name().to_owned(), path(*kind))).collect();
        assert_eq!(followed, declared);
    }

    #[test]
    fn error_answers_are_told_apart() {
        let class = |code: u16, later, body: &str| {
            classify(StatusCode::from_u16(code).unwrap(), later, body.as_bytes())
        };
        let message = r#"{"kind":"Status","message":"nodes is forbidden:\nno"}"#;
        assert_eq!(class(401, None, ""), Failure::Unauthorized);
        assert_eq!(class(403, None, message), Failure::Forbidden("nodes is forbidden: no".into()));
        assert_eq!(class(404, None, "404 page not found"), Failure::NotFound);
        assert_eq!(class(410, None, "{"), Failure::Gone);
        assert_eq!(class(429, None, ""), Failure::Busy(Duration::from_secs(1)));
        let seven = Some(Duration::from_secs(7));
        assert_eq!(class(503, seven, ""), Failure::Busy(Duration::from_secs(7)));
        assert_eq!(class(500, None, "null"), Failure::Status(500, "without a reason".into()));
    }
}
