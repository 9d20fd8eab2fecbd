//! Files: scans in, meshes out, through the running service.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

mod double;
mod serving;
#[path = "../support/mod.rs"]
mod support;
mod uploads;
