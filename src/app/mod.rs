//! Builds the service from settings, runs it on listeners, and stops it when a future completes.
//!
//! Production and tests use the same entry point. Invariants: everything that was answered 2xx is
//! on disk when `run` returns; a worker or listener that dies ends the process with an error.

mod probe_door;
mod state;

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Sleep, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    blobs::{BlobError, Blobs, Verified},
    clock::Clock,
    config::{ApiListen, Config},
    doctor::{Doctor, Prober},
    domain::pace::Pace,
    engine::Engine,
    erasure::Eraser,
    heartbeats::Heartbeats,
    http::{
        self, Context, Failures, InputLocks, Limits, Parts, Patterns, Readiness, Sessions,
        SignInLink,
        feed::Feed,
        listen::{self, Inherited, Listener},
        serve::{Connections, Door, serve},
    },
    outbound::{Outbound, Permissions},
    public_url::PublicUrl,
    store::{ResultOrders, Store, intake::Intake, spool::Spool, sqlite::SqliteStore},
    telemetry,
    wake::Wake,
    workers::{
        self, Worker,
        mirror::{Fetcher, Mirrorer, Renewal},
        purge::Purger,
        reconcile::Reconciler,
        relay::Relayer,
    },
};

pub use self::probe_door::ProbeDoor;
pub use crate::http::LINK_LIFETIME;

/// How long the write check of the file store may take at start.
const FILES_PATIENCE: Duration = Duration::from_secs(10);

/// Histogram samples stay in memory until they are aggregated, so they are aggregated this often
/// even if nobody reads the metrics.
const SUMMING_PAUSE: Duration = Duration::from_secs(5);

/// The service's open listeners.
pub struct Listeners {
    callbacks: Listener,
    /// `None`: the API is served on the callbacks' listener.
    api: Option<Listener>,
}

impl Listeners {
    /// Opens the listeners that the settings name.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        Self::complete(config, Inherited::default())
    }

    /// Uses the sockets handed over to this process (systemd's socket activation) and opens the
    /// rest. Call it once, at start.
    pub async fn inherit_or_bind(config: &Config) -> anyhow::Result<Self> {
        Self::complete(config, Listener::inherit(config.merged())?)
    }

    /// The settings were checked against their own addresses; a socket that was handed over may
    /// have another one.
    fn refuse_strangers(&self, config: &Config) -> anyhow::Result<()> {
        let api = self.api()?;
        if config.api.open_on_loopback && self.api.is_none() {
            bail!(
                "api.open_on_loopback is true, but the api shares the callbacks listener, which \
                 the internet reaches: leave it out"
            );
        }
        if config.api.open_on_loopback && !api.ip().to_canonical().is_loopback() {
            bail!(
                "api.open_on_loopback is true, but the api listens on {api}, which other machines \
                 reach: leave it out"
            );
        }
        Ok(())
    }

    fn complete(config: &Config, inherited: Inherited) -> anyhow::Result<Self> {
        let callbacks = match inherited.callbacks {
            Some(callbacks) => callbacks,
            None => Listener::bind("callbacks.listen", config.callbacks.listen)?,
        };
        let api = match (inherited.api, config.api.listen) {
            (Some(api), _) => Some(api),
            (None, ApiListen::Address(address)) if !config.merged() => {
                Some(Listener::bind("api.listen", address)?)
            }
            (None, _) => None,
        };
        let listeners = Self { callbacks, api };
        listeners.refuse_strangers(config)?;
        Ok(listeners)
    }

    /// Each listener with the door that it serves.
    fn doors(self, context: &Context) -> Vec<(Listener, Door)> {
        let context = || context.clone();
        let door = |name, router| Door { name, router, answers_half_closed: name == "callbacks" };
        match self.api {
            Some(api) => vec![
                (self.callbacks, door("callbacks", http::callbacks_door(context()))),
                (api, door("api", http::api_door(context()))),
            ],
            None => vec![(self.callbacks, door("merged", http::merged_door(context())))],
        }
    }

    /// The actual address of the callbacks' listener.
    pub fn callbacks(&self) -> std::io::Result<SocketAddr> {
        self.callbacks.local_addr()
    }

    /// The actual address of the API's listener.
    pub fn api(&self) -> std::io::Result<SocketAddr> {
        self.api.as_ref().unwrap_or(&self.callbacks).local_addr()
    }
}

