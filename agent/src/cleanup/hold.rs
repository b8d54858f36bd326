//! In the place of the agent that was: says what was removed, and keeps the kubelet from starting
//! the agent again, until the pod is deleted.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;

use api::constant::SOCKET_NAME;
use api::control::{Error, Uninstalled};
use api::error_code;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, info, warn};

use super::CleanupError;
use crate::control::{self, Answer, json_with, text};

/// Answers on a socket in `directory` and to probes at `metrics` until SIGTERM or SIGINT.
pub(super) fn run(
    directory: &Path,
    metrics: SocketAddr,
    result: &Uninstalled,
) -> Result<(), CleanupError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CleanupError::Hold("start the runtime", error))?;
    runtime.block_on(serve(directory, metrics, result))
}

async fn serve(
    directory: &Path,
    metrics: SocketAddr,
    result: &Uninstalled,
) -> Result<(), CleanupError> {
    let signals = |error| CleanupError::Hold("handle signals", error);
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    std::fs::create_dir_all(directory)
        .map_err(|error| CleanupError::Hold("use the run directory", error))?;
    let socket = control::bind(&directory.join(SOCKET_NAME))
        .map_err(|error| CleanupError::Hold("open the control socket", error))?;
    let probes = TcpListener::bind(metrics)
        .await
        .map_err(|error| CleanupError::Hold("serve /healthz", error))?;
    info!("Rampart is off this node; waiting for the pod to be deleted");
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) if control::is_allowed(&stream) => {
                    let result = result.clone();
                    let answer = move |request: Request<Incoming>| {
                        control(&result, request.method(), request.uri().path())
                    };
                    crate::runtime::spawn("control connection", connection(stream, answer));
                }
                Ok(_) => warn!("control connection of another user refused"),
                Err(error) => warn!(%error, "control connection cannot be accepted"),
            },
            accepted = probes.accept() => match accepted {
                Ok((stream, _)) => {
                    let answer = |request: Request<Incoming>| probe(request.uri().path());
                    crate::runtime::spawn("probe", connection(stream, answer));
                }
                Err(error) => warn!(%error, "probe cannot be accepted"),
            },
        }
    }
}

async fn connection<S, H>(stream: S, answer: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> Answer + Send,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(std::time::Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        debug!(%error, "connection ended early");
    }
}

fn control(result: &Uninstalled, method: &Method, path: &str) -> Answer {
    if (method, path) == (&Method::POST, "/v1/uninstall") {
        return json_with(StatusCode::OK, result);
    }
    let error = Error {
        code: error_code::AGENT_UNREACHABLE,
        message: "Rampart was uninstalled from this node".to_owned(),
        why: "The agent has removed everything and only waits for its pod to be deleted."
            .to_owned(),
        next: "Finish with `rctl uninstall`, or restart the pod to have the agent back.".to_owned(),
    };
    json_with(StatusCode::SERVICE_UNAVAILABLE, &error)
}

/// Alive, but not ready.
fn probe(path: &str) -> Answer {
    let (status, body) = match path {
        "/healthz" => (StatusCode::OK, "ok\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "uninstalled\n"),
    };
    text(status, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_alive_and_not_ready_and_tells_what_was_removed() {
        assert_eq!(probe("/healthz").status(), StatusCode::OK);
        assert_eq!(probe("/readyz").status(), StatusCode::SERVICE_UNAVAILABLE);
        let result = Uninstalled { done: true, ..Uninstalled::default() };
        assert_eq!(control(&result, &Method::POST, "/v1/uninstall").status(), StatusCode::OK);
        let other = control(&result, &Method::GET, "/v1/status");
        assert_eq!(other.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
