//! `/healthz`, `/readyz` and `/metrics` of a reflector of the cluster.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use api::metric::{self, Metric, Type};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::warn;

use crate::bgp::SpeakerHandle;
use crate::control::serve_connection;

/// Connections served at once; more wait.
const CONNECTIONS: usize = 16;
/// After accepting failed (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Prometheus text format.
const MIME: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the answers are made of.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Nodes and BGPConfiguration were listed.
    pub(super) listed: bool,
    /// Our own Node was among them.
    pub(super) node_known: bool,
    /// Once there is a configuration.
    pub(super) speaker: Option<SpeakerHandle>,
}

impl State {
    fn not_ready(&self) -> Option<&'static str> {
        match &self.speaker {
            _ if !self.listed => Some("the store was not read yet"),
            _ if !self.node_known => Some("the own Node was not read"),
            Some(speaker) if speaker.traffic().listen_port == 0 => Some("not listening for BGP"),
            Some(_) => None,
            None => Some("the speaker was not started yet"),
        }
    }
}

pub(super) async fn serve(listener: TcpListener, state: watch::Receiver<State>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = state.clone();
                let handler = move |request| answer(state.borrow().clone(), request);
                let connection = serve_connection(stream, slot, handler);
                crate::runtime::spawn("health connection", connection);
            }
            Err(error) => {
                warn!(%error, "health connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(state: State, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match state.not_ready() {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        "/metrics" => (StatusCode::OK, metrics(&state).await),
        _ => (StatusCode::NOT_FOUND, "/healthz, /readyz, /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MIME));
    response
}

async fn metrics(state: &State) -> String {
    let mut text = String::new();
    put(&mut text, &metric::READY, u64::from(state.not_ready().is_none()));
    let Some(speaker) = &state.speaker else { return text };
    let Ok(summary) = speaker.summary().await else { return text };
    let traffic = speaker.traffic();
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    put(&mut text, &metric::BGP_PEERS, count(summary.peers));
    put(&mut text, &metric::BGP_PEERS_ESTABLISHED, count(summary.peers_established));
    put(&mut text, &metric::BGP_PREFIXES, count(summary.prefixes));
    put(&mut text, &metric::BGP_OCTETS_RECEIVED, traffic.octets_in);
    put(&mut text, &metric::BGP_OCTETS_SENT, traffic.octets_out);
    put(&mut text, &metric::BGP_CONNECTIONS_REFUSED, traffic.refused);
    text
}

fn put(text: &mut String, metric: &Metric, value: u64) {
    let (kind, suffix) = match metric.kind {
        Type::Counter => ("counter", "_total"),
        _ => ("gauge", ""),
    };
    let name = metric.name;
    let help = metric.help;
    // Writing into a String cannot fail.
    let written = writeln!(
        text,
        "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n{name}{suffix} {value}"
    );
    debug_assert!(written.is_ok());
}
