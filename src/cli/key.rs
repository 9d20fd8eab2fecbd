//! `finishline key`: API keys for the settings.
//!
//! A new key is printed once and stored nowhere; the settings hold only its digest.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Subcommand;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Failure, Screen, say};
use crate::domain::digest::hex;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print a new key, and the line for the settings that lets it in
    New(New),
}

#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// What logs and pages call it
    #[arg(long, default_value = "backend", value_parser = name)]
    name: String,
}

fn name(text: &str) -> Result<String, &'static str> {
    match text.trim().is_empty() || text.chars().any(char::is_control) {
        true => Err("expected a name of one line"),
        false => Ok(text.to_owned()),
    }
}

pub(super) fn run(mut screen: Screen, command: Command) -> Result<(), Failure> {
    let Command::New(New { name }) = command;
    let key = new_key();
    let digest: [u8; 32] = Sha256::digest(&key).into();
    let digest = hex(&digest);
    let setting = format!("keys = [{{ name = {}, key_sha256 = \"{digest}\" }}]", json!(name));
    let variable = json!([{ "name": name, "key_sha256": digest }]).to_string();
    let variable = format!("FINISHLINE__API__KEYS='{}'", variable.replace('\'', r"'\''"));
    if screen.is_json() {
        screen.json(&json!({
            "name": name, "key": key, "keySha256": digest, "setting": setting, "variable": variable,
        }))?;
        return Ok(screen.flush()?);
    }
    screen.line(&key)?;
    screen.line(&setting)?;
    screen.line(&variable)?;
    screen.flush()?;
    say(
        "The first line is the key, for its holder: Authorization: Bearer KEY. It is shown this once.",
    );
    say(
        "The second belongs under [api] in the settings; the third is the same for the environment.",
    );
    Ok(())
}

/// 256 random bits as one word for a header.
fn new_key() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}
