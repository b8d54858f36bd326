//! The control socket and the metrics address: HTTP/1.1, read-only.
//!
//! Nothing here owns state: each answer is put together from what the owners tell.

mod core;
pub mod request;
mod server;
mod views;

pub use self::core::{Core, Parts};
pub use server::{bind, serve_metrics, serve_socket};
