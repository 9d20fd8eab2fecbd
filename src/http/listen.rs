//! Provides the doors' listening sockets: opened here, or handed over by systemd, which keeps them
//! open while the service restarts.
//!
//! Used by `app`. Invariant: a socket that was handed over is listened on, or the start fails; none
//! is silently ignored.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context as _, bail, ensure};
use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that may wait to be accepted; the system may allow fewer.
const BACKLOG: u32 = 4096;

/// A door's listening socket.
pub struct Listener {
    socket: TcpListener,
    /// Another process holds it too, and will accept the queued connections after we stop.
    is_shared: bool,
}

/// The sockets that were handed over, by purpose.
#[derive(Default)]
pub struct Inherited {
    pub callbacks: Option<Listener>,
    pub api: Option<Listener>,
}

impl Listener {
    /// Opens a socket on the address that the setting `key` gives.
    pub fn bind(key: &str, address: SocketAddr) -> anyhow::Result<Self> {
        let bound = bind(address);
        let socket =
            bound.with_context(|| format!("{key} = \"{address}\" cannot be listened on"))?;
        Ok(Self { socket, is_shared: false })
    }

    /// Takes the sockets that were handed over, according to the environment (`LISTEN_FDS`,
    /// `LISTEN_PID`, `LISTEN_FDNAMES`; see sd_listen_fds(3)). Call it once, at start.
    pub fn inherit(is_merged: bool) -> anyhow::Result<Inherited> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut given = ListenFd::from_env();
        if given.len() == 0 {
            return Ok(Inherited::default());
        }
        let names: Vec<&str> = names.split(':').collect();
        let doors = assign(given.len(), &names, is_merged)?;
        let mut take = |place: Option<usize>| -> anyhow::Result<Option<Self>> {
            let Some(place) = place else { return Ok(None) };
            let taken = given.take_tcp_listener(place);
            let Some(socket) = taken.context("a socket handed over is no TCP socket")? else {
                return Ok(None);
            };
            socket.set_nonblocking(true)?;
            Ok(Some(Self { socket: TcpListener::from_std(socket)?, is_shared: true }))
        };
        Ok(Inherited { callbacks: take(doors.callbacks)?, api: take(doors.api)? })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.socket.accept().await
    }

    /// Closes the socket and returns the queued connections that would otherwise be cut off.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
        let socket = if self.is_shared { None } else { self.socket.into_std().ok() };
        std::iter::from_fn(move || {
            let (stream, peer) = socket.as_ref()?.accept().ok()?;
            stream.set_nonblocking(true).ok()?;
            Some((TcpStream::from_std(stream).ok()?, peer))
        })
    }
}

/// The address at which a listener is reached from this machine.
pub fn reached_from_here(mut listener: SocketAddr) -> SocketAddr {
    let loopback: IpAddr = match listener.ip() {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    if listener.ip().is_unspecified() {
        listener.set_ip(loopback);
    }
    listener
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for connections of the previous process in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The position of the socket for each purpose.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    callbacks: Option<usize>,
    api: Option<usize>,
}

/// Assigns by name if any name is ours, otherwise by order.
fn assign(count: usize, names: &[&str], is_merged: bool) -> anyhow::Result<Places> {
    let place = |wanted: &str| names.iter().position(|name| *name == wanted);
    let mut places = Places { callbacks: place("callbacks"), api: place("api") };
    let is_named = places.callbacks.is_some() || places.api.is_some();
    if !is_named {
        places = Places { callbacks: Some(0), api: (count > 1).then_some(1) };
    }
    if is_merged && places.api.is_some() {
        bail!("a socket for the api was handed over, but api.listen shares that of callbacks");
    }
    let used = usize::from(places.callbacks.is_some()) + usize::from(places.api.is_some());
    ensure!(
        used == count,
        "{count} sockets were handed over, but {used} are of use: name one \"callbacks\" and one \
         \"api\" (FileDescriptorName= in systemd)"
    );
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_told_apart_by_name_else_by_order() {
        let places = |callbacks, api| Places { callbacks, api };
        let assigned = |count, names: &[&str]| assign(count, names, false).expect("assigned");
        assert_eq!(assigned(2, &["api", "callbacks"]), places(Some(1), Some(0)));
        assert_eq!(assigned(1, &["api"]), places(None, Some(0)));
        assert_eq!(assigned(2, &["a.socket", "b.socket"]), places(Some(0), Some(1)));
        assert_eq!(assigned(2, &[""]), places(Some(0), Some(1)));
        assert_eq!(assigned(1, &[]), places(Some(0), None));
    }

    #[test]
    fn a_socket_of_no_use_is_an_error() {
        assert!(assign(3, &[], false).is_err());
        assert!(assign(2, &["callbacks", "metrics"], false).is_err());
        assert!(assign(2, &["callbacks", "callbacks"], false).is_err());
        assert!(assign(2, &["callbacks", "api"], true).is_err());
        assert_eq!(
            assign(1, &["callbacks"], true).expect("assigned"),
            Places { callbacks: Some(0), api: None }
        );
    }
}
