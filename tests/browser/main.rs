//! The inspector in a real browser: Chromium shows it, and what it shows is held to what it says.
//!
//! Where Chromium, its driver or axe-core is absent, the tests say so and pass; where `CI=true`,
//! they fail. `.ci/run` installs all three. The pictures in the README come from here too:
//! `cargo test --test browser -- --ignored`.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

mod accessibility;
mod actions;
mod browser;
mod chromedriver;
mod documentation;
mod keyboard;
mod living;
mod meshes;
mod pages;
mod payloads;
mod pictures;
mod prefix;
mod scene;
mod submitting;
#[path = "../support/mod.rs"]
mod support;
