//! The BGP side of the agent: sockets and a clock around [`::bgp::speaker::Speaker`].
//!
//! One thread owns the speaker and every BGP socket and runs one epoll loop (`driver`): no task
//! and no channel per connection. Others talk to it through a [`SpeakerHandle`].
//!
//! A turn of the loop: read what is readable, run due timers, `flush` once, then write. So changes
//! that arrive together leave together, and a lone one leaves at once; nothing waits for a timer.

mod connection;
mod driver;
mod handle;
mod listener;
mod outlet;
pub mod reflector;
mod socket_option;

pub use driver::{Options, spawn};
pub use handle::{SpeakerHandle, Stopped, Traffic};
pub use outlet::{DriverEvent, FibChange, FibSink, kernel_sink};
