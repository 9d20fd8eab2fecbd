//! `finishline check`: a doctor for the settings and everything they name.
//!
//! It works with or without a running service. It posts no job, shows no token and changes no
//! schema; each failure is one line that says what to do.

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use url::Url;

use super::{
    Exit, Failure,
    healthcheck::api_address,
    report::{Mark, Report},
};
use crate::{
    app::ProbeDoor,
    clock::Clock,
    config::Config,
    doctor::{Doctor, Prober, reach},
    engine::Engine,
    outbound::{self, Outbound, Permissions},
    public_url::PublicUrl,
    store::sqlite::{
        inspect::{self, Checkup},
        schema_version,
    },
};

/// The service is on this machine; its answer may wait for a write.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);

const MAX_READY_BYTES: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    arguments: Arguments,
    config: Result<Config, Failure>,
) -> Result<(), Failure> {
    let mut report = Report::new(arguments.json);
    let config = match config {
        Ok(config) => config,
        Err(wrong) => {
            report.add(Mark::Failed, "settings", &wrong.line);
            let _ = report.finish(json!({}));
            return Err(Failure { exit: Exit::Usage, line: "the settings are wrong".into() });
        }
    };
    let warnings = config.warnings();
    if warnings.is_empty() {
        report.add(Mark::Ok, "settings", "nothing is wrong with them");
    }
    for warning in warnings {
        report.add(Mark::Warning, "settings", warning);
    }
    let outbound = Outbound::new(Permissions::default(), &[])?;
    let checkup = check_database(&mut report, &config, &outbound).await;
    check_token(&mut report, &config, &outbound).await;
    check_engine(&mut report, &config, &outbound).await;
    check_public_url(&mut report, &config, &outbound, checkup).await;
    report.finish(json!({}))
}

/// `None` if there is no database yet, or none that can be used.
async fn check_database(
    report: &mut Report,
    config: &Config,
    outbound: &Outbound,
) -> Option<Checkup> {
    const NAME: &str = "database";
    let path = &config.database.path;
    let shown = path.display();
    let checkup = match inspect::check_up(path, Clock::system().now()).await {
        Ok(Some(checkup)) => checkup,
        Ok(None) => {
            match prove_folder(path) {
                Ok(()) => report.add(
                    Mark::Ok,
                    NAME,
                    format!("{shown} does not exist yet: the first start makes it"),
                ),
                Err(error) => report.add(
                    Mark::Failed,
                    NAME,
                    format!("{shown} cannot be made, make its folder writable: {error}"),
                ),
            }
            return None;
        }
        Err(error) => {
            report.add(Mark::Failed, NAME, error.to_string());
            return None;
        }
    };
    let schema = match (checkup.schema, schema_version()) {
        (found, ours) if found == ours => format!("schema {found}"),
        (0, _) => "still empty".to_owned(),
        (found, ours) => format!("schema {found}, which the next start migrates to {ours}"),
    };
    if !checkup.is_in_use {
        let text = format!("{shown}: {schema}, takes writes; no service is running on it");
        report.add(Mark::Ok, NAME, text);
        return Some(checkup);
    }
    let (mark, writes) = ask_service(config, outbound).await;
    let text = format!("{shown}: {schema}, in use by a service, so only read here; {writes}");
    report.add(mark, NAME, text);
    Some(checkup)
}

