//! HTTP: who may ask, what, and in which form it is answered.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::ACCEPT;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::answer::{Answer, json, refuse, respond, text};
use super::cni;
use super::core::{Core, Ending, Overview};
use super::{doctor, kernel_state};
use crate::kernel::nft::inventory;
use crate::observe::metrics;

/// Connections served at once at each door; more wait. Each pod that waits for its policy holds one
/// of the control socket's, and a node may start all of its pods at once.
const CONNECTIONS: usize = 1024;
/// How long a request may take to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether the socket is still there.
const LOOK: Duration = Duration::from_secs(1);
/// After accepting failed (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// `synced` without `timeout_ms`.
const SYNCED_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest `timeout_ms`.
const SYNCED_LONGEST: Duration = Duration::from_secs(600);

/// Opens the control socket, for the owner only. One that a dead agent left behind is replaced; the
/// caller holds the lock of the directory.
///
/// # Errors
/// The directory is not writable.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Bound under another name: nobody can connect before the mode is right.
    let hidden = path.with_extension("new");
    match fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&hidden)?;
    fs::set_permissions(&hidden, Permissions::from_mode(0o600))?;
    fs::rename(&hidden, path)?;
    Ok(listener)
}

fn inode_of(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// Serves the control socket at `path`, and makes it anew when somebody removes it: without it no pod
/// starts, and an agent that looks well is not restarted.
pub async fn serve_socket(mut listener: UnixListener, path: PathBuf, core: Core) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut look = tokio::time::interval(LOOK);
    let mut inode = inode_of(&path);
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = look.tick() => {
                if inode_of(&path) != inode {
                    match bind(&path) {
                        Ok(anew) => {
                            warn!(path = %path.display(), "somebody removed the control socket; made anew");
                            listener = anew;
                            inode = inode_of(&path);
                        }
                        Err(error) => warn!(%error, "control socket cannot be made anew"),
                    }
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) if is_allowed(&stream) => {
                let core = core.clone();
                let handler = move |request| control(core.clone(), request);
                crate::runtime::spawn(
                    "control connection",
                    serve_connection(stream, slot, handler),
                );
            }
            Ok(_) => warn!("control connection of another user refused"),
            Err(error) => {
                warn!(%error, "control connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics`.
pub async fn serve_metrics(listener: TcpListener, core: Core) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let core = core.clone();
                let handler = move |request| health(core.clone(), request);
                crate::runtime::spawn(
                    "metrics connection",
                    serve_connection(stream, slot, handler),
                );
            }
            Err(error) => {
                warn!(%error, "metrics connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Root, or the user that we run as.
pub(crate) fn is_allowed(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

/// Answers the requests of one connection.
pub(crate) async fn serve_connection<S, H, F>(stream: S, _slot: OwnedSemaphorePermit, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Send,
    F: Future<Output = Answer> + Send,
{
    let service = service_fn(|request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(%error, "connection ended early");
    }
}

async fn control(core: Core, request: Request<Incoming>) -> Answer {
    if request.uri().path().starts_with(cni::PREFIX) {
        return cni::answer(&core, request).await;
    }
    if (request.method(), request.uri().path()) == (&Method::POST, "/v1/uninstall") {
        return json(&core.leave());
    }
    if request.method() != Method::GET {
        return refuse(StatusCode::BAD_REQUEST, "only GET is answered", "Use rctl.");
    }
    let answer = match request.uri().path() {
        "/v1/version" => Ok(json(&core.version())),
        "/v1/status" => core.overview().await.map(|overview| json(&overview.status)),
        "/v1/nodes" => core.nodes().await.map(|list| json(&list)),
        "/v1/peers" => core.peers().await.map(|list| json(&list)),
        "/v1/routes" => core.route_views().await.map(|list| json(&list)),
        "/v1/networkpolicies" => core.policies().await.map(|list| json(&list)),
        "/v1/endpoints" => core.endpoints().await.map(|list| json(&list)),
        "/v1/chains" => return from_kernel(inventory::chains).await,
        "/v1/kernel" => return from_kernel(kernel_state::read).await,
        "/v1/doctor" => doctor::examine(&core).await.map(|findings| json(&findings)),
        "/v1/synced" => match synced_timeout(request.uri().query()) {
            Ok(timeout) => core.synced(timeout).await.map(|synced| json(&synced)),
            Err(why) => return refuse(StatusCode::BAD_REQUEST, why, "Give timeout_ms=N."),
        },
        path => {
            let message = format!("nothing is served at {path}");
            return refuse(StatusCode::NOT_FOUND, &message, "Is rctl newer than the agent?");
        }
    };
    answer.unwrap_or_else(|Ending| {
        refuse(StatusCode::INTERNAL_SERVER_ERROR, "the agent is ending", "Try again later.")
    })
}

/// What only the kernel can tell; it may take a moment.
async fn from_kernel<T, E>(read: impl FnOnce() -> Result<T, E> + Send + 'static) -> Answer
where
    T: Serialize + Send + 'static,
    E: std::error::Error + Send + 'static,
{
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(answer)) => json(&answer),
        Ok(Err(error)) => {
            let message = format!("the kernel cannot be read: {error}");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, &message, "Try again later.")
        }
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the agent is ending", "Try again."),
    }
}

fn synced_timeout(query: Option<&str>) -> Result<Duration, &'static str> {
    let mut timeout = SYNCED_TIMEOUT;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("timeout_ms", number)) => {
                let number = number.parse().map_err(|_| "timeout_ms is not a number")?;
                timeout = Duration::from_millis(number).min(SYNCED_LONGEST);
            }
            _ => return Err("unknown parameter"),
        }
    }
    Ok(timeout)
}

async fn health(core: Core, request: Request<Incoming>) -> Answer {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
    }
    match request.uri().path() {
        "/healthz" => match core.stuck().await {
            None => text(StatusCode::OK, "ok\n"),
            Some(who) => {
                warn!(who, "does not answer");
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("{who} does not answer\n"))
            }
        },
        "/readyz" => match core.unready() {
            reasons if reasons.is_empty() => text(StatusCode::OK, "ok\n"),
            reasons => text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))),
        },
        "/metrics" => match core.overview().await {
            Ok(overview) => exposition(&core, &overview, &request),
            Err(Ending) => text(StatusCode::SERVICE_UNAVAILABLE, "ending\n"),
        },
        _ => text(StatusCode::NOT_FOUND, "/healthz, /readyz, /metrics\n"),
    }
}

fn exposition(core: &Core, overview: &Overview, request: &Request<Incoming>) -> Answer {
    let source = core.source();
    let restored =
        source.is_some_and(|source| source.kinds.values().any(|kind| kind.from_snapshot));
    let sample = metrics::Sample {
        status: &overview.status,
        stale: restored || core.problems().input_is_stale(),
        peers: &overview.peers,
        limits: &overview.limits,
        traffic: overview.traffic,
        recorder: core.recorder(),
    };
    let accepted = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let format = metrics::Format::accepted(accepted);
    respond(StatusCode::OK, format.mime(), metrics::encode(&sample, format).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_wait_is_read_from_the_query() {
        assert_eq!(synced_timeout(None), Ok(SYNCED_TIMEOUT));
        assert_eq!(synced_timeout(Some("timeout_ms=250")), Ok(Duration::from_millis(250)));
        assert_eq!(synced_timeout(Some("timeout_ms=99999999999")), Ok(SYNCED_LONGEST));
        assert!(synced_timeout(Some("timeout_ms=x")).is_err());
        assert!(synced_timeout(Some("timeout=1")).is_err());
    }
}
