//! The signature in a callback address: it proves that we made the address.
//!
//! The HTTP layer signs when a job is submitted and verifies before anything is read or stored. The
//! invariant: a forged address is told from a true one in constant time, by arithmetic alone.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::ids::JobId;

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

fn mac(key: &[u8; 32], id: JobId) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.chain_update(id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_signature_for_this_very_job_is_genuine() {
        let id = JobId(uuid::Uuid::from_u128(7));
        let signature = sign(&[1; 32], id);
        assert!(is_genuine(&[1; 32], id, &signature));
        assert!(!is_genuine(&[2; 32], id, &signature));
        assert!(!is_genuine(&[1; 32], JobId(uuid::Uuid::from_u128(8)), &signature));
        for forged in ["", "x", &signature[1..], &format!("{signature}A"), &"A".repeat(43)] {
            assert!(!is_genuine(&[1; 32], id, forged), "{forged}");
        }
    }
}
