//! What operators see of the agent beside its answers: log lines, standing problems, metrics.

pub mod log;
pub mod metrics;
pub mod problems;
pub mod process;
pub mod recorder;
mod series;

pub use problems::{Area, Problems};
pub use recorder::Recorder;
