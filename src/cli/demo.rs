//! `finishline demo`: the service and an Engine simulator in one process, on a temporary database,
//! and one sample job on its way through both.
//!
//! It plays the company's software: everything it does goes through the service's own doors. The
//! invariant: it needs no network, no account and no settings, and leaves nothing behind.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, sync::oneshot};

use super::{
    Failure, sample,
    screen::{Form, Screen},
    stop_signal,
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

/// The simulator takes two seconds; much more means that something is wrong.
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
    let private = Permissions::from_mode(private_files::FOLDER_MODE);
    let folder =
        tempfile::Builder::new().prefix("finishline-demo-").permissions(private).tempdir()?;
    let options = Options { check_uploads: true, ..Options::default() };
    let simulator = Simulator::start(TcpListener::bind("127.0.0.1:0").await?, options).await?;
    let mut config = settings(&simulator, folder.path())?;
    let listeners = open_doors(&mut config).await?;
    let callbacks = format!("http://{}", listeners.callbacks()?);
    let api = format!("http://{}", listeners.api()?);
    let app = App::build(config, listeners, Clock::system()).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(app.run(async { _ = stopped.await }));

    let mut screen = Screen::new(Form::People);
    for line in [
        "Finishline demo. Service and Engine simulator run in this process; nothing leaves this machine.",
        "",
        &format!("  callbacks   {callbacks}   the door to the internet"),
        &format!("  api         {api}   the door to your software"),
        &format!("  engine      {}   simulated", simulator.base_url()),
        "",
    ] {
        screen.line_at_once(line)?;
    }
    let told = tokio::select! {
        told = tell(&api, &mut screen) => told,
        () = stop_signal() => Ok(()),
    };
    if told.is_ok() && !arguments.once {
        screen.line("")?;
        screen.line_at_once("The service keeps running: press Ctrl-C to end it.")?;
        stop_signal().await;
    }
    let _ = stop.send(());
    service.await.context("the service broke off")??;
    simulator.stop().await;
    told.map_err(Failure::from)
}

/// The defaults, with everything pointing at this process.
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
    ];
    let environment = settings.map(|(key, value)| (format!("FINISHLINE__{key}"), value));
    Ok(config::load(None, environment.into_iter())?)
}

/// The usual ports where they are free, so that the addresses look as in the documentation; the
/// public URL is the callbacks' own address.
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

/// One job from submission to result, told step by step.
async fn tell(api: &str, screen: &mut Screen) -> anyhow::Result<()> {
    let client = Client::new(api.parse()?, None)?;
    let clock = Stopwatch::start();
    let mut step = |text: String| {
        screen.line_at_once(&format!("{:>6.2} s  {text}", clock.elapsed().as_secs_f64()))
    };

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
    for event in client.events(&job.id).await?.events {
        step(format!("event {:>2}         {} {}", event.seq, event.kind, event.data.get()))?;
    }
    let digest: [u8; 32] = Sha256::digest(&result).into();
    step(format!(
        "the callback came: {} bytes, on disk before the Engine had its 200",
        result.len()
    ))?;
    screen.line("")?;
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
    screen.line("")?;
    screen.line("Look at it:")?;
    screen.line(&format!("  {api}/jobs/{}   in the inspector", job.id))?;
    for address in ["", "/result", "/deliveries"] {
        screen.line(&format!("  curl {api}/v1/jobs/{}{address}", job.id))?;
    }
    screen.line_at_once(&format!("  {api}/docs"))?;
    Ok(())
}

async fn finished(client: &Client, id: &str) -> anyhow::Result<api::Job> {
    let job = client.wait(id, PATIENCE).await?;
    if job.finished_at.is_none() {
        bail!("no callback came within {} s", PATIENCE.as_secs());
    }
    Ok(job)
}
