//! Commands that a reader can copy into a shell.
//!
//! A command runs unchanged against the address by which the reader reached the page. Invariant: no
//! command shows a key or a callback's signature; variables take their place.

use axum::http::{HeaderMap, header::HOST};
use maud::{Markup, html};

use super::super::Context;
use crate::domain::{
    delivery::Delivery,
    ids::{DeliveryId, JobId},
};

/// The API's address as the reader's browser reaches it.
pub(super) struct Api {
    origin: String,
    has_keys: bool,
    /// The address of the callback listener on this machine.
    callbacks: String,
}

impl Api {
    pub(super) fn of(headers: &HeaderMap, context: &Context) -> Self {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let is_https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let scheme = if is_https { "https" } else { "http" };
        let asked = || format!("{scheme}://{}", host.unwrap_or("localhost:8086"));
        let said = context.config.api.public_url.as_ref();
        Self {
            origin: said.map_or_else(asked, |url| url.as_str().trim_end_matches('/').to_owned()),
            has_keys: !context.config.api.is_open(),
            callbacks: context.config.callbacks.listen.to_string(),
        }
    }

    /// The port to which a tunnel for callbacks must lead.
    pub(super) fn callbacks_port(&self) -> &str {
        self.callbacks.rsplit(':').next().unwrap_or_default()
    }

    /// The command for a GET request.
    pub(super) fn get(&self, path: &str) -> String {
        format!("curl {}{}", self.key(), quoted(&format!("{}{path}", self.origin)))
    }

    /// The command that submits a job body.
    pub(super) fn submit(&self, body: &str) -> String {
        format!(
            "curl {}{} \\\n  -H 'Content-Type: application/json' \\\n  -d {}",
            self.key(),
            quoted(&format!("{}/v1/jobs", self.origin)),
            quoted(body)
        )
    }

    /// The command that sends a delivery's exact bytes to the callback listener again.
    pub(super) fn replay(&self, delivery: &Delivery) -> String {
        format!(
            "{} |\n  curl -H 'Content-Type: application/json' --data-binary @- \\\n  \
             \"http://{}/callbacks/{}/$SIGNATURE\"",
            self.body(delivery.id),
            self.callbacks,
            delivery.job_id
        )
    }

    pub(super) fn job(&self, id: JobId) -> String {
        self.get(&format!("/v1/jobs/{id}"))
    }

    pub(super) fn result(&self, id: JobId) -> String {
        self.get(&format!("/v1/jobs/{id}/result"))
    }

    pub(super) fn body(&self, id: DeliveryId) -> String {
        self.get(&format!("/v1/deliveries/{id}/body"))
    }

    fn key(&self) -> &'static str {
        if self.has_keys { "-H \"Authorization: Bearer $FINISHLINE_KEY\" " } else { "" }
    }
}

/// A command with a button that copies it.
pub(super) fn command(text: &str) -> Markup {
    html! {
        div.command {
            pre tabindex="0" { code { (text) } }
            button.copy type="button" data-copy=(text) hidden { "Copy" }
        }
    }
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    match word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_word_stays_one_word_in_a_shell() {
        assert_eq!(quoted("http://localhost:8086/v1"), "http://localhost:8086/v1");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("$(x)'; y"), r"'$(x)'\''; y'");
    }
}
