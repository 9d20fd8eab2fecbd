//! What senders may do to the service: be slow, break off, send too much, come all at once, come
//! while it stops. None of it costs an honest sender's result.
//!
//! Run by `cargo test`. Everything goes through real sockets to the real binary. Invariant: no test
//! waits by sleeping; it waits for a condition, with a deadline.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

mod bounds;
mod crowds;
mod heads;
mod labels;
mod memory;
mod program;
mod resets;
mod slow;
mod sockets;
mod stopping;
mod wire;
