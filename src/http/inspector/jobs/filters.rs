//! The filters of the list: the query of the address, and the form that writes it.
//!
//! Invariant: the query of an address made here is valid for `GET /v1/jobs` too, and every link of
//! the page keeps the filters that it does not change.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::domain::{job::JobStatus, page::JobFilter, time};

/// Text filters: parameter, label.
const TEXTS: [(&str, &str); 5] = [
    ("reference", "Reference"),
    ("endUserId", "End user"),
    ("cloudPackage", "Cloud package"),
    ("engineJobId", "Engine's id"),
    ("externalJobId", "External id"),
];

/// Bounds of a job's creation time: parameter, label.
const DATES: [(&str, &str); 2] =
    [("createdAfter", "Created from (UTC)"), ("createdBefore", "Created before (UTC)")];

/// Filters that are on or off: parameter, label.
const SWITCHES: [(&str, &str); 2] =
    [("overdue", "Overdue"), ("staleCallback", "Stale callback address")];

/// Names a notice; not a filter.
const NOTICE: &str = "notice";

/// The parameters of the address.
pub(super) struct Given(Vec<(String, String)>);

impl Given {
    pub(super) fn read(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Whether no filter is set.
    pub(super) fn is_plain(&self) -> bool {
        self.0.iter().all(|(name, _)| matches!(name.as_str(), "limit" | NOTICE))
    }

    /// The address in the API's spelling, if it differs: a form also sends empty fields, and days
    /// instead of instants.
    pub(super) fn plainer(&self) -> Option<String> {
        let spell = |(name, value): &(String, String)| {
            let is_date = DATES.iter().any(|(date, _)| date == name);
            let instant = is_date.then(|| midnight(value)).flatten().map(time::render);
            (name.clone(), instant.unwrap_or_else(|| value.trim().to_owned()))
        };
        let plain: Vec<_> =
            self.0.iter().map(spell).filter(|(_, value)| !value.is_empty()).collect();
        (plain != self.0).then(|| Self(plain).address())
    }

    /// The address with this parameter's value replaced.
    pub(super) fn with(&self, name: &str, value: &str) -> String {
        let mut pairs = self.others(&[name, NOTICE]);
        pairs.push((name.to_owned(), value.to_owned()));
        Self(pairs).address()
    }

    /// The address without this parameter.
    pub(super) fn without(&self, name: &str) -> String {
        Self(self.others(&[name, NOTICE])).address()
    }

    /// The query for the API.
    pub(super) fn query(&self) -> String {
        Self(self.others(&[NOTICE])).encoded()
    }

    /// The notice that the address names, if any.
    pub(super) fn notice(&self) -> Markup {
        html! {
            @if self.get(NOTICE) == Some("erased") {
                p.notice.is-good role="status" { "The job and everything received for it are erased." }
            }
        }
    }

    fn others(&self, names: &[&str]) -> Vec<(String, String)> {
        self.0.iter().filter(|(name, _)| !names.contains(&name.as_str())).cloned().collect()
    }

    fn address(&self) -> String {
        match self.0.is_empty() {
            true => "/jobs".to_owned(),
            false => format!("/jobs?{}", self.encoded()),
        }
    }

    fn encoded(&self) -> String {
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }
}

/// The form, filled in with the current filters.
pub(super) fn form(given: &Given, filter: &JobFilter) -> Markup {
    let is_any = !given.is_plain() && given.without("cursor") != "/jobs";
    let is_detailed = TEXTS.iter().chain(&DATES).any(|(name, _)| given.get(name).is_some());
    html! {
        form.filters action="/jobs" data-submit-on-change {
            @if let Some(limit) = given.get("limit") { input type="hidden" name="limit" value=(limit); }
            fieldset.chips {
                legend.visually-hidden { "Status" }
                @for status in JobStatus::ALL {
                    (chip("status", status.as_str(), filter.statuses.contains(&status), status.as_str()))
                }
                span.divider aria-hidden="true" {}
                @for (name, label) in SWITCHES {
                    (chip(name, "true", given.get(name) == Some("true"), label))
                }
            }
            details.more open[is_detailed] {
                summary { "More filters" }
                div.fields {
                    @for (name, label) in TEXTS {
                        label { span { (label) }
                            input type="text" name=(name) value=[given.get(name)] autocomplete="off" spellcheck="false";
                        }
                    }
                    @for (name, label) in DATES {
                        label { span { (label) } (date_field(name, given.get(name))) }
                    }
                }
            }
            div.go {
                button type="submit" { "Apply" }
                @if is_any { a.plain href="/jobs" { "Clear all" } }
            }
        }
    }
}

fn chip(name: &str, value: &str, is_on: bool, label: &str) -> Markup {
    html! {
        label.chip { input type="checkbox" name=(name) value=(value) checked[is_on]; span { (label) } }
    }
}

/// A date field if the bound is a whole day, else a text field with the instant.
fn date_field(name: &str, given: Option<&str>) -> Markup {
    let instant = given.and_then(time::parse);
    let day = instant.map(|at| at.strftime("%Y-%m-%d").to_string());
    match (given, day) {
        (Some(given), Some(day)) if midnight(&day) != instant => html! {
            input type="text" name=(name) value=(given);
        },
        (Some(given), None) => html! { input type="text" name=(name) value=(given); },
        (_, day) => html! {
            input type="date" name=(name) value=[day];
        },
    }
}

/// The first instant (UTC) of a day such as `2026-11-23`.
fn midnight(day: &str) -> Option<Timestamp> {
    let day = day.trim();
    time::parse(&format!("{day}T00:00:00Z")).filter(|_| day.len() == "2026-11-23".len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_one_that_the_api_takes() {
        let plainer = |query: &str| Given::read(query).plainer();
        assert_eq!(plainer("status=failed&reference=a%20b&overdue=true"), None);
        assert_eq!(plainer("reference=&status=failed").as_deref(), Some("/jobs?status=failed"));
        assert_eq!(plainer("reference="), Some("/jobs".to_owned()));
        assert_eq!(
            plainer("createdAfter=2026-11-23").as_deref(),
            Some("/jobs?createdAfter=2026-11-23T00%3A00%3A00.000Z")
        );
    }

    #[test]
    fn a_link_keeps_the_filters_it_does_not_change() {
        let given = Given::read("status=failed&status=partial&cursor=abc&notice=erased");
        assert_eq!(given.without("cursor"), "/jobs?status=failed&status=partial");
        assert_eq!(given.with("cursor", "d"), "/jobs?status=failed&status=partial&cursor=d");
        assert_eq!(given.query(), "status=failed&status=partial&cursor=abc");
    }
}
