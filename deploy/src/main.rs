//! Prints the manifests from the types that the agent uses.
//!
//! ```text
//! cargo run -p deploy -- generate   # rewrites the generated files below deploy/
//! cargo run -p deploy -- check      # fails when one of them is not what generate would write
//! ```

mod admission;
mod agent;
mod chart;
mod crds;
mod document;
mod install;
mod kustomize;
mod monitoring;
mod name;
mod rbac;
mod reflector;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

/// A generated file.
struct Generated {
    /// Below `deploy/`.
    path: &'static str,
    content: String,
}

fn files() -> anyhow::Result<Vec<Generated>> {
    let yaml = |path, documents: Vec<document::Document>| {
        anyhow::Ok(Generated { path, content: document::yaml(&documents)? })
    };
    let mut files = vec![
        yaml("install.yaml", install::documents()?)?,
        yaml("route-reflector.yaml", reflector::documents()?)?,
        yaml("manifests/kustomization.yaml", vec![kustomize::base()])?,
        yaml("manifests/namespace.yaml", install::namespace()?)?,
        yaml("manifests/crds.yaml", crds::documents()?)?,
        yaml("manifests/rbac.yaml", install::rbac()?)?,
        yaml("manifests/admission.yaml", admission::documents()?)?,
        yaml("manifests/agent.yaml", agent::documents()?)?,
        yaml("components/route-reflector/kustomization.yaml", vec![kustomize::reflector()])?,
        yaml("components/route-reflector/route-reflector.yaml", reflector::documents()?)?,
        yaml("overlays/kubeadm/kustomization.yaml", vec![kustomize::kubeadm()])?,
        yaml("overlays/k3s/kustomization.yaml", vec![kustomize::k3s()])?,
        yaml("overlays/talos/kustomization.yaml", vec![kustomize::talos()])?,
    ];
    files.extend(chart::files()?);
    files.extend(monitoring::files()?);
    Ok(files)
}

fn main() -> anyhow::Result<ExitCode> {
    let command = std::env::args().nth(1);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    match command.as_deref() {
        Some("generate") => generate(directory, &files()?),
        Some("check") => check(directory, &files()?),
        _ => bail!("usage: deploy generate|check"),
    }
}

fn generate(directory: &Path, files: &[Generated]) -> anyhow::Result<ExitCode> {
    for file in files {
        let path = directory.join(file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        fs::write(&path, &file.content).with_context(|| path.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "says which file differs")]
fn check(directory: &Path, files: &[Generated]) -> anyhow::Result<ExitCode> {
    let stale = stale(directory, files);
    for path in &stale {
        eprintln!("{} is not what the types say: cargo run -p deploy -- generate", path.display());
    }
    Ok(if stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn stale(directory: &Path, files: &[Generated]) -> Vec<PathBuf> {
    let differs = |file: &&Generated| {
        fs::read_to_string(directory.join(file.path)).ok().as_deref() != Some(&file.content)
    };
    files.iter().filter(differs).map(|file| directory.join(file.path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_files_are_what_the_types_say() {
        let stale = stale(Path::new(env!("CARGO_MANIFEST_DIR")), &files().unwrap());
        assert!(stale.is_empty(), "run `cargo run -p deploy -- generate`: {stale:?}");
    }
}
