//! The image that `deploy/image` makes without Docker.
//!
//! The debug image: the same script and the same archive around a binary that is built already.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.output()?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?}: {complaint}");
    Ok(output.stdout)
}

fn tar(arguments: &[&str], archive: &Path) -> anyhow::Result<String> {
    let mut command = Command::new("tar");
    command.arg(arguments[0]).arg(archive).args(&arguments[1..]);
    Ok(String::from_utf8(output(&mut command)?)?)
}

#[test]
fn the_image_is_a_docker_archive_named_as_install_yaml_names_it_and_always_the_same()
-> anyhow::Result<()> {
    let directory =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let archives = ["a.tar", "b.tar"].map(|name| directory.join(name));
    for archive in &archives {
        let script = repository().join("deploy/image");
        output(Command::new(script).arg("--debug").arg(archive))?;
    }
    let bytes = archives.each_ref().map(|archive| std::fs::read(archive).unwrap());
    assert!(bytes[0] == bytes[1], "two images of the same binary differ");

    let manifest: Value = serde_json::from_str(&tar(&["xOf", "manifest.json"], &archives[0])?)?;
    let name = manifest[0]["RepoTags"][0].as_str().unwrap().to_owned();
    assert_eq!(manifest[0]["RepoTags"].as_array().unwrap().len(), 1);
    for file in ["install.yaml", "route-reflector.yaml"] {
        let text = std::fs::read_to_string(repository().join("deploy").join(file))?;
        assert!(text.contains(&format!("image: {name}\n")), "{file} does not name {name}");
    }
    let config = manifest[0]["Config"].as_str().unwrap();
    let config: Value = serde_json::from_str(&tar(&["xOf", config], &archives[0])?)?;
    assert_eq!(config["config"]["Entrypoint"][0], "/rampart");

    // One program by two names, and it runs with nothing else around it.
    tar(&["xf", "-C", directory.to_str().unwrap(), "layer.tar"], &archives[0])?;
    let layer = directory.join("layer.tar");
    let files = tar(&["tvf"], &layer)?;
    assert!(files.contains(" rampart-cni link to rampart"), "{files}");
    let root = directory.join("root");
    std::fs::create_dir(&root)?;
    tar(&["xf", "-C", root.to_str().unwrap()], &layer)?;
    let said = output(Command::new("chroot").arg(&root).args(["/rampart", "version"]))?;
    assert!(String::from_utf8(said)?.starts_with("rampart "));
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
