//! The client commands, as the real binary in a process of its own beside a running service.
//!
//! The invariant: what a script relies on is what is checked: exit codes, standard output, and
//! nothing that depends on how fast the machine is.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

mod documentation;
mod door;
mod erasing;
mod events;
mod exits;
mod files;
mod forwarding;
mod hostile;
mod interruptions;
mod jobs;
mod output;
mod process;
mod read_only;
#[path = "../passing_on/receiver.rs"]
mod receiver;
mod relays;
mod shell;
mod signals;
#[path = "../support/mod.rs"]
mod support;
mod usage;
mod waiting;

use serde_json::Value;

use support::{Ended, Service, run_program};

/// Runs a command against a service.
async fn ask(service: &Service, args: &[&str]) -> Ended {
    ask_with(service, args, &[]).await
}

/// The same with more in its environment.
async fn ask_with(service: &Service, args: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut all = vec![("FINISHLINE_API", service.api.as_str())];
    all.extend(environment);
    run_program(service.folder(), args, &all).await
}

/// Standard output of a command that ended well and said nothing else.
#[track_caller]
fn shown(ended: &Ended) -> &str {
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    &ended.stdout
}

/// The one JSON value on standard output.
#[track_caller]
fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("not one JSON value: {ended:?}"))
}

/// A failure as scripts and people expect it: that code, nothing on standard output, one line that
/// holds these words.
#[track_caller]
fn assert_failed(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "one line: {}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "it says {word}: {}", ended.stderr);
    }
}
