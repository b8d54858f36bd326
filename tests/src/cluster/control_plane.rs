//! etcd, the API server, the controllers and the scheduler.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::fabric::{CLUSTER_CIDRS, CONTROL_PLANE};
use super::{Cluster, process};

/// Networks of the services.
pub const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/16", "fd00:96::/112"];
/// Port of the API server.
pub const API_PORT: u16 = 6443;
/// How long a part may take to be ready.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the API server may end before it is ready.
const RESTARTS: u32 = 5;

/// A part of the control plane that can be stopped and started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The store.
    Etcd,
    /// The API server.
    #[value(name = "apiserver")]
    ApiServer,
    /// kube-controller-manager.
    #[value(name = "controllers")]
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
}

impl Part {
    /// All, in the order in which they start.
    pub const ALL: [Self; 4] =
        [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler];

    fn role(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "apiserver",
            Self::ControllerManager => "controllers",
            Self::Scheduler => "scheduler",
        }
    }
}

/// Certificates of the control plane and of who talks to it: file, common name, organization.
const CERTIFICATES: [(&str, &str, &str); 6] = [
    ("admin", "admin", "system:masters"),
    ("controllers", "system:kube-controller-manager", "cluster"),
    ("scheduler", "system:kube-scheduler", "cluster"),
    ("proxy", "system:kube-proxy", "cluster"),
    ("apiserver-kubelet", "apiserver-kubelet", "system:masters"),
    ("apiserver", "kube-apiserver", "cluster"),
];

impl Cluster {
    /// Issues the certificates and writes the kubeconfigs of the control plane.
    pub(super) fn make_credentials(&self) -> anyhow::Result<()> {
        let (pki, directory) = (self.pki(), self.directory());
        for (file, common_name, organization) in CERTIFICATES {
            let mut names = Vec::new();
            if file == "apiserver" {
                names.extend([
                    format!("IP:{}", CONTROL_PLANE.0),
                    format!("IP:{}", CONTROL_PLANE.1),
                    "IP:10.96.0.1".to_owned(),
                    "IP:fd00:96::1".to_owned(),
                    "IP:127.0.0.1".to_owned(),
                    "DNS:kubernetes".to_owned(),
                    "DNS:kubernetes.default".to_owned(),
                    "DNS:kubernetes.default.svc".to_owned(),
                ]);
            }
            pki.issue(file, common_name, organization, &names)?;
            let server = format!("https://{}:{API_PORT}", CONTROL_PLANE.0);
            pki.kubeconfig(&directory.join(format!("{file}.conf")), file, &server)?;
        }
        Ok(())
    }

    /// Kills a part of the control plane: an outage.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&self, part: Part) -> anyhow::Result<()> {
        process::stop(self.name(), part.role())
    }

    /// Starts a part and, for etcd and the API server, waits until the API is ready if it can be.
    ///
    /// # Errors
    /// When it does not start or does not get ready.
    pub fn start(&self, part: Part) -> anyhow::Result<()> {
        self.launch(part)?;
        match part {
            Part::ApiServer => self.wait_api(),
            // The API server comes back to it by itself.
            Part::Etcd if process::pid(self.name(), Part::ApiServer.role()).is_some() => {
                self.wait_api()
            }
            Part::Etcd | Part::ControllerManager | Part::Scheduler => Ok(()),
        }
    }

    fn launch(&self, part: Part) -> anyhow::Result<()> {
        let mut command = match part {
            Part::Etcd => self.etcd(),
            Part::ApiServer => self.api_server(),
            Part::ControllerManager => self.controllers(),
            Part::Scheduler => self.scheduler(),
        }?;
        process::start(self.name(), "cp", part.role(), &mut command)?;
        Ok(())
    }

    /// An API server ends when a hook of its start fails, as on a busy machine whose etcd answers late:
    /// it is started again, as a kubelet does with a control plane of static pods.
    fn wait_api(&self) -> anyhow::Result<()> {
        let mut ended = 0;
        let ready = self.eventually(PATIENCE, "the API server is ready", || {
            if process::pid(self.name(), Part::ApiServer.role()).is_none() {
                ended += 1;
                ensure!(ended <= RESTARTS, "the API server ended {ended} times");
                self.launch(Part::ApiServer)?;
            }
            Ok(self.kubectl(&["get", "--raw", "/readyz"]).is_ok())
        });
        ready.with_context(|| process::last_words(self.name(), Part::ApiServer.role()))
    }

    fn command(&self, program: &str) -> anyhow::Result<Command> {
        Ok(Command::new(self.programs().path(program)?))
    }

    fn etcd(&self) -> anyhow::Result<Command> {
        let mut command = self.command("etcd")?;
        command.arg("--data-dir").arg(self.directory().join("etcd")).args([
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",
        ]);
        Ok(command)
    }

    fn api_server(&self) -> anyhow::Result<Command> {
        let pki = self.pki();
        let mut command = self.command("kube-apiserver")?;
        command.args([
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=::",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            "--kubelet-preferred-address-types=InternalIP",
        ]);
        command.arg(format!("--service-cluster-ip-range={}", SERVICE_CIDRS.join(",")));
        command.arg(format!("--advertise-address={}", CONTROL_PLANE.0));
        command.arg(format!("--secure-port={API_PORT}"));
        for (option, path) in [
            ("--tls-cert-file", pki.certificate("apiserver")),
            ("--tls-private-key-file", pki.key("apiserver")),
            ("--client-ca-file", pki.certificate("ca")),
            ("--service-account-key-file", pki.key("sa")),
            ("--service-account-signing-key-file", pki.key("sa")),
            ("--kubelet-client-certificate", pki.certificate("apiserver-kubelet")),
            ("--kubelet-client-key", pki.key("apiserver-kubelet")),
            ("--kubelet-certificate-authority", pki.certificate("ca")),
        ] {
            command.arg(option).arg(path);
        }
        Ok(command)
    }

    fn controllers(&self) -> anyhow::Result<Command> {
        let pki = self.pki();
        let mut command = self.command("kube-controller-manager")?;
        command.arg("--kubeconfig").arg(self.directory().join("controllers.conf"));
        command.arg("--service-account-private-key-file").arg(pki.key("sa"));
        command.arg("--root-ca-file").arg(pki.certificate("ca"));
        command.arg("--cluster-signing-cert-file").arg(pki.certificate("ca"));
        command.arg("--cluster-signing-key-file").arg(pki.key("ca"));
        command.arg(format!("--cluster-cidr={}", CLUSTER_CIDRS.join(",")));
        command.args([
            "--allocate-node-cidrs",
            "--node-cidr-mask-size-ipv4=24",
            "--node-cidr-mask-size-ipv6=64",
            "--leader-elect=false",
            "--use-service-account-credentials",
        ]);
        Ok(command)
    }

    fn scheduler(&self) -> anyhow::Result<Command> {
        let mut command = self.command("kube-scheduler")?;
        command.arg("--kubeconfig").arg(self.directory().join("scheduler.conf"));
        command.arg("--leader-elect=false");
        Ok(command)
    }
}
