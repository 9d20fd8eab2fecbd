//! Links that are given to a caller as a redirect: they pass the same guard as our own requests.
//! Called by the handlers through [`Outbound`].
//!
//! Invariant: a link leaves exactly as it was checked, in the parsed spelling.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::{Host, Url};

use super::{Outbound, Refused, Resolver, Standing, address};

/// The limit of a name look-up. The caller of a redirect waits for it.
const LOOKUP_TIME: Duration = Duration::from_secs(2);

/// Concurrent look-ups: each takes a thread, which outlives [`LOOKUP_TIME`].
const LOOKUPS_AT_A_TIME: usize = 16;

impl Outbound {
    /// The URL of a foreign link, if a caller may be redirected to it.
    ///
    /// The caller resolves the name again, so this check cannot stop a name server that changes its
    /// answers. A name that cannot be resolved here passes: the caller may be able to resolve it.
    ///
    /// # Errors
    /// The reason why the link is refused.
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

/// Resolves names for links that leave.
pub(super) struct Names {
    resolver: Arc<dyn Resolver>,
    places: Arc<Semaphore>,
}

impl Names {
    pub(super) fn new(resolver: Arc<dyn Resolver>) -> Self {
        Self { resolver, places: Arc::new(Semaphore::new(LOOKUPS_AT_A_TIME)) }
    }

    /// Refuses a name with at least one address that is not public.
    async fn check(&self, name: &str) -> Result<(), Refused> {
        let found = timeout(LOOKUP_TIME, async {
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let (resolver, name) = (Arc::clone(&self.resolver), name.to_owned());
            // A separate task, which keeps the permit for as long as the thread is in use.
            let looking = tokio::spawn(async move {
                let _place = place;
                resolver.addresses(&name).await
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
