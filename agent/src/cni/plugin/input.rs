//! What the runtime hands over: environment and standard input, read with suspicion.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use api::cni::AttachmentId;
use api::constant::{ATTACHMENTS_DIR, RUN_DIR, SOCKET_NAME, STATE_DIR};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::{ErrorCode, Failure};
use super::version::Version;

/// How long ADD waits for the pod's policy, if the configuration does not say.
const GATE_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_TIMEOUT: u64 = 120;
/// `IFNAMSIZ` less the terminating zero.
const IFNAME_LONGEST: usize = 15;

/// `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Is it still attached?
    Check,
    /// Forget all but these.
    Gc,
    /// Could ADD be served?
    Status,
    /// Which versions?
    Version,
}

/// The pod, as `CNI_ARGS` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodArgs {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`; empty if not told.
    pub uid: String,
}

fn environment(name: &str) -> Option<String> {
    env::var_os(name)?.into_string().ok().filter(|value| !value.is_empty())
}

fn invalid(name: &str, why: &str) -> Failure {
    Failure::new(ErrorCode::InvalidEnvironment, format!("{name} {why}"))
}

/// `CNI_COMMAND`.
///
/// # Errors
/// It is missing or unknown.
pub fn command() -> Result<Command, Failure> {
    match environment("CNI_COMMAND").as_deref() {
        Some("ADD") => Ok(Command::Add),
        Some("DEL") => Ok(Command::Del),
        Some("CHECK") => Ok(Command::Check),
        Some("GC") => Ok(Command::Gc),
        Some("STATUS") => Ok(Command::Status),
        Some("VERSION") => Ok(Command::Version),
        Some(_) => Err(invalid("CNI_COMMAND", "is none of ADD, DEL, CHECK, GC, STATUS, VERSION")),
        None => Err(invalid("CNI_COMMAND", "is not set")),
    }
}

/// `CNI_CONTAINERID` and `CNI_IFNAME`.
///
/// # Errors
/// One is missing or breaks the rules of the spec.
pub fn attachment_id() -> Result<AttachmentId, Failure> {
    let container_id =
        environment("CNI_CONTAINERID").ok_or_else(|| invalid("CNI_CONTAINERID", "is not set"))?;
    let ifname = environment("CNI_IFNAME").ok_or_else(|| invalid("CNI_IFNAME", "is not set"))?;
    let starts = container_id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !starts || !container_id.bytes().all(inside) {
        return Err(invalid(
            "CNI_CONTAINERID",
            "must start with a letter or digit and have only letters, digits, `_`, `.` and `-`",
        ));
    }
    let outside = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if ifname.len() > IFNAME_LONGEST || ifname == "." || ifname == ".." || ifname.contains(outside)
    {
        return Err(invalid("CNI_IFNAME", "is not a name that an interface can have"));
    }
    Ok(AttachmentId { container_id, ifname })
}

/// `CNI_NETNS`; `None` if not given.
#[must_use]
pub fn netns() -> Option<PathBuf> {
    environment("CNI_NETNS").map(PathBuf::from)
}

/// Directories of `CNI_PATH`.
#[must_use]
pub fn search_path() -> Vec<PathBuf> {
    env::var_os("CNI_PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

/// The pod in `CNI_ARGS`.
///
/// # Errors
/// The runtime does not say which pod it is: without that there is no policy to wait for.
pub fn pod() -> Result<PodArgs, Failure> {
    let text = environment("CNI_ARGS").unwrap_or_default();
    let mut pod = PodArgs::default();
    for pair in text.split(';') {
        match pair.split_once('=') {
            Some(("K8S_POD_NAMESPACE", value)) => value.clone_into(&mut pod.namespace),
            Some(("K8S_POD_NAME", value)) => value.clone_into(&mut pod.name),
            Some(("K8S_POD_UID", value)) => value.clone_into(&mut pod.uid),
            // Some("IgnoreUnknown") and whatever else there may be.
            _ => {}
        }
    }
    if pod.namespace.is_empty() || pod.name.is_empty() {
        return Err(invalid("CNI_ARGS", "has no K8S_POD_NAMESPACE and K8S_POD_NAME")
            .details("only pods of Kubernetes can be attached: their policy has to be known"));
    }
    Ok(pod)
}

/// The fields of the configuration that we read. What is not here goes to the delegate as it is.
#[derive(Debug, Deserialize)]
struct Fields {
    #[serde(default, rename = "cniVersion")]
    version: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    mtu: Option<u32>,
    #[serde(default)]
    ipam: Option<Ipam>,
    #[serde(default)]
    socket: Option<PathBuf>,
    #[serde(default, rename = "stateDir")]
    state_dir: Option<PathBuf>,
    #[serde(default, rename = "timeoutSeconds")]
    timeout_seconds: Option<u64>,
    #[serde(default, rename = "prevResult")]
    previous: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<AttachmentId>>,
}

/// `ipam`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ipam {
    /// Name of the delegate.
    #[serde(rename = "type")]
    pub kind: String,
    /// host-local's directory, if it is not the usual one.
    #[serde(default, rename = "dataDir")]
    pub data_dir: Option<PathBuf>,
}

/// Standard input, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// All of it.
    pub raw: Map<String, Value>,
    /// `cniVersion`.
    pub version: Version,
    /// Name of the network.
    pub name: String,
    /// MTU of pods; `None` = the kernel's default.
    pub mtu: Option<u32>,
    /// Address management. Without it we are a gate chained after another plugin.
    pub ipam: Option<Ipam>,
    /// The agent's control socket.
    pub socket: PathBuf,
    /// Directory of the agent's attachments.
    pub attachments: PathBuf,
    /// How long ADD may wait for the agent.
    pub timeout: Duration,
    /// `prevResult`.
    pub previous: Option<Value>,
    /// `cni.dev/valid-attachments`.
    pub valid_attachments: Option<Vec<AttachmentId>>,
}

