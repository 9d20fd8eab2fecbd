//! The public URL that the Engine calls back: fixed by the settings, or reported by ngrok's agent.
//!
//! Used before every submission, and by readiness. The agent is asked each time, once for all who
//! wait.
//!
//! Invariant: an address that the agent no longer lists is never returned, because a result sent
//! there would be lost; and a tunnel that may end at another machine is returned only after a nonce
//! that was sent through it has arrived here.

mod agent;
mod tunnel;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};
use url::Url;

pub use self::agent::Unknown;
use self::{
    agent::Agent,
    tunnel::{Candidate, Seen},
};
use crate::{
    clock::Stopwatch,
    config::{CallbacksConfig, PublicUrlSetting},
    outbound::Outbound,
};

/// The limit of one proof; submissions wait for it.
const PROOF_PATIENCE: Duration = Duration::from_secs(3);

/// How long a proof is valid while the agent still lists the tunnel, and how long a failed one
/// prevents another try.
const PROOF_LIFETIME: Duration = Duration::from_secs(60);
const FAILURE_LIFETIME: Duration = Duration::from_secs(10);

/// Checks whether a request to an address arrives at this instance.
#[async_trait]
pub trait Prove: Send + Sync {
    /// # Errors
    /// The reason why it is not known to arrive; the words continue "the public URL …".
    async fn prove(&self, public_url: &str) -> Result<(), String>;
}

/// The public URL and its source. Cheap to clone.
#[derive(Clone)]
pub struct PublicUrl(Arc<Shared>);

struct Shared {
    source: Source,
    /// The last answer, for those who wait for a change.
    known: watch::Sender<Option<String>>,
}

enum Source {
    Fixed(Url),
    Ngrok(Box<Ngrok>),
}

struct Ngrok {
    agent: Agent,
    /// `None`: a tunnel counts as ours only if it ends at this machine.
    prover: Option<Arc<dyn Prove>>,
    /// Locked while the agent is asked, so that many submissions ask it once.
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    last: Option<(Stopwatch, Result<Url, Unknown>)>,
    proofs: HashMap<Candidate, Proof>,
}

struct Proof {
    made: Stopwatch,
    outcome: Result<(), String>,
}

impl Proof {
    fn holds(&self) -> bool {
        let lifetime = if self.outcome.is_ok() { PROOF_LIFETIME } else { FAILURE_LIFETIME };
        self.made.elapsed() < lifetime
    }
}

impl PublicUrl {
    /// `port` is the actual port of the callbacks listener.
    pub fn new(config: &CallbacksConfig, port: u16, outbound: Outbound) -> Self {
        Self::of(config, port, outbound, None)
    }

    /// The same, with tunnels that do not end at this machine proved by `prover`.
    pub fn proved_by(
        config: &CallbacksConfig,
        port: u16,
        outbound: Outbound,
        prover: Arc<dyn Prove>,
    ) -> Self {
        Self::of(config, port, outbound, Some(prover))
    }

    fn of(
        config: &CallbacksConfig,
        port: u16,
        outbound: Outbound,
        prover: Option<Arc<dyn Prove>>,
    ) -> Self {
        let (source, known) = match &config.public_url {
            PublicUrlSetting::Fixed(url) => (Source::Fixed(url.clone()), Some(shown(url))),
            PublicUrlSetting::Ngrok => {
                let agent = Agent { url: config.ngrok_api.clone(), port, outbound };
                let memory = Mutex::default();
                (Source::Ngrok(Box::new(Ngrok { agent, prover, memory })), None)
            }
        };
        Self(Arc::new(Shared { source, known: watch::Sender::new(known) }))
    }

    /// The public URL without a trailing slash.
    ///
    /// # Errors
    /// [`Unknown`]: the reason why there is none, with what to do.
    pub async fn current(&self) -> Result<String, Unknown> {
        let url = match &self.0.source {
            Source::Fixed(url) => Ok(shown(url)),
            Source::Ngrok(ngrok) => ngrok.current().await.map(|url| shown(&url)),
        };
        let known = url.as_ref().ok();
        self.0.known.send_if_modified(|last| {
            let is_new = last.as_ref() != known;
            *last = known.cloned();
            is_new
        });
        url
    }

    /// The last result of [`Self::current`], for any caller.
    pub fn watch(&self) -> watch::Receiver<Option<String>> {
        self.0.known.subscribe()
    }
}

fn shown(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

impl Ngrok {
    async fn current(&self) -> Result<Url, Unknown> {
        let arrived = Stopwatch::start();
        let mut memory = self.memory.lock().await;
        match &memory.last {
            // The agent was asked while this caller waited: as good as asking again.
            Some((asked, known)) if asked.elapsed() < arrived.elapsed() => known.clone(),
            _ => {
                let asked = Stopwatch::start();
                let known = self.ask(&mut memory.proofs).await;
                memory.last = Some((asked, known.clone()));
                known
            }
        }
    }

    async fn ask(&self, proofs: &mut HashMap<Candidate, Proof>) -> Result<Url, Unknown> {
        let seen = self.agent.tunnels().await?;
        let mut seen = Seen::of(&seen, self.agent.port, self.agent.is_on_this_machine());
        proofs.retain(|candidate, _| seen.candidates.contains(candidate));
        // The only candidate, and it ends here: it must be ours. The doctor checks whether it
        // works.
        if let [only] = &seen.candidates[..]
            && only.ends_here
        {
            return Ok(only.url.clone());
        }
        self.prove(&seen.candidates, proofs).await;
        let outcome = |candidate: &Candidate| proofs.get(candidate).map(|proof| &proof.outcome);
        let is_proved = |one: &&Candidate| outcome(one).is_some_and(Result::is_ok);
        let chosen = seen.candidates.iter().find(is_proved);
        let chosen = chosen.or_else(|| seen.candidates.iter().find(|one| one.ends_here));
        if let Some(chosen) = chosen {
            return Ok(chosen.url.clone());
        }
        let unproved = std::mem::take(&mut seen.candidates);
        for candidate in &unproved {
            let reason = outcome(candidate).and_then(|outcome| outcome.as_ref().err());
            seen.refuse(candidate, reason.map_or("nothing was sent through it", String::as_str));
        }
        Err(Unknown::NoTunnel { port: self.agent.port, seen: seen.to_string() })
    }

    /// Sends a nonce through each tunnel without a valid proof, all at the same time.
    async fn prove(&self, candidates: &[Candidate], proofs: &mut HashMap<Candidate, Proof>) {
        let Some(prover) = &self.prover else { return };
        let due = candidates.iter().filter(|one| !proofs.get(one).is_some_and(Proof::holds));
        let made = join_all(due.map(async |candidate| {
            let url = shown(&candidate.url);
            let outcome = timeout(PROOF_PATIENCE, prover.prove(&url)).await;
            let outcome = outcome.unwrap_or_else(|_| {
                let patience = humantime::format_duration(PROOF_PATIENCE);
                Err(format!("nothing came back within {patience}"))
            });
            (candidate.clone(), Proof { made: Stopwatch::start(), outcome })
        }))
        .await;
        proofs.extend(made);
    }
}
