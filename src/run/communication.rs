//! What timely's workers of this process are made of, alone or with the sockets to other processes.
//!
//! With sockets timely has a thread that sends and one that receives for each peer. They end quietly when all
//! dataflows are complete everywhere, and panic when a connection breaks. That is always a consequence: the peer
//! has ended, and its link knows why. So such a panic neither unwinds into the workers nor aborts the process
//! before the reason is known: its thread stands still, and only if nobody else has ended the process after a
//! while does it do so itself.

use crate::cluster::sockets::Connection;
use crate::error::{Error, Kind, Result};
use crate::limits;
use std::sync::Once;
use std::thread;
use timely::communication::allocator::zero_copy::initialize::{
    CommsGuard, initialize_networking_from_sockets,
};
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::{Config, Hooks};

/// The allocators of `threads` workers, and what waits for the communication threads when it is dropped.
pub(super) fn allocators(
    threads: usize,
    process: usize,
    data: Option<Vec<Option<Connection>>>,
) -> Result<(Vec<AllocatorBuilder>, Option<CommsGuard>)> {
    let Some(data) = data else {
        let alone = match threads {
            1 => Config::Thread,
            threads => Config::Process(threads),
        };
        let built = alone.try_build();
        let (allocators, _) = built.map_err(|error| Error::internal(format!("timely: {error}")))?;
        return Ok((allocators, None));
    };
    stand_still_when_connections_break();
    let hooks = Hooks::default();
    let within = ProcessBuilder::new_typed_vector(threads, hooks.refill.clone(), hooks.spill.clone());
    let network = initialize_networking_from_sockets(within, data, process, threads, hooks);
    let (allocators, guard) =
        network.map_err(|error| Error::internal(format!("timely's sockets: {error}")))?;
    Ok((
        allocators.into_iter().map(AllocatorBuilder::Tcp).collect(),
        Some(guard),
    ))
}

/// See the [module](self).
fn stand_still_when_connections_break() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = thread::current();
            let name = thread.name().unwrap_or_default();
            if !(name.starts_with("timely:send-") || name.starts_with("timely:recv-")) {
                return before(panic);
            }
            let reason = panic.payload_as_str().unwrap_or("a connection broke").to_owned();
            tracing::debug!("{name}: {reason}");
            // Whoever knows why is faster; nobody wakes this thread.
            thread::park_timeout(limits::BROKEN_CONNECTION);
            let error = Error::new(Kind::PeerLost, format!("{name}: {reason}"));
            eprintln!("{error}");
            std::process::exit(error.kind as i32);
        }));
    });
}
