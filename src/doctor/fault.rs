//! What can be wrong with the public URL.
//!
//! Found by `probe`; shown by `/readyz`, the log and `check`. Invariant: each fault is one sentence
//! that says what was found and what to do, without any part of a signed address.

use super::Trouble;

/// A fault of the public URL. The sentences continue "the public URL …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not known; the sentence comes from `public_url::Unknown`.
    #[error("{0}")]
    Unknown(String),
    /// No answer to a body of this many bytes.
    #[error("{trouble}: {}", advice(.trouble, *.bytes))]
    NoAnswer { trouble: Trouble, bytes: usize },
    /// A redirect is never followed: a sender that follows one may drop the body.
    #[error(
        "it answers with a redirect ({status}{}), which loses callbacks: set callbacks.public_url \
         to where callbacks are taken without one",
        .to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default()
    )]
    Redirect { status: u16, to: Option<String> },
    /// ngrok's page for browsers on its free plan (`ERR_NGROK_6024`).
    #[error(
        "ngrok puts its browser warning page in front, which no Engine clicks away: use an ngrok \
         plan without it, or another tunnel"
    )]
    NgrokWarning,
    /// Another of ngrok's own errors.
    #[error(
        "ngrok itself answers with {code}: run `ngrok http` with the port of callbacks.listen, and \
         see https://ngrok.com/docs/errors"
    )]
    Ngrok { code: String },
    /// A page that is not ours.
    #[error(
        "a web page answers (HTML, status {status}) in place of finishline: let what stands in \
         front pass POST /callbacks/ on to callbacks.listen untouched"
    )]
    Page { status: u16 },
    #[error(
        "a login is demanded on the way (status {status}): let POST /callbacks/ pass without one; \
         its addresses are signed"
    )]
    Login { status: u16 },
    #[error(
        "a body of {bytes} bytes is refused on the way (413), though smaller ones may pass: raise \
         the proxy's limit to callbacks.max_body (nginx: client_max_body_size)"
    )]
    TooLarge { bytes: usize },
    #[error(
        "a proxy answers that it cannot pass on (status {status}): let it forward to \
         callbacks.listen, and look into its log"
    )]
    Gateway { status: u16 },
    #[error(
        "another finishline answers there, or the api's door of this one: let it lead to this \
         one's callbacks.listen, and to no other instance"
    )]
    OtherInstance,
    #[error(
        "finishline answers there, but not as it should (status {status}, {code}): look into its \
         log under a probe's time"
    )]
    Problem { status: u16, code: String },
    #[error(
        "something else answers there (status {status}): let POST /callbacks/ lead to \
         callbacks.listen, with path and body untouched"
    )]
    Unexpected { status: u16 },
}

/// A larger body that gets no answer may have been refused for its size.
const LARGE_BYTES: usize = 64 * 1024;

fn advice(trouble: &Trouble, bytes: usize) -> String {
    match trouble {
        Trouble::Name => "correct callbacks.public_url, or make the DNS record".into(),
        Trouble::Unreachable => {
            "start the tunnel or proxy, and let it forward to callbacks.listen".into()
        }
        Trouble::Tls(_) => {
            "callbacks.public_url needs a certificate for its name that public authorities vouch \
             for"
            .into()
        }
        Trouble::Lost | Trouble::Slow(_) if bytes > LARGE_BYTES => format!(
            "small bodies pass and one of {bytes} bytes does not, so raise the size and time \
             limits of what stands in front"
        ),
        Trouble::Lost | Trouble::Slow(_) | Trouble::Unmade => {
            "look at the tunnel or proxy in front, and at the firewalls on the way".into()
        }
    }
}
