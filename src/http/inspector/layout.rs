//! What every page has: the head, the bar with navigation and search, the foot.
//!
//! Called by each page with its content. Invariant: styles and scripts come only from our own
//! files, so the content security policy needs no exception.

use axum::response::Html;
use maud::{DOCTYPE, Markup, html};

use super::{assets, form, visitor::Visitor};
use crate::config::Scope;

/// The entries of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Jobs,
    Overview,
    Submit,
}

impl Place {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Jobs, "/jobs", "Jobs"),
        (Self::Overview, "/overview", "Overview"),
        (Self::Submit, "/submit", "Submit"),
    ];

    /// The scope that a visitor's key needs to see the entry.
    fn scope(self) -> Scope {
        match self {
            Self::Jobs | Self::Overview => Scope::Read,
            Self::Submit => Scope::Submit,
        }
    }
}

/// A script of a single page, for its content.
pub(super) fn script(name: &str) -> Markup {
    html! { script type="module" src=(assets::address(name)) {} }
}

/// A page without its content.
pub(super) struct Page<'a> {
    pub title: &'a str,
    /// Its entry in the navigation, if any.
    pub place: Option<Place>,
    /// The event stream of a live page: parts marked `data-live` are replaced when events arrive.
    pub live: Option<&'a str>,
    /// `None` if nobody has signed in.
    pub visitor: Option<&'a Visitor>,
}

/// Renders a complete page.
pub(super) fn render(page: &Page<'_>, content: Markup) -> Html<String> {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (page.title) " · Finishline" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" type="image/svg+xml" href=(assets::address("icon.svg"));
                link rel="stylesheet" href=(assets::address("foundation.css"));
                link rel="stylesheet" href=(assets::address("parts.css"));
                link rel="stylesheet" href=(assets::address("figures.css"));
                link rel="stylesheet" href=(assets::address("submit.css"));
                script type="module" src=(assets::address("page.js")) {}
                @if page.live.is_some() {
                    script type="module" src=(assets::address("live.js")) {}
                }
            }
            body data-events=[page.live] {
                a.skip href="#content" { "Skip to content" }
                (bar(page))
                main #content tabindex="-1" { (content) }
                (foot())
            }
        }
    };
    Html(markup.into_string())
}

fn bar(page: &Page<'_>) -> Markup {
    html! {
        header.bar {
            a.brand href="/" {
                svg.mark viewBox="0 0 20 20" aria-hidden="true" {
                    path d="M3 2v16" {}
                    path.flag d="M5 3h12l-3 4 3 4H5z" {}
                }
                span { "Finishline" }
            }
            @if let Some(visitor) = page.visitor {
                nav aria-label="Pages" {
                    ul {
                        @for (place, address, name) in Place::ALL.into_iter().filter(|(place, ..)| visitor.may(place.scope())) {
                            li {
                                a href=(address) aria-current=[(page.place == Some(place)).then_some("page")] {
                                    (name)
                                }
                            }
                        }
                        li { a href="/docs/" { "API" } }
                    }
                }
                form.search role="search" action="/search" {
                    label.visually-hidden for="search" { "Find a job by any id or its reference" }
                    input #search type="search" name="q" placeholder="Find by id or reference"
                        autocomplete="off" spellcheck="false" required;
                    button.quiet type="submit" { "Find" }
                }
                @if visitor.is_signed_in {
                    form.leave method="post" action="/sign-out" {
                        (form::token(visitor))
                        span.who title="The API key you signed in with" { (visitor.name()) }
                        button.quiet type="submit" { "Sign out" }
                    }
                }
            }
        }
    }
}

fn foot() -> Markup {
    html! {
        footer.foot {
            p { "Finishline " (env!("CARGO_PKG_VERSION")) }
            p #zone data-zone { "Times are UTC." }
        }
    }
}
