//! Disk space: used by the service, and free.
//!
//! The file system is queried on a blocking thread, so a disk that does not answer delays no other
//! page.

use std::path::Path;

use maud::{Markup, html};

use super::super::{
    super::Context,
    parts::{self, Tone},
};
use crate::store::spool::SpoolState;

/// Below this an operator must act: callbacks are up to 16 MiB, and a backup needs space as well.
const LOW_BYTES: u64 = 1024 * 1024 * 1024;

/// The sizes; `None` where one cannot be determined.
struct Sizes {
    database: Option<u64>,
    log: Option<u64>,
    /// The database's file system: bytes free for us, and in total.
    disk: Option<(u64, u64)>,
}

/// Shows the current disk usage.
pub(super) async fn render(context: &Context) -> Markup {
    let path = context.config.database.path.clone();
    let sizes = tokio::task::spawn_blocking(move || measure(&path)).await.ok();
    let spool = context.intake.spool_state();
    html! {
        dl.figures {
            div {
                dt { "Free on the database's disk" }
                dd { (disk(sizes.as_ref().and_then(|sizes| sizes.disk))) }
            }
            div { dt { "Database" } dd { (size(sizes.as_ref().and_then(|sizes| sizes.database))) } }
            div { dt { "Its write-ahead log" } dd { (size(sizes.as_ref().and_then(|sizes| sizes.log))) } }
            div { dt { "Emergency spool" } dd { (spool_state(spool)) } }
        }
    }
}

fn measure(database: &Path) -> Sizes {
    let length = |path: &Path| path.metadata().ok().map(|metadata| metadata.len());
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let disk = rustix::fs::statvfs(database).ok();
    Sizes {
        database: length(database),
        log: length(Path::new(&log)),
        disk: disk.map(|disk| (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)),
    }
}

fn size(bytes: Option<u64>) -> Markup {
    html! {
        @match bytes {
            Some(bytes) => (parts::size(bytes)),
            None => span.muted { "not known" },
        }
    }
}

fn disk(disk: Option<(u64, u64)>) -> Markup {
    let Some((free, whole)) = disk else { return size(None) };
    let used = whole.saturating_sub(free) as f64 / (whole as f64).max(1.0) * 100.0;
    let told = format!("{used:.0} of 100 parts of the disk are in use");
    html! {
        (parts::size(free)) " " span.muted { "of " (parts::size(whole)) }
        @if free < LOW_BYTES {
            " " (parts::tag(Tone::Bad, "low", "Without room on the disk callbacks go to the spool, and then nowhere"))
        }
        svg.meter viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label=(told) {
            title { (told) }
            rect.track width="100" height="6" {}
            rect.fill width=(format!("{used:.1}")) height="6" {}
        }
    }
}

fn spool_state(spool: Option<SpoolState>) -> Markup {
    html! {
        @match spool {
            None => span.muted { "off" },
            Some(spool) => {
                (parts::size(spool.bytes)) " "
                @match spool.records {
                    0 => span.muted { "empty" },
                    records => (parts::tag(Tone::Warning, &format!("{records} waiting"), "Callbacks that the database has not taken in yet")),
                }
            }
        }
    }
}
