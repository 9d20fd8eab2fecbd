//! The responses with a file, for the OpenAPI document.

use std::{collections::BTreeMap, iter};

use utoipa::{
    IntoResponses, PartialSchema,
    openapi::{self, Content, Header, RefOr, ResponseBuilder},
};

use crate::{api::schema, domain::media_type};

/// The responses with a file, whole or in part.
pub(super) struct FileResponses;

impl IntoResponses for FileResponses {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let header = |description: &str| {
            let mut header = Header::new(String::schema());
            header.description = Some(description.into());
            header
        };
        let response = |description: &str| {
            let response = ResponseBuilder::new()
                .description(description)
                .header("ETag", header("To be sent as `If-None-Match` or `If-Range`"))
                .header("Accept-Ranges", header("`bytes`"))
                .header("Content-Disposition", header("The file's name"));
            // Generated clients would parse any file of a JSON type as JSON.
            let kinds = media_type::SERVED.into_iter().filter(|kind| !kind.ends_with("json"));
            let kinds = iter::once(media_type::UNKNOWN).chain(kinds);
            kinds.fold(response, |response, kind| {
                let content = Content::new(Some(schema::Binary::schema()));
                response.content(kind, content)
            })
        };
        let part = response("The part that was asked for")
            .header("Content-Range", header("Which bytes, and of how many"));
        let whole = response("The file, of its own type");
        BTreeMap::from([("200".into(), whole.build().into()), ("206".into(), part.build().into())])
    }
}
