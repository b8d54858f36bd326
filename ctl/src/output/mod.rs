//! View to text: pure functions, so that what a person sees is tested without an agent.

pub mod duration;
pub mod format;
pub mod table;

pub use format::Format;
pub use table::{Column, Table};
