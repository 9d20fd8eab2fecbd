//! `finishline demo`: the service and an Engine simulator in one process, on a temporary database,
//! with one sample job sent through both.
//!
//! It acts as the company's software and uses only the service's HTTP API. It needs no network, no
//! account and no settings, and leaves nothing behind.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use super::{
    Exit, Failure, sample,
    screen::{Form, Screen},
    signals::Signals,
};
use crate::{
    api,
    app::{App, Listeners},
    client::Client,
    clock::{Clock, Stopwatch},
    config::{self, Config, LogConfig, LogFormat},
    domain::digest::hex,
    private_files,
    simulator::{Options, Simulator},
    telemetry,
};

/// The simulator takes two seconds; a much longer wait means that something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Exit after the result
    #[arg(long)]
    once: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let level = "warn".parse().expect("a level");
    telemetry::start_logging(&LogConfig { format: LogFormat::Text, level });
    // Listen before anything is created: from here on a signal ends the demo with a cleanup.
    let mut signals = Signals::all().context("signals cannot be received")?;
    let folder = temporary_folder()?;
    let mut demo = Demo::start(folder.path()).await?;
    let mut screen = Screen::new(Form::People);
    let told = tokio::select! {
        biased;
        _ = signals.next() => Err(Failure::silent(Exit::Interrupted)),
        told = demo.tell(&arguments, &mut screen) => told.map_err(Failure::from),
    };
    if told.is_ok() && !arguments.once {
        signals.next().await;
    }
    let stopped = demo.stop().await;
    told?;
    Ok(stopped?)
}

/// A folder that disappears with everything in it.
fn temporary_folder() -> Result<TempDir, Failure> {
    if std::env::temp_dir().to_str().is_none() {
        return Err(Failure::usage(anyhow!("TMPDIR is not UTF-8: name another folder")));
    }
    let private = Permissions::from_mode(private_files::FOLDER_MODE);
    let made = tempfile::Builder::new().prefix("finishline-demo-").permissions(private).tempdir();
    made.map_err(|error| {
        let place = std::env::temp_dir();
        let line = format!(
            "the demo's database has no place: {} cannot be written ({}); name another folder with \
             TMPDIR",
            place.display(),
            error.kind()
        );
        Failure { exit: Exit::Failed, line }
    })
}

/// The running service and Engine simulator.
struct Demo {
    simulator: Simulator,
    callbacks: String,
    api: String,
    stop: oneshot::Sender<()>,
    service: JoinHandle<anyhow::Result<()>>,
}

impl Demo {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let options = Options { check_uploads: true, ..Options::default() };
        let simulator = Simulator::start(TcpListener::bind("127.0.0.1:0").await?, options).await?;
        let mut config = settings(&simulator, folder)?;
        let listeners = open_doors(&mut config).await?;
        let callbacks = format!("http://{}", listeners.callbacks()?);
        let api = format!("http://{}", listeners.api()?);
        let app = App::build(config, listeners, Clock::system()).await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let service = tokio::spawn(app.run(async { _ = stopped.await }));
        Ok(Self { simulator, callbacks, api, stop, service })
    }

    /// Stops both; nothing writes into the folder afterwards.
    async fn stop(self) -> anyhow::Result<()> {
        let _ = self.stop.send(());
        let ended = self.service.await.context("the service broke off");
        self.simulator.stop().await;
        ended?
    }

    /// Prints an introduction, the job's steps, and how to inspect it while the demo runs.
    async fn tell(&mut self, arguments: &Arguments, screen: &mut Screen) -> anyhow::Result<()> {
        screen.line_at_once(
            "Finishline demo. Service and Engine simulator run in this process; nothing leaves this machine.",
        )?;
        screen.line("")?;
        // With --once the addresses are gone when the command ends, so they are not shown.
        if !arguments.once {
            let engine = self.simulator.base_url();
            screen.line(&format!("  callbacks   {}   the door to the internet", self.callbacks))?;
            screen.line(&format!("  api         {}   the door to your software", self.api))?;
            screen.line(&format!("  engine      {engine}   simulated"))?;
            screen.line("")?;
        }
        let job = tell_job(&self.api, screen).await?;
        screen.line("")?;
        if arguments.once {
            screen.line_at_once(
                "That was all: without --once the service keeps running, to be looked at.",
            )?;
            return Ok(());
        }
        let api = &self.api;
        screen.line("Look at it:")?;
        screen.line(&format!("  {api}/jobs/{}   in the inspector", job.id))?;
        for address in ["", "/result", "/deliveries"] {
            screen.line(&format!("  curl {api}/v1/jobs/{}{address}", job.id))?;
        }
        screen.line(&format!("  {api}/docs"))?;
        screen.line("")?;
        screen.line_at_once("The service keeps running: press Ctrl-C to end it.")?;
        Ok(())
    }
}

