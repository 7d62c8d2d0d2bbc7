//! The service access token, which the operator of a service and its policy share: each side proves that it knows it (docs/protocol.md,
//! section 4). No I/O.

use ring::hmac;
use zeroize::Zeroizing;

use super::ReportData;

const SERVICE_DOMAIN: &[u8] = b"sconify service access v1\0";
const CAS_DOMAIN: &[u8] = b"sconify CAS access v1\0";

/// Why the proof of the CAS does not count.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The policy has no token.
    #[error("the CAS does not prove that it knows the service access token: the policy has none")]
    NoProof,
    /// The proof is of another token.
    #[error("the CAS has another service access token")]
    OtherToken,
    /// The policy has a token, and we have none to check its proof by.
    #[error("the policy has a service access token, but SCONE_SERVICE_ACCESS_TOKEN is not set")]
    NoToken,
}

/// `SCONE_SERVICE_ACCESS_TOKEN`.
pub struct AccessToken(Zeroizing<String>);

impl AccessToken {
    /// The token that this text is.
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// What shows the CAS that we know it, 64 hex digits.
    pub fn proof(&self, report_data: &ReportData) -> String {
        let message = [SERVICE_DOMAIN, report_data].concat();
        hex::encode(hmac::sign(&self.key(), &message))
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes())
    }
}

/// Checks that the CAS knows the token that this service was started with; both have one, or none.
pub fn check(
    token: Option<&AccessToken>,
    proof: Option<&str>,
    report_data: &ReportData,
) -> Result<(), AccessError> {
    let (token, proof) = match (token, proof) {
        (None, None) => return Ok(()),
        (Some(_), None) => return Err(AccessError::NoProof),
        (None, Some(_)) => return Err(AccessError::NoToken),
        (Some(token), Some(proof)) => (token, proof),
    };
    let proof = hex::decode(proof).map_err(|_| AccessError::OtherToken)?;
    let message = [CAS_DOMAIN, report_data].concat();
    hmac::verify(&token.key(), &message, &proof).map_err(|_| AccessError::OtherToken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: ReportData = [7; 64];

    fn token(text: &str) -> AccessToken {
        AccessToken::new(Zeroizing::new(text.to_owned()))
    }

    /// By Python: `hmac.digest(b"open sesame", b"sconify CAS access v1\0" + bytes([7]) * 64, "sha256").hex()`.
    const OF_THE_CAS: &str = "29b1b923fc6def565010a3450ea9a9dc6d3dbcd26ac095cda36f62a791dff8e1";
    /// The same of `b"sconify service access v1\0"`.
    const OF_THE_SERVICE: &str = "08d2a44235b2598757ff4cfae84a40c2815372c6af05332f7764159c5be6e3d8";

    #[test]
    fn both_sides_prove_that_they_know_the_token() {
        let token = token("open sesame");
        assert_eq!(token.proof(&DATA), OF_THE_SERVICE);
        assert_eq!(check(Some(&token), Some(OF_THE_CAS), &DATA), Ok(()));
    }

    #[test]
    fn a_proof_is_of_one_token_one_side_and_one_attestation() {
        let other = Err(AccessError::OtherToken);
        let token = token("open sesame");
        assert_eq!(
            check(Some(&self::token("x")), Some(OF_THE_CAS), &DATA),
            other
        );
        assert_eq!(check(Some(&token), Some(OF_THE_CAS), &[8; 64]), other);
        for proof in [OF_THE_SERVICE, "", "x", &OF_THE_CAS[2..]] {
            assert_eq!(check(Some(&token), Some(proof), &DATA), other, "{proof}");
        }
    }

    #[test]
    fn both_have_a_token_or_none() {
        assert_eq!(check(None, None, &DATA), Ok(()));
        assert_eq!(
            check(Some(&token("x")), None, &DATA),
            Err(AccessError::NoProof)
        );
        assert_eq!(
            check(None, Some(OF_THE_CAS), &DATA),
            Err(AccessError::NoToken)
        );
    }
}
