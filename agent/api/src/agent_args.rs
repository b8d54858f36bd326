//! Flags of `rampart agent`. Manifests that start the agent are checked against this type.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, ValueEnum};

use crate::constant::{METRICS_ADDRESS, NAMESPACE, RUN_DIR, STATE_DIR};

/// Arguments of `rampart agent`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct AgentArgs {
    /// Name of the Node object that this agent is for
    #[arg(long, value_name = "NAME", env = "RAMPART_NODE_NAME")]
    pub node_name: String,
    /// Where objects come from: `kube` (the API server, with the pod's service account),
    /// `kube:PATH` (the same with a kubeconfig), or `dir:PATH`, a directory of manifests
    #[arg(long, value_name = "STORE", env = "RAMPART_STORE")]
    pub store: Store,
    /// Directory of the control socket and the lock file
    #[arg(long, value_name = "DIR", env = "RAMPART_RUN_DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// Directory of what outlives a restart: the snapshot of the input, and CNI attachments
    #[arg(long, value_name = "DIR", env = "RAMPART_STATE_DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
    /// Install the CNI plugin into this directory and keep it repaired (usually /opt/cni/bin)
    #[arg(long, value_name = "DIR", env = "RAMPART_CNI_BIN_DIR", requires = "cni_conf_dir")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Write the CNI network list into this directory once the node is ready (usually /etc/cni/net.d)
    #[arg(long, value_name = "DIR", env = "RAMPART_CNI_CONF_DIR", requires = "cni_bin_dir")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Namespace that Rampart runs in: its reflectors are looked for there
    #[arg(long, value_name = "NAME", env = "RAMPART_NAMESPACE", default_value = NAMESPACE)]
    pub namespace: String,
    /// Write a NodeNetworkStatus object about this node and, where elected, the conditions of
    /// configuration objects; off spares the API server in clusters that do not look at them
    #[arg(long, value_name = "BOOL", env = "RAMPART_NODE_STATUS", default_value_t = true, action = ArgAction::Set)]
    pub node_status: bool,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS", env = "RAMPART_METRICS_ADDRESS", default_value = METRICS_ADDRESS)]
    pub metrics_address: SocketAddr,
    /// Form of log lines
    #[arg(long, value_name = "FORMAT", env = "RAMPART_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Log from this level on: error, warn, info, debug, trace, or directives such as `info,bgp=debug`
    #[arg(long, value_name = "LEVEL", env = "RAMPART_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// `dir:PATH`.
    Directory(PathBuf),
    /// `kube` or `kube:PATH` of a kubeconfig.
    Kubernetes(Option<PathBuf>),
}

impl FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Directory(PathBuf::from(path))),
            Some(("kube", path)) if !path.is_empty() => {
                Ok(Self::Kubernetes(Some(PathBuf::from(path))))
            }
            None if text == "kube" => Ok(Self::Kubernetes(None)),
            _ => Err("expected dir:PATH, kube or kube:PATH".to_owned()),
        }
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
            Self::Kubernetes(None) => f.write_str("kube"),
            Self::Kubernetes(Some(path)) => write!(f, "kube:{}", path.display()),
        }
    }
}
