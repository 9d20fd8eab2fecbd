//! What the OpenAPI document says of values whose Rust type says less: closed lists of words, open
//! objects, bytes.
//!
//! Nothing here is ever made; the types stand for schemas. The invariant: a list of words is read
//! from `domain`, where the words are written.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, Ref, RefOr, Type,
        schema::{
            AdditionalProperties, AnyOfBuilder, KnownFormat, Schema, SchemaFormat, SchemaType,
        },
    },
};

use crate::domain::{delivery, event, job, relay};

/// Each list becomes a named schema, so that clients get one type for it.
macro_rules! words {
    ($($(#[doc = $doc:literal])* $name:ident: $words:expr;)*) => {$(
        $(#[doc = $doc])*
        pub struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                one_of($words, concat!($($doc,)*).trim())
            }
        }

        impl ToSchema for $name {}
    )*};
}

words! {
    /// Where a job stands.
    JobStatus: job::JobStatus::ALL.map(job::JobStatus::as_str);
    /// How a job came on record.
    Origin: job::Origin::ALL.map(job::Origin::as_str);
    /// How far an input is; `provided`: it had a `downloadUrl`.
    InputState: job::InputState::ALL.map(job::InputState::as_str);
    /// What became of a delivery on record.
    DeliveryOutcome: delivery::Outcome::KEPT.map(delivery::Outcome::as_str);
    /// What became of a callback; `spooled` while the database refuses.
    CallbackOutcome: delivery::Outcome::ACKNOWLEDGED
        .map(delivery::Outcome::as_str)
        .into_iter()
        .chain([delivery::SPOOLED]);
    /// What an event tells of.
    EventType: event::EventType::ALL.map(event::EventType::as_str);
    /// How far an order is; `paused`: pending, and its target is left alone for a while.
    RelayState: relay::RelayState::ALL.map(relay::RelayState::as_str);
}

/// A text that is one of these.
pub(super) fn one_of(
    words: impl IntoIterator<Item = &'static str>,
    description: &str,
) -> RefOr<Schema> {
    let words = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
    words.description(Some(description)).into()
}

/// A value that is one of several named schemas. More than one may fit, so it is `anyOf`.
pub(super) fn any_of(names: [&str; 2]) -> RefOr<Schema> {
    let choices = names.into_iter().map(Ref::from_schema_name);
    choices.fold(AnyOfBuilder::new(), |any, choice| any.item(choice)).into()
}

/// An object with any members.
#[derive(Serialize)]
pub struct OpenObject;

impl utoipa::PartialSchema for OpenObject {
    fn schema() -> RefOr<Schema> {
        let any = AdditionalProperties::FreeForm(true);
        ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(any)).into()
    }
}

impl ToSchema for OpenObject {}

/// The Engine's own words.
pub fn engine_answer() -> Schema {
    let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    let words =
        "Any JSON as the Engine answered it; a string if it was not JSON, `null` if nothing.";
    any.description(Some(words)).into()
}

/// Names with their values, in their order.
pub fn pairs() -> Schema {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let pair = ArrayBuilder::new().items(text).min_items(Some(2)).max_items(Some(2));
    ArrayBuilder::new().items(pair).into()
}

/// A file's bytes.
pub struct Binary;

impl utoipa::PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for Binary {}

/// A job for the Engine. Members that are not named here are passed on as they are.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobRequest {
    /// The scans, by modality: `cbct`, `ios_upper`, `ios_lower`, `facial`.
    pub input_files: BTreeMap<String, InputFile>,
    pub output_files: OutputFiles,
    /// The Engine's settings for groups of structures.
    #[schema(inline)]
    pub options: Option<OpenObject>,
    /// Where the result is passed on to. The Engine is given this service's own callback address.
    pub finish_webhook: Option<String>,
    /// Which licence pays.
    pub cloud_package: Option<String>,
    /// The end user whom the job is for.
    pub end_user_id: Option<String>,
    /// Deprecated by the Engine; use `finishline.reference`.
    pub external_job_id: Option<String>,
    pub finishline: Option<Finishline>,
    #[serde(flatten)]
    pub further: BTreeMap<String, serde_json::Value>,
}

/// A scan that the Engine needs.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InputFile {
    #[schema(example = ".dcm")]
    pub extension: String,
    /// Where the Engine fetches it. Without one it is uploaded: `PUT /v1/jobs/{id}/inputs/{name}`.
    pub download_url: Option<String>,
    #[serde(flatten)]
    pub further: BTreeMap<String, serde_json::Value>,
}

/// The files that the Engine is to make, by kind; `meshes` is the kind that is documented.
#[derive(Serialize, ToSchema)]
pub struct OutputFiles {
    #[serde(default)]
    pub meshes: Vec<OutputFile>,
    #[serde(flatten)]
    pub further: BTreeMap<String, serde_json::Value>,
}

/// One file that the Engine is to make; several structures become one mesh.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputFile {
    #[schema(example = ".stl")]
    pub extension: String,
    #[serde(default)]
    #[schema(example = json!(["mandible"]))]
    pub structures: Vec<String>,
    /// Where the Engine puts it. Without one its link comes in the result.
    pub upload_url: Option<String>,
    #[serde(flatten)]
    pub further: BTreeMap<String, serde_json::Value>,
}

/// The caller's own labels: kept here, never sent to the Engine.
#[derive(Serialize, ToSchema)]
pub struct Finishline {
    #[schema(example = "case-42")]
    pub reference: Option<String>,
}

/// The Engine's job result. Whether it succeeded is always said; the rest is the Engine's own.
#[derive(Serialize, ToSchema)]
pub struct EngineResult {
    pub success: bool,
    #[serde(flatten)]
    pub further: BTreeMap<String, serde_json::Value>,
}

/// Whether the process is alive.
#[derive(Serialize, ToSchema)]
pub struct Alive {
    #[schema(example = "ok")]
    pub status: String,
}

/// Whether the service can do its work.
#[derive(Serialize, ToSchema)]
pub struct Ready {
    /// `ready` or `not ready`.
    #[schema(example = "ready")]
    pub status: String,
    /// What was found out; for callers with a key.
    #[schema(inline)]
    pub checks: Option<OpenObject>,
}
