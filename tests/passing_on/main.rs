//! Three ways out, none of which asks a client to poll: waiting, following, relaying.

mod following;
mod receiver;
mod relaying;
#[path = "../support/mod.rs"]
mod support;
mod waiting;
