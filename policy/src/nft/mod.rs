//! nf_tables: intermediate representation, compiler, delta, text.

pub mod ir;
pub mod transaction;