/// Reads the configuration.
///
/// # Errors
/// It is no JSON object, a field has the wrong type or value, or the version is none of ours.
pub fn config(stdin: &[u8]) -> Result<Config, Failure> {
    let undecodable = |error: serde_json::Error| {
        Failure::new(ErrorCode::Decode, format!("network configuration: {error}"))
    };
    let raw: Map<String, Value> = serde_json::from_slice(stdin).map_err(undecodable)?;
    let fields: Fields = serde_json::from_value(Value::Object(raw.clone())).map_err(undecodable)?;
    let version = Version::parse(fields.version.as_deref().unwrap_or("0.1.0"))?;
    let invalid = |message: String| Failure::new(ErrorCode::InvalidConfig, message);
    let name = fields.name.unwrap_or_default();
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !starts || !name.bytes().all(inside) {
        return Err(invalid(format!("name: `{name}` is no name of a network")));
    }
    if let Some(mtu) = fields.mtu
        && !(576..=65535).contains(&mtu)
    {
        return Err(invalid(format!("mtu: {mtu} is not between 576 and 65535")));
    }
    if let Some(ipam) = &fields.ipam
        && (ipam.kind.is_empty() || ipam.kind.contains('/') || ipam.kind.starts_with('.'))
    {
        return Err(invalid(format!("ipam.type: `{}` is no name of a plugin", ipam.kind)));
    }
    let timeout = match fields.timeout_seconds {
        None => GATE_TIMEOUT,
        Some(seconds @ 1..=LONGEST_TIMEOUT) => Duration::from_secs(seconds),
        Some(seconds) => {
            return Err(invalid(format!(
                "timeoutSeconds: {seconds} is not between 1 and {LONGEST_TIMEOUT}"
            )));
        }
    };
    let state = fields.state_dir.unwrap_or_else(|| PathBuf::from(STATE_DIR));
    Ok(Config {
        raw,
        version,
        name,
        mtu: fields.mtu,
        ipam: fields.ipam,
        socket: fields.socket.unwrap_or_else(|| PathBuf::from(RUN_DIR).join(SOCKET_NAME)),
        attachments: state.join(ATTACHMENTS_DIR),
        timeout,
        previous: fields.previous.filter(|previous| !previous.is_null()),
        valid_attachments: fields.valid_attachments,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> ErrorCode {
        config(text.as_bytes()).unwrap_err().code
    }

    #[test]
    fn what_the_configuration_does_not_say_has_defaults() {
        let config = config(br#"{"cniVersion":"1.0.0","name":"rampart","x":[1]}"#).unwrap();
        assert_eq!(config.socket.to_str(), Some("/run/rampart/agent.sock"));
        assert_eq!(config.attachments.to_str(), Some("/var/lib/rampart/attachments"));
        assert_eq!((config.timeout, config.mtu, config.ipam), (GATE_TIMEOUT, None, None));
        assert!(config.raw.contains_key("x"));
    }

    #[test]
    fn each_kind_of_bad_configuration_has_its_code() {
        assert_eq!(code(""), ErrorCode::Decode);
        assert_eq!(code("[]"), ErrorCode::Decode);
        assert_eq!(code(r#"{"cniVersion":1}"#), ErrorCode::Decode);
        assert_eq!(code(r#"{"cniVersion":"2.0.0","name":"n"}"#), ErrorCode::IncompatibleVersion);
        assert_eq!(code(r#"{"name":"n"}"#), ErrorCode::IncompatibleVersion);
        assert_eq!(code(r#"{"cniVersion":"1.0.0"}"#), ErrorCode::InvalidConfig);
        assert_eq!(code(r#"{"cniVersion":"1.0.0","name":"../x"}"#), ErrorCode::InvalidConfig);
        let with = |rest: &str| format!(r#"{{"cniVersion":"1.0.0","name":"n",{rest}}}"#);
        assert_eq!(code(&with(r#""mtu":9"#)), ErrorCode::InvalidConfig);
        assert_eq!(code(&with(r#""ipam":{"type":"../evil"}"#)), ErrorCode::InvalidConfig);
        assert_eq!(code(&with(r#""ipam":{}"#)), ErrorCode::Decode);
        assert_eq!(code(&with(r#""timeoutSeconds":0"#)), ErrorCode::InvalidConfig);
    }
}
