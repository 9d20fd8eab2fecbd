//! The simulator's state: its options, tokens, jobs, callbacks and counters.
//!
//! Locked only by `Simulator::state` and `Simulator::change`. Invariant: jobs and callbacks are
//! only ever added.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
};

use rand::{SeedableRng, rngs::StdRng};
use serde::Serialize;

use super::{AcceptedJob, Options, SentCallback, fault::FileFault, token::Token};

pub(super) struct State {
    pub(super) options: Options,
    pub(super) random: StdRng,
    pub(super) tokens: HashMap<String, Token>,
    pub(super) jobs: Vec<AcceptedJob>,
    pub(super) job_positions: HashMap<String, usize>,
    pub(super) callbacks: Vec<SentCallback>,
    /// Jobs whose callback waits for the next one's (`reorder_callbacks`).
    pub(super) held: Vec<String>,
    /// How often a fault struck a file, for `first-of-each`.
    pub(super) struck: HashMap<(FileFault, String), u32>,
    /// Serials of links that expired before their time.
    pub(super) expired_links: HashSet<u64>,
    pub(super) requests: Requests,
    pub(super) log: Option<File>,
}

/// Numbers of requests, including refused ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    pub tokens: usize,
    pub tokens_issued: usize,
    /// Calls without a valid token.
    pub unauthorized: usize,
    pub submissions: usize,
    pub polls: usize,
    pub notifies: usize,
    pub uploads: usize,
    pub downloads: usize,
}

impl State {
    pub(super) fn new(options: Options) -> io::Result<Self> {
        let log = options.log.as_ref();
        Ok(Self {
            random: options.seed.map_or_else(rand::make_rng, StdRng::seed_from_u64),
            tokens: HashMap::new(),
            jobs: Vec::new(),
            job_positions: HashMap::new(),
            callbacks: Vec::new(),
            held: Vec::new(),
            struck: HashMap::new(),
            expired_links: HashSet::new(),
            requests: Requests::default(),
            log: log
                .map(|path| File::options().create(true).append(true).open(path))
                .transpose()?,
            options,
        })
    }

    pub(super) fn job(&self, engine_job_id: &str) -> Option<&AcceptedJob> {
        self.jobs.get(*self.job_positions.get(engine_job_id)?)
    }

    pub(super) fn job_mut(&mut self, engine_job_id: &str) -> Option<&mut AcceptedJob> {
        self.jobs.get_mut(*self.job_positions.get(engine_job_id)?)
    }
}
