//! A record of the spool: an arrival as bytes, behind a header that proves them intact.
//!
//! Written and read by the spool's file. Invariant: bytes that are torn, half written, left over
//! from another file or made up by a sender are never accepted as a record, because the header's
//! check covers the payload's digest and an id that only the file contains.

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    domain::{
        ids::{DeliveryId, JobId},
        result::{self, Reading},
        signing_keys::KeyNumber,
        time,
    },
    store::{Addressee, Arrival},
};

/// Identifies a spool file for as long as it exists.
pub type SpoolId = [u8; 16];

/// Length of a header. Records begin at multiples of it, so that records after a damaged one can be
/// found.
pub(super) const HEADER_BYTES: u64 = 64;

const MAGIC: &[u8; 8] = b"FLrecord";

/// Offset of the header's check, which covers all bytes before it.
const CHECK: usize = 56;

/// The header before a payload.
pub(super) struct Header {
    pub number: u64,
    /// Bytes of the payload.
    pub length: u64,
    /// SHA-256 of the payload.
    pub digest: [u8; 32],
}

impl Header {
    pub(super) fn to_bytes(&self, spool: &SpoolId) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_le_bytes());
        bytes[24..CHECK].copy_from_slice(&self.digest);
        let check = check(&bytes[..CHECK], spool);
        bytes[CHECK..].copy_from_slice(&check);
        bytes
    }

    /// `None`: no header, or a damaged one.
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES as usize], spool: &SpoolId) -> Option<Self> {
        if !bytes.starts_with(MAGIC) || bytes[CHECK..] != check(&bytes[..CHECK], spool) {
            return None;
        }
        let mut rest = &bytes[8..CHECK];
        let (number, length) = (rest.get_u64_le(), rest.get_u64_le());
        Some(Self { number, length, digest: rest.try_into().ok()? })
    }

    /// Bytes of header, payload and the padding to where the next record may begin.
    pub(super) fn span(&self) -> Option<u64> {
        self.length.checked_add(HEADER_BYTES)?.checked_next_multiple_of(HEADER_BYTES)
    }
}

fn check(bytes: &[u8], spool: &SpoolId) -> [u8; HEADER_BYTES as usize - CHECK] {
    let digest = Sha256::new().chain_update(spool).chain_update(bytes).finalize();
    std::array::from_fn(|place| digest[place])
}

/// An arrival ready to be written: the description, which begins with its length, and the body.
pub(super) struct Payload {
    pub description: Vec<u8>,
    pub body: Bytes,
}

impl Payload {
    pub(super) fn of(arrival: &Arrival) -> Self {
        let malformed = match &arrival.reading {
            Reading::Malformed(reason) => Some(reason.clone()),
            _ => None,
        };
        let json = serde_json::to_vec(&Description {
            delivery_id: arrival.delivery_id,
            addressee: match arrival.addressee {
                Addressee::Job(id) => To::Job(id),
                Addressee::Inbox(key) => To::Inbox(key),
            },
            signer: arrival.signer,
            received_at: arrival.received_at.as_millisecond(),
            source: arrival.source.clone(),
            headers: arrival.headers.clone(),
            malformed,
        })
        .expect("texts and numbers are JSON");
        let mut description = (json.len() as u64).to_le_bytes().to_vec();
        description.extend(json);
        Self { description, body: arrival.body.clone() }
    }

    pub(super) fn header(&self, number: u64) -> Header {
        let payload = Sha256::new().chain_update(&self.description).chain_update(&self.body);
        let length = self.description.len() as u64 + self.body.len() as u64;
        Header { number, length, digest: payload.finalize().into() }
    }
}

#[derive(Serialize, Deserialize)]
struct Description {
    delivery_id: DeliveryId,
    addressee: To,
    /// Missing in records written before keys could be replaced.
    #[serde(default)]
    signer: Option<KeyNumber>,
    /// Milliseconds since the Unix epoch.
    received_at: i64,
    source: String,
    headers: Vec<(String, String)>,
    /// Why the body is malformed; kept because a body of broken gzip is malformed even if its bytes
    /// parse.
    malformed: Option<String>,
}

#[derive(Serialize, Deserialize)]
enum To {
    Job(JobId),
    Inbox([u8; 32]),
}

/// The arrival in a complete payload, with its body parsed again; `None` if another version of the
/// program wrote it in a form that this one does not know.
pub(super) fn arrival(mut payload: Bytes, id_pointers: &[String]) -> Option<Arrival> {
    let length = usize::try_from(payload.try_get_u64_le().ok()?).ok()?;
    if length > payload.len() {
        return None;
    }
    let description: Description = serde_json::from_slice(&payload.split_to(length)).ok()?;
    let body = payload;
    Some(Arrival {
        delivery_id: description.delivery_id,
        addressee: match description.addressee {
            To::Job(id) => Addressee::Job(id),
            To::Inbox(key) => Addressee::Inbox(key),
        },
        signer: description.signer,
        received_at: time::from_millis(description.received_at),
        source: description.source,
        headers: description.headers,
        sha256: Sha256::digest(&body).into(),
        reading: match description.malformed {
            Some(reason) => Reading::Malformed(reason),
            None => result::read(&body, id_pointers),
        },
        body,
    })
}
