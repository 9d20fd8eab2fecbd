//! Why a host of the operator's own cannot be reached, named exactly.
//!
//! Used for the public URL, and by `check` for the Engine. The invariant: it is never asked about a
//! foreign URL, whose sender must not learn what listens in our network (see `outbound::describe`).

use std::{error::Error, io, time::Duration};

use reqwest::StatusCode;
use url::{Host, Url};

use crate::outbound::Outbound;

/// What happened instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("its name leads to no address")]
    Name,
    #[error("nothing answers there")]
    Unreachable,
    #[error("TLS fails ({0})")]
    Tls(String),
    #[error("the connection broke off")]
    Lost,
    #[error("there was no answer within {} s", .0.as_secs())]
    Slow(Duration),
}

/// The status that a configured address answers to a plain `GET`, within `limit`.
///
/// # Errors
/// Why there is none.
pub async fn reach(outbound: &Outbound, url: &Url, limit: Duration) -> Result<StatusCode, Trouble> {
    let request = outbound.configured().get(url.clone());
    let answer = async {
        resolve(url).await?;
        request.send().await.map_err(|error| Trouble::of(&error, outbound, limit))
    };
    let answered = tokio::time::timeout(limit, answer).await.unwrap_or(Err(Trouble::Slow(limit)));
    Ok(answered?.status())
}

/// Looks the name up, so that an unknown one is told from a host that does not answer.
pub(super) async fn resolve(url: &Url) -> Result<(), Trouble> {
    let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
    let found = tokio::net::lookup_host((name, 0)).await;
    let is_known = found.is_ok_and(|mut addresses| addresses.next().is_some());
    if is_known { Ok(()) } else { Err(Trouble::Name) }
}

impl Trouble {
    pub(super) fn of(error: &reqwest::Error, outbound: &Outbound, limit: Duration) -> Self {
        if let Some(reason) = tls_reason(error) {
            return Self::Tls(match outbound.has_certificates() {
                true => reason,
                false => "this machine has no CA certificates: install them, or set SSL_CERT_FILE"
                    .to_owned(),
            });
        }
        match (error.is_timeout(), error.is_connect()) {
            (true, _) => Self::Slow(limit),
            (false, true) => Self::Unreachable,
            (false, false) => Self::Lost,
        }
    }
}

/// rustls's own words, from within the layers that pass its errors on.
fn tls_reason(error: &reqwest::Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(tls) = unwrapped(error) {
            return Some(tls.to_string());
        }
        cause = error.source();
    }
    None
}

/// What an `io::Error` wraps is not among its causes, and may be one itself.
fn unwrapped<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(wrapper) => unwrapped(wrapper.get_ref()?),
        None => error.downcast_ref(),
    }
}