/// An open store.
pub struct Opened {
    pub store: Arc<dyn Store>,
    /// Ends when the store is closed.
    pub writer: JoinHandle<()>,
    /// Signalled at every commit.
    pub wake: Wake,
}

/// The service, ready to run.
pub struct App {
    context: Context,
    listeners: Listeners,
    /// Ends when the store is closed.
    writer: JoinHandle<()>,
    /// The file of the API's key, if the service created the key itself.
    key_file: Option<PathBuf>,
}

impl App {
    /// Opens the database and builds the service.
    pub async fn build(config: Config, listeners: Listeners, clock: Clock) -> anyhow::Result<Self> {
        let wake = Wake::default();
        let path = &config.database.path;
        let orders = orders(&config);
        let (store, writer) =
            SqliteStore::open_with(path, clock.now(), wake.clone(), orders).await?;
        let opened = Opened { store: Arc::new(store), writer, wake };
        Self::with_store(config, listeners, clock, opened).await
    }

    /// Builds the service on a store that is open already.
    pub async fn with_store(
        mut config: Config,
        listeners: Listeners,
        clock: Clock,
        opened: Opened,
    ) -> anyhow::Result<Self> {
        let Opened { store, writer, wake } = opened;
        listeners.refuse_strangers(&config)?;
        let key_file = state::make_key(&mut config)?;
        let permissions = Permissions {
            allow_private: config.outbound.allow_private,
            allow_http: config.outbound.allow_http,
        };
        let outbound = Outbound::new(permissions, std::slice::from_ref(&config.engine.base_url))?;
        let port = listeners.callbacks()?.port();
        let intake = Arc::new(intake(&config, &clock, store.clone()).await?);
        let prober = Prober {
            outbound: outbound.clone(),
            signing_key: store.signing_key(),
            max_body: config.callbacks.max_body,
        };
        let (callbacks, proof) = (&config.callbacks, Arc::new(prober.clone()));
        let public_url = PublicUrl::proved_by(callbacks, port, outbound.clone(), proof);
        let blobs = config.mirror.store.as_deref().map(open_files).transpose()?;
        let eraser = Eraser {
            store: store.clone(),
            intake: intake.clone(),
            blobs: blobs.clone(),
            clock: clock.clone(),
        };
        let context = Context::from(Parts {
            engine: Engine::new(
                config.engine.clone(),
                outbound.clone(),
                clock.clone(),
                config.callbacks.max_body,
            )
            .with_pace(pace(&config)),
            doctor: Doctor::new(prober, public_url.clone(), clock.clone()),
            public_url,
            started_at: clock.now(),
            limits: Limits::new(&config),
            readiness: Readiness::default(),
            input_locks: InputLocks::default(),
            sessions: Sessions::new(store.signing_key(), store.signed_out().await?),
            sign_in_link: SignInLink::default(),
            failures: Failures::default(),
            config: Arc::new(config),
            feed: Feed::new(store.clone()),
            wake,
            stopping: CancellationToken::new(),
            store,
            intake,
            eraser,
            outbound,
            blobs,
            verified: Verified::default(),
            clock,
            heartbeats: Heartbeats::default(),
            metrics: telemetry::start_metrics(),
            tasks: TaskTracker::new(),
        });
        Ok(Self { context, listeners, writer, key_file })
    }

    /// The file of the API's key, if the service created the key itself.
    pub fn key_file(&self) -> Option<&Path> {
        self.key_file.as_deref()
    }

