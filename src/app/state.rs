//! What the service makes for itself beside the database: its folder, and the key that an API
//! without `api.keys` lets its callers in by.
//!
//! The invariant: an API that is not open on purpose is never served without a key.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::{
    config::{ApiKeyConfig, Config},
    key_file, private_files,
};

/// Makes the service's own key where the settings name none; answers its file.
pub(super) fn make_key(config: &mut Config) -> anyhow::Result<Option<PathBuf>> {
    if !config.api.needs_key_file() {
        return Ok(None);
    }
    make_folder(config)?;
    let file = config.key_file();
    let key = key_file::read_or_make(&file)?;
    config.api.keys.push(ApiKeyConfig::of_key_file(key.expose()));
    Ok(Some(file))
}

/// Makes the folder that the settings name. One that is there keeps its mode: it may be a home.
pub(super) fn make_folder(config: &Config) -> anyhow::Result<()> {
    let Some(folder) = &config.service.state_dir else { return Ok(()) };
    private_files::create_folder(folder)
        .with_context(|| format!("service.state_dir = {folder:?} cannot be made"))?;
    let mut earlier = config.database.path.clone().into_os_string();
    earlier.push("-spool");
    let earlier = PathBuf::from(earlier);
    let spool = config.spool_file();
    if earlier != spool && !spool.exists() && earlier.exists() {
        tracing::warn!(
            earlier = %earlier.display(),
            spool = %spool.display(),
            "the spool begins anew in service.state_dir; callbacks in the earlier one stay there: \
             name it in spool.path, or move it, to take them in"
        );
    }
    Ok(())
}
