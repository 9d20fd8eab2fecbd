//! The emergency spool: what is promised while the database refuses.
//!
//! Real files, a real SQLite database, the service on port 0 or the binary itself. What needs more
//! than a folder (a disk to fill, a limit to set) is skipped loudly where it cannot be had, and
//! fails instead when `CI=true` or `FINISHLINE_REQUIRE_TMPFS=1`.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

mod callbacks;
mod disk;
mod file;
mod process;
mod support;
mod take_in;
