//! Builds the HTTP clients and checks links; nothing else does. `engine` and the workers use it:
//! one client for hosts that the operator configured, one behind a guard for every URL that came
//! from a request, a reply or a callback.
//!
//! Invariant: a foreign URL never makes this process connect to an address that was not checked, no
//! redirect is followed, and the clients never repeat a request on their own.

mod address;
mod answer;
mod leaving;
mod trouble;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder};
use url::{Host, Url};

pub use answer::{ReadError, describe, is_refused, read_beginning, read_capped, redact};
use leaving::Names;
pub use trouble::Trouble;

/// For name resolution, TCP and TLS together. Long enough for three lost SYN packets (sent again
/// after 1, 3 and 7 s); shorter than the usual total timeouts, so that "never connected", which is
/// safe to repeat, can be distinguished from "no answer".
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Shorter than the shortest common keep-alive of servers (5 s in Node.js): if a request is sent on
/// a connection that the other side is just closing, it is unknown whether it arrived.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

const USER_AGENT: &str = concat!("finishline/", env!("CARGO_PKG_VERSION"));

/// What the operator exempted from the guard for foreign URLs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Permissions {
    /// Whether loopback, private and reserved addresses are allowed.
    pub allow_private: bool,
    /// Whether plain http is allowed.
    pub allow_http: bool,
}

/// Resolves names. Outside tests this is the system's resolver.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// All addresses of `name`, unchecked: the guard checks them afterwards.
    ///
    /// # Errors
    /// The name is unknown or the resolver does not answer.
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// Both clients and the guard. Clones share connections. There is no total timeout: the caller sets
/// one for each request.
#[derive(Debug, Clone)]
pub struct Outbound {
    rules: Arc<Rules>,
    configured: Client,
    foreign: Client,
    has_certificates: bool,
}

/// The rules for checking URLs.
#[derive(Debug)]
struct Rules {
    permissions: Permissions,
    trusted: Vec<Destination>,
    names: Names,
}

/// The reason why a foreign URL is not followed. Contains no part of the URL, whose query may be a
/// credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not an absolute URL.
    #[error("the address cannot be read")]
    Unreadable,
    /// Neither https nor, if it is allowed, http.
    #[error("only {accepted} addresses are accepted")]
    Scheme {
        /// The allowed schemes.
        accepted: &'static str,
    },
    /// A user name or password before the host.
    #[error("a user name or password in the address is not accepted")]
    Userinfo,
    /// No host, or only dots.
    #[error("the address names no host")]
    Host,
    /// A literal IP address that is not public.
    #[error("the address is a private or reserved one")]
    Address,
    /// `localhost` and names below it.
    #[error("the host is this machine itself")]
    LocalName,
    /// A name with at least one address that is not public.
    #[error("the host leads to a private or reserved address")]
    Resolved,
}

/// The reason why no clients could be built. Missing certificates are not an error.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A trusted URL without host or port.
    #[error("the trusted address {0} names no host")]
    Trusted(String),
    /// reqwest or its TLS library refused the settings.
    #[error("the HTTP client could not be built")]
    Client(#[from] reqwest::Error),
}

impl Outbound {
    /// Builds both clients. A foreign URL with the host and port of a URL in `trusted` is treated
    /// as configured.
    ///
    /// # Errors
    /// A trusted URL has no host, or the clients cannot be built.
    pub fn new(permissions: Permissions, trusted: &[Url]) -> Result<Self, BuildError> {
        Self::with_resolver(permissions, trusted, Arc::new(SystemResolver))
    }

    /// Like [`Outbound::new`], but resolves names with `resolver`; the addresses that it finds are
    /// checked too.
    ///
    /// # Errors
    /// See [`Outbound::new`].
    pub fn with_resolver(
        permissions: Permissions,
        trusted: &[Url],
        resolver: Arc<dyn Resolver>,
    ) -> Result<Self, BuildError> {
        let trusted = trusted.iter().map(|url| {
            Destination::of(url).ok_or_else(|| BuildError::Trusted(redact(url.as_str())))
        });
        let trusted = trusted.collect::<Result<_, _>>()?;
        let foreign_reach = if permissions.allow_private { Reach::Anywhere } else { Reach::Public };
        install_tls_provider();
        let client = |reach, roots| {
            let resolver = Arc::clone(&resolver);
            builder(Guard { resolver, reach }, roots).build()
        };
        let both = |roots| -> reqwest::Result<(Client, Client)> {
            Ok((client(Reach::Anywhere, roots)?, client(foreign_reach, roots)?))
        };
        // reqwest loads the system's certificates while it builds a client and fails if there are
        // none, even for a service that uses only plain http (a container without ca-certificates).
        let (clients, has_certificates) = match both(Roots::System) {
            Ok(clients) => (clients, true),
            Err(error) => {
                let clients = both(Roots::Nobody)?;
                tracing::warn!(
                    ?error,
                    "https will fail: no CA certificates (install them or set SSL_CERT_FILE)"
                );
                (clients, false)
            }
        };
        let (configured, foreign) = clients;
        let rules = Arc::new(Rules { permissions, trusted, names: Names::new(resolver) });
        Ok(Self { rules, configured, foreign, has_certificates })
    }

