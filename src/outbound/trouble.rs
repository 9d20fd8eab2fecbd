//! The exact reason why a configured host cannot be reached.
//!
//! Used for the Engine, its token endpoint and the public URL. It must never be used for a foreign
//! URL, whose sender must not learn what listens in our network (see `describe`).

use std::{error::Error, io, time::Duration};

use super::{Outbound, Unresolved};

/// The reason why there is no answer. The sentences follow a host's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The name is unknown to the DNS.
    #[error("its name leads to no address")]
    Name,
    /// The connection was refused, or there is no route.
    #[error("nothing answers there")]
    Unreachable,
    /// No certificate, a wrong one, or no TLS at all; in rustls's words.
    #[error("TLS fails ({0})")]
    Tls(String),
    /// The connection ended before the answer was complete.
    #[error("the connection broke off")]
    Lost,
    /// Nothing arrived within the time limit.
    #[error("there was no answer within {}", humantime::format_duration(*.0))]
    Slow(Duration),
    /// The request could not be built.
    #[error("the request could not be made")]
    Unmade,
}

impl Trouble {
    /// Classifies the error of a request with the time limit `limit`.
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

/// rustls's own message, found inside the errors that wrap it.
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

/// The error inside an `io::Error` is not among its sources and may be a rustls error.
fn unwrapped<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(wrapper) => unwrapped(wrapper.get_ref()?),
        None => error.downcast_ref(),
    }
}
