//! The signature in a callback address: it proves that we made the address.
//!
//! The HTTP layer signs when a job is submitted and verifies before anything is read or stored; the
//! doctor signs its probes with the same key and verifies their proofs. Verification takes constant
//! time and no I/O.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use uuid::Uuid;

use super::ids::JobId;

/// The job id of the doctor's probes; no job ever has it.
pub const PROBE_ID: JobId = JobId(Uuid::nil());

/// Distinguishes proofs from signatures, which are made with the same key.
const PROOF_PREFIX: &[u8] = b"finishline-probe:";

/// Base64url of HMAC-SHA256 over the job id's text; 43 characters.
pub fn sign(key: &[u8; 32], id: JobId) -> String {
    URL_SAFE_NO_PAD.encode(mac(key, id).finalize().into_bytes())
}

/// Whether `signature` was made by [`sign`] with the same key and id.
pub fn is_genuine(key: &[u8; 32], id: JobId, signature: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(signature)
        .is_ok_and(|signature| mac(key, id).verify_slice(&signature).is_ok())
}

/// The answer of the instance with this key to a probe: base64url, 43 characters.
pub fn prove(key: &[u8; 32], probe_body: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(proof_mac(key, probe_body).finalize().into_bytes())
}

/// Whether `proof` was made by [`prove`] with the same key for exactly this body.
pub fn is_proof(key: &[u8; 32], probe_body: &[u8], proof: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(proof)
        .is_ok_and(|proof| proof_mac(key, probe_body).verify_slice(&proof).is_ok())
}

fn mac(key: &[u8; 32], id: JobId) -> Hmac<Sha256> {
    keyed(key).chain_update(id.to_string())
}

fn proof_mac(key: &[u8; 32], probe_body: &[u8]) -> Hmac<Sha256> {
    keyed(key).chain_update(PROOF_PREFIX).chain_update(Sha256::digest(probe_body))
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_signature_for_this_very_job_is_genuine() {
        let id = JobId(Uuid::from_u128(7));
        let signature = sign(&[1; 32], id);
        assert!(is_genuine(&[1; 32], id, &signature));
        assert!(!is_genuine(&[2; 32], id, &signature));
        assert!(!is_genuine(&[1; 32], JobId(Uuid::from_u128(8)), &signature));
        for forged in ["", "x", &signature[1..], &format!("{signature}A"), &"A".repeat(43)] {
            assert!(!is_genuine(&[1; 32], id, forged), "{forged}");
        }
    }

    #[test]
    fn only_the_instance_that_read_the_body_can_prove_it() {
        let proof = prove(&[1; 32], b"nonce");
        assert!(is_proof(&[1; 32], b"nonce", &proof));
        assert!(!is_proof(&[2; 32], b"nonce", &proof));
        assert!(!is_proof(&[1; 32], b"nonces", &proof));
        assert!(!is_proof(&[1; 32], b"nonce", &sign(&[1; 32], PROBE_ID)));
    }
}
