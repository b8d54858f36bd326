//! Answers over HTTP, as all doors of the agent give them.

use api::control::Error;
use api::error_code;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tracing::warn;

/// What a request gets.
pub(crate) type Answer = Response<Full<Bytes>>;

/// A good answer.
pub(super) fn json<T: Serialize>(value: &T) -> Answer {
    json_with(StatusCode::OK, value)
}

/// A value as the answer.
pub(crate) fn json_with<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => respond(status, "application/json", body),
        Err(error) => {
            warn!(%error, "answer cannot be written");
            respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", Vec::new())
        }
    }
}

/// A request that is none of ours.
pub(super) fn refuse(status: StatusCode, message: &str, next: &str) -> Answer {
    let error = Error {
        code: error_code::NOT_FOUND,
        message: message.to_owned(),
        why: "The request is none that this agent answers.".to_owned(),
        next: next.to_owned(),
    };
    json_with(status, &error)
}

/// Words for people and probes.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    respond(status, "text/plain; charset=utf-8", body.into().into_bytes())
}

/// Any answer.
pub(super) fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
