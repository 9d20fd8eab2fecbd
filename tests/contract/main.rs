//! The contract of design section 4, held by the running program: everything here goes through its
//! doors or its command line, as a user's would.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

mod bounds;
mod clock_jumps;
mod command_line;
mod doors;
mod erasing;
#[path = "../support/failing_store.rs"]
mod failing_store;
mod failures;
mod headers;
#[path = "../outbound/hosts.rs"]
mod hosts;
mod idempotency;
mod links;
mod negotiation;
mod open_door;
mod openapi;
mod own_key;
mod public_url;
mod querying;
mod reconciling;
mod refusals;
mod scopes;
mod submitting;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
mod validation;
