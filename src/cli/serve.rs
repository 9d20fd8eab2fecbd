//! `finishline serve`: the service.
//!
//! Standard output gets one line, once the service accepts; logs go to standard error.

use super::{Failure, stop_signal};
use crate::{
    app::{App, Listeners},
    clock::Clock,
    config::{Config, PublicUrlSetting},
    telemetry,
};

pub(super) async fn run(config: Config) -> Result<(), Failure> {
    telemetry::start_logging(&config.log);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let listeners = Listeners::bind(&config).await?;
    let (callbacks, api) = (listeners.callbacks()?, listeners.api()?);
    let is_ngrok = config.callbacks.public_url == PublicUrlSetting::Ngrok;
    let app = App::build(config, listeners, Clock::system()).await?;
    if is_ngrok && let Err(unknown) = app.public_url().current().await {
        tracing::warn!("{unknown}; until then submissions are refused");
    }
    println!("finishline ready callbacks=http://{callbacks} api=http://{api}");
    app.run(stop_signal()).await?;
    Ok(())
}
