//! Erasure: what was planted in every place that holds bytes of a job is in no file afterwards.
//!
//! A real service with real files. The invariant of these tests: each mark is found before it is
//! erased, so that not finding it says something.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

#[path = "../support/mod.rs"]
mod support;

mod killed;
mod marks;
mod pages;
mod places;
mod retention;
