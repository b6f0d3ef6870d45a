//! Events: what an instance's records mean.

pub mod registry;