/// Creates a file in the database's folder and removes it again.
fn prove_folder(path: &Path) -> std::io::Result<()> {
    let path = std::path::absolute(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    tempfile::tempfile_in(folder).map(drop)
}

/// Asks the running service whether it can write.
async fn ask_service(config: &Config, outbound: &Outbound) -> (Mark, String) {
    let address = api_address(config);
    let silent = || {
        let text = format!("it does not answer at {address}/readyz, so whether it writes is open");
        (Mark::Warning, text)
    };
    let Ok(url) = format!("http://{address}/readyz").parse::<Url>() else { return silent() };
    let request = outbound.configured().get(url).timeout(READY_TIMEOUT);
    let Ok(response) = request.send().await else { return silent() };
    let is_ready = response.status().is_success();
    let body = outbound::read_capped(response, MAX_READY_BYTES).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let database = &body["checks"]["database"];
    match (database["ok"].as_bool(), is_ready, body["status"].is_string()) {
        (Some(true), ..) | (None, true, true) => {
            (Mark::Ok, "its /readyz says that it takes writes".to_owned())
        }
        (Some(false), ..) => {
            let detail = database["detail"].as_str().unwrap_or("no reason given");
            (Mark::Failed, format!("its /readyz says that it takes no writes: {detail}"))
        }
        // With API keys set, it gives no reason; the checks below may.
        (None, false, true) => (Mark::Warning, "its /readyz says that it is not ready".to_owned()),
        (None, _, false) => silent(),
    }
}

async fn check_token(report: &mut Report, config: &Config, outbound: &Outbound) {
    const NAME: &str = "token";
    let Some(token_url) = &config.engine.auth.token_url else {
        return report.add(Mark::Ok, NAME, "none is sent, since engine.auth.token_url is empty");
    };
    let shown = outbound::redact(token_url.as_str());
    let engine = Engine::new(
        config.engine.clone(),
        outbound.clone(),
        Clock::system(),
        config.callbacks.max_body,
    );
    match engine.prove_token().await {
        Ok(life) => {
            let life = humantime::format_duration(Duration::from_secs(life.as_secs()));
            report.add(Mark::Ok, NAME, format!("{shown} gave one, good for {life}"));
        }
        Err(fault) => {
            let advice = fault.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
            report.add(Mark::Failed, NAME, format!("{shown} gave none: {fault}{advice}"));
        }
    }
}

async fn check_engine(report: &mut Report, config: &Config, outbound: &Outbound) {
    const NAME: &str = "engine";
    let url = &config.engine.base_url;
    match reach(outbound, url, ENGINE_TIMEOUT).await {
        // Any status will do for a plain GET: nothing is served at the base URL itself.
        Ok(status) if !status.is_redirection() => {
            let text = format!("{url} answers (status {}); no job was sent", status.as_u16());
            report.add(Mark::Ok, NAME, text);
        }
        Ok(status) => report.add(
            Mark::Failed,
            NAME,
            format!(
                "{url} answers with a redirect ({}), which is never followed: set engine.base_url \
                 to where it leads",
                status.as_u16()
            ),
        ),
        Err(trouble) => report.add(
            Mark::Failed,
            NAME,
            format!("{url}: {trouble}; look at engine.base_url, and at the network's way out"),
        ),
    }
}

async fn check_public_url(
    report: &mut Report,
    config: &Config,
    outbound: &Outbound,
    checkup: Option<Checkup>,
) {
    const NAME: &str = "public URL";
    let is_running = checkup.as_ref().is_some_and(|checkup| checkup.is_in_use);
    // Before the first start there is no key yet; any key will do for this check.
    let signing_key = checkup.and_then(|checkup| checkup.signing_key).unwrap_or_else(rand::random);
    let door = match is_running {
        true => None,
        false => match ProbeDoor::open(config, signing_key).await {
            Ok(door) => Some(door),
            Err(error) => {
                let text = format!("{error:#}: end what listens there, or change callbacks.listen");
                return report.add(Mark::Failed, NAME, text);
            }
        },
    };
    let listen = door.as_ref().map_or(config.callbacks.listen, ProbeDoor::address);
    let max_body = config.callbacks.max_body;
    let prober = Prober { outbound: outbound.clone(), signing_key, max_body };
    let (port, proof) = (listen.port(), Arc::new(prober.clone()));
    let public_url = PublicUrl::proved_by(&config.callbacks, port, outbound.clone(), proof);
    let finding = Doctor::new(prober, public_url, Clock::system()).examine_in_full().await;
    let to = if is_running { "the running service" } else { "callbacks.listen" };
    let url = finding.url.as_deref().map(outbound::redact);
    let url = url.map(|url| url.trim_end_matches('/').to_owned());
    match (url, finding.fault) {
        (Some(url), None) => {
            let bytes = shown_size(finding.bytes);
            report.add(Mark::Ok, NAME, format!("{url} leads to {to}, bodies up to {bytes}"));
        }
        (Some(url), Some(fault)) => report.add(Mark::Failed, NAME, format!("{url}: {fault}")),
        (None, fault) => {
            let fault = fault.map(|fault| fault.to_string()).unwrap_or_default();
            report.add(Mark::Failed, NAME, fault);
        }
    }
}

/// A size as the settings write it, in whole MiB or KiB where possible.
fn shown_size(bytes: usize) -> String {
    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    match bytes {
        _ if bytes >= MIB && bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        _ if bytes >= KIB && bytes.is_multiple_of(KIB) => format!("{} KiB", bytes / KIB),
        _ => format!("{bytes} bytes"),
    }
}
