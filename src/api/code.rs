//! The closed list of problem codes: the contract's table, stated once.
//!
//! `http::error` answers with them, `http::refusals` documents them. The invariant: a code has one
//! status and one title for ever.

use super::schema::one_of;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

macro_rules! codes {
    ($($variant:ident = $status:literal $code:literal $title:literal,)*) => {
        /// What went wrong, for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ProblemCode {
            $(#[doc = $title] $variant,)*
        }

        impl ProblemCode {
            /// Every code, by status.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it is written in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status that it comes with.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// What it means, for people.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    MalformedJson = 400 "malformed-json" "The body is not JSON",
    Unauthorized = 401 "unauthorized" "An API key is needed",
    ForbiddenOrigin = 403 "forbidden-origin" "The request may come from another site",
    ForbiddenScope = 403 "forbidden-scope" "The API key does not allow this",
    NotFound = 404 "not-found" "There is nothing here",
    UnknownInput = 404 "unknown-input" "The job has no such input",
    MethodNotAllowed = 405 "method-not-allowed" "The method is not allowed here",
    RequestTimeout = 408 "request-timeout" "The request took too long",
    IdempotencyInFlight = 409 "idempotency-in-flight" "The first submission is still going on",
    InputProvided = 409 "input-provided" "The input is not to be uploaded",
    LinkExpired = 409 "link-expired" "The link for the upload has expired",
    NoEngineId = 409 "no-engine-id" "The Engine's id for this job is not known",
    Gone = 410 "gone" "It has been erased, or its time is over",
    PayloadTooLarge = 413 "payload-too-large" "The body is too large",
    UnsupportedMediaType = 415 "unsupported-media-type" "The body must be JSON",
    RangeNotSatisfiable = 416 "range-not-satisfiable" "The file has no such bytes",
    EngineRejected = 422 "engine-rejected" "The Engine refused the job",
    IdempotencyMismatch = 422 "idempotency-mismatch" "The key stands for another body",
    ValidationFailed = 422 "validation-failed" "The request cannot be carried out",
    TooManyFailures = 429 "too-many-failures" "Too many wrong API keys",
    HeadersTooLarge = 431 "headers-too-large" "The head of the request is too large",
    Internal = 500 "internal" "Something went wrong here",
    EngineAuth = 502 "engine-auth" "There is no token that the Engine accepts",
    EngineUnavailable = 502 "engine-unavailable" "The Engine is not available",
    NotifyFailed = 502 "notify-failed" "The Engine was not told of the input",
    UploadFailed = 502 "upload-failed" "The input is not at the Engine's storage",
    UrlRefused = 502 "url-refused" "The Engine's address is not followed",
    EngineBusy = 503 "engine-busy" "The Engine is busy",
    FileStoreUnavailable = 503 "file-store-unavailable" "The file store refuses",
    Overloaded = 503 "overloaded" "Too much is going on",
    PublicUrlUnknown = 503 "public-url-unknown" "The public URL is not known",
    StorageUnavailable = 503 "storage-unavailable" "The database refuses",
    EngineTimeout = 504 "engine-timeout" "The Engine did not answer in time",
}

impl ProblemCode {
    /// The set of this code alone; sets are joined with `|`.
    pub const fn bit(self) -> u64 {
        1 << self as u32
    }
}

impl PartialSchema for ProblemCode {
    fn schema() -> RefOr<Schema> {
        let codes = Self::ALL.iter().map(|code| code.as_str());
        one_of(codes, "What went wrong, for programs; a code keeps its meaning.")
    }
}

impl ToSchema for ProblemCode {}
