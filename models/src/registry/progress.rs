//! How a pull reports what it does. Libraries do not print: the command line shows a bar, a server a log line.

/// Receives the progress of one pull. `()` ignores everything.
///
/// A pull may begin several transfers, one after another (a source fails, the next one is tried; a file changed on the
/// server and is begun anew). Each begins with [`set_total`](Progress::set_total), which puts the position back to zero;
/// bytes kept from an earlier pull are then reported by one [`inc`](Progress::inc).
pub trait Progress {
    /// A transfer begins: position zero of `total` bytes, if known.
    fn set_total(&self, total: Option<u64>);

    /// `bytes` more of the file are there.
    fn inc(&self, bytes: u64);

    /// One line for people: what is being waited for, which source is tried, what failed.
    fn message(&self, text: &str);

    /// Asked often; `true` ends the pull with [`RegistryError::Interrupted`](super::RegistryError::Interrupted), leaving
    /// what was fetched for the next one.
    fn cancelled(&self) -> bool {
        false
    }
}

impl Progress for () {
    fn set_total(&self, _total: Option<u64>) {}
    fn inc(&self, _bytes: u64) {}
    fn message(&self, _text: &str) {}
}
