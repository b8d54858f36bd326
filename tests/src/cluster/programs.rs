//! The programs of a cluster: found, or built from the Go modules in `tests/cluster/go`.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};

/// A program and where its source is.
#[derive(Clone, Copy, Debug)]
struct Program {
    name: &'static str,
    /// Directory below `tests/cluster/go`.
    module: &'static str,
    package: &'static str,
}

/// Everything that a cluster runs.
const PROGRAMS: [Program; 14] = [
    program("etcd", "kubernetes", "go.etcd.io/etcd/server/v3"),
    program("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    program(
        "kube-controller-manager",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    program("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    program("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    program("kube-proxy", "kubernetes", "k8s.io/kubernetes/cmd/kube-proxy"),
    program("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    program("agnhost", "kubernetes", "k8s.io/kubernetes/test/images/agnhost"),
    program("containerd", "containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
    program(
        "containerd-shim-runc-v2",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    ),
    program("ctr", "containerd", "github.com/containerd/containerd/v2/cmd/ctr"),
    program("coredns", "coredns", "github.com/coredns/coredns"),
    program("helm", "helm", "helm.sh/helm/v3/cmd/helm"),
    program("e2e.test", "kubernetes", "./e2e"),
];

/// What a cluster needs before it is up; the others are built when somebody asks for them.
const CLUSTER: [&str; 12] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "agnhost",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "coredns",
];

const fn program(name: &'static str, module: &'static str, package: &'static str) -> Program {
    Program { name, module, package }
}

/// Where each program is.
#[derive(Clone, Debug)]
pub struct Programs(BTreeMap<&'static str, PathBuf>);

impl Programs {
    /// Every program that a cluster runs: found in `RAMPART_CLUSTER_ASSETS` (directories, as in
    /// `PATH`) or `KUBEBUILDER_ASSETS`, found in the cache, or built.
    ///
    /// # Errors
    /// When one does not build.
    pub fn of_a_cluster() -> anyhow::Result<Self> {
        Self::find(&CLUSTER)
    }

    /// These programs only.
    ///
    /// # Errors
    /// When one is unknown or does not build.
    pub fn find(names: &[&str]) -> anyhow::Result<Self> {
        let mut found = BTreeMap::new();
        let mut missing: BTreeMap<&str, Vec<Program>> = BTreeMap::new();
        for name in names {
            let program = PROGRAMS.iter().find(|program| program.name == *name);
            let program = *program.with_context(|| format!("no program of a cluster: {name}"))?;
            if let Some(path) = asset(program.name) {
                found.insert(program.name, path);
                continue;
            }
            let path = directory(program.module)?.join(program.name);
            if !path.exists() {
                missing.entry(program.module).or_default().push(program);
            }
            found.insert(program.name, path);
        }
        for (module, programs) in missing {
            build(module, &programs)?;
        }
        Ok(Self(found))
    }

    /// Path of one of them.
    ///
    /// # Errors
    /// When it was not asked for.
    pub fn path(&self, name: &str) -> anyhow::Result<&Path> {
        self.0.get(name).map(PathBuf::as_path).with_context(|| format!("{name} was not looked for"))
    }

    /// A search path on which all of them are, before the machine's own.
    #[must_use]
    pub fn search_path(&self) -> String {
        let mut directories: Vec<String> = Vec::new();
        for path in self.0.values().filter_map(|path| path.parent()) {
            let directory = path.display().to_string();
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
        directories.push("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        directories.join(":")
    }
}

/// The directory for what is made once for all clusters: `RAMPART_CLUSTER_CACHE`, or
/// `rampart-tests` in the user's cache directory.
///
/// # Errors
/// When the environment names no place.
pub fn cache() -> anyhow::Result<PathBuf> {
    if let Some(cache) = env::var_os("RAMPART_CLUSTER_CACHE") {
        return Ok(PathBuf::from(cache));
    }
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    Ok(base.context("set RAMPART_CLUSTER_CACHE: there is no HOME")?.join("rampart-tests"))
}

/// Directory of the Go modules and the other assets.
#[must_use]
pub fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster")
}

fn asset(name: &str) -> Option<PathBuf> {
    let directories = ["RAMPART_CLUSTER_ASSETS", "KUBEBUILDER_ASSETS"];
    let lists = directories.iter().filter_map(env::var_os);
    let mut paths = lists.flat_map(|list| env::split_paths(&list).collect::<Vec<_>>());
    paths.find_map(|directory| Some(directory.join(name)).filter(|path| path.is_file()))
}

/// Where the programs of a module are; another directory for any other version of it.
fn directory(module: &str) -> anyhow::Result<PathBuf> {
    let source = assets().join("go").join(module);
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum"] {
        hash.update(fs::read(source.join(file)).with_context(|| format!("{module}/{file}"))?);
    }
    let hash: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(cache()?.join(format!("{module}-{hash}")))
}

#[expect(clippy::print_stderr, reason = "minutes of silence look like a hang")]
fn build(module: &str, programs: &[Program]) -> anyhow::Result<()> {
    let directory = directory(module)?;
    fs::create_dir_all(&directory)?;
    let lock = File::create(directory.join(".lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let missing: Vec<&Program> =
        programs.iter().filter(|program| !directory.join(program.name).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|program| program.name).collect();
    eprintln!("building {} (minutes, the first time)", names.join(", "));
    let source = assets().join("go").join(module);
    let flags = flags(module, &source)?;
    for program in missing {
        // Not in place: a build that is interrupted leaves nothing that looks like a program.
        let partial = directory.join(format!(".{}", program.name));
        let verb: &[&str] = if program.package == "./e2e" { &["test", "-c"] } else { &["build"] };
        let status = Command::new("go")
            .args(verb)
            .args(["-trimpath", "-ldflags", &flags, "-tags", "no_btrfs,no_devmapper,no_zfs", "-o"])
            .arg(&partial)
            .arg(program.package)
            .current_dir(&source)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=readonly")
            .status()
            .context("go (deploy/setup.sh installs it)")?;
        ensure!(status.success(), "{} does not build", program.package);
        fs::rename(&partial, directory.join(program.name))?;
    }
    Ok(())
}

/// Linker flags: no symbols, and for Kubernetes the version that its programs tell each other.
fn flags(module: &str, source: &Path) -> anyhow::Result<String> {
    let mut flags = "-s -w".to_owned();
    if module == "kubernetes" {
        let text = fs::read_to_string(source.join("go.mod"))?;
        let version = text.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "));
        let Some(version) = version else { bail!("go.mod does not require k8s.io/kubernetes") };
        let minor = version.split('.').nth(1).context("a version of Kubernetes")?;
        let variable = "k8s.io/component-base/version";
        flags += &format!(
            " -X {variable}.gitVersion={version} -X {variable}.gitMajor=1 -X {variable}.gitMinor={minor}"
        );
    }
    Ok(flags)
}
