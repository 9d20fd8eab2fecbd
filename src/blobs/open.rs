//! Opens a store by the address in the settings.
//!
//! Called by [`Blobs::open`]. Writes to a folder sync the file and its name before they return.

use std::{path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    memory::InMemory,
    path::Path,
};
use url::Url;

use super::{BlobError, Blobs};

/// The part size of a folder: large enough to keep the number of calls low.
const FOLDER_PART_BYTES: usize = 1024 * 1024;

/// The part size of a bucket. S3 wants at least 5 MiB a part and accepts 10,000 parts, so a file
/// can have 80 GB.
const BUCKET_PART_BYTES: usize = 8 * 1024 * 1024;

/// The retries of one request to a bucket. The callers retry on their own, over hours.
const MAX_RETRIES: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait for an answer from a bucket, or for its next piece. Sending a part counts.
const READ_TIMEOUT: &str = "60s";

/// The limit for a whole request: a slow client takes long to read a large file.
const TOTAL_TIMEOUT: &str = "12h";

/// The folder named by a `file:` address; `None` for any other address.
pub(super) fn folder(url: &str) -> Option<Result<PathBuf, BlobError>> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "file")?;
    let path = url.to_file_path();
    Some(path.map_err(|()| BlobError::Setting("the address names no folder".into())))
}

pub(super) fn open(url: &str) -> Result<Blobs, BlobError> {
    if let Some(folder) = folder(url) {
        let store = LocalFileSystem::new_with_prefix(folder.clone()?).map_err(BlobError::from)?;
        let store = Arc::new(store.with_fsync(true).with_automatic_cleanup(true));
        let folder = Some(Arc::new(folder?));
        return Ok(Blobs { store, prefix: Path::default(), folder, part_bytes: FOLDER_PART_BYTES });
    }
    let unreadable = || BlobError::Setting("the address is not one of a file store".into());
    let url = Url::parse(url).map_err(|_| unreadable())?;
    let prefix = Path::from_url_path(url.path()).map_err(|_| unreadable())?;
    let store = bucket(&url).ok_or_else(unreadable)?.map_err(|error| {
        BlobError::Setting(match BlobError::from(error) {
            BlobError::Unavailable(_) => {
                "the environment variables of the file store are incomplete or unreadable".into()
            }
            error => error.to_string(),
        })
    })?;
    Ok(Blobs { store, prefix, folder: None, part_bytes: BUCKET_PART_BYTES })
}

/// `None` if the scheme is not supported.
fn bucket(url: &Url) -> Option<object_store::Result<Arc<dyn ObjectStore>>> {
    install_tls_provider();
    let bucket = url.host_str().unwrap_or_default();
    let retry = RetryConfig {
        max_retries: MAX_RETRIES,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    let limits =
        [(ClientConfigKey::Timeout, TOTAL_TIMEOUT), (ClientConfigKey::ReadTimeout, READ_TIMEOUT)];
    Some(match url.scheme() {
        "memory" => Ok(Arc::new(InMemory::new())),
        "s3" => {
            let mut builder =
                AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
            for (key, value) in limits {
                builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
            }
            builder.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
        }
        "az" => {
            let mut builder =
                MicrosoftAzureBuilder::from_env().with_container_name(bucket).with_retry(retry);
            for (key, value) in limits {
                builder = builder.with_config(AzureConfigKey::Client(key), value);
            }
            builder.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
        }
        "gs" => {
            let mut builder =
                GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry);
            for (key, value) in limits {
                builder = builder.with_config(GoogleConfigKey::Client(key), value);
            }
            builder.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
        }
        _ => return None,
    })
}

/// The store's HTTP client is compiled without a TLS provider and panics if the process has none.
fn install_tls_provider() {
    // An error means that one is already installed, which is enough.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
