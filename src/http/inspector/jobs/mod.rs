//! `/jobs`: all jobs, newest first, in pages that update live.
//!
//! The filters are those of `GET /v1/jobs`, in the address. A page costs the same for any number of
//! jobs: its queries use indexes, and nothing is counted.

mod empty;
mod filters;
pub(super) mod row;
pub(super) mod search;

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};

use self::{
    filters::Given,
    row::{Expected, Row},
};
use super::{
    super::{Context, extract::ListQuery},
    curl::Api,
    layout::{self, Page, Place},
    refusal::Refusal,
    visitor::Visitor,
};
use crate::domain::page::Position;

/// Shows a page of the list.
pub(super) async fn show(
    visitor: Visitor,
    State(context): State<Context>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let given = Given::read(query.as_deref().unwrap_or_default());
    if let Some(plain) = given.plainer() {
        return Ok(Redirect::to(&plain).into_response());
    }
    let mut list = ListQuery::parse(&given.query())?;
    let public_url = context.public_url.current().await;
    list.filter.public_url = public_url.clone().unwrap_or_default();
    let after = match &list.cursor {
        Some(cursor) => Some(Position::from_cursor(cursor, &list.filter)?),
        None => None,
    };
    let found = context.store.jobs(&list.filter, after, list.limit).await?;
    let ids: Vec<_> = found.jobs.iter().map(|job| job.id).collect();
    let marks = context.store.job_flags(&ids, public_url.as_deref().ok()).await?;
    let expected = Expected::of(&context.store.turnarounds().await?);
    let now = context.clock.now();
    let rows: Vec<Row<'_>> = found
        .jobs
        .iter()
        .map(|job| Row {
            job,
            marks: marks.get(&job.id).copied().unwrap_or_default(),
            expected,
            now,
        })
        .collect();
    let older = found.next.map(|position| given.with("cursor", &position.to_cursor(&list.filter)));
    let content = html! {
        div.heading {
            h1 { "Jobs" }
            p.live role="status" data-live-state hidden {}
        }
        @if let Err(unknown) = &public_url {
            p.notice.is-warning { strong { "Nothing can be submitted now. " } (unknown) }
        }
        (given.notice())
        (filters::form(&given, &list.filter))
        div #list data-live {
            @if rows.is_empty() {
                @match given.is_plain() {
                    true => (empty::no_jobs_yet(&Api::of(&headers, &context))),
                    false => (empty::nothing_fits()),
                }
            } @else {
                (table(&rows))
                (pager(&given, older.as_deref()))
            }
        }
    };
    let page = Page {
        title: "Jobs",
        place: Some(Place::Jobs),
        live: Some("/v1/events"),
        visitor: Some(&visitor),
    };
    Ok(layout::render(&page, content).into_response())
}

fn table(rows: &[Row<'_>]) -> Markup {
    html! {
        div.scroll {
            table.jobs.cards {
                caption.visually-hidden { "Jobs, newest first" }
                thead {
                    tr {
                        th scope="col" { "Status" }
                        th scope="col" { "Job" }
                        th scope="col" { "Inputs → outputs" }
                        th scope="col" { "Turnaround" }
                        th scope="col" { "Created" }
                    }
                }
                tbody { @for row in rows { (row.render()) } }
            }
        }
    }
}

fn pager(given: &Given, older: Option<&str>) -> Markup {
    let is_first = given.get("cursor").is_none();
    html! {
        nav.pager aria-label="Pages of the list" {
            @if !is_first { a.button href=(given.without("cursor")) { "← Newest" } }
            @if let Some(older) = older {
                a.button rel="next" href=(older) { "Older →" }
            } @else if !is_first {
                span.muted { "These are the oldest." }
            }
        }
    }
}
