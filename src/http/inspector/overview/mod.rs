//! `/overview`: the state of the service on one page.
//!
//! One file for each part. For any number of jobs, the page makes only queries that an index
//! answers, each once.

mod chart;
mod days;
mod storage;
mod turnaround;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};

use self::{chart::grouped, days::Days};
use super::{
    super::{Context, stats::percentile},
    curl::command,
    layout::{self, Page, Place},
    parts::{self, Tone},
    refusal::Refusal,
    visitor::Visitor,
};
use crate::{
    config::PublicUrlSetting,
    domain::job::JobStatus,
    outbound::redact,
    store::{Backlog, Stats},
};

/// Shows the page.
pub(super) async fn show(
    visitor: Visitor,
    State(context): State<Context>,
) -> Result<Response, Refusal> {
    let now = context.clock.now();
    let stats = context.store.stats(now).await?;
    let backlog = context.store.backlog(now).await?;
    let days = Days::of(&stats, now);
    let content = html! {
        (chart::patterns())
        div.heading {
            h1 { "Overview" }
            p.eyebrow { "As of " (parts::moment(now)) }
        }
        (tiles(&stats))
        (public_url(&context).await)
        div.pair.equal {
            (section("days", "Jobs of the last 30 days", html! {
                @match days.jobs() {
                    0 => p.muted { "None. A job counts on the day (UTC) it was created." },
                    _ => (days.render()),
                }
            }))
            (section("turnaround", "Turnaround", turnaround::render(&stats.turnaround_millis)))
        }
        (section("statuses", "All jobs on record", statuses(&stats)))
        (section("relays", "Passing results on", relays(&context, &backlog)))
        div.pair.equal {
            (section("storage", "Storage", storage::render(&context).await))
            (section("service", "Service", service(&context)))
        }
    };
    let page = Page {
        title: "Overview",
        place: Some(Place::Overview),
        live: None,
        visitor: Some(&visitor),
    };
    Ok(layout::render(&page, content).into_response())
}

fn section(id: &str, title: &str, content: Markup) -> Markup {
    html! {
        section.card.part aria-labelledby=(format!("{id}-title")) {
            h2 id=(format!("{id}-title")) { (title) }
            (content)
        }
    }
}

/// The most important figures.
fn tiles(stats: &Stats) -> Markup {
    let open: u64 = counted(stats, JobStatus::is_in_flight);
    let of_percent = |percent| percentile(&stats.turnaround_millis, percent);
    let open_list = list_of(JobStatus::ALL.into_iter().filter(|status| status.is_in_flight()));
    html! {
        ul.tiles {
            li.tile {
                a href=(open_list) { strong { (grouped(open)) } span { "open" } }
            }
            li.tile.is-warning[stats.overdue > 0] {
                a href="/jobs?overdue=true" { strong { (grouped(stats.overdue)) } span { "overdue" } }
            }
            @for (name, percent) in [("median turnaround", 50), ("p95 turnaround", 95)] {
                li.tile {
                    p {
                        strong {
                            @match of_percent(percent) { Some(millis) => (parts::duration(millis)), None => "–" }
                        }
                        span { (name) }
                    }
                }
            }
        }
    }
}

fn counted(stats: &Stats, is_meant: impl Fn(JobStatus) -> bool) -> u64 {
    stats.by_status.iter().filter(|(status, _)| is_meant(*status)).map(|(_, jobs)| jobs).sum()
}

/// The list's address for jobs of these statuses.
fn list_of(statuses: impl Iterator<Item = JobStatus>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for status in statuses {
        query.append_pair("status", status.as_str());
    }
    format!("/jobs?{}", query.finish())
}

fn statuses(stats: &Stats) -> Markup {
    html! {
        ul.counts {
            @for (status, jobs) in &stats.by_status {
                li {
                    a href=(list_of([*status].into_iter())) { (parts::status(*status)) strong { (grouped(*jobs)) } }
                }
            }
        }
    }
}

