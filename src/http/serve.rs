//! The accept loop of a door.
//!
//! Started by `app`. Invariants: connections beyond the cap are not refused but wait to be
//! accepted; a transient failure to accept neither ends the loop nor makes it spin; connections
//! that are open when the service stops are still served.

use std::{io, net::SocketAddr, time::Duration};

use axum::Router;
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection,
    crowd::{Crowd, Place},
    listen::Listener,
    progress::Timeouts,
};
use crate::{clock::Stopwatch, config::ServiceConfig, telemetry};

/// Pause after a failed accept: the system is out of a resource, which takes a moment to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Minimum time between two lines in the log about such failures.
const ACCEPT_SILENCE: Duration = Duration::from_secs(10);

/// State shared by the connections of all doors.
#[derive(Clone)]
pub struct Connections {
    pub(super) timeouts: Timeouts,
    most_per_door: usize,
    /// The open connections.
    pub open: TaskTracker,
    /// Cancelled to stop accepting and finish what is in flight.
    pub(super) stopping: CancellationToken,
    /// Cancelled to end the remaining connections.
    cut: CancellationToken,
}

impl Connections {
    pub fn new(config: &ServiceConfig, stopping: CancellationToken) -> Self {
        Self {
            timeouts: Timeouts::new(config),
            most_per_door: config.max_connections,
            open: TaskTracker::new(),
            stopping,
            cut: CancellationToken::new(),
        }
    }

    /// Ends the remaining connections, even with requests in flight.
    pub fn cut(&self) {
        self.cut.cancel();
    }
}

/// A door: its name, its routes and how it treats half-closed connections.
#[derive(Clone)]
pub struct Door {
    /// Its name in logs and metrics.
    pub name: &'static str,
    pub router: Router,
    /// If set, a sender that closes its half after the request still gets its answer. Otherwise it
    /// counts as disconnected, which ends long polls and event streams.
    pub answers_half_closed: bool,
}

/// Accepts until the service stops. An error means that the listener is dead.
pub async fn serve(listener: Listener, door: Door, connections: Connections) -> io::Result<()> {
    let crowd = Crowd::new(connections.most_per_door);
    let opened = Opened { door, crowd, connections };
    let mut last_told: Option<Stopwatch> = None;
    loop {
        // While no silent connection can make room, new ones wait in the system's queue.
        let place = match opened.crowd.place_at_once() {
            Some(place) => place,
            None => tokio::select! {
                place = opened.crowd.join() => place.ok_or_else(|| io::Error::other("no places"))?,
                () = opened.connections.stopping.cancelled() => break,
            },
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = opened.connections.stopping.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                opened.crowd.note_system(false);
                opened.take_up(stream, peer, place);
            }
            Err(error) if is_callers_fault(&error) => {}
            Err(error) if is_dead(&error) => {
                tracing::error!(%error, door = opened.door.name, "the listener is dead");
                return Err(error);
            }
            Err(error) => {
                opened.crowd.note_system(true);
                if last_told.is_none_or(|told| told.elapsed() > ACCEPT_SILENCE) {
                    let door = opened.door.name;
                    tracing::error!(%error, door, "connections cannot be accepted");
                    last_told = Some(Stopwatch::start());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Serve connections that were queued before the stop.
    for (stream, peer) in listener.into_waiting() {
        let Some(place) = opened.crowd.try_join() else { break };
        opened.take_up(stream, peer, place);
    }
    Ok(())
}

/// The connection ended before it was accepted.
fn is_callers_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The listener is no longer a listening socket.
fn is_dead(error: &io::Error) -> bool {
    let dead = [Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::OPNOTSUPP];
    dead.iter().any(|dead| error.raw_os_error() == Some(dead.raw_os_error()))
}

/// A door that is being served.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) door: Door,
    pub(super) crowd: Crowd,
    pub(super) connections: Connections,
}

impl Opened {
    fn take_up(&self, stream: TcpStream, peer: SocketAddr, place: Place) {
        // Answers are small and written whole, so Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        let opened = self.clone();
        self.connections.open.spawn(async move {
            let gauge = telemetry::HTTP_CONNECTIONS.of([opened.door.name.into()]);
            gauge.increment(1);
            tokio::select! {
                () = connection::live(stream, peer, place, &opened) => {}
                () = opened.connections.cut.cancelled() => {}
            }
            gauge.decrement(1);
        });
    }
}
