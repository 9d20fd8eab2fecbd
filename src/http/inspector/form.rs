//! Forms that change something: read only if they come from a page of ours.
//!
//! The extractor of every POST of the inspector. The invariant: no other site can make a browser
//! send one: it would have to know the token of this very session, and its browser must not say
//! that another site sent it.

use axum::{
    extract::{FromRequest, Request},
    http::HeaderMap,
};
use maud::{Markup, html};

use super::{
    super::{
        Context,
        access::{self, Site},
        error::Problem,
        extract::read_body,
    },
    refusal::Refusal,
    visitor::Visitor,
};

/// A form says little.
const MAX_FORM_BYTES: usize = 64 * 1024;

/// The hidden field that proves the form to be ours.
const TOKEN: &str = "formToken";

/// Its form belongs to no session: it may have been shown to a browser that kept one to itself,
/// because a link on another site led there, and sends it with the form.
pub(super) const SIGN_IN: &str = "/sign-in";

/// The fields of a form of ours.
pub struct Form {
    fields: Vec<(String, String)>,
    pub headers: HeaderMap,
}

impl Form {
    /// The values of a field that may stand there more than once.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// A field's value; `None` if it is absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

impl FromRequest<Context> for Form {
    type Rejection = Refusal;

    async fn from_request(request: Request, context: &Context) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        if access::origin(&parts.headers) == Site::Other {
            return Err(Problem::ForbiddenOrigin("the form was sent by another site").into());
        }
        let body =
            read_body(&context.limits.of_callers(), &parts.headers, body, MAX_FORM_BYTES).await;
        let body = body.map_err(|error| error.into_problem(MAX_FORM_BYTES))?;
        let fields = url::form_urlencoded::parse(&body).into_owned().collect();
        let form = Self { fields, headers: parts.headers };
        let session = match parts.uri.path() {
            SIGN_IN => &HeaderMap::new(),
            _ => &form.headers,
        };
        let token = form.get(TOKEN).unwrap_or_default();
        if !context.sessions.is_form_token(session, token) {
            let reason = "the form is not of this session: go back, load the page again";
            return Err(Problem::ForbiddenOrigin(reason).into());
        }
        Ok(form)
    }
}

/// The hidden field for a form on a page for this visitor.
pub(super) fn token(visitor: &Visitor) -> Markup {
    hidden(&visitor.form_token)
}

/// The hidden field of the form at [`SIGN_IN`].
pub(super) fn token_of_nobody(context: &Context) -> Markup {
    hidden(&context.sessions.form_token(&HeaderMap::new()))
}

fn hidden(token: &str) -> Markup {
    html! { input type="hidden" name=(TOKEN) value=(token); }
}
