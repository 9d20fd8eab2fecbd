//! Links that leave as a redirect: judged by the guard that our own requests pass. Called by the
//! handlers through [`Outbound`]. Invariant: what was judged is what leaves, in the spelling that
//! the judge read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::{Host, Url};

use super::{Lookup, Outbound, Refused, Standing, address};

/// For looking up a name. The caller of a redirect waits for it.
const LOOKUP_TIME: Duration = Duration::from_secs(2);

/// Names looked up at a time: each takes a thread, which outlives [`LOOKUP_TIME`].
const LOOKUPS_AT_A_TIME: usize = 16;

impl Outbound {
    /// The URL of a foreign link that may be given to a caller to follow.
    ///
    /// The caller looks names up again, so this check of their addresses cannot hold off a name
    /// server that changes its answers. A name that cannot be looked up here passes: it may be
    /// known where the caller is.
    ///
    /// # Errors
    /// Why the link is refused.
    pub async fn may_leave(&self, link: &str) -> Result<Url, Refused> {
        let url = Url::parse(link).map_err(|_| Refused::Unreadable)?;
        let is_guarded =
            self.judge(&url)? == Standing::Foreign && !self.rules.permissions.allow_private;
        if let Some(Host::Domain(name)) = url.host().filter(|_| is_guarded) {
            self.rules.names.check(name).await?;
        }
        Ok(url)
    }
}

/// Looks names up for links that leave.
pub(super) struct Names {
    lookup: Arc<dyn Lookup>,
    places: Arc<Semaphore>,
}

impl Names {
    pub(super) fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup, places: Arc::new(Semaphore::new(LOOKUPS_AT_A_TIME)) }
    }

    /// Refuses a name with at least one address off the internet.
    async fn check(&self, name: &str) -> Result<(), Refused> {
        let found = timeout(LOOKUP_TIME, async {
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let (lookup, name) = (Arc::clone(&self.lookup), name.to_owned());
            // A task of its own: it keeps the place for as long as the thread is taken.
            let looking = tokio::spawn(async move {
                let _place = place;
                lookup.addresses(&name).await
            });
            looking.await.ok()?.ok()
        });
        let found = found.await.ok().flatten().unwrap_or_default();
        match found.into_iter().all(address::is_public) {
            true => Ok(()),
            false => Err(Refused::Resolved),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Names").finish_non_exhaustive()
    }
}
