//! Netlink: everything the agent writes into the kernel, and how it reads it back.

pub mod address;
pub mod nft;
pub mod route;
pub mod sysctl;
pub mod tcp_md5;
pub mod vxlan;
