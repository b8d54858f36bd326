//! IPAM by another plugin: executed with our environment and our configuration.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::{ErrorCode, Failure};
use super::version::Version;

/// The newest version that plugins of all ages take for ADD, DEL and CHECK: nothing of 1.1.0 matters
/// to address management, and host-local of many distributions does not know it.
const PREFERRED: Version = Version::V1_0_0;

/// What address management gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Addresses of the pod.
    pub(super) addresses: Vec<IpAddr>,
    /// `dns` as the delegate gave it.
    pub(super) dns: Option<Value>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    ips: Vec<AnswerIp>,
    #[serde(default)]
    dns: Option<Value>,
}

#[derive(Deserialize)]
struct AnswerIp {
    address: String,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

#[derive(Deserialize)]
struct AnswerVersion {
    #[serde(default, rename = "supportedVersions")]
    supported: Vec<String>,
}

/// A plugin found in `CNI_PATH`.
#[derive(Debug)]
pub(crate) struct Delegate {
    path: PathBuf,
}

impl Delegate {
    /// Looks for the plugin.
    pub(crate) fn find(kind: &str, search: &[PathBuf]) -> Result<Self, Failure> {
        let found = search.iter().map(|directory| directory.join(kind)).find(|p| is_program(p));
        found.map(|path| Self { path }).ok_or_else(|| {
            let places: Vec<String> = search.iter().map(|p| p.display().to_string()).collect();
            Failure::new(
                ErrorCode::NotAvailable,
                format!("plugin {kind} is not in CNI_PATH ({})", places.join(":")),
            )
            .details("install the CNI plugins of your distribution (containernetworking-plugins)")
        })
    }

    /// ADD.
    pub(super) fn add(
        &self,
        raw: &Map<String, Value>,
        ours: Version,
    ) -> Result<Addresses, Failure> {
        let output = self.negotiated("ADD", raw, ours)?;
        let unreadable = |why: String| {
            Failure::new(ErrorCode::Ipam, format!("answer of {}: {why}", self.path.display()))
        };
        let answer: Answer =
            serde_json::from_slice(&output).map_err(|error| unreadable(error.to_string()))?;
        let mut addresses = Vec::new();
        for ip in answer.ips {
            let net: IpNet = ip
                .address
                .parse()
                .map_err(|_| unreadable(format!("`{}` is no address", ip.address)))?;
            addresses.push(net.addr());
        }
        if addresses.is_empty() {
            return Err(unreadable("it has no address".to_owned()));
        }
        Ok(Addresses { addresses, dns: answer.dns })
    }

    /// DEL or CHECK.
    pub(super) fn run(
        &self,
        command: &str,
        raw: &Map<String, Value>,
        ours: Version,
    ) -> Result<(), Failure> {
        self.negotiated(command, raw, ours).map(drop)
    }

    /// GC or STATUS: only where the delegate knows the version that has them; `false` if not.
    pub(super) fn run_recent(
        &self,
        command: &str,
        raw: &Map<String, Value>,
    ) -> Result<bool, Failure> {
        if self.versions()?.last() != Some(&Version::V1_1_0) {
            return Ok(false);
        }
        match self.execute(command, raw, Version::V1_1_0) {
            Ok(_) => Ok(true),
            // Many plugins speak 1.1.0 without these commands.
            Err(failure) if failure.code == ErrorCode::Delegate(4) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Versions that both know, ascending.
    pub(crate) fn versions(&self) -> Result<Vec<Version>, Failure> {
        let input = Map::from_iter([("cniVersion".to_owned(), json!("1.0.0"))]);
        let output = self.execute("VERSION", &input, PREFERRED)?;
        let answer: AnswerVersion = serde_json::from_slice(&output).map_err(|error| {
            Failure::new(ErrorCode::Ipam, format!("versions of {}: {error}", self.path.display()))
        })?;
        let mut versions: Vec<Version> =
            answer.supported.iter().filter_map(|text| Version::parse(text).ok()).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// Runs it with a version that it takes.
    fn negotiated(
        &self,
        command: &str,
        raw: &Map<String, Value>,
        ours: Version,
    ) -> Result<Vec<u8>, Failure> {
        match self.execute(command, raw, ours.min(PREFERRED)) {
            Err(failure) if failure.code == ErrorCode::Delegate(1) => {
                let versions = self.versions()?;
                let common = versions.into_iter().rfind(|version| *version <= ours);
                let Some(common) = common else { return Err(failure) };
                self.execute(command, raw, common)
            }
            other => other,
        }
    }

    fn execute(
        &self,
        command: &str,
        raw: &Map<String, Value>,
        version: Version,
    ) -> Result<Vec<u8>, Failure> {
        let mut config = raw.clone();
        config.insert("cniVersion".to_owned(), json!(version.as_str()));
        // The result of another version would not decode, and address management needs none.
        config.remove("prevResult");
        let failed = |error: io::Error| {
            let text = format!("cannot run {}: {error}", self.path.display());
            Failure::new(ErrorCode::Io, text)
        };
        let input = serde_json::to_vec(&config).map_err(|error| failed(error.into()))?;
        // host-local refuses arguments that it does not know, such as the pod's name, unless it is told.
        let args = std::env::var("CNI_ARGS").unwrap_or_default();
        let mut child = Command::new(&self.path)
            .env("CNI_COMMAND", command)
            .env("CNI_ARGS", format!("IgnoreUnknown=1;{args}").trim_end_matches(';'))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read says so with its exit code.
            if let Err(error) = stdin.write_all(&input)
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                return Err(failed(error));
            }
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(match serde_json::from_slice::<AnswerError>(&output.stdout) {
            Ok(error) if error.code != 0 => {
                let message = format!("{}: {}", self.name(), error.msg);
                Failure::new(ErrorCode::Delegate(error.code), message).details(error.details)
            }
            _ => {
                let message = format!("{} failed ({})", self.name(), output.status);
                Failure::new(ErrorCode::Ipam, message).details(stderr.trim())
            }
        })
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// A file that can be executed.
pub(crate) fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
