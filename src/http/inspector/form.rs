//! Forms that change something: accepted only from our own pages (CSRF protection).
//!
//! The extractor of every POST of the inspector. Invariant: another site cannot make a browser send
//! a form. The form must contain the token of this session (of this browser, before sign-in), and
//! the browser must not report another site as its origin.

use axum::{
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, request::Parts},
};
use maud::{Markup, html};
use subtle::ConstantTimeEq;

use super::{
    super::{
        Context,
        access::{self, Site},
        cookie::Transport,
        error::Problem,
        extract::read_body,
    },
    refusal::Refusal,
    visitor::Visitor,
};

/// Limit for a form's body; forms are small.
const MAX_FORM_BYTES: usize = 64 * 1024;

/// The hidden field with the form token.
const TOKEN: &str = "formToken";

/// The sign-in page. Its form token belongs to the browser, not to a session: a browser that
/// followed a link on another site withholds its session cookie when it loads the page, but sends
/// it with the form.
pub(super) const SIGN_IN: &str = "/sign-in";

const NOT_OF_SESSION: &str = "the form is not of this session: go back, load the page again";
const NOT_OF_BROWSER: &str = "the form was not shown to this browser, or its cookie did not come \
    back: load the sign-in page again. Where it is plain http and not localhost, browsers keep the \
    cookie only if api.public_url in the settings says so";

/// The fields of one of our forms.
pub struct Form {
    fields: Vec<(String, String)>,
    pub parts: Parts,
}

impl Form {
    /// The values of a field that may occur more than once.
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
        if access::origin(&parts.headers, &context.config.api) == Site::Other {
            return Err(Problem::ForbiddenOrigin("the form was sent by another site").into());
        }
        let body =
            read_body(&context.limits.of_callers(), &parts.headers, body, MAX_FORM_BYTES).await;
        let body = body.map_err(|error| error.into_problem(MAX_FORM_BYTES))?;
        let fields = url::form_urlencoded::parse(&body).into_owned().collect();
        let form = Self { fields, parts };
        let given = form.get(TOKEN).unwrap_or_default();
        let expected = expected_token(&form.parts, context).map_err(Problem::ForbiddenOrigin)?;
        if !bool::from(expected.as_bytes().ct_eq(given.as_bytes())) {
            return Err(Problem::ForbiddenOrigin(match is_sign_in(&form.parts) {
                true => NOT_OF_BROWSER,
                false => NOT_OF_SESSION,
            })
            .into());
        }
        Ok(form)
    }
}

/// The token that the form must contain, or why no form is valid here.
fn expected_token(parts: &Parts, context: &Context) -> Result<String, &'static str> {
    let sessions = &context.sessions;
    if context.config.api.is_open() {
        return Ok(sessions.form_token_of_nobody());
    }
    if is_sign_in(parts) {
        return sessions
            .form_token_of_browser(&parts.headers, &context.config.api)
            .ok_or(NOT_OF_BROWSER);
    }
    let visitor = Visitor::of(&parts.headers, context).ok_or(NOT_OF_SESSION)?;
    Ok(visitor.form_token)
}

fn is_sign_in(parts: &Parts) -> bool {
    parts.uri.path() == SIGN_IN
}

/// The hidden field of a form for this visitor.
pub(super) fn token(visitor: &Visitor) -> Markup {
    hidden(&visitor.form_token)
}

/// The hidden field of the form at [`SIGN_IN`], and the cookie that the browser needs for it.
pub(super) fn token_of_browser(
    headers: &HeaderMap,
    context: &Context,
) -> (Markup, Option<HeaderValue>) {
    let api = &context.config.api;
    if let Some(token) = context.sessions.form_token_of_browser(headers, api) {
        return (hidden(&token), None);
    }
    let transport = Transport::of(headers, api);
    let (cookie, token) = context.sessions.new_browser(transport);
    (hidden(&token), Some(cookie))
}

fn hidden(token: &str) -> Markup {
    html! { input type="hidden" name=(TOKEN) value=(token); }
}
