//! nf_tables: programs our one table, reads it back, and notices when others change it.
//!
//! The encoder is our own because no crate can write this table (verdict maps, interface names,
//! megabytes in one transaction) and because a spawned `nft` costs milliseconds a change. This
//! module never touches another table, and never decides what the rules should be: that is
//! `policy`.

mod compare;
mod element;
pub mod encode;
mod expression;
pub mod inventory;
mod message;
pub mod monitor;
mod readback;
mod socket;
mod uapi;
pub mod writer;

pub use encode::{Batch, EncodeError, encode};
pub use monitor::{Drift, Monitor};
pub use socket::SocketError;
pub use writer::{Command, NftWriter, WriterHandle};
