//! Requests of the CNI plugin (`api::cni`).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use api::cni::{Added, Attachment, AttachmentId, Collected, Refused, Serving};
use api::error_code::{self, CATALOGUE, Code};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::timeout_at;
use tracing::warn;

use super::answer::{Answer, json};
use super::core::Core;
use crate::cni::name;
use crate::reconcile_policy::Message;

/// Where these requests are.
pub(super) const PREFIX: &str = "/v1/cni/";
/// The longest body: a GC of some 10 000 attachments.
const BODY_LIMIT: usize = 2 << 20;
/// `add` without `timeout_ms`.
const ADD_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest `timeout_ms`.
const ADD_LONGEST: Duration = Duration::from_secs(120);
/// How long the questions behind a refusal may take.
const WHY_TIMEOUT: Duration = Duration::from_millis(200);

/// A refusal and its HTTP status.
struct No(StatusCode, Refused);

impl No {
    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        let entry = CATALOGUE.iter().find(|entry| entry.code == code);
        let next = entry.map_or("", |entry| entry.next).to_owned();
        Self(status, Refused { code, message: message.into(), next })
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error_code::GATE_INVALID_REQUEST, message)
    }

    fn ending() -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, error_code::GATE_NOT_IN_SYNC, "the agent is ending")
    }

    fn unwritable(error: &std::io::Error) -> Self {
        let message = format!("the attachment cannot be written to disk: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error_code::CNI_STATE_UNREADABLE, message)
    }
}

pub(super) async fn answer(core: &Core, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let query = parts.uri.query();
    let result = match (&parts.method, path) {
        (&Method::POST, "add") => reply(add(core, read(body).await, query).await),
        (&Method::POST, "del") => reply(del(core, read(body).await).await),
        (&Method::POST, "check") => reply(check(core, read(body).await).await),
        (&Method::POST, "gc") => reply(gc(core, read(body).await, query).await),
        (&Method::GET, "status") => reply(status(core).await),
        (method, path) => Err(No::new(
            StatusCode::NOT_FOUND,
            error_code::GATE_INVALID_REQUEST,
            format!("nothing is served at {method} {PREFIX}{path}"),
        )),
    };
    result.unwrap_or_else(|No(status, refused)| {
        let mut answer = json(&refused);
        *answer.status_mut() = status;
        answer
    })
}

fn reply<T: Serialize>(result: Result<T, No>) -> Result<Answer, No> {
    result.map(|value| json(&value))
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, No> {
    let body = Limited::new(body, BODY_LIMIT).collect().await;
    let body = body.map_err(|error| No::invalid(format!("the body cannot be read: {error}")))?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| No::invalid(format!("the body cannot be read: {error}")))
}

fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let pairs = query.unwrap_or_default().split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
}

fn timeout(query: Option<&str>) -> Result<Duration, No> {
    match parameter(query, "timeout_ms") {
        None => Ok(ADD_TIMEOUT),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Duration::from_millis(number).min(ADD_LONGEST)),
            Err(_) => Err(No::invalid("timeout_ms is not a number")),
        },
    }
}

async fn add(
    core: &Core,
    attachment: Result<Attachment, No>,
    query: Option<&str>,
) -> Result<Added, No> {
    let (attachment, timeout) = (attachment?, timeout(query)?);
    if attachment.addresses.is_empty() {
        return Err(No::invalid("the attachment has no address"));
    }
    let began = Instant::now();
    let deadline = tokio::time::Instant::now() + timeout;
    let pending = core.parts().gate.add(attachment.clone()).await.map_err(|_| No::ending())?;
    let both = async {
        pending.written.await.map_err(|_| No::ending())?.map_err(|error| No::unwritable(&error))?;
        pending.programmed.await.map_err(|_| {
            let message = "the attachment was deleted while it was being added";
            No::new(StatusCode::CONFLICT, error_code::GATE_UNKNOWN_ATTACHMENT, message)
        })
    };
    match timeout_at(deadline, both).await {
        Ok(generation) => {
            let (generation, took) = (generation?, began.elapsed());
            core.recorder().pod_gated(took);
            let gate_micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            Ok(Added { generation, gate_micros })
        }
        Err(_) => {
            core.recorder().pod_gate_timed_out();
            let no = missing(core, &attachment).await;
            warn!(
                namespace = %attachment.namespace,
                pod = %attachment.pod,
                why = %no.1.message,
                "a pod does not start: its policy is not in the kernel"
            );
            let message = format!("{}: {}. {}", no.1.code, no.1.message, no.1.next);
            core.events().pod_gate_timed_out(&attachment.namespace, &attachment.pod, message);
            Err(no)
        }
    }
}

