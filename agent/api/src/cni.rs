//! What the CNI plugin and the agent say to each other over the control socket
//! (`RUN_DIR/agent.sock`; HTTP/1.1, JSON).
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/cni/add?timeout_ms=N` | [`Attachment`] | 200 [`Added`] when the policy of the pod is in the kernel; 504 [`Refused`] when it is not in time |
//! | `POST /v1/cni/del` | [`AttachmentId`] | 200, also when it is not known |
//! | `POST /v1/cni/check` | [`Attachment`] | 200, or 409 [`Refused`] with what is missing |
//! | `POST /v1/cni/gc?network=NAME` | `Vec<`[`AttachmentId`]`>`: those of the network that are still valid | 200 [`Collected`] |
//! | `GET /v1/cni/status` | - | 200 [`Serving`], or 503 [`Refused`] |
//!
//! An agent that does not answer is the plugin's error 11 (try again later) for ADD and 50 for STATUS.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error_code::Code;

/// Names one interface of one sandbox (CNI spec 1.1: container id and interface name).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentId {
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// A pod that gets (or has) an interface on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Which one.
    #[serde(flatten)]
    pub id: AttachmentId,
    /// Name of the CNI network.
    #[serde(default)]
    pub network: String,
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub pod: String,
    /// `K8S_POD_UID`; empty if the runtime does not tell.
    #[serde(default)]
    pub uid: String,
    /// Addresses of the pod, of both families.
    pub addresses: Vec<IpAddr>,
    /// Host side interface of the pod's veth. Empty if a chained gate could not find one.
    #[serde(default)]
    pub interface: String,
    /// `CNI_NETNS`, for people.
    #[serde(default)]
    pub netns: String,
}

/// The pod's policy is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Added {
    /// Input generation that the kernel has acknowledged.
    pub generation: u64,
    /// From the request to the kernel's acknowledgement, in microseconds.
    pub gate_micros: u64,
}

/// What was forgotten by GC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// Attachments that were not named as valid.
    pub removed: Vec<Attachment>,
}

/// The agent can serve ADD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Serving {
    /// Node of the agent.
    pub node: String,
    /// Attachments it holds.
    pub attachments: usize,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Catalogue code.
    pub code: Code,
    /// One line: what is missing.
    pub message: String,
    /// One line: what to do.
    pub next: String,
}
