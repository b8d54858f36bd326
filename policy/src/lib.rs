#![doc = include_str!("../README.md")]

pub mod engine;
pub mod event;
pub mod fault;
mod index;
mod input;
pub mod nft;
mod resolve;
pub mod verdict;

pub use engine::Engine;
pub use input::{Direction, MIRROR_ANNOTATION};