    /// The client for URLs in the settings. Never use it for other URLs.
    pub fn configured(&self) -> &Client {
        &self.configured
    }

    /// Whether the machine has CA certificates; without them every https request fails.
    pub fn has_certificates(&self) -> bool {
        self.has_certificates
    }

    /// Checks a foreign URL without using the network.
    ///
    /// # Errors
    /// The reason why it is refused. A name may still be refused later because of its addresses.
    pub fn check(&self, url: &Url) -> Result<(), Refused> {
        self.judge(url).map(|_| ())
    }

    /// A request to a foreign URL. Sending it fails with an error for which [`is_refused`] is true
    /// if the host's name leads to an address that is not allowed.
    ///
    /// # Errors
    /// See [`Outbound::check`].
    pub fn foreign(&self, method: Method, url: &Url) -> Result<RequestBuilder, Refused> {
        let client = match self.judge(url)? {
            Standing::Configured => &self.configured,
            Standing::Foreign => &self.foreign,
        };
        Ok(client.request(method, url.clone()))
    }

    fn judge(&self, url: &Url) -> Result<Standing, Refused> {
        let accepted = if self.rules.permissions.allow_http { "http and https" } else { "https" };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused::Scheme { accepted });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Userinfo);
        }
        let destination = Destination::of(url).ok_or(Refused::Host)?;
        // The guarded client knows only a name, not its port, so the exception must be made here.
        if self.rules.trusted.contains(&destination) {
            return Ok(Standing::Configured);
        }
        if url.scheme() == "http" && !self.rules.permissions.allow_http {
            return Err(Refused::Scheme { accepted });
        }
        if !self.rules.permissions.allow_private {
            destination.check_host()?;
        }
        Ok(Standing::Foreign)
    }
}

/// How an accepted URL is treated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has the host and port of a trusted URL.
    Configured,
    /// The addresses of its name have not been checked yet.
    Foreign,
}

/// A host and a port.
#[derive(Debug, PartialEq, Eq)]
struct Destination {
    host: Host<String>,
    port: u16,
}

impl Destination {
    /// `None` if the URL has no host (only dots count as none) or no port.
    fn of(url: &Url) -> Option<Self> {
        let host = url.host()?.to_owned();
        let port = url.port_or_known_default()?;
        let dots = matches!(&host, Host::Domain(name) if name.trim_end_matches('.').is_empty());
        (!dots).then_some(Self { host, port })
    }

    /// A literal address must be checked here: reqwest does not use the resolver for it.
    fn check_host(&self) -> Result<(), Refused> {
        let address = match &self.host {
            Host::Ipv4(address) => IpAddr::from(*address),
            Host::Ipv6(address) => IpAddr::from(*address),
            Host::Domain(name) if address::is_local_name(name.trim_end_matches('.')) => {
                return Err(Refused::LocalName);
            }
            Host::Domain(_) => return Ok(()),
        };
        if address::is_public(address) { Ok(()) } else { Err(Refused::Address) }
    }
}

/// The addresses that a client may connect to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Anywhere,
    Public,
}

/// The certificate authorities that a client trusts.
#[derive(Clone, Copy)]
enum Roots {
    System,
    Nobody,
}

/// The resolver of a client. reqwest connects to the addresses that it returns and does not resolve
/// again, so only checked addresses are connected to.
struct Guard {
    resolver: Arc<dyn Resolver>,
    reach: Reach,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = Arc::clone(&self.resolver);
        let reach = self.reach;
        Box::pin(async move {
            let found = resolver.addresses(name.as_str()).await.map_err(Unresolved)?;
            if found.is_empty() {
                return Err(Unresolved(io::ErrorKind::NotFound.into()).into());
            }
            // One forbidden address is enough to refuse the name: a mix of addresses is used to
            // bypass guards.
            if reach == Reach::Public && !found.iter().copied().all(address::is_public) {
                return Err(Refused::Resolved.into());
            }
            // reqwest replaces port 0 by the URL's port.
            let found = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(found) as Addrs)
        })
    }
}

/// A name that resolves to no address.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to no address")]
struct Unresolved(#[source] io::Error);

struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((name, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

fn builder(guard: Guard, roots: Roots) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .dns_resolver(Arc::new(guard));
    match roots {
        Roots::System => builder,
        Roots::Nobody => builder.tls_certs_only([]),
    }
}

/// reqwest is compiled without a TLS provider and panics if the process has none.
fn install_tls_provider() {
    // An error means that one is already installed, which is enough.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
