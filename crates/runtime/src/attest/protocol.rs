//! The messages of docs/protocol.md, sections 4 and 6, and what evidence is bound to. No I/O.

use base64::prelude::{Engine as _, BASE64_URL_SAFE_NO_PAD};
use ring::digest::{Context, SHA512};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::jose::Jwk;

/// What a piece of evidence vouches for besides the measurement.
pub type ReportData = [u8; 64];

/// `SHA-512(lp("sconify attestation v1") ‖ lp(nonce) ‖ lp(public key) ‖ lp(config id))`.
pub fn report_data(nonce: &[u8; 32], public_key: &[u8; 65], config_id: &str) -> ReportData {
    let mut context = Context::new(&SHA512);
    for part in [
        b"sconify attestation v1",
        &nonce[..],
        public_key,
        config_id.as_bytes(),
    ] {
        // None is near 4 GiB: a config id comes from an environment variable.
        context.update(&(part.len() as u32).to_be_bytes());
        context.update(part);
    }
    let mut data = [0; 64];
    data.copy_from_slice(context.finish().as_ref());
    data
}

/// `POST /v1/challenge`.
#[derive(Serialize)]
pub struct ChallengeRequest<'a> {
    pub config_id: &'a str,
}

/// The answer to a [`ChallengeRequest`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    pub nonce: Nonce,
    #[serde(rename = "expires_in")]
    _expires_in: u64,
}

/// 32 bytes that the CAS chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; 32]);

impl Nonce {
    /// As it stands in messages: base64url without padding.
    pub fn encoded(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .map_err(serde::de::Error::custom)?;
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| serde::de::Error::custom("a nonce is 32 bytes"))
    }
}

/// Evidence as JSON, opaque to us: the CAS judges it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Evidence(Box<RawValue>);

impl Evidence {
    /// What kind of evidence it says it is; only for messages.
    pub fn kind(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Kind {
            kind: String,
        }
        serde_json::from_str::<Kind>(self.0.get())
            .ok()
            .map(|evidence| evidence.kind)
    }
}

/// `POST /v1/attest`.
#[derive(Serialize)]
pub struct AttestRequest<'a> {
    pub config_id: &'a str,
    pub nonce: String,
    pub public_key: Jwk,
    pub evidence: &'a Evidence,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_proof: Option<String>,
}

/// The answer to an [`AttestRequest`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestAnswer {
    pub sealed: String,
    pub session_token: Zeroizing<String>,
}

/// `POST /v1/exit`: how the program ended, by itself with a status or by a signal.
#[derive(Serialize)]
pub struct ExitReport {
    pub status: Option<i32>,
    pub signal: Option<i32>,
}

/// The answer to `POST /v1/renew`: for how many seconds from now the lease holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewed {
    pub expires_in: u64,
}

/// `POST /v1/volumes/NAME`: the newest state of a volume.
#[derive(Serialize)]
pub struct StateReport {
    pub root: String,
    pub counter: u64,
}

/// The body of a refusal: `msg` from the outermost to the innermost cause.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The reasons.
    pub msg: Vec<String>,
    /// What mends it.
    pub remedy: Option<String>,
    #[serde(rename = "version")]
    _version: String,
}

/// A request for evidence, one line.
#[derive(Serialize)]
pub struct EvidenceRequest {
    pub op: &'static str,
    pub report_data: String,
    pub measurement: String,
}

/// The answer to an [`EvidenceRequest`], one line: one of the two.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvidenceAnswer {
    /// What was asked for.
    Evidence(Evidence),
    /// Why there is none.
    Error(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_part_of_the_report_data_counts() {
        let data = report_data(&[1; 32], &[4; 65], "a/b");
        assert_ne!(report_data(&[2; 32], &[4; 65], "a/b"), data);
        assert_ne!(report_data(&[1; 32], &[5; 65], "a/b"), data);
        assert_ne!(report_data(&[1; 32], &[4; 65], "a/c"), data);
    }

    #[test]
    fn a_challenge_is_read_strictly() {
        let nonce = BASE64_URL_SAFE_NO_PAD.encode([7; 32]);
        let read = |json: String| {
            serde_json::from_str::<Challenge>(&json).map(|challenge| challenge.nonce)
        };
        assert_eq!(
            read(format!(r#"{{"nonce":"{nonce}","expires_in":60}}"#)).unwrap(),
            Nonce([7; 32])
        );
        for json in [
            format!(r#"{{"nonce":"{nonce}"}}"#),
            format!(r#"{{"nonce":"{nonce}","expires_in":60,"more":1}}"#),
            format!(r#"{{"nonce":"{nonce}=","expires_in":60}}"#),
            r#"{"nonce":"AAAA","expires_in":60}"#.to_owned(),
            r#"{"expires_in":60}"#.to_owned(),
        ] {
            assert!(read(json.clone()).is_err(), "{json}");
        }
    }

    #[test]
    fn an_evidence_answer_is_exactly_one_of_the_two() {
        let read = |json| serde_json::from_str::<EvidenceAnswer>(json);
        assert!(matches!(
            read(r#"{"evidence":{"kind":"simulated"}}"#),
            Ok(EvidenceAnswer::Evidence(_))
        ));
        assert!(matches!(
            read(r#"{"error":"no"}"#),
            Ok(EvidenceAnswer::Error(_))
        ));
        for json in [
            "{}",
            r#"{"evidence":{},"error":"no"}"#,
            r#"{"other":1}"#,
            r#"{"error":1}"#,
            "[]",
            "1",
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn evidence_is_passed_on_as_it_is() {
        let json = r#"{"kind":"simulated", "issued_at":12345678901234567890123}"#;
        let evidence: Evidence = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&evidence).unwrap(), json);
        assert_eq!(evidence.kind().as_deref(), Some("simulated"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "\\PC{0,100}") {
            let _ = serde_json::from_str::<Challenge>(&text);
            let _ = serde_json::from_str::<AttestAnswer>(&text);
            let _ = serde_json::from_str::<EvidenceAnswer>(&text);
            let _ = serde_json::from_str::<Refusal>(&text);
        }
    }
}
