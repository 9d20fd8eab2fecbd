//! Why a host of the operator's own cannot be reached, named exactly.
//!
//! Used for the Engine, its token endpoint and the public URL. The invariant: it is never asked
//! about a foreign URL, whose sender must not learn what listens in our network (see `describe`).

use std::{error::Error, io, time::Duration};

use super::{Outbound, Unresolved};

/// What happened instead of an answer. The sentences go on from a host's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The name is unknown to the DNS.
    #[error("its name leads to no address")]
    Name,
    /// The connection was refused, or there is no way there.
    #[error("nothing answers there")]
    Unreachable,
    /// No certificate, a wrong one, or no TLS at all; rustls's own words.
    #[error("TLS fails ({0})")]
    Tls(String),
    /// The connection ended before the answer did.
    #[error("the connection broke off")]
    Lost,
    /// Nothing came in the time that was given.
    #[error("there was no answer within {}", humantime::format_duration(*.0))]
    Slow(Duration),
    /// The request could not be put into HTTP.
    #[error("the request could not be made")]
    Unmade,
}

impl Trouble {
    /// What `error` says of a request that was given `limit`.
    pub fn of(error: &reqwest::Error, outbound: &Outbound, limit: Duration) -> Self {
        if let Some(reason) = tls_reason(error) {
            return Self::Tls(match outbound.has_certificates() {
                true => reason,
                false => "this machine has no CA certificates: install them, or set SSL_CERT_FILE"
                    .to_owned(),
            });
        }
        match (error.is_timeout(), error.is_connect()) {
            _ if is_caused_by::<Unresolved>(error) => Self::Name,
            (true, _) => Self::Slow(limit),
            (false, true) => Self::Unreachable,
            (false, false) if error.is_builder() => Self::Unmade,
            (false, false) => Self::Lost,
        }
    }
}

/// Whether an error of this type is among the causes.
pub(super) fn is_caused_by<T: Error + 'static>(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<T>() {
            return true;
        }
        cause = error.source();
    }
    false
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
