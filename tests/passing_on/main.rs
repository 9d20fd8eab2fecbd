//! Three ways out, none of which asks a client to poll: waiting, following, relaying.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

#[path = "../support/failing_store.rs"]
mod failing_store;
mod following;
mod outage;
mod places;
mod receiver;
mod relaying;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod waiting;
