//! Container images made of files, without Docker: one layer, as a docker archive.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::programs::{Programs, cache};

/// Image of the test pods: `agnhost` of the upstream tests, with a shell.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
/// Name of the same image that older manifests use.
const AGNHOST_BEFORE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.45";
/// What holds a pod's namespaces.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10";
const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.15.0";
/// A shell that needs no library.
const SHELL: &str = "/bin/bash-static";

/// What is in an image.
struct Image<'a> {
    name: &'a str,
    tags: &'a [&'a str],
    config: Value,
    /// From where on this machine, to where in the image.
    files: Vec<(&'a Path, &'a str)>,
}

/// Archives of the images that every node has; made once, and again when a program is newer.
///
/// # Errors
/// When a file is missing or the cache cannot be written.
pub fn base(programs: &Programs) -> anyhow::Result<Vec<PathBuf>> {
    let (agnhost, coredns) = (programs.path("agnhost")?, programs.path("coredns")?);
    let shell = Path::new(SHELL);
    let images = [
        Image {
            name: "pause",
            tags: &[PAUSE],
            config: json!({"Entrypoint": ["/agnhost", "pause"]}),
            files: vec![(agnhost, "agnhost")],
        },
        Image {
            name: "agnhost",
            tags: &[AGNHOST, AGNHOST_BEFORE],
            config: json!({"Entrypoint": ["/agnhost"], "Cmd": ["pause"]}),
            files: vec![(agnhost, "agnhost"), (shell, "bin/sh"), (shell, "bin/bash")],
        },
        Image {
            name: "coredns",
            tags: &[COREDNS],
            config: json!({"Entrypoint": ["/coredns"]}),
            files: vec![(coredns, "coredns")],
        },
    ];
    let directory = cache()?.join("images");
    fs::create_dir_all(&directory)?;
    let lock = fs::File::create(directory.join(".lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    images.iter().map(|image| make(&directory, image)).collect()
}

fn modified(path: &Path) -> anyhow::Result<SystemTime> {
    Ok(fs::metadata(path).with_context(|| path.display().to_string())?.modified()?)
}

fn make(directory: &Path, image: &Image<'_>) -> anyhow::Result<PathBuf> {
    let archive = directory.join(format!("{}.tar", image.name));
    if let Ok(made) = modified(&archive) {
        let newer = image.files.iter().map(|(file, _)| Ok(modified(file)? > made));
        if !newer.collect::<anyhow::Result<Vec<bool>>>()?.contains(&true) {
            return Ok(archive);
        }
    }
    let work = directory.join(format!(".{}", image.name));
    fs::remove_dir_all(&work).ok();
    let root = work.join("root");
    for place in ["tmp", "etc"] {
        fs::create_dir_all(root.join(place))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    for (from, to) in &image.files {
        let to = root.join(to);
        fs::create_dir_all(to.parent().context("a file in a directory")?)?;
        fs::copy(from, &to).with_context(|| from.display().to_string())?;
    }
    let layer = work.join("layer.tar");
    tar(&layer, &root, &["."])?;
    let diff = digest(&fs::read(&layer)?);
    let mut config = image.config.clone();
    if let Some(config) = config.as_object_mut() {
        config.insert("Env".to_owned(), json!(["PATH=/:/bin:/usr/bin"]));
    }
    let config = serde_json::to_vec(&json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff}")]},
        "history": [{"created_by": "tests/cluster"}],
    }))?;
    let config_name = format!("{}.json", digest(&config));
    fs::write(work.join(&config_name), config)?;
    let manifest =
        json!([{"Config": config_name, "RepoTags": image.tags, "Layers": ["layer.tar"]}]);
    fs::write(work.join("manifest.json"), serde_json::to_vec(&manifest)?)?;
    let partial = directory.join(format!(".{}.tar", image.name));
    tar(&partial, &work, &[&config_name, "layer.tar", "manifest.json"])?;
    fs::rename(&partial, &archive)?;
    fs::remove_dir_all(&work)?;
    Ok(archive)
}

fn tar(archive: &Path, directory: &Path, entries: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("tar")
        .arg("-C")
        .arg(directory)
        .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf"])
        .arg(archive)
        .args(entries)
        .status()
        .context("tar")?;
    ensure!(status.success(), "tar of {}", directory.display());
    Ok(())
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
