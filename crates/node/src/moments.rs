//! Moments at which a test may end a process.

/// Does nothing, but in a debug build whose `MADAKE_DIE_AT` names this moment: there the process ends at once and in
/// disorder, as `kill -9` ends it.
pub(crate) fn passes(moment: &str) {
    if cfg!(debug_assertions) && std::env::var("MADAKE_DIE_AT").is_ok_and(|at| at == moment) {
        std::process::abort();
    }
}
