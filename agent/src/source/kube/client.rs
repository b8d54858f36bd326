//! How the API server is reached: in-cluster configuration or a kubeconfig, read again when the API
//! server no longer takes what was read before.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt as _;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use sha2::{Digest as _, Sha256};
use tower::{BoxError, ServiceBuilder};
use tracing::{info, warn};

/// For TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing is said is probed after so long, ...
const KEEPALIVE: Duration = Duration::from_secs(10);
/// ... so often, ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// ... and given up after so many probes.
const KEEPALIVE_RETRIES: u32 = 3;
/// Octets that are not acknowledged for so long end the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
/// Files are not read again more often than this.
const RENEW: Duration = Duration::from_secs(1);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not in a pod, or without a service account.
    #[error(
        "no configuration of a pod in a cluster; run it as a pod with a service account, or give a \
         kubeconfig with --store kube:PATH"
    )]
    InCluster(#[source] InClusterError),
    /// The kubeconfig is not there, or not valid.
    #[error("kubeconfig {0} cannot be used")]
    Kubeconfig(PathBuf, #[source] Box<KubeconfigError>),
    /// TLS or authentication cannot be set up from it.
    #[error("cannot set up TLS or authentication for {0}")]
    Setup(String, #[source] Box<kube::Error>),
}

/// The way to the API server. Clones share it.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kubeconfig: Option<PathBuf>,
    current: Mutex<Current>,
}

struct Current {
    client: Client,
    server: String,
    cluster: String,
    read: Instant,
}

impl std::fmt::Debug for Current {
    // Not the client: it holds the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Connection {
    /// Reads the kubeconfig, or without one what a pod finds in its file system and environment
    /// (`KUBERNETES_SERVICE_HOST` and `_PORT`). Nothing is sent yet.
    ///
    /// # Errors
    /// Files or environment cannot be used.
    pub async fn open(kubeconfig: Option<&Path>) -> Result<Self, ClientError> {
        let current = read(kubeconfig).await?;
        let kubeconfig = kubeconfig.map(Path::to_owned);
        Ok(Self(Arc::new(Inner { kubeconfig, current: Mutex::new(current) })))
    }

    /// The client to use now. It does not retry; take it anew for each request.
    #[must_use]
    pub fn client(&self) -> Client {
        self.lock().client.clone()
    }

    /// URL of the API server.
    #[must_use]
    pub fn server(&self) -> String {
        self.lock().server.clone()
    }

    /// Tells clusters apart: a hash of the URL and of the certificate authority.
    #[must_use]
    pub fn cluster(&self) -> String {
        self.lock().cluster.clone()
    }

    /// Reads files and environment again, for instance because the API server does not know the
    /// token any more. What cannot be read leaves the client as it is.
    pub async fn renew(&self) {
        {
            let mut current = self.lock();
            if current.read.elapsed() < RENEW {
                return;
            }
            current.read = Instant::now();
        }
        match read(self.0.kubeconfig.as_deref()).await {
            Ok(current) => {
                *self.lock() = current;
                info!("credentials for the API server were read again");
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "credentials for the API server cannot be read again");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // Nothing in here can be left half done.
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(kubeconfig: Option<&Path>) -> Result<Current, ClientError> {
    let config = match kubeconfig {
        None => Config::incluster_env().map_err(ClientError::InCluster)?,
        Some(path) => {
            let unusable = |error| ClientError::Kubeconfig(path.to_owned(), Box::new(error));
            let file = Kubeconfig::read_from(path).map_err(unusable)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(unusable)?
        }
    };
    let server = config.cluster_url.to_string();
    let client = build(&config)
        .map_err(|error| ClientError::Setup(server.trim_end_matches('/').to_owned(), error))?;
    let server = server.trim_end_matches('/').to_owned();
    let cluster = fingerprint(&server, config.root_cert.as_deref().unwrap_or_default());
    Ok(Current { client, server, cluster, read: Instant::now() })
}

/// The stack of `kube`, with probes for dead connections, without its own retries and log lines.
fn build(config: &Config) -> Result<Client, Box<kube::Error>> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(tls);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

fn fingerprint(server: &str, authorities: &[Vec<u8>]) -> String {
    let mut hash = Sha256::new();
    hash.update(server.as_bytes());
    for authority in authorities {
        hash.update(Sha256::digest(authority));
    }
    hash.finalize().iter().take(16).map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("rampart-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    fn with_server(server: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Config, current-context: c, \
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             clusters: [{{name: c, cluster: {{server: \"{server}\"}}}}], \
             users: [{{name: u, user: {{token: secret-token}}}}]}}"
        )
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_no_good_is_named() {
        let missing = Path::new("/nonexistent/kubeconfig");
        let error = Connection::open(Some(missing)).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/kubeconfig"), "{error}");
        let path = kubeconfig("bad", "clusters: 7");
        assert!(matches!(
            Connection::open(Some(&path)).await,
            Err(ClientError::Kubeconfig(named, _)) if named == path
        ));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn clusters_are_told_apart_and_a_token_is_never_shown() {
        let paths = ["https://192.0.2.1:6443", "https://[2001:db8::1]:6443"]
            .map(|server| kubeconfig(&server.len().to_string(), &with_server(server)));
        let first = Connection::open(Some(&paths[0])).await.unwrap();
        let second = Connection::open(Some(&paths[1])).await.unwrap();
        assert_eq!(second.server(), "https://[2001:db8::1]:6443");
        assert_ne!(first.cluster(), second.cluster());
        assert_eq!(first.cluster(), Connection::open(Some(&paths[0])).await.unwrap().cluster());
        assert!(!format!("{first:?}").contains("secret-token"));
        for path in paths {
            std::fs::remove_file(path).unwrap();
        }
    }
}
