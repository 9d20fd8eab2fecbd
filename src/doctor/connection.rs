//! Checks whether a configured host can be reached.
//!
//! Used for the public URL, and by `check` for the Engine. It must never be called with a foreign
//! URL, whose sender must not learn what listens in our network (see `outbound::describe`).

use std::time::Duration;

use reqwest::StatusCode;
use url::{Host, Url};

use crate::outbound::Outbound;
pub use crate::outbound::Trouble;

/// The status that a configured address answers to a plain `GET` within `limit`.
///
/// # Errors
/// The reason why there is no answer.
pub async fn reach(outbound: &Outbound, url: &Url, limit: Duration) -> Result<StatusCode, Trouble> {
    let request = outbound.configured().get(url.clone());
    let answer = async {
        resolve(url).await?;
        request.send().await.map_err(|error| Trouble::of(&error, outbound, limit))
    };
    let answered = tokio::time::timeout(limit, answer).await.unwrap_or(Err(Trouble::Slow(limit)));
    Ok(answered?.status())
}

/// Looks the name up, to distinguish an unknown name from a host that does not answer.
pub(super) async fn resolve(url: &Url) -> Result<(), Trouble> {
    let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
    let found = tokio::net::lookup_host((name, 0)).await;
    let is_known = found.is_ok_and(|mut addresses| addresses.next().is_some());
    if is_known { Ok(()) } else { Err(Trouble::Name) }
}
