//! Never lose a result: what is received is on disk before it is acknowledged, and stays there,
//! whatever arrives, fails or dies.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

mod bodies;
mod budgets;
mod commit;
mod conformance;
mod crash;
mod encodings;
mod evidence;
#[path = "../support/failing_store.rs"]
mod failing_store;
mod forgery;
mod inbox;
mod judging;
mod node;
mod outage;
mod readiness;
mod receiving;
mod recovery;
mod redaction;
mod results;
mod rotation;
#[path = "../support/mod.rs"]
mod support;
mod together;
mod unasked;
