//! `rctl lab`: the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::serve::Port;
use super::topology::TorChoice;

/// `rctl lab`.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// What to do with the lab.
    #[command(subcommand)]
    pub verb: LabVerb,
}

/// Verbs of `rctl lab`.
#[derive(Debug, Subcommand)]
pub enum LabVerb {
    /// Build the lab, or repair what is broken of it
    #[command(after_help = "Example:\n  rctl lab up --racks 2 --tors 2")]
    Up(UpArgs),
    /// Remove everything the lab made
    #[command(after_help = "Example:\n  rctl lab down")]
    Down,
    /// Show switches, nodes and pods
    #[command(after_help = "Example:\n  rctl lab status")]
    Status {
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Run a command inside a node, ToR or pod
    #[command(after_help = "Example:\n  rctl lab exec r1n1 -- ip route")]
    Exec {
        /// Name of the node, ToR or pod, as `rctl lab status` shows it
        member: String,
        /// The command
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Connect every pod to every pod and show what got through
    #[command(after_help = "Example:\n  rctl lab matrix")]
    Matrix {
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Break something, watch, and put it right again
    #[command(after_help = "Example:\n  rctl lab scenario tor-fail")]
    Scenario {
        /// Which one; `list` names them
        #[arg(value_enum)]
        name: ScenarioName,
    },
    /// The demo application of a pod
    #[command(hide = true)]
    Serve {
        /// Name to answer with
        #[arg(long)]
        identity: String,
        /// What to listen on, e.g. tcp/8080,udp/53
        #[arg(long, value_delimiter = ',', required = true)]
        ports: Vec<Port>,
    },
    /// Connect from here (see exec) and print who answers; exit 1 when nobody does
    #[command(after_help = "Example:\n  rctl lab exec POD -- rctl lab connect 10.244.1.2:8080")]
    Connect {
        /// `POD:PORT`, `IP:PORT` or `[IPv6]:PORT`
        to: String,
        /// Use a datagram instead of a connection
        #[arg(long)]
        udp: bool,
        /// Seconds to wait for the answer
        #[arg(long, default_value_t = 1.0)]
        timeout: f64,
    },
}

/// `rctl lab up`.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Racks
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub racks: u8,
    /// ToR switches; every node is connected to each of them
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub tors: u8,
    /// Nodes in each rack
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes_per_rack: u8,
    /// Pods on each node
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=32))]
    pub pods_per_node: u8,
    /// What runs on the ToRs; `auto` takes BIRD and FRR in turn if installed
    #[arg(long, value_enum, default_value_t = TorChoice::Auto)]
    pub tor: TorChoice,
    /// Leave the network policies of the demo application out
    #[arg(long)]
    pub no_policies: bool,
    /// The agent's program [default: `rampart` beside rctl]
    #[arg(long, value_name = "PATH", env = "RAMPART_BIN")]
    pub rampart: Option<PathBuf>,
    /// Seconds until everything must be up
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub timeout: u16,
    /// Leave a lab that failed to come up as it is, to look at it
    #[arg(long)]
    pub keep_on_failure: bool,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables
    Text,
    /// JSON
    Json,
}

/// Scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScenarioName {
    /// Name them all
    List,
    /// A ToR freezes: silent, but its links stay up
    TorFail,
    /// An agent is killed and started again
    AgentRestart,
    /// The policies of the demo application are removed and applied
    DefaultDeny,
    /// A BGPPeer names the wrong AS
    AsnMismatch,
    /// Manifests that do not parse arrive in the store
    BadManifest,
}
