//! Files of jobs: scans in, meshes out; copies made before the links die and kept as they were.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

mod copies;
mod double;
mod kills;
mod mirroring;
mod packed;
mod privacy;
mod s3;
mod serving;
mod slow;
mod storages;
#[path = "../support/mod.rs"]
mod support;
mod uploads;
mod verifying;