    /// Creates a link that signs one browser in to the inspector, once, with the service's own key.
    /// The link is secret until it is used, and replaces an earlier one.
    pub fn sign_in_link(&self) -> std::io::Result<String> {
        let api = match &self.context.config.api.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => format!("http://{}", listen::reached_from_here(self.listeners.api()?)),
        };
        let path = self.context.sign_in_link.make(self.context.clock.now());
        Ok(format!("{api}{path}"))
    }

    /// Every route that the doors serve.
    pub fn patterns(&self) -> Patterns {
        http::patterns(&self.context)
    }

    /// The worker that looks jobs up at the Engine, to be stepped by hand.
    pub fn reconciler(&self) -> Reconciler {
        reconciler(&self.context)
    }

    /// The worker that passes results on, to be stepped by hand.
    pub fn relayer(&self) -> Relayer {
        relayer(&self.context)
    }

    /// The worker that copies outputs, to be stepped by hand; `None` where mirroring is off.
    pub fn mirrorer(&self) -> Option<Mirrorer> {
        mirrorer(&self.context)
    }

    /// Checks that files can be written, so that a wrong setting is reported at start. An
    /// unreachable bucket only logs a warning: callbacks are received anyway, and copies are
    /// retried for hours.
    ///
    /// # Errors
    /// Contains a [`BlobError`]: fix the settings, or the store that they name.
    pub async fn prove_files(&self) -> anyhow::Result<()> {
        let (Some(blobs), Some(url)) = (&self.context.blobs, &self.context.config.mirror.store)
        else {
            return Ok(());
        };
        let proven = timeout(FILES_PATIENCE, blobs.probe()).await.unwrap_or_else(|_| {
            Err(BlobError::Unavailable(format!("no answer within {FILES_PATIENCE:?}")))
        });
        match proven {
            Err(error @ BlobError::Unavailable(_)) if !blobs.is_folder() => {
                tracing::warn!(%error, "files cannot be copied for now");
                Ok(())
            }
            proven => proven.with_context(|| format!("mirror.store = \"{url}\" is unusable")),
        }
    }

    /// The worker that erases old jobs, to be stepped by hand.
    pub fn purger(&self) -> Purger {
        purger(&self.context)
    }

    /// Serves until `shutdown` completes, then finishes work in flight and closes the store.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { context, listeners, mut writer, .. } = self;
        let stopping = context.stopping.clone();
        let connections = Connections::new(&context.config.service, stopping.clone());
        let mut doors = JoinSet::new();
        for (listener, door) in listeners.doors(&context) {
            doors.spawn(serve(listener, door, connections.clone()));
        }
        let mut workers = JoinSet::new();
        let mirrorer = mirrorer(&context);
        let copies = mirrorer.as_ref().map(|mirrorer| mirrorer.attempts.clone());
        if let (Some(mirrorer), Some(blobs)) = (mirrorer, context.blobs.clone()) {
            let turning = turn(&context, mirrorer, Some(context.wake.commits()));
            let stopped = stopping.clone();
            workers.spawn(async move {
                // Before the first copy, because a copy in progress looks like a leftover. Large
                // folders take a while; nothing else waits for them.
                if stopped.run_until_cancelled(remove_leftovers(&blobs)).await.is_some() {
                    turning.await;
                }
            });
        }
        workers.spawn(turn(&context, reconciler(&context), None));
        let relayer = relayer(&context);
        let attempts = relayer.attempts.clone();
        workers.spawn(turn(&context, relayer, Some(context.wake.commits())));
        workers.spawn(turn(&context, purger(&context), None));
        workers.spawn(context.feed.clone().run(context.wake.clone(), stopping.clone()));
        workers.spawn(sum_figures_up(context.clone()));
        let (intake, stop_intake) = (context.intake.clone(), stopping.clone());
        workers.spawn(async move { intake.run(stop_intake).await });
        workers.spawn(context.readiness.clone().run(context.clone(), stopping.clone()));
        let (doctor, stop_doctor) = (context.doctor.clone(), stopping.clone());
        workers.spawn(async move {
            tokio::select! {
                // Checked first: a probe that fails because of the stop is no finding.
                biased;
                () = stop_doctor.cancelled() => {}
                () = doctor.run() => {}
            }
        });
        let dead = tokio::select! {
            () = shutdown => None,
            _ = &mut writer => Some("the database writer"),
            _ = workers.join_next() => Some("a worker"),
            _ = doors.join_next() => Some("a listener"),
        };

        stopping.cancel();
        while workers.join_next().await.is_some() {}
        while doors.join_next().await.is_some() {}
        let mut deadline = pin!(sleep(context.config.service.shutdown_grace));
        let mut is_in_time = finish(&connections.open, deadline.as_mut()).await;
        connections.cut();
        is_in_time &= finish(&context.tasks, deadline.as_mut()).await;
        is_in_time &= finish(&attempts, deadline.as_mut()).await;
        if let Some(copies) = &copies {
            is_in_time &= finish(copies, deadline.as_mut()).await;
        }
        if !is_in_time {
            tracing::warn!("something was still going on after service.shutdown_grace");
        }
        if let Some(dead) = dead {
            bail!("{dead} died; see the log");
        }
        context.intake.close(deadline.as_mut()).await;
        context.store.close().await;
        writer.await.context("the database writer died while closing")
    }
}

