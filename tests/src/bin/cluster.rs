//! A real Kubernetes cluster on this machine, from the command line.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use tests::cluster::control_plane::Part;
use tests::cluster::fabric::Fabric;
use tests::cluster::name::Name;
use tests::cluster::programs::Programs;
use tests::cluster::{
    Cluster, Cni, Options, Proxy, bench, life, outage, scale, scenario, upstream,
};

#[derive(Parser)]
#[command(name = "cluster", about = "A real Kubernetes cluster on this machine, in namespaces")]
struct Arguments {
    /// Which cluster
    #[arg(long, short = 'N', default_value = "dev", global = true)]
    name: Name,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Clone, Copy, ValueEnum)]
enum FabricName {
    /// All nodes on one subnet
    Flat,
    /// Two subnets behind a BIRD ToR and an FRR ToR
    Racks,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScenarioName {
    /// The API server is away for 3 minutes
    Outage,
    /// 1 -> 60 pods -> 1 at 20 pods/s under default deny, each connects at once
    Scale,
}

/// How long the API server is away in the scenario at full length.
const OUTAGE: Duration = Duration::from_secs(180);
/// Pods of the scenario of scaling at full size.
const PODS: usize = 60;

#[derive(Subcommand)]
enum Verb {
    /// Brings one up; it stays until `down`
    Up {
        /// How many nodes
        #[arg(long, short = 'n', default_value_t = 2)]
        nodes: u8,
        /// What they are plugged into
        #[arg(long, value_enum, default_value = "flat")]
        fabric: FabricName,
        /// kube-proxy's mode
        #[arg(long, value_enum, default_value = "iptables")]
        proxy: Proxy,
        /// The network they begin with
        #[arg(long, value_enum, default_value = "none")]
        cni: Cni,
        /// Stay, and take it down when the standard input or this program ends
        #[arg(long)]
        attached: bool,
    },
    /// Takes it down; nothing of it stays
    Down,
    /// Lists clusters that are up
    List,
    /// kubectl as the administrator
    #[command(trailing_var_arg = true, disable_help_flag = true)]
    Kubectl {
        #[arg(allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// A command inside all namespaces of a node
    #[command(trailing_var_arg = true)]
    Node {
        node: String,
        #[arg(allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
    /// A command in the network namespace of a member: cp, world, tor1, tor2, n1
    #[command(trailing_var_arg = true)]
    In {
        member: String,
        #[arg(allow_hyphen_values = true, required = true)]
        arguments: Vec<OsString>,
    },
    /// Loads docker archives into every node
    Load { archives: Vec<PathBuf> },
    /// Kills a part of the control plane
    Stop { part: Part },
    /// Starts it again
    Start { part: Part },
    /// Adds a node
    AddNode,
    /// Takes a node away and deletes its Node object
    RemoveNode { node: String },
    /// The upstream NetworkPolicy suite: a focus and flags of ginkgo
    #[command(trailing_var_arg = true)]
    E2e {
        #[arg(allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// The whole upstream suite on a cluster of its own with Rampart
    Upstream {
        /// kube-proxy's mode
        #[arg(value_enum, default_value = "iptables")]
        proxy: Proxy,
    },
    /// A scenario at full length, on a cluster of its own with Rampart
    Scenario { scenario: ScenarioName },
    /// Figures on a cluster of its own with Rampart
    Bench {
        /// Pods of the large scene
        #[arg(long, default_value_t = 200)]
        pods: usize,
        /// Changes that are timed in each scene
        #[arg(long, default_value_t = 80)]
        rounds: usize,
        /// Also with 5,000 nodes and 100,000 pods in the API server (minutes, gigabytes)
        #[arg(long)]
        large: bool,
    },
    /// Builds everything that clusters run, as far as it is not there
    Build,
    /// Path of a program of the clusters; builds it if it must
    Program { program: String },
    /// Takes a cluster down when the standard input ends
    #[command(hide = true)]
    Guard { of: Name },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.name;
    match arguments.command {
        Verb::Up { nodes, fabric, proxy, cni, attached } => {
            let fabric = match fabric {
                FabricName::Flat => Fabric::Flat,
                FabricName::Racks => Fabric::Racks,
            };
            let options = Options { name, nodes, fabric, proxy, cni, goes_with_us: attached };
            let cluster = Cluster::up(options)?;
            if cni == Cni::Reference {
                cluster.wait_nodes_ready(Duration::from_secs(60))?;
            }
            print!("{}", cluster.kubectl(&["get", "nodes", "-o", "wide"])?);
            if attached {
                println!("up");
                std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
            }
        }
        Verb::Down => life::down(&name)?,
        Verb::List => Name::all().iter().for_each(|name| println!("{name}")),
        Verb::Kubectl { arguments } => {
            let cluster = Cluster::attach(&name)?;
            let mut command = Command::new(cluster.programs().path("kubectl")?);
            return wait(&cluster, "cp", command.args(arguments));
        }
        Verb::Node { node, arguments } => {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let error = Cluster::attach(&name)?.node(&node)?.command(&arguments)?.exec();
            return Err(error.into());
        }
        Verb::In { member, arguments } => {
            let cluster = Cluster::attach(&name)?;
            let Some((program, rest)) = arguments.split_first() else {
                return Ok(ExitCode::FAILURE);
            };
            return wait(&cluster, &member, Command::new(program).args(rest));
        }
        Verb::Load { archives } => {
            let cluster = Cluster::attach(&name)?;
            for archive in archives {
                cluster.load_image(&archive)?;
            }
        }
        Verb::Stop { part } => Cluster::attach(&name)?.stop(part)?,
        Verb::Start { part } => Cluster::attach(&name)?.start(part)?,
        Verb::AddNode => println!("{}", Cluster::attach(&name)?.add_node()?.name),
        Verb::RemoveNode { node } => Cluster::attach(&name)?.remove_node(&node)?,
        Verb::E2e { arguments } => {
            let cluster = Cluster::attach(&name)?;
            return wait(&cluster, "cp", &mut cluster.upstream_suite(&arguments)?);
        }
        Verb::Upstream { proxy } => {
            let passed = upstream::run(Options { proxy, ..Options::of_a_test() }, None)?;
            println!("{passed} specs of NetworkPolicy passed");
        }
        Verb::Scenario { scenario } => {
            let began = Instant::now();
            let cluster = scenario::up_with_rampart(Options { nodes: 3, ..Options::of_a_test() })?;
            match scenario {
                ScenarioName::Outage => outage::run(&cluster, OUTAGE)?,
                ScenarioName::Scale => scale::run(&cluster, PODS)?,
            }
            println!("passed in {:.0} s", began.elapsed().as_secs_f64());
        }
        Verb::Bench { pods, rounds, large } => {
            println!("| what | figure | goal |\n|---|---|---|");
            let plan = bench::Plan { pods, rounds, large, ..bench::Plan::default() };
            bench::run(plan, |row| println!("| {} | {} | {} |", row.what, row.figure, row.goal))?;
        }
        Verb::Build => {
            Programs::of_a_cluster()?;
            Programs::find(&["e2e.test"])?;
        }
        Verb::Program { program } => {
            println!("{}", Programs::find(&[&program])?.path(&program)?.display());
        }
        Verb::Guard { of } => life::guard(&of)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn wait(cluster: &Cluster, member: &str, command: &mut Command) -> anyhow::Result<ExitCode> {
    let status = cluster.spawn_in(member, command)?.wait()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
