//! What is rather looked at than read: histograms of fields, flame graphs of stacks, and time lines.

mod axis;
mod flamegraph;
mod histogram;
mod svg;
mod timeline;

pub(super) use flamegraph::flamegraph;
pub(super) use histogram::histogram;
pub(super) use timeline::timeline;