/// Whether the Engine can call back, and what to do if not.
async fn public_url(context: &Context) -> Markup {
    let current = context.public_url.current().await;
    let finding = context.doctor.last();
    let finding = finding.filter(|finding| finding.url.as_ref() == current.as_ref().ok());
    let fault = finding.as_ref().and_then(|finding| finding.fault.as_ref());
    let (tone, word) = match (&current, &finding, fault) {
        (Err(_), ..) => (Tone::Bad, "not known"),
        (Ok(_), None, _) => (Tone::Quiet, "not examined yet"),
        (Ok(_), Some(_), None) => (Tone::Good, "leads here"),
        (Ok(_), Some(_), Some(_)) => (Tone::Bad, "does not lead here"),
    };
    let is_ngrok = matches!(context.config.callbacks.public_url, PublicUrlSetting::Ngrok);
    section(
        "public-url",
        "Public URL",
        html! {
        p.facts {
            (parts::tag(tone, word, "Whether what is sent to the public URL arrives at this very instance"))
            @if let Ok(url) = &current { (parts::copyable(url)) }
            @if let Some(finding) = &finding { span { "examined " (parts::moment(finding.checked_at)) } }
            span { @if is_ngrok { "named by ngrok's agent" } @else { "set by callbacks.public_url" } }
        }
        @if let Err(unknown) = &current {
            p { "Nothing can be submitted: " (unknown) "." }
        (command(&format!("ngrok http {}", unknown.port())))
        } @else if let Some(fault) = fault {
            p { "Callbacks are being lost: the public URL fails, " (fault) "." }
        } @else {
            p.muted { "The Engine calls back on it; a callback that is lost all the same is looked up." }
        }
        },
    )
}

/// The backlog of each target.
fn relays(context: &Context, backlog: &[Backlog]) -> Markup {
    let configured = context.config.relay.targets.iter().map(|target| target.name.as_str());
    let idle = configured.filter(|name| backlog.iter().all(|one| one.target != *name));
    let idle = idle.map(|name| Backlog { target: name.to_owned(), ..Backlog::default() });
    let rows: Vec<Backlog> = backlog.iter().cloned().chain(idle).collect();
    let dead: u64 = rows.iter().map(|row| row.dead).sum();
    html! {
        @if rows.is_empty() {
            p.muted {
                "Nothing waits. Results are passed on to " code { "relay.targets" } " of the settings and to a job's own "
                code { "finishWebhook" } "."
            }
        } @else {
            div.scroll tabindex="0" {
                table.plain.numbers {
                    caption.visually-hidden { "Results that wait to be passed on, by target" }
                    thead {
                        tr {
                            th scope="col" { "Target" }
                            th scope="col" { "Pending" }
                            th scope="col" { "Dead" }
                            th scope="col" { "State" }
                        }
                    }
                    tbody {
                        @for row in &rows {
                            tr {
                                th scope="row" { (row.target) }
                                td { (grouped(row.pending)) }
                                td { (grouped(row.dead)) }
                                td { (target_state(row)) }
                            }
                        }
                    }
                }
            }
        }
        @if dead > 0 {
            p { "Dead orders are attempted again once they are ordered:" }
            (command("finishline relays resend --state dead"))
        }
    }
}

fn target_state(row: &Backlog) -> Markup {
    let failing = "Ten failures in a row: it is left alone, then probed with one order at a time";
    match row {
        Backlog { is_paused: true, .. } => parts::tag(Tone::Warning, "paused", failing),
        Backlog { pending: 0, dead: 0, .. } => {
            parts::tag(Tone::Good, "up to date", "Nothing waits")
        }
        Backlog { pending: 0, .. } => parts::tag(Tone::Bad, "given up", "Its schedule ran out"),
        _ => parts::tag(Tone::Quiet, "under way", "Orders wait for their next attempt"),
    }
}

fn service(context: &Context) -> Markup {
    let running = parts::millis_between(context.started_at, context.clock.now());
    html! {
        dl.figures {
            div { dt { "Version" } dd { (env!("CARGO_PKG_VERSION")) } }
            div {
                dt { "Running since" }
                dd { (parts::moment(context.started_at)) " " span.muted { "(" (parts::duration(running)) ")" } }
            }
            div { dt { "The Engine" } dd { (redact(context.config.engine.base_url.as_str())) } }
            div { dt { "Callbacks are taken on" } dd { code { (context.config.callbacks.listen) } } }
        }
    }
}
