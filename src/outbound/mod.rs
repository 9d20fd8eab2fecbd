//! The one place where HTTP clients are built, and where links are judged. `engine` and the workers call it: one client for
//! hosts that the operator configured, one behind a guard for every URL that came from a
//! request, a reply or a callback. Invariant: a foreign URL never makes this process connect to
//! an address it has not checked, no redirect is followed, and nothing is sent twice by itself.

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

/// Name, TCP and TLS together. Long enough for three lost SYN packets (sent again after 1, 3 and
/// 7 s); shorter than the usual total timeouts, so that "never connected", which is safe to
/// repeat, stays distinguishable from "no answer".
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Shorter than the shortest customary keep-alive of servers (5 s in Node.js): a request on a
/// connection that the other side is just closing is lost without a trace of whether it arrived.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

const USER_AGENT: &str = concat!("finishline/", env!("CARGO_PKG_VERSION"));

/// What the operator lifted from the guard for foreign URLs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Permissions {
    /// Loopback, private and reserved addresses are let through.
    pub allow_private: bool,
    /// Plain http is let through.
    pub allow_http: bool,
}

/// Finds the addresses behind a name. The system does it outside tests.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// Every address of `name`, unchecked: the guard stands behind it.
    ///
    /// # Errors
    /// When the name is unknown or nobody answered.
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// Both clients and the guard. Clones share connections. No total timeout is set here: how long
/// an answer may take is the caller's to say, per request.
#[derive(Debug, Clone)]
pub struct Outbound {
    rules: Arc<Rules>,
    configured: Client,
    foreign: Client,
    has_certificates: bool,
}

/// What URLs are judged by.
#[derive(Debug)]
struct Rules {
    permissions: Permissions,
    trusted: Vec<Destination>,
    names: Names,
}

/// Why a foreign URL is not followed. Says nothing of the URL itself, whose query may be a
/// credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No absolute URL.
    #[error("the address cannot be read")]
    Unreadable,
    /// Neither https nor, where that is allowed, http.
    #[error("only {accepted} addresses are accepted")]
    Scheme {
        /// The schemes that would do.
        accepted: &'static str,
    },
    /// A user name or password before the host.
    #[error("a user name or password in the address is not accepted")]
    Userinfo,
    /// No host, or one of dots only.
    #[error("the address names no host")]
    Host,
    /// A literal IP address off the internet.
    #[error("the address is a private or reserved one")]
    Address,
    /// `localhost` and names below it.
    #[error("the host is this machine itself")]
    LocalName,
    /// A name with at least one address off the internet.
    #[error("the host leads to a private or reserved address")]
    Resolved,
}

/// Why no clients could be built. A machine without certificates is not a reason.
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
    /// Builds both clients. A foreign URL that names the host and the port of one in `trusted`
    /// is treated as configured.
    ///
    /// # Errors
    /// When a trusted URL has no host, or the clients cannot be built.
    pub fn new(permissions: Permissions, trusted: &[Url]) -> Result<Self, BuildError> {
        Self::with_resolver(permissions, trusted, Arc::new(SystemLookup))
    }

    /// As [`Outbound::new`], with names looked up by `lookup`; what it finds is checked all the
    /// same.
    ///
    /// # Errors
    /// As [`Outbound::new`].
    pub fn with_resolver(
        permissions: Permissions,
        trusted: &[Url],
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, BuildError> {
        let trusted = trusted.iter().map(|url| {
            Destination::of(url).ok_or_else(|| BuildError::Trusted(redact(url.as_str())))
        });
        let trusted = trusted.collect::<Result<_, _>>()?;
        let foreign_reach = if permissions.allow_private { Reach::Anywhere } else { Reach::Public };
        install_tls_provider();
        let client = |reach, roots| {
            let lookup = Arc::clone(&lookup);
            builder(Guard { lookup, reach }, roots).build()
        };
        let both = |roots| -> reqwest::Result<(Client, Client)> {
            Ok((client(Reach::Anywhere, roots)?, client(foreign_reach, roots)?))
        };
        // reqwest reads the system's certificates while it builds and fails when there are none,
        // even for a service that speaks plain http only (a container without ca-certificates).
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
        let rules = Arc::new(Rules { permissions, trusted, names: Names::new(lookup) });
        Ok(Self { rules, configured, foreign, has_certificates })
    }

    /// The client for what the operator wrote into the settings. Never for any other URL.
    pub fn configured(&self) -> &Client {
        &self.configured
    }

    /// Whether the machine has CA certificates; without them every https request fails.
    pub fn has_certificates(&self) -> bool {
        self.has_certificates
    }

    /// Why a foreign URL is refused, without asking the network.
    ///
    /// # Errors
    /// The reason. A name may still be refused later, for the addresses it leads to.
    pub fn check(&self, url: &Url) -> Result<(), Refused> {
        self.judge(url).map(|_| ())
    }

    /// A request to a foreign URL. Sending it fails with an error that [`is_refused`] knows when
    /// the host's name leads to an address that is not allowed.
    ///
    /// # Errors
    /// As [`Outbound::check`].
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
        // The guarded client knows a name only, not its port, so the exception cannot live there.
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

/// What a URL that is not refused counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It names the host and port of a trusted one.
    Configured,
    /// The addresses behind its name are still to be checked.
    Foreign,
}

/// A host and a port.
#[derive(Debug, PartialEq, Eq)]
struct Destination {
    host: Host<String>,
    port: u16,
}

impl Destination {
    /// `None` when the URL has no host (dots alone are none) or no port.
    fn of(url: &Url) -> Option<Self> {
        let host = url.host()?.to_owned();
        let port = url.port_or_known_default()?;
        let dots = matches!(&host, Host::Domain(name) if name.trim_end_matches('.').is_empty());
        (!dots).then_some(Self { host, port })
    }

    /// A literal address must be judged here: reqwest asks no resolver for it.
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

/// How far a client may reach.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Anywhere,
    Public,
}

/// Whose word a client takes for a server's identity.
#[derive(Clone, Copy)]
enum Roots {
    System,
    Nobody,
}

/// The resolver of a client. reqwest connects to what it returns and asks nobody again, so what
/// was checked is what is connected to.
struct Guard {
    lookup: Arc<dyn Lookup>,
    reach: Reach,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = Arc::clone(&self.lookup);
        let reach = self.reach;
        Box::pin(async move {
            let found = lookup.addresses(name.as_str()).await.map_err(Unresolved)?;
            if found.is_empty() {
                return Err(Unresolved(io::ErrorKind::NotFound.into()).into());
            }
            // One forbidden address condemns the name: a mix is how a guard is got around.
            if reach == Reach::Public && !found.iter().copied().all(address::is_public) {
                return Err(Refused::Resolved.into());
            }
            // Port 0 is replaced by the URL's.
            let found = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(found) as Addrs)
        })
    }
}

/// A name that leads to no address.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to no address")]
struct Unresolved(#[source] io::Error);

struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
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

/// reqwest is compiled without a provider of its own and panics when the process has none.
fn install_tls_provider() {
    // An error means that one is installed already, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