/// Aggregates metric samples until the service stops, so that they stay few.
async fn sum_figures_up(context: Context) {
    let pause = || context.clock.sleep(SUMMING_PAUSE);
    while context.stopping.run_until_cancelled(pause()).await.is_some() {
        context.metrics.run_upkeep();
    }
}

/// A worker's loop, until the service stops.
fn turn<W: Worker + 'static>(
    context: &Context,
    worker: W,
    commits: Option<watch::Receiver<u64>>,
) -> impl Future<Output = ()> + Send + 'static {
    let (clock, heartbeats) = (context.clock.clone(), context.heartbeats.clone());
    workers::turn(worker, clock, heartbeats, context.stopping.clone(), commits)
}

/// What the settings order for every result.
pub fn orders(config: &Config) -> ResultOrders {
    ResultOrders {
        relay_targets: config.relay.targets.iter().map(|one| one.name.clone()).collect(),
        is_mirroring: config.mirror.store.is_some(),
    }
}

/// The intake, with the spool that the settings name unless they turn it off.
pub async fn intake(
    config: &Config,
    clock: &Clock,
    store: Arc<dyn Store>,
) -> anyhow::Result<Intake> {
    let intake = Intake::new(store.clone(), clock.clone());
    if config.spool.size == 0 {
        return Ok(intake);
    }
    let path = state::spool_file(config)?;
    let spool = Spool::open(&path, config.spool.size, store.spool_mark().await?, clock.now())?;
    let id_pointers = config.engine.job_id_pointers.clone();
    Ok(intake.with_spool(spool, config.spool.wait, id_pointers))
}

fn reconciler(context: &Context) -> Reconciler {
    Reconciler {
        config: context.config.reconcile.clone(),
        id_pointers: context.config.engine.job_id_pointers.clone(),
        store: context.store.clone(),
        engine: context.engine.clone(),
        public_url: context.public_url.clone(),
        clock: context.clock.clone(),
    }
}

fn purger(context: &Context) -> Purger {
    Purger::new(context.config.retention.clone(), context.eraser.clone())
}

fn relayer(context: &Context) -> Relayer {
    Relayer::new(
        context.config.relay.clone(),
        context.store.clone(),
        context.outbound.clone(),
        context.clock.clone(),
    )
}

fn mirrorer(context: &Context) -> Option<Mirrorer> {
    let blobs = context.blobs.clone()?;
    let renewal = Renewal::new(
        context.store.clone(),
        context.engine.clone(),
        context.clock.clone(),
        context.config.engine.job_id_pointers.clone(),
    );
    Some(Mirrorer::new(
        context.config.mirror.clone(),
        Fetcher {
            outbound: context.outbound.clone(),
            blobs,
            clock: context.clock.clone(),
            pace: pace(&context.config),
        },
        renewal,
        context.stopping.clone(),
    ))
}

/// How slow the other side of a transfer may be.
fn pace(config: &Config) -> Pace {
    let least = config.service.least_rate;
    Pace::new(least.bytes_per_second, least.patience)
}

fn open_files(url: &str) -> anyhow::Result<Blobs> {
    Blobs::open(url).with_context(|| format!("mirror.store = \"{url}\" is unusable"))
}

/// Nothing reads leftovers, so a failure can wait for the next start.
async fn remove_leftovers(blobs: &Blobs) {
    match blobs.remove_leftovers().await {
        Ok(0) => {}
        Ok(files) => tracing::info!(files, "half-written files of the last run were removed"),
        Err(error) => tracing::warn!(%error, "half-written files could not be looked for"),
    }
}

/// Waits for tasks that have started; false if the deadline comes first.
async fn finish(tasks: &TaskTracker, deadline: Pin<&mut Sleep>) -> bool {
    tasks.close();
    tokio::select! {
        biased;
        () = tasks.wait() => true,
        () = deadline => false,
    }
}