/// Why the policy of an attachment is not in the kernel.
async fn missing(core: &Core, attachment: &Attachment) -> No {
    let status = StatusCode::GATEWAY_TIMEOUT;
    let reasons = core.not_ready();
    if !reasons.is_empty() {
        let message = format!("the agent is not in sync: {}", reasons.join("; "));
        return No::new(status, error_code::GATE_NOT_IN_SYNC, message);
    }
    let Attachment { namespace, pod, uid, .. } = attachment;
    if knows_pod(core, &attachment.id).await == Some(false) {
        let message = format!(
            "the agent has not seen the Pod object {namespace}/{pod}{}",
            if uid.is_empty() { String::new() } else { format!(" (uid {uid})") }
        );
        return No::new(status, error_code::GATE_POD_UNKNOWN, message);
    }
    let problems = core.problems().list();
    let refused = problems.iter().find(|problem| problem.code == error_code::NFT_REFUSED);
    let message = match refused {
        Some(problem) => format!("the kernel refuses the policy table: {}", problem.message),
        None => "the kernel has not acknowledged the pod's policy yet".to_owned(),
    };
    No::new(status, error_code::GATE_NOT_PROGRAMMED, message)
}

async fn knows_pod(core: &Core, id: &AttachmentId) -> Option<bool> {
    let (reply, answer) = oneshot::channel();
    let asked = core.parts().policy.send(Message::KnowsPodOf { id: name::key(id), reply });
    let deadline = tokio::time::Instant::now() + WHY_TIMEOUT;
    timeout_at(deadline, async {
        asked.await.ok()?;
        answer.await.ok()
    })
    .await
    .ok()
    .flatten()
}

async fn del(core: &Core, id: Result<AttachmentId, No>) -> Result<serde_json::Value, No> {
    let removed = core.parts().gate.del(id?).await.map_err(|_| No::ending())?;
    removed.map_err(|error| No::unwritable(&error))?;
    Ok(serde_json::json!({}))
}

async fn check(core: &Core, attachment: Result<Attachment, No>) -> Result<serde_json::Value, No> {
    let attachment = attachment?;
    let conflict = |code, message: String| No::new(StatusCode::CONFLICT, code, message);
    let all = core.parts().gate.list().await.map_err(|_| No::ending())?;
    let unknown = error_code::GATE_UNKNOWN_ATTACHMENT;
    let Some(known) = all.iter().find(|known| known.id == attachment.id) else {
        return Err(conflict(unknown, "the agent does not know this attachment".to_owned()));
    };
    let addresses = |of: &Attachment| of.addresses.iter().copied().collect::<BTreeSet<_>>();
    if addresses(known) != addresses(&attachment)
        || (&known.namespace, &known.pod) != (&attachment.namespace, &attachment.pod)
    {
        return Err(conflict(
            unknown,
            format!("the agent knows this attachment as that of {}/{}", known.namespace, known.pod),
        ));
    }
    let No(_, refused) = missing(core, known).await;
    let pod_known = knows_pod(core, &known.id).await == Some(true);
    if !pod_known || refused.code == error_code::GATE_NOT_IN_SYNC {
        return Err(No(StatusCode::CONFLICT, refused));
    }
    Ok(serde_json::json!({}))
}

async fn gc(
    core: &Core,
    valid: Result<Vec<AttachmentId>, No>,
    query: Option<&str>,
) -> Result<Collected, No> {
    let valid: BTreeSet<AttachmentId> = valid?.into_iter().collect();
    let Some(network) = parameter(query, "network") else {
        return Err(No::invalid("the network is missing: gc?network=NAME"));
    };
    let removed = core.parts().gate.gc(network.to_owned(), valid).await;
    let removed = removed.map_err(|_| No::ending())?;
    Ok(Collected { removed: removed.map_err(|error| No::unwritable(&error))? })
}

async fn status(core: &Core) -> Result<Serving, No> {
    let reasons = core.not_ready();
    if !reasons.is_empty() {
        let message = format!("the agent is not in sync: {}", reasons.join("; "));
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(No::new(status, error_code::GATE_NOT_IN_SYNC, message));
    }
    let attachments = core.parts().gate.list().await.map_err(|_| No::ending())?.len();
    Ok(Serving { node: core.parts().node.clone(), attachments })
}
