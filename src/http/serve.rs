//! The accept loop of a door.
//!
//! Started by `app`. The invariants: beyond the cap nobody is refused, they wait to be taken up; no
//! failure to accept ends the loop or makes it spin; who is connected when the service stops is
//! still served.

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

/// After a failure to accept: the system is out of something, which takes a moment to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Between two lines in the log about such failures.
const ACCEPT_SILENCE: Duration = Duration::from_secs(10);

/// What the connections of all doors share.
#[derive(Clone)]
pub struct Connections {
    pub(super) timeouts: Timeouts,
    most_per_door: usize,
    /// Those that are open.
    pub open: TaskTracker,
    /// Cancelled to stop accepting and finish what is in flight.
    pub(super) stopping: CancellationToken,
    /// Cancelled to end what is left.
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

    /// Ends what is left, whatever it is at.
    pub fn cut(&self) {
        self.cut.cancel();
    }
}

/// What comes in through a door.
#[derive(Clone)]
pub struct Door {
    /// As logs and figures call it.
    pub name: &'static str,
    pub router: Router,
    /// A sender that closes its half after the request still gets its answer. Elsewhere it counts
    /// as gone: whoever waits or follows is noticed leaving.
    pub answers_half_closed: bool,
}

/// Accepts until the service stops. An error means that the listener is dead.
pub async fn serve(listener: Listener, door: Door, connections: Connections) -> io::Result<()> {
    let crowd = Crowd::new(connections.most_per_door);
    let opened = Opened { door, crowd, connections };
    let mut last_told: Option<Stopwatch> = None;
    loop {
        // Without a silent connection that makes room, others wait in the system's queue.
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
    // Whoever is connected already is served, as if the stop had come a moment later.
    for (stream, peer) in listener.into_waiting() {
        let Some(place) = opened.crowd.try_join() else { break };
        opened.take_up(stream, peer, place);
    }
    Ok(())
}

/// The connection was over before it was taken up.
fn is_callers_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// What is listened on is no listening socket any more.
fn is_dead(error: &io::Error) -> bool {
    let dead = [Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::OPNOTSUPP];
    dead.iter().any(|dead| error.raw_os_error() == Some(dead.raw_os_error()))
}

/// A door that is served.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) door: Door,
    pub(super) crowd: Crowd,
    pub(super) connections: Connections,
}

impl Opened {
    fn take_up(&self, stream: TcpStream, peer: SocketAddr, place: Place) {
        // Answers are small and whole: held back, they would only come later.
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
