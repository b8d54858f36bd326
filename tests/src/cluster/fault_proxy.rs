//! A proxy in front of the real API server that makes it as bad as API servers get: slow, stale,
//! silent, 410 on everything, watches cut, tokens refused.
//!
//! It speaks TLS with a certificate of the cluster's authority on an address of the control plane,
//! so that agents take it for the API server (`kubernetesServiceEndpoint`); what a client sends
//! goes on as it is, its token too, so the API server still decides who may do what.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use ctl::lab::namespace;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Cluster;
use super::control_plane::API_PORT;
use super::fabric::CONTROL_PLANE;

/// Port of the proxy, beside the API server's.
pub const PORT: u16 = 7443;

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// As the API server is.
    #[default]
    None,
    /// 410 for every list and for every watch.
    Gone,
    /// 401 for everything.
    Unauthorized,
    /// Answers begin this late.
    Slow(Duration),
    /// Connections stay, nothing comes.
    Silent,
    /// Lists answer what they answered at [`FaultProxy::remember`], watches tell nothing: a
    /// replica of the API server that hangs behind.
    Stale,
    /// Watches end this soon.
    ShortWatches(Duration),
}

/// What was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Lists, pages of lists too.
    pub lists: u64,
    /// Most lists at one time from one client.
    pub lists_at_once: u64,
    /// Watches.
    pub watches: u64,
}

#[derive(Debug, Default)]
struct Shared {
    /// By path, without the query: what was asked of it.
    asked: BTreeMap<String, Asked>,
    /// Lists under way, by client and path.
    under_way: BTreeMap<(String, String), u64>,
    /// Last complete list, by path.
    latest: BTreeMap<String, Bytes>,
    /// What [`Fault::Stale`] answers.
    remembered: BTreeMap<String, Bytes>,
}

/// A proxy that runs.
#[derive(Debug)]
pub struct FaultProxy {
    fault: watch::Sender<Fault>,
    shared: Arc<Mutex<Shared>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

struct Proxy {
    fault: watch::Receiver<Fault>,
    shared: Arc<Mutex<Shared>>,
    connector: TlsConnector,
}

type Body = BoxBody<Bytes, hyper::Error>;

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultProxy {
    /// Starts a proxy on [`PORT`] of the control plane.
    ///
    /// # Errors
    /// When the certificates cannot be read or the port is taken.
    pub fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let pki = cluster.pki();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = CertificateDer::from_pem_file(pki.certificate("apiserver"))
            .map_err(|error| anyhow!("certificate of the API server: {error}"))?;
        let key = PrivateKeyDer::from_pem_file(pki.key("apiserver"))
            .map_err(|error| anyhow!("key of the API server: {error}"))?;
        let authority = CertificateDer::from_pem_file(pki.certificate("ca"))
            .map_err(|error| anyhow!("authority: {error}"))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (fault, faults) = watch::channel(Fault::None);
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (stop, stopped) = oneshot::channel();
        let (ready, listening) = std::sync::mpsc::channel();
        let namespace = cluster.name().namespace("cp");
        let proxy = Arc::new(Proxy {
            fault: faults,
            shared: Arc::clone(&shared),
            connector: TlsConnector::from(Arc::new(client)),
        });
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let thread = std::thread::spawn(move || {
            namespace::enter(&namespace)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let listener = TcpListener::bind(SocketAddr::from((CONTROL_PLANE.0, PORT))).await;
                ready.send(listener.as_ref().map(|_| ()).map_err(ToString::to_string)).ok();
                let serving = serve(listener?, acceptor, proxy);
                tokio::select! {
                    result = serving => result,
                    _ = stopped => Ok(()),
                }
            })
        });
        listening.recv().context("the proxy's thread ended")?.map_err(|error| anyhow!(error))?;
        Ok(Self { fault, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// From now on it is so. Open watches end with the change.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Remembers what lists answered last, for [`Fault::Stale`].
    pub fn remember(&self) {
        let mut shared = lock(&self.shared);
        shared.remembered = shared.latest.clone();
    }

    /// What was asked since the last call, by path.
    #[must_use]
    pub fn asked(&self) -> BTreeMap<String, Asked> {
        std::mem::take(&mut lock(&self.shared).asked)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its errors were told when it started.
            thread.join().ok();
        }
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    proxy: Arc<Proxy>,
) -> anyhow::Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        let (acceptor, proxy) = (acceptor.clone(), Arc::clone(&proxy));
        tokio::spawn(async move {
            // A client that goes away in the middle is its own business.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let proxy = Arc::clone(&proxy);
                async move {
                    let client = peer.ip().to_string();
                    Ok::<_, Infallible>(proxy.answer(&client, request).await)
                }
            });
            let http = hyper::server::conn::http1::Builder::new();
            http.serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

/// A Status as the API server says it.
fn status(code: StatusCode, reason: &str) -> serde_json::Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{reason} (a fault that a test injects)"), "reason": reason, "code": code.as_u16(),
    })
}

