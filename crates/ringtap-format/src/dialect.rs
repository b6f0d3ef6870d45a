//! The programs whose text is told apart.

/// Whose text is printed where programs differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// As the kernel's own `trace` file.
    #[default]
    Kernel,
    /// As `trace-cmd report`, that is libtraceevent.
    TraceCmd,
}
