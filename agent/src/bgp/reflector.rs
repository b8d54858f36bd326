//! `rampart route-reflector`: the speaker and its driver, without policy engine.
//!
//! With `--store` its clients are the nodes of a cluster. With `--config FILE` it has a static
//! configuration, and no kernel routes unless asked for.

mod cluster;
mod health;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::bgp::config::{Config, PeerConfig, PeerKind, Policy, PrefixMatch};
use ::bgp::types::{Asn, RouterId};
use api::agent_args::Store;
use ipnet::IpNet;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use super::outlet::{DriverEvent, kernel_sink};
use crate::kernel::route;

/// Arguments of `rampart route-reflector`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Configuration file (YAML); see `rampart route-reflector --help`
    #[arg(long, value_name = "FILE", conflicts_with = "store", required_unless_present = "store")]
    pub config: Option<PathBuf>,
    /// Reflect between the nodes of a cluster, which are read from here: `kube` (the API server, with
    /// the pod's service account), `kube:PATH` (a kubeconfig), or `dir:PATH` (a directory of manifests)
    #[arg(long, value_name = "STORE")]
    pub store: Option<Store>,
    /// For a reflector of a cluster.
    #[command(flatten)]
    pub cluster: cluster::ClusterArgs,
}

/// Text for the end of `rampart route-reflector --help`.
pub const HELP: &str = "\
The file:
  asn: 64512                 # ours
  routerID: 10.0.0.1
  clusterID: 10.0.0.1        # default: routerID
  hostname: rr-1             # default: none
  listenPort: 179            # 0 = do not listen
  fib: false                 # true = install what is learnt into this machine's main table
  originate: [10.1.0.0/16]   # own prefixes, default: none
  peers:
  - address: 10.0.0.2
    asn: 64512               # default: ours
    name: node-2             # default: the address
    port: 179
    localAddress: 10.0.0.1   # default: the kernel's choice
    passive: true            # default: false
    holdTimeSeconds: 90
    routeReflectorClient: true
    ebgpMultihop: 2          # default: directly connected
    import: all              # all | ownOnly (= nothing) | accept: [{prefix, minLength, maxLength}]
    export: all              # default of both: all for iBGP, ownOnly for eBGP (RFC 8212)
    maxPrefixes: 10000       # default: no limit
Example:
  rampart route-reflector --store kube --node-name n1

SIGTERM ends it; peers are told (Cease 6/2) on SIGINT only. Kernel routes stay; after a restart those
that are not learnt again within 120 s are removed.";

/// Kernel routes that were there at start are left alone for this time: all peers should have
/// connected and told their routes by then.
const RELEARN: Duration = Duration::from_secs(120);