fn whole(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn failure(code: StatusCode, reason: &str) -> Response<Body> {
    whole(code, status(code, reason).to_string())
}

impl Proxy {
    async fn answer(&self, client: &str, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default();
        let watches = query.split('&').any(|it| it == "watch=true" || it == "watch=1");
        // A list is a GET of a plural; ours ask for whole kinds or for a selection of them.
        let lists = request.method() == http::Method::GET
            && !watches
            && (query.contains("limit=") || query.contains("resourceVersion"));
        let fault = *self.fault.borrow();
        {
            let mut shared = lock(&self.shared);
            let asked = shared.asked.entry(path.clone()).or_default();
            asked.watches += u64::from(watches);
            asked.lists += u64::from(lists);
        }
        if lists {
            self.begin(client, &path);
        }
        let answer = self.with_fault(fault, request, &path, watches, lists).await;
        if lists {
            self.end(client, &path);
        }
        answer.unwrap_or_else(|error| {
            failure(StatusCode::BAD_GATEWAY, &format!("no answer of the API server: {error:#}"))
        })
    }

    fn begin(&self, client: &str, path: &str) {
        let mut shared = lock(&self.shared);
        let under_way = shared.under_way.entry((client.to_owned(), path.to_owned())).or_default();
        *under_way += 1;
        let now = *under_way;
        let asked = shared.asked.entry(path.to_owned()).or_default();
        asked.lists_at_once = asked.lists_at_once.max(now);
    }

    fn end(&self, client: &str, path: &str) {
        let mut shared = lock(&self.shared);
        if let Some(under_way) = shared.under_way.get_mut(&(client.to_owned(), path.to_owned())) {
            *under_way = under_way.saturating_sub(1);
        }
    }

    async fn with_fault(
        &self,
        fault: Fault,
        request: Request<Incoming>,
        path: &str,
        watches: bool,
        lists: bool,
    ) -> anyhow::Result<Response<Body>> {
        match fault {
            Fault::Unauthorized => return Ok(failure(StatusCode::UNAUTHORIZED, "Unauthorized")),
            Fault::Gone if watches => {
                let event = json!({"type": "ERROR", "object": status(StatusCode::GONE, "Expired")});
                return Ok(whole(StatusCode::OK, format!("{event}\n")));
            }
            Fault::Gone if lists => return Ok(failure(StatusCode::GONE, "Expired")),
            Fault::Stale if lists => {
                if let Some(body) = lock(&self.shared).remembered.get(path) {
                    return Ok(whole(StatusCode::OK, body.clone()));
                }
            }
            Fault::Silent => {
                self.changed().await;
                return Ok(failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"));
            }
            Fault::Stale if watches => {
                self.changed().await;
                return Ok(whole(StatusCode::OK, Bytes::new()));
            }
            Fault::Slow(delay) => tokio::time::sleep(delay).await,
            Fault::None | Fault::Gone | Fault::Stale | Fault::ShortWatches(_) => {}
        }
        let response = self.forward(request).await?;
        if watches {
            return Ok(self.cut(response, fault));
        }
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        if lists && parts.status.is_success() {
            lock(&self.shared).latest.insert(path.to_owned(), body.clone());
        }
        let body = Full::new(body).map_err(|never| match never {}).boxed();
        let mut response = Response::from_parts(parts, body);
        response.headers_mut().remove(header::TRANSFER_ENCODING);
        Ok(response)
    }

    /// Passes a watch on until the fault changes, or ends it soon.
    fn cut(&self, response: Response<Incoming>, fault: Fault) -> Response<Body> {
        let mut faults = self.fault.clone();
        faults.mark_unchanged();
        response.map(|body| {
            let ends = async move {
                match fault {
                    Fault::ShortWatches(after) => tokio::time::sleep(after).await,
                    _ => drop(faults.changed().await),
                }
            };
            let frames = futures::StreamExt::take_until(
                http_body_util::BodyStream::new(body),
                Box::pin(ends),
            );
            http_body_util::StreamBody::new(frames).boxed()
        })
    }

    async fn changed(&self) {
        let mut faults = self.fault.clone();
        faults.mark_unchanged();
        faults.changed().await.ok();
    }

    async fn forward(&self, request: Request<Incoming>) -> anyhow::Result<Response<Incoming>> {
        let stream = TcpStream::connect((CONTROL_PLANE.0, API_PORT)).await?;
        let name = ServerName::IpAddress(std::net::IpAddr::V4(CONTROL_PLANE.0).into());
        let stream = self.connector.connect(name, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }
}
