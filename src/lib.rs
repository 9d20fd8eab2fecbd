//! Finishline: submit Relu Engine jobs, never poll, never lose a result.
//!
//! A self-hosted service between a company's software and the Relu Engine. What it promises:
//! - **A callback that was answered 2xx is on disk**, byte for byte, whatever happens next.
//! - **A job is never sent twice blindly**: it is on record before the Engine hears of it, and is
//!   repeated only where the Engine certainly did not take it.
//! - **A stored result stays inside**: the door that the internet reaches serves none.
//!
//! The rooms, from the values up to the command line; each imports only rooms above it
//! (`tests/house.rs` holds the table, `docs/ARCHITECTURE.md` walks along each path):
//!
//! - [`domain`]: plain values and decisions. [`config`], [`clock`], [`telemetry`]: settings, time,
//!   logs and figures. [`wake`], [`heartbeats`]: that something was committed, that a loop turns.
//!   [`printable`]: foreign text made fit to be shown.
//!   [`private_files`], [`key_file`]: what only the owner may read, and the key the service makes.
//! - [`api`]: the JSON of our own API. [`outbound`]: the one builder of HTTP clients. [`blobs`]:
//!   files of jobs, in a folder or a bucket. [`store`]: everything that must survive a crash, and the only SQL.
//! - [`engine`]: the Relu Engine as its caller sees it. [`public_url`]: the address it calls back
//!   on. [`doctor`]: whether that address really leads here. [`erasure`]: jobs gone for good.
//! - [`http`]: the two front doors. [`workers`]: what goes on beside the requests. [`client`]: the
//!   API from the other side.
//! - [`app`]: all of it put together. [`cli`]: the commands.
//! - [`simulator`]: the Engine's double; it shares nothing with the rest, so that a wrong reading
//!   of the Engine cannot agree with itself.

#![warn(clippy::unwrap_used)]
// Only what passed `printable` reaches a terminal.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod app;
pub mod blobs;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod domain;
pub mod engine;
pub mod erasure;
pub mod heartbeats;
pub mod http;
pub mod key_file;
pub mod outbound;
pub mod printable;
pub mod private_files;
pub mod public_url;
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod wake;
pub mod workers;
