//! `finishline simulate-engine`: the Engine simulator alone.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::{
    Failure,
    screen::{Form, Screen},
    stop_signal,
};
use crate::{
    config::{LogConfig, LogFormat},
    simulator::{Options, Simulator},
    telemetry,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    #[command(flatten)]
    options: Options,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    telemetry::start_logging(&LogConfig {
        format: LogFormat::Text,
        level: "info".parse().expect("a level"),
    });
    let listener = TcpListener::bind(arguments.listen).await.with_context(|| {
        format!(
            "{} cannot be listened on: name another address with --listen, or 127.0.0.1:0 for any \
             free port",
            arguments.listen
        )
    })?;
    let simulator = Simulator::start(listener, arguments.options).await?;
    let (base, token) = (simulator.base_url(), simulator.token_url());
    let line = format!("engine simulator ready base={base} token={token}");
    let _ = Screen::new(Form::People).line_at_once(&line);
    stop_signal().await;
    simulator.stop().await;
    Ok(())
}