/// Why the reflector did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ReflectorError {
    /// The file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is not what it should be.
    #[error("{0}: {1}")]
    Parse(PathBuf, String),
    /// The speaker thread could not start, or signals cannot be waited for.
    #[error("cannot start the speaker")]
    Start(#[source] std::io::Error),
    /// Kernel routes were asked for and netlink does not work.
    #[error("cannot write kernel routes")]
    Routes(#[from] route::NetlinkError),
    /// Whose reflector it is must be known.
    #[error("--node-name is needed with --store")]
    NodeName,
    /// The API server cannot be asked.
    #[error("cannot use store {0}")]
    Store(String, #[source] crate::source::kube::client::ClientError),
    /// The address of probes is taken or may not be bound.
    #[error("cannot listen on {0} (--metrics-address)")]
    Health(std::net::SocketAddr, #[source] std::io::Error),
    /// A task ended by itself.
    #[error("{0} ended unexpectedly")]
    Task(&'static str),
    /// A thread ended by itself.
    #[error("the speaker thread has ended")]
    Ended,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    asn: Asn,
    #[serde(rename = "routerID")]
    router_id: Ipv4Addr,
    #[serde(rename = "clusterID")]
    cluster_id: Option<Ipv4Addr>,
    #[serde(default)]
    hostname: String,
    #[serde(default = "bgp_port")]
    listen_port: u16,
    #[serde(default)]
    fib: bool,
    #[serde(default)]
    originate: Vec<IpNet>,
    #[serde(default)]
    peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Peer {
    address: IpAddr,
    asn: Option<Asn>,
    name: Option<String>,
    #[serde(default = "bgp_port")]
    port: u16,
    local_address: Option<IpAddr>,
    #[serde(default)]
    passive: bool,
    #[serde(default = "hold_time")]
    hold_time_seconds: u16,
    #[serde(default)]
    route_reflector_client: bool,
    ebgp_multihop: Option<u8>,
    next_hop_v4: Option<Ipv4Addr>,
    next_hop_v6: Option<Ipv6Addr>,
    import: Option<Filter>,
    export: Option<Filter>,
    max_prefixes: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Filter {
    All,
    OwnOnly,
    Accept(Vec<Match>),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Match {
    prefix: IpNet,
    min_length: Option<u8>,
    max_length: Option<u8>,
}

fn bgp_port() -> u16 {
    api::constant::BGP_PORT
}

fn hold_time() -> u16 {
    90
}

/// A valid file.
#[derive(Debug)]
struct Static {
    speaker: Config,
    listen_port: u16,
    fib: bool,
    originate: Vec<IpNet>,
}

/// Runs until a signal ends it.
///
/// # Errors
/// The file is not valid, or a thread could not be started or ended by itself.
pub fn run(args: &Args) -> Result<(), ReflectorError> {
    let Some(path) = &args.config else {
        // Clap sees to it that there is one of both.
        let store = args.store.as_ref().ok_or(ReflectorError::Ended)?;
        return cluster::run(&args.cluster, store);
    };
    let file = read(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ReflectorError::Start)?;
    runtime.block_on(serve(file))
}

async fn serve(file: Static) -> Result<(), ReflectorError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ReflectorError::Start)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ReflectorError::Start)?;
    let (routes, mut route_events) = if file.fib {
        let options = route::Options { hold_adopted: true, ..route::Options::default() };
        let (routes, events, _thread) = route::spawn(options)?;
        (Some(routes), Some(events))
    } else {
        (None, None)
    };
    let sink = routes.clone().map(kernel_sink);
    if let Some(routes) = &routes {
        routes.in_sync().await.map_err(|_| ReflectorError::Ended)?;
    }
    let (speaker, mut events, _thread) =
        super::spawn(file.speaker, file.listen_port, sink, super::Options::default())
            .map_err(ReflectorError::Start)?;
    speaker.originate(file.originate).await.map_err(|_| ReflectorError::Ended)?;
    let mut held = routes;
    let relearnt = tokio::time::sleep(RELEARN);
    tokio::pin!(relearnt);
    loop {
        tokio::select! {
            () = &mut relearnt, if held.is_some() => {
                if let Some(routes) = held.take() {
                    routes.release().await.map_err(|_| ReflectorError::Ended)?;
                }
            }
            event = events.recv() => match event {
                Some(event) => log(&event),
                None => return Err(ReflectorError::Ended),
            },
            Some(event) = next(&mut route_events) => tracing::warn!(?event, "kernel routes"),
            _ = terminate.recv() => {
                speaker.shutdown(false).await.map_err(|_| ReflectorError::Ended)?;
                return Ok(());
            }
            _ = interrupt.recv() => {
                speaker.shutdown(true).await.map_err(|_| ReflectorError::Ended)?;
                while events.recv().await.is_some() {}
                return Ok(());
            }
        }
    }
}

/// Never ready without a channel; cancel-safe.
async fn next(events: &mut Option<route::Events>) -> Option<route::RouteEvent> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

fn log(event: &DriverEvent) {
    match event {
        DriverEvent::Listening(port) => tracing::info!(port, "listening for BGP"),
        DriverEvent::ListenFailed { port, reason } => {
            tracing::error!(code = %api::error_code::LISTEN_FAILED, port, reason, "cannot listen for BGP");
        }
        DriverEvent::Defect { peer } => tracing::error!(%peer, "session closed by a defect"),
        DriverEvent::Speaker(event) => tracing::info!(?event, "bgp"),
    }
}

fn read(path: &Path) -> Result<Static, ReflectorError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ReflectorError::Read(path.to_owned(), error))?;
    parse(&text).map_err(|what| ReflectorError::Parse(path.to_owned(), what))
}

fn parse(text: &str) -> Result<Static, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if file.router_id.is_unspecified() {
        return Err("routerID: must not be 0.0.0.0".to_owned());
    }
    let mut peers = Vec::with_capacity(file.peers.len());
    let mut seen = BTreeSet::new();
    for (index, peer) in file.peers.into_iter().enumerate() {
        if !seen.insert(peer.address) {
            return Err(format!("peers[{index}].address: {} is there twice", peer.address));
        }
        let what = |field: &str| format!("peers[{index}].{field}");
        peers.push(peer_config(peer, file.asn, &what)?);
    }
    peers.sort_by_key(|peer| peer.address);
    Ok(Static {
        speaker: Config {
            asn: file.asn,
            router_id: RouterId(file.router_id),
            cluster_id: file.cluster_id.unwrap_or(file.router_id),
            hostname: file.hostname,
            peers,
        },
        listen_port: file.listen_port,
        fib: file.fib,
        originate: file.originate,
    })
}

fn peer_config(
    peer: Peer,
    own_asn: Asn,
    what: &dyn Fn(&str) -> String,
) -> Result<PeerConfig, String> {
    if matches!(peer.hold_time_seconds, 1 | 2) {
        return Err(format!("{}: 0, or at least 3 (RFC 4271)", what("holdTimeSeconds")));
    }
    let asn = peer.asn.unwrap_or(own_asn);
    if peer.route_reflector_client && asn != own_asn {
        return Err(format!("{}: only for a peer in our own AS", what("routeReflectorClient")));
    }
    let default = || if asn == own_asn { Policy::All } else { Policy::OwnOnly };
    let policy = |filter: Option<Filter>, field| match filter {
        None => Ok(default()),
        Some(filter) => filter.policy().map_err(|why| format!("{}: {why}", what(field))),
    };
    Ok(PeerConfig {
        port: peer.port,
        local_address: peer.local_address,
        hold_time: Duration::from_secs(peer.hold_time_seconds.into()),
        passive: peer.passive,
        ebgp_multihop: peer.ebgp_multihop,
        route_reflector_client: peer.route_reflector_client,
        next_hop_v4: peer.next_hop_v4,
        next_hop_v6: peer.next_hop_v6,
        import: policy(peer.import, "import")?,
        export: policy(peer.export, "export")?,
        max_prefixes: peer.max_prefixes,
        ..PeerConfig::new(
            peer.name.unwrap_or_else(|| peer.address.to_string()),
            PeerKind::Reflector,
            peer.address,
            asn,
        )
    })
}

impl Filter {
    fn policy(self) -> Result<Policy, String> {
        match self {
            Self::All => Ok(Policy::All),
            Self::OwnOnly => Ok(Policy::OwnOnly),
            Self::Accept(list) => {
                list.into_iter().map(Match::entry).collect::<Result<_, _>>().map(Policy::Accept)
            }
        }
    }
}

impl Match {
    fn entry(self) -> Result<PrefixMatch, String> {
        let own = self.prefix.prefix_len();
        let min_length = self.min_length.unwrap_or(own);
        let max_length = self.max_length.unwrap_or(min_length);
        if min_length < own || max_length < min_length || max_length > self.prefix.max_prefix_len()
        {
            return Err(format!("lengths {min_length}-{max_length} do not fit {}", self.prefix));
        }
        Ok(PrefixMatch { prefix: self.prefix.trunc(), min_length, max_length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(text: &str) -> Result<Args, String> {
        let words = std::iter::once("route-reflector").chain(text.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.args).map_err(|error| error.to_string())
    }

    #[test]
    fn a_reflector_is_of_a_file_or_of_a_cluster_and_never_of_both_or_neither() {
        let of_file = args("--config /etc/rr.yaml").unwrap();
        assert_eq!((of_file.config, of_file.store), (Some("/etc/rr.yaml".into()), None));
        for (text, store) in [
            ("kube", Store::Kubernetes(None)),
            ("kube:/admin.conf", Store::Kubernetes(Some("/admin.conf".into()))),
            ("dir:/objects", Store::Directory("/objects".into())),
        ] {
            let found = args(&format!("--store {text} --node-name n1")).unwrap();
            assert_eq!((found.store, found.config), (Some(store), None), "{text}");
            assert_eq!(found.cluster.node_name, "n1");
            assert_eq!(found.cluster.namespace, api::constant::NAMESPACE);
            let address = found.cluster.metrics_address.to_string();
            assert_eq!(address, api::constant::REFLECTOR_METRICS_ADDRESS);
        }
        for (text, why) in [
            ("", "--config <FILE>"),
            ("--config a --store kube", "cannot be used with"),
            ("--store etcd", "expected dir:PATH, kube or kube:PATH"),
            ("--store dir:", "expected dir:PATH, kube or kube:PATH"),
            ("--store kube --metrics-address 9473", "--metrics-address"),
            ("--store kube --privileged", "--privileged"),
        ] {
            let error = args(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn whose_reflector_of_a_cluster_it_is_must_be_said() {
        let mut unnamed = args("--store dir:/nowhere").unwrap();
        unnamed.cluster.node_name = String::new();
        let store = unnamed.store.unwrap();
        let error = cluster::run(&unnamed.cluster, &store).unwrap_err();
        assert!(matches!(error, ReflectorError::NodeName), "{error}");
    }

    const HEAD: &str = "asn: 64512\nrouterID: 10.0.0.1\n";

    #[test]
    fn a_short_file_gets_the_documented_defaults() {
        let file = parse(&format!(
            "{HEAD}peers:\n- address: fd00::2\n  routeReflectorClient: true\n- address: 10.0.0.2\n  asn: 65001\n"
        ))
        .unwrap();
        assert_eq!((file.listen_port, file.fib), (179, false));
        assert_eq!(file.speaker.cluster_id, Ipv4Addr::new(10, 0, 0, 1));
        let [tor, client] = file.speaker.peers.as_slice() else { panic!("two peers") };
        assert_eq!((tor.asn, &tor.import), (Asn(65001), &Policy::OwnOnly));
        assert_eq!((client.asn, &client.import), (Asn(64512), &Policy::All));
        assert_eq!(client.hold_time, Duration::from_secs(90));
        assert!(client.route_reflector_client && !client.passive);
    }

    #[test]
    fn an_accept_list_keeps_its_length_ranges() {
        let file = parse(&format!(
            "{HEAD}peers:\n- address: 10.0.0.2\n  import:\n    accept:\n    - prefix: 10.0.0.0/8\n      minLength: 16\n      maxLength: 24\n"
        ))
        .unwrap();
        assert_eq!(
            file.speaker.peers[0].import,
            Policy::Accept(vec![PrefixMatch {
                prefix: "10.0.0.0/8".parse().unwrap(),
                min_length: 16,
                max_length: 24
            }])
        );
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_field() {
        for (text, field) in [
            ("peers: [{address: 10.0.0.2}, {address: 10.0.0.2}]", "peers[1].address"),
            ("peers: [{address: 10.0.0.2, holdTimeSeconds: 2}]", "peers[0].holdTimeSeconds"),
            (
                "peers: [{address: 10.0.0.2, asn: 65001, routeReflectorClient: true}]",
                "peers[0].routeReflectorClient",
            ),
            (
                "peers: [{address: 10.0.0.2, import: {accept: [{prefix: 10.0.0.0/8, maxLength: 33}]}}]",
                "peers[0].import",
            ),
            ("colour: blue", "colour"),
        ] {
            let error = parse(&format!("{HEAD}{text}\n")).unwrap_err();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn the_file_in_the_help_is_valid() {
        let example: String = HELP
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with("  ") && !line.contains("Example"))
            .filter(|line| !line.contains("import:") && !line.contains("ebgpMultihop"))
            .map(|line| format!("{line}\n"))
            .collect();
        let file = parse(&example).unwrap();
        assert_eq!(file.speaker.peers[0].max_prefixes, Some(10000));
    }
}
