//! The service put together: built from settings, run on listeners, stopped by a future.
//!
//! Production and tests take the same door. The invariants: what was answered 2xx is on disk when
//! `run` returns, and a worker that dies ends the process with failure.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use axum::Router;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    config::{ApiListen, Config},
    engine::Engine,
    http::{self, Context, feed::Feed},
    outbound::{Outbound, Permissions},
    public_url::PublicUrl,
    pulse::Pulse,
    store::{Store, intake::Intake, spool::Spool, sqlite::SqliteStore},
    telemetry,
    wake::Wake,
    workers::{self, reconcile::Reconciler, relay::Relayer},
};

/// The service's open doors.
pub struct Listeners {
    callbacks: TcpListener,
    /// `None`: the API is served on the callbacks' listener.
    api: Option<TcpListener>,
}

impl Listeners {
    /// Opens what the settings name.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let callbacks = bind("callbacks.listen", config.callbacks.listen).await?;
        let api = match config.api.listen {
            ApiListen::Address(address) if !config.merged() => {
                Some(bind("api.listen", address).await?)
            }
            _ => None,
        };
        Ok(Self { callbacks, api })
    }

    /// Where callbacks are really listened for.
    pub fn callbacks(&self) -> std::io::Result<SocketAddr> {
        self.callbacks.local_addr()
    }

    /// Where the API is really listened for.
    pub fn api(&self) -> std::io::Result<SocketAddr> {
        self.api.as_ref().unwrap_or(&self.callbacks).local_addr()
    }
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("{key} = \"{address}\" cannot be listened on"))
}

/// A store that is open.
pub struct Opened {
    pub store: Arc<dyn Store>,
    /// Ends when the store is closed.
    pub writer: JoinHandle<()>,
    /// Told of every commit.
    pub wake: Wake,
}

/// The service, ready to run.
pub struct App {
    context: Context,
    listeners: Listeners,
    /// Ends when the store is closed.
    writer: JoinHandle<()>,
}

impl App {
    /// Opens the database and puts everything together.
    pub async fn build(config: Config, listeners: Listeners, clock: Clock) -> anyhow::Result<Self> {
        let wake = Wake::default();
        let path = &config.database.path;
        let relay_targets = config.relay.targets.iter().map(|one| one.name.clone()).collect();
        let (store, writer) =
            SqliteStore::open(path, clock.now(), wake.clone(), relay_targets).await?;
        let opened = Opened { store: Arc::new(store), writer, wake };
        Self::with_store(config, listeners, clock, opened)
    }

    /// The same on a store that is open already.
    pub fn with_store(
        config: Config,
        listeners: Listeners,
        clock: Clock,
        opened: Opened,
    ) -> anyhow::Result<Self> {
        let Opened { store, writer, wake } = opened;
        let permissions = Permissions {
            allow_private: config.outbound.allow_private,
            allow_http: config.outbound.allow_http,
        };
        let outbound = Outbound::new(permissions, std::slice::from_ref(&config.engine.base_url))?;
        let port = listeners.callbacks()?.port();
        let intake = Arc::new(intake(&config, &clock, store.clone())?);
        let context = Context {
            engine: Engine::new(
                config.engine.clone(),
                outbound.clone(),
                clock.clone(),
                config.callbacks.max_body,
            ),
            public_url: PublicUrl::new(&config.callbacks, port, outbound.clone()),
            config: Arc::new(config),
            feed: Feed::new(store.clone()),
            wake,
            stopping: CancellationToken::new(),
            store,
            intake,
            outbound,
            clock,
            pulse: Pulse::default(),
            metrics: telemetry::start_metrics(),
            tasks: TaskTracker::new(),
        };
        Ok(Self { context, listeners, writer })
    }

    /// The address that the Engine calls back on, or why there is none.
    pub fn public_url(&self) -> &PublicUrl {
        &self.context.public_url
    }

    /// The worker that looks jobs up at the Engine, to be stepped by hand.
    pub fn reconciler(&self) -> Reconciler {
        reconciler(&self.context)
    }

    /// The worker that passes results on, to be stepped by hand.
    pub fn relayer(&self) -> Relayer {
        relayer(&self.context)
    }

    /// Serves until `shutdown` is ready, then finishes what is in flight and closes the store.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { context, listeners, mut writer } = self;
        let stopping = context.stopping.clone();
        let connections = TaskTracker::new();
        let serve = |listener: TcpListener, router: Router| {
            let router = router.into_make_service_with_connect_info::<SocketAddr>();
            let stopping = stopping.clone();
            let served = async move {
                axum::serve(listener, router)
                    .with_graceful_shutdown(stopping.cancelled_owned())
                    .await
            };
            connections.spawn(served)
        };
        match listeners.api {
            Some(api) => {
                serve(listeners.callbacks, http::callbacks_door(context.clone()));
                serve(api, http::api_door(context.clone()));
            }
            None => _ = serve(listeners.callbacks, http::merged_door(context.clone())),
        }
        connections.close();
        let mut workers = JoinSet::new();
        let reconciler = reconciler(&context);
        let (clock, pulse) = (context.clock.clone(), context.pulse.clone());
        workers.spawn(workers::turn(reconciler, clock, pulse, stopping.clone(), None));
        let relayer = relayer(&context);
        let attempts = relayer.attempts.clone();
        let (clock, pulse) = (context.clock.clone(), context.pulse.clone());
        let commits = Some(context.wake.commits());
        workers.spawn(workers::turn(relayer, clock, pulse, stopping.clone(), commits));
        workers.spawn(context.feed.clone().run(context.wake.clone(), stopping.clone()));
        let (intake, stop_intake) = (context.intake.clone(), stopping.clone());
        workers.spawn(async move { intake.run(stop_intake).await });
        let dead = tokio::select! {
            () = shutdown => None,
            _ = &mut writer => Some("the database writer"),
            _ = workers.join_next() => Some("a worker"),
        };

        stopping.cancel();
        workers.join_all().await;
        let grace = context.config.service.shutdown_grace;
        finish(&connections, grace, "connections were still open").await;
        context.tasks.close();
        finish(&context.tasks, grace, "work was still going on").await;
        attempts.close();
        finish(&attempts, grace, "results were still being passed on").await;
        if let Some(dead) = dead {
            bail!("{dead} died; see the log");
        }
        context.intake.close(grace).await;
        context.store.close().await;
        writer.await.context("the database writer died while closing")
    }
}

/// The intake with the spool that the settings name, if they do not turn it off.
fn intake(config: &Config, clock: &Clock, store: Arc<dyn Store>) -> anyhow::Result<Intake> {
    let intake = Intake::new(store.clone(), clock.clone());
    if config.spool.size == 0 {
        return Ok(intake);
    }
    let path = config.spool.path.clone().unwrap_or_else(|| {
        let mut beside = config.database.path.clone().into_os_string();
        beside.push("-spool");
        beside.into()
    });
    let spool = Spool::open(&path, config.spool.size, store.spool_mark(), clock.now())?;
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

fn relayer(context: &Context) -> Relayer {
    Relayer::new(
        context.config.relay.clone(),
        context.store.clone(),
        context.outbound.clone(),
        context.clock.clone(),
    )
}

async fn finish(tasks: &TaskTracker, grace: Duration, what_else: &str) {
    if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
        tracing::warn!(grace = ?grace, "{what_else} after service.shutdown_grace");
    }
}
