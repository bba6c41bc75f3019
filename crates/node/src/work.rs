//! Work that blocks: where it is done, so that tasks that have nothing to do with it go on.
//!
//! The program's runtime has several threads, and such work gets others. A runtime with a single thread does it in
//! place: whole nodes in simulated time need it so, where work takes no time and is always done in one order.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

/// Whether all tasks share one thread.
fn has_one_thread() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread)
}

/// Does short work here; other tasks of this thread move to another one.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    if has_one_thread() { work() } else { tokio::task::block_in_place(work) }
}

/// Does work beside the task that asks for it.
pub(crate) fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    if has_one_thread() { tokio::spawn(async move { work() }) } else { tokio::task::spawn_blocking(work) }
}

/// Runs a loop that blocks again and again, for as long as it has something to do: on a thread of its own.
pub(crate) fn in_a_loop(looping: impl Future<Output = ()> + Send + 'static) {
    let runtime = Handle::current();
    if has_one_thread() {
        runtime.spawn(looping);
    } else {
        std::thread::spawn(move || runtime.block_on(looping));
    }
}
