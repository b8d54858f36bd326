//! nf_tables: intermediate representation, compiler, delta, text.

pub(crate) mod baseline;
pub(crate) mod compile;
pub(crate) mod content;
pub(crate) mod delta;
pub mod ir;
pub(crate) mod masquerade;
pub(crate) mod name;
pub(crate) mod overlay;
mod range;
pub mod text;
pub mod transaction;

pub(crate) use name::pod_chain;