/// The default settings, with every address in this process.
fn settings(simulator: &Simulator, folder: &Path) -> anyhow::Result<Config> {
    let settings = [
        ("CALLBACKS__LISTEN", "127.0.0.1:0".to_owned()),
        ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1".to_owned()),
        ("API__LISTEN", "127.0.0.1:0".to_owned()),
        ("API__OPEN_ON_LOOPBACK", "true".to_owned()),
        ("ENGINE__BASE_URL", simulator.base_url()),
        ("ENGINE__AUTH__TOKEN_URL", simulator.token_url()),
        ("ENGINE__AUTH__CLIENT_ID", "demo".to_owned()),
        ("ENGINE__AUTH__CLIENT_SECRET", "demo-secret".to_owned()),
        ("DATABASE__URL", format!("sqlite://{}", folder.join("demo.db").display())),
        ("MIRROR__STORE", format!("file://{}", folder.join("files").display())),
        // Stopping a demo should not wait for work in progress.
        ("SERVICE__SHUTDOWN_GRACE", "1s".to_owned()),
    ];
    let environment = settings.map(|(key, value)| (format!("FINISHLINE__{key}"), value));
    Ok(config::load(None, environment.into_iter())?)
}

/// Uses the usual ports if they are free, so that the addresses match the documentation; the public
/// URL is the callback listener's own address.
async fn open_doors(config: &mut Config) -> anyhow::Result<Listeners> {
    let any_port = config.clone();
    config.callbacks.listen = ([127, 0, 0, 1], 8085).into();
    config.api.listen = config::ApiListen::Address(([127, 0, 0, 1], 8086).into());
    let listeners = match Listeners::bind(config).await {
        Ok(listeners) => listeners,
        Err(_) => {
            *config = any_port;
            Listeners::bind(config).await?
        }
    };
    let public_url = format!("http://{}", listeners.callbacks()?).parse()?;
    config.callbacks.public_url = config::PublicUrlSetting::Fixed(public_url);
    Ok(listeners)
}

/// Runs one job from submission to result and prints each step.
async fn tell_job(api: &str, screen: &mut Screen) -> anyhow::Result<api::Job> {
    let client = Client::new(api.parse()?, None)?;
    let (clock, begun) = (Stopwatch::start(), Clock::system().now());
    let mut step = |text: String| screen.line_at_once(&line(clock.elapsed().as_secs_f64(), &text));

    let body = json!({
        "inputFiles": { "cbct": { "extension": ".nrrd" } },
        "outputFiles": { "meshes": [
            { "extension": ".stl", "structures": ["mandible"] },
            { "extension": ".stl", "structures": ["left_nerve", "right_nerve"] },
        ] },
        "finishline": { "reference": "demo" },
    });
    step("POST /v1/jobs    a CBCT in, two meshes out".into())?;
    let job = client.submit(serde_json::to_vec(&body)?, None).await?;
    step(format!(
        "201 Created      job {} is on record and at the Engine, status {}",
        job.id(),
        job.status()
    ))?;

    let scan = sample::volume();
    let input = job.inputs().first().context("the job has no input")?;
    let upload = format!("{api}/v1/jobs/{}/inputs/{}", job.id(), input.name);
    let size = scan.len();
    let http = reqwest::Client::builder().no_proxy().build()?;
    http.put(upload).body(scan).send().await?.error_for_status()?;
    step(format!(
        "PUT …/inputs/{}  a generated scan, {size} bytes of NRRD, goes on to the Engine's storage",
        input.name
    ))?;

    let job = finished(&client, job.id()).await?;
    let result = client.result(&job.id).await?.context("the job has no result")?;
    step(format!(
        "the callback came: {} bytes, on disk before the Engine had its 200",
        result.len()
    ))?;
    screen.line("")?;
    screen.line("Its events, each at its time:")?;
    for event in client.events(&job.id).await?.events {
        let (seconds, time) = (event.at.duration_since(begun).as_secs_f64(), event.at);
        let time = time.strftime("%H:%M:%S%.3f UTC");
        let data = event.data.get();
        screen.line(&line(seconds, &format!("{:>3}  {time}  {} {data}", event.seq, event.kind)))?;
    }
    screen.line("")?;
    let digest: [u8; 32] = Sha256::digest(&result).into();
    let digest = hex(&digest);
    screen.line(&format!("The result, as the Engine sent it (sha256 {digest}):"))?;
    screen.line("")?;
    screen.json_text(&result)?;
    screen.line("")?;
    for output in &job.outputs {
        let status = output.status.as_deref().unwrap_or("unknown");
        let structures = output.structures.join(", ");
        screen.line(&format!("  {:<10} {structures:<24} {status}", output.name))?;
    }
    Ok(job)
}

/// A line with the seconds since the start.
fn line(seconds: f64, text: &str) -> String {
    format!("{seconds:>6.2} s  {text}")
}

async fn finished(client: &Client, id: &str) -> anyhow::Result<api::Job> {
    let job = client.wait(id, PATIENCE).await?;
    if job.finished_at.is_none() {
        bail!("no callback came within {} s", PATIENCE.as_secs());
    }
    Ok(job)
}
