//! The service put together: built from settings, run on listeners, stopped by a future.
//!
//! Production and tests take the same door. The invariants: what was answered 2xx is on disk when
//! `run` returns, and a worker that dies ends the process with failure.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use axum::Router;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    config::{ApiListen, Config},
    engine::Engine,
    http::{self, Context},
    outbound::{Outbound, Permissions},
    public_url::PublicUrl,
    store::{Store, intake::Intake, spool::Spool, sqlite::SqliteStore},
    telemetry,
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
        let (store, writer) = SqliteStore::open(&config.database.path, clock.now()).await?;
        Self::with_store(config, listeners, clock, Arc::new(store), writer)
    }

    /// The same on a store that is open already; `writer` ends when it is closed.
    pub fn with_store(
        config: Config,
        listeners: Listeners,
        clock: Clock,
        store: Arc<dyn Store>,
        writer: JoinHandle<()>,
    ) -> anyhow::Result<Self> {
        let permissions = Permissions {
            allow_private: config.outbound.allow_private,
            allow_http: config.outbound.allow_http,
        };
        let outbound = Outbound::new(permissions, std::slice::from_ref(&config.engine.base_url))?;
        let port = listeners.callbacks()?.port();
        let intake = Arc::new(intake(&config, &clock, store.clone())?);
        let context = Context {
            engine: Engine::new(config.engine.clone(), outbound.clone(), clock.clone()),
            public_url: PublicUrl::new(&config.callbacks, port, outbound.clone()),
            config: Arc::new(config),
            store,
            intake,
            outbound,
            clock,
            metrics: telemetry::start_metrics(),
            tasks: TaskTracker::new(),
        };
        Ok(Self { context, listeners, writer })
    }

    /// The address that the Engine calls back on, or why there is none.
    pub fn public_url(&self) -> &PublicUrl {
        &self.context.public_url
    }

    /// Serves until `shutdown` is ready, then finishes what is in flight and closes the store.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { context, listeners, mut writer } = self;
        let stopping = CancellationToken::new();
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
        let (intake, stop_intake) = (context.intake.clone(), stopping.child_token());
        let intake_loop = tokio::spawn(async move { intake.run(stop_intake).await });
        let is_writer_dead = tokio::select! {
            () = shutdown => false,
            _ = &mut writer => true,
        };

        stopping.cancel();
        let grace = context.config.service.shutdown_grace;
        finish(&connections, grace, "connections were still open").await;
        context.tasks.close();
        finish(&context.tasks, grace, "work was still going on").await;
        if is_writer_dead {
            bail!("the database writer died; see the log");
        }
        intake_loop.await.context("the intake's loop died")?;
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

async fn finish(tasks: &TaskTracker, grace: Duration, what_else: &str) {
    if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
        tracing::warn!(grace = ?grace, "{what_else} after service.shutdown_grace");
    }
}
