//! What the service creates besides the database: its folder, and the key of an API without
//! `api.keys`.
//!
//! Invariant: an API that is not open on purpose is never served without a key.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::{
    config::{ApiKeyConfig, Config},
    key_file, private_files,
};

/// Creates the folder and, if the settings name no key, the service's own; returns the key's file.
pub(super) fn make_key(config: &mut Config) -> anyhow::Result<Option<PathBuf>> {
    make_folder(config)?;
    private_files::warn_of_writers(config.state_dir());
    if !config.api.needs_key_file() {
        return Ok(None);
    }
    let file = config.key_file();
    let key = key_file::read_or_make(&file)?;
    config.api.keys.push(ApiKeyConfig::of_key_file(key.expose()));
    Ok(Some(file))
}

/// Creates the folder that the settings name. An existing folder keeps its mode: it may be a home
/// directory.
fn make_folder(config: &Config) -> anyhow::Result<()> {
    let Some(folder) = &config.service.state_dir else { return Ok(()) };
    private_files::create_folder(folder)
        .with_context(|| format!("service.state_dir = {folder:?} cannot be made"))
}

/// The spool's path; creates its folder.
pub(super) fn spool_file(config: &Config) -> anyhow::Result<PathBuf> {
    make_folder(config)?;
    let spool = config.spool_file();
    let mut beside = config.database.path.clone().into_os_string();
    beside.push("-spool");
    let beside = PathBuf::from(beside);
    if config.service.state_dir.is_some() && beside.exists() && !spool.exists() {
        tracing::warn!(
            earlier = %beside.display(),
            spool = %spool.display(),
            "a spool stands beside the database, but another one is begun: move it there, or name \
             it in spool.path, so that callbacks in it are taken in"
        );
    }
    Ok(spool)
}
