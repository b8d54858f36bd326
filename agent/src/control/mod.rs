//! The control socket and the metrics address: HTTP/1.1, read-only but for the CNI
//! plugin's requests.
//!
//! Nothing here owns state: each answer is put together from what the owners tell.

mod answer;
mod cni;
mod core;
mod doctor;
mod kernel_state;
pub mod readiness;
pub mod request;
mod server;
mod views;

pub use self::core::{Core, Parts};
pub(crate) use answer::{Answer, json_with, text};
pub use server::{bind, serve_metrics, serve_socket};
pub(crate) use server::{is_allowed, serve_connection};
