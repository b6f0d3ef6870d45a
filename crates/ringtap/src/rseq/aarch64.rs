//! The sections in aarch64 assembly.
