//! Parameters of operations, for the OpenAPI document: those of each extractor are defined once.
//!
//! Invariant: a documented bound is the same constant that is checked.

use std::ops::RangeInclusive;

use utoipa::{
    IntoParams, PartialSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, Ref, RefOr, Required, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{KnownFormat, Schema, SchemaFormat},
    },
};

use super::{
    extract::{DeliveryPath, FilePath, JobPath, ListQuery, RowQuery},
    relays::RelayPath,
    wait::{MAX_SECONDS, Wait},
};
use crate::domain::bounds::{DEFAULT_LIMIT, MAX_LIMIT};

/// Longest `Idempotency-Key`, in characters.
pub(super) const MAX_IDEMPOTENCY_KEY: usize = 255;

macro_rules! parameters {
    ($($name:ident: [$($parameter:expr),* $(,)?];)*) => {$(
        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                vec![$($parameter),*]
            }
        }
    )*};
}

parameters! {
    JobPath: [path("id", "Job id")];
    FilePath: [path("id", "Job id"), path("name", "The file's name, as the job shows it")];
    DeliveryPath: [path("id", "Delivery id")];
    RelayPath: [path("id", "The order's id")];
    CallbackPath: [
        path("job", "Job id"),
        path("signature", "HMAC-SHA256 of the job id, base64url"),
    ];
    InboxPath: [path("secret", "`callbacks.inbox_secret`")];
    RowQuery: [limit(), cursor()];
    Wait: [query("wait", "Seconds to wait for the end of the job", integer(0..=MAX_SECONDS))];
    ListQuery: [
        query("status", "Any of these; repeatable", list_of("JobStatus")),
        query("endUserId", "Jobs of this end user", text()),
        query("cloudPackage", "Jobs that this licence pays", text()),
        query("reference", "Jobs with this reference", text()),
        query("engineJobId", "The job with this id at the Engine", text()),
        query("externalJobId", "Jobs with this external id", text()),
        query("overdue", "Only those that are, or are not", boolean()),
        query(
            "staleCallback",
            "In flight with a callback address that is no longer the public URL",
            boolean(),
        ),
        query("createdAfter", "Inclusive", time()),
        query("createdBefore", "Exclusive", time()),
        limit(),
        cursor(),
    ];
    RelayQuery: [
        query("jobId", "Orders of this job", text()),
        query("state", "Orders in this state", Ref::from_schema_name("RelayState")),
        query("target", "Orders for this target", text()),
        limit(),
        cursor(),
    ];
    EndUserQuery: [required(query("endUserId", "Whose jobs", text()))];
    BundleQuery: [query("bundle", "All files in one archive", one_word("zip"))];
    EventQuery: [
        query("jobId", "Events of this job only", text()),
        query("after", "The number of the last event seen; 0 for all", integer(0..=MAX_SEQ)),
        query(
            "lastEventId",
            "As `after`, and stronger: for clients that cannot set a header",
            integer(0..=MAX_SEQ),
        ),
        header(
            "Last-Event-ID",
            "As `after`, and the strongest; an empty one says nothing",
            integer(0..=MAX_SEQ),
        ),
    ];
    SubmitHeaders: [
        header(
            "Idempotency-Key",
            "Visible characters; the same key with the same body is one job",
            key(),
        ),
        header(
            "Prefer",
            "`wait=SECONDS`, up to 60: answer when the job has finished or the time is up",
            text(),
        ),
    ];
    KnownTag: [header("If-None-Match", "An `ETag` seen before", text())];
    PartHeaders: [
        header("Range", "One range of bytes", text()),
        header("If-Range", "The `ETag` that the range belongs to", text()),
    ];
}

/// The largest possible number of an event.
const MAX_SEQ: u64 = i64::MAX as u64;

/// The path of a callback.
pub(super) struct CallbackPath;

/// The path of the inbox.
pub(super) struct InboxPath;

/// The query of a list of orders.
pub(super) struct RelayQuery;

/// The query that selects the jobs to erase.
pub(super) struct EndUserQuery;

/// The query that asks for all files in one archive.
pub(super) struct BundleQuery;

/// The query and header that say where to resume the events.
pub(super) struct EventQuery;

/// The headers of a submission.
pub(super) struct SubmitHeaders;

/// The header that names the version a reader already has.
pub(super) struct KnownTag;

/// The headers that ask for a part of a file.
pub(super) struct PartHeaders;

fn parameter(place: ParameterIn, name: &str, description: &str) -> ParameterBuilder {
    let required = if place == ParameterIn::Path { Required::True } else { Required::False };
    let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(required);
    parameter.description(Some(description))
}

fn path(name: &str, description: &str) -> Parameter {
    parameter(ParameterIn::Path, name, description).schema(Some(text())).build()
}

fn query(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Query, name, description).schema(Some(schema)).build()
}

fn header(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Header, name, description).schema(Some(schema)).build()
}

fn required(mut parameter: Parameter) -> Parameter {
    parameter.required = Required::True;
    parameter
}

fn limit() -> Parameter {
    let limit = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    let limit = limit.maximum(Some(MAX_LIMIT)).default(Some(DEFAULT_LIMIT.into()));
    query("limit", "Rows of a page", limit)
}

fn cursor() -> Parameter {
    query("cursor", "`nextCursor` of the page before", text())
}

fn text() -> RefOr<Schema> {
    String::schema()
}

fn boolean() -> RefOr<Schema> {
    bool::schema()
}

fn integer(range: RangeInclusive<u64>) -> RefOr<Schema> {
    let integer = ObjectBuilder::new().schema_type(Type::Integer);
    integer.minimum(Some(*range.start())).maximum(Some(*range.end())).into()
}

fn time() -> RefOr<Schema> {
    let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
}

fn key() -> RefOr<Schema> {
    let key = ObjectBuilder::new().schema_type(Type::String);
    key.min_length(Some(1)).max_length(Some(MAX_IDEMPOTENCY_KEY)).into()
}

fn one_word(word: &str) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some([word])).into()
}

fn list_of(schema: &str) -> RefOr<Schema> {
    ArrayBuilder::new().items(Ref::from_schema_name(schema)).into()
}
