//! What an answer shows to its caller: everything to those who may read, little to the others.
//!
//! The service decides which in `http::view`; clients take either. The invariant: the short form
//! holds no link to an output, nothing of the request and nothing that the Engine said.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

use super::{Input, Job, Relay, schema};

/// A job as its caller may see it: whole with the scope `read`, else in short.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum JobView {
    Full(Box<Job>),
    Brief(BriefJob),
}

/// A job for callers without the scope `read`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BriefJob {
    /// UUIDv7.
    #[schema(example = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55")]
    pub id: String,
    #[schema(value_type = schema::JobStatus)]
    pub status: String,
    pub warnings: Vec<String>,
    /// Where the scans go; for callers with the scope `submit` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<Input>>,
}

impl JobView {
    pub fn id(&self) -> &str {
        match self {
            Self::Full(job) => &job.id,
            Self::Brief(job) => &job.id,
        }
    }

    pub fn status(&self) -> &str {
        match self {
            Self::Full(job) => &job.status,
            Self::Brief(job) => &job.status,
        }
    }

    /// Empty where they are not shown.
    pub fn inputs(&self) -> &[Input] {
        match self {
            Self::Full(job) => &job.inputs,
            Self::Brief(job) => job.inputs.as_deref().unwrap_or_default(),
        }
    }

    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Full(job) => &job.warnings,
            Self::Brief(job) => &job.warnings,
        }
    }

    /// The whole job, if it is shown.
    pub fn full(&self) -> Option<&Job> {
        match self {
            Self::Full(job) => Some(job),
            Self::Brief(_) => None,
        }
    }
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        Self::Full(Box::new(job))
    }
}

// By hand: serde's own reading of untagged values loses the exact text of `request`.
impl<'de> Deserialize<'de> for JobView {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(source)?;
        match serde_json::from_str::<Job>(text.get()) {
            Ok(job) => Ok(job.into()),
            Err(_) => serde_json::from_str(text.get()).map(Self::Brief).map_err(D::Error::custom),
        }
    }
}

/// An order as its caller may see it: whole with the scope `read`, else in short.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum RelayView {
    Full(Relay),
    Brief(BriefRelay),
}

/// An order for callers without the scope `read`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BriefRelay {
    pub id: String,
    #[schema(value_type = schema::RelayState)]
    pub state: String,
}

impl RelayView {
    pub fn id(&self) -> &str {
        match self {
            Self::Full(relay) => &relay.id,
            Self::Brief(relay) => &relay.id,
        }
    }
}

impl<'de> Deserialize<'de> for RelayView {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(source)?;
        match serde_json::from_str::<Relay>(text.get()) {
            Ok(relay) => Ok(Self::Full(relay)),
            Err(_) => serde_json::from_str(text.get()).map(Self::Brief).map_err(D::Error::custom),
        }
    }
}

// By hand: derived, they would be `oneOf`, and a whole job fits the short form too.
macro_rules! view_schema {
    ($view:ident = $full:ident or $brief:ident) => {
        impl PartialSchema for $view {
            fn schema() -> RefOr<Schema> {
                schema::any_of([stringify!($full), stringify!($brief)])
            }
        }

        impl ToSchema for $view {
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                schemas.push((stringify!($full).into(), $full::schema()));
                schemas.push((stringify!($brief).into(), $brief::schema()));
                $full::schemas(schemas);
                $brief::schemas(schemas);
            }
        }
    };
}

view_schema!(JobView = Job or BriefJob);
view_schema!(RelayView = Relay or BriefRelay);
