//! Operating the service: the doctor of the public URL, `check`, `backup`, `restore-check`, and
//! upgrades that are killed on their way.
//!
//! Everything runs as an operator would run it: the service on real sockets and a real file, the
//! commands as the program itself.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

mod backup;
mod check;
mod doctor;
mod migrations;
mod restore_check;
mod support;
