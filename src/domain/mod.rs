//! Plain values and the decisions about them: no async, no I/O, no clock.
//!
//! Every other module uses these types. Invariant: a decision depends only on its arguments, so
//! each can be tested with values.

pub mod bounds;
pub mod callback_address;
pub mod content_coding;
pub mod delivery;
pub mod digest;
pub mod event;
pub mod file_name;
pub mod header;
pub mod ids;
pub mod job;
pub mod json;
pub mod link;
pub mod media_type;
pub mod mirror;
pub mod names;
pub mod pace;
pub mod page;
pub mod quote;
pub mod reconcile;
pub mod relay;
pub mod request;
pub mod result;
pub mod signature;
pub mod signing_keys;
pub mod storage;
pub mod time;
pub mod upload;
