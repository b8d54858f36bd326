//! Prints the manifests from the types that the agent uses.
//!
//! ```text
//! cargo run -p deploy -- generate   # rewrites deploy/manifests
//! cargo run -p deploy -- check      # fails when deploy/manifests is not what generate would write
//! ```

mod crds;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

/// A generated file.
struct Generated {
    /// Below `deploy/manifests`.
    name: &'static str,
    content: String,
}

fn main() -> anyhow::Result<ExitCode> {
    let command = std::env::args().nth(1);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let files = [Generated { name: "crds.yaml", content: crds::yaml()? }];
    match command.as_deref() {
        Some("generate") => generate(&directory, &files),
        Some("check") => check(&directory, &files),
        _ => bail!("usage: deploy generate|check"),
    }
}

fn generate(directory: &Path, files: &[Generated]) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    for file in files {
        let path = directory.join(file.name);
        fs::write(&path, &file.content).with_context(|| path.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "says which file differs")]
fn check(directory: &Path, files: &[Generated]) -> anyhow::Result<ExitCode> {
    let differs = |file: &&Generated| {
        fs::read_to_string(directory.join(file.name)).ok().as_deref() != Some(&file.content)
    };
    let stale: Vec<PathBuf> =
        files.iter().filter(differs).map(|file| directory.join(file.name)).collect();
    for path in &stale {
        eprintln!("{} is not what the types say: cargo run -p deploy -- generate", path.display());
    }
    Ok(if stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
