use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::attest::protocol;

/// What joserfc sealed, see tests/vectors/make_sealed.py.
#[derive(Deserialize)]
struct Vector {
    config_id: String,
    nonce: protocol::Nonce,
    public_key: String,
    report_data: String,
    sender: String,
    shared_secret: String,
    cas_key: String,
    sealed: String,
    payload: Value,
}

fn vector() -> Vector {
    serde_json::from_str(include_str!(
        "../../../../tests/vectors/protocol/sealed.json"
    ))
    .unwrap()
}

impl Vector {
    fn cas_key(&self) -> [u8; 32] {
        hex::decode(&self.cas_key).unwrap().try_into().unwrap()
    }

    fn open(&self, sealed: &str) -> Result<Zeroizing<Vec<u8>>, JoseError> {
        open(sealed, |peer| {
            (hex::encode(peer) == self.sender)
                .then(|| derive_key(&hex::decode(&self.shared_secret).unwrap()))
        })
    }

    fn signed(&self) -> String {
        String::from_utf8(self.open(&self.sealed).unwrap().to_vec()).unwrap()
    }
}

/// A compact serialisation with one part replaced.
fn with_part(compact: &str, at: usize, part: &str) -> String {
    let mut parts: Vec<&str> = compact.split('.').collect();
    parts[at] = part;
    parts.join(".")
}

/// A compact serialisation whose header went through a change.
fn with_header(compact: &str, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> String {
    let header = decode(compact.split('.').next().unwrap(), "header").unwrap();
    let mut header: serde_json::Map<String, Value> = serde_json::from_slice(&header).unwrap();
    change(&mut header);
    with_part(
        compact,
        0,
        &BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).unwrap()),
    )
}

#[test]
fn what_joserfc_sealed_is_opened_and_verified() {
    let vector = vector();
    let signed = vector.open(&vector.sealed).unwrap();
    let content = verify(&signed, &vector.cas_key()).unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(content.content()).unwrap(),
        vector.payload
    );
}

#[test]
fn the_report_data_is_that_of_the_vector() {
    let vector = vector();
    let point = hex::decode(&vector.public_key).unwrap().try_into().unwrap();
    let data = protocol::report_data(&vector.nonce.0, &point, &vector.config_id);
    assert_eq!(hex::encode(data), vector.report_data);
}

#[test]
fn a_real_key_agrees_with_its_peer() {
    let (ours, theirs) = (
        EphemeralKey::generate().unwrap(),
        EphemeralKey::generate().unwrap(),
    );
    let (our_point, their_point) = (*ours.point(), *theirs.point());
    let agree = |key: EphemeralKey, peer| {
        let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, peer);
        agreement::agree_ephemeral(key.private, &peer, |shared| derive_key(shared).to_vec())
            .unwrap()
    };
    assert_eq!(agree(ours, their_point), agree(theirs, our_point));
}

#[test]
fn another_key_does_not_open_it() {
    let sealed = vector().sealed;
    assert_eq!(
        EphemeralKey::generate().unwrap().open(&sealed),
        Err(JoseError::NotForUs)
    );
}

#[test]
fn a_point_off_the_curve_is_refused() {
    let off = with_header(&vector().sealed, |header| {
        header["epk"]["x"] = BASE64_URL_SAFE_NO_PAD.encode([1; 32]).into()
    });
    assert_eq!(
        EphemeralKey::generate().unwrap().open(&off),
        Err(JoseError::NotForUs)
    );
}

#[test]
fn headers_that_say_anything_else_are_refused() {
    let vector = vector();
    let changes: [fn(&mut serde_json::Map<String, Value>); 8] = [
        |header| header["alg"] = "ECDH-ES+A256KW".into(),
        |header| header["enc"] = "A128GCM".into(),
        |header| header["typ"] = "JWT".into(),
        |header| drop(header.remove("typ")),
        |header| drop(header.insert("zip".into(), "DEF".into())),
        |header| drop(header.insert("apu".into(), "QQ".into())),
        |header| header["epk"]["crv"] = "P-384".into(),
        |header| header["epk"]["d"] = "AA".into(),
    ];
    for change in changes {
        let sealed = with_header(&vector.sealed, change);
        assert!(
            matches!(vector.open(&sealed), Err(JoseError::Malformed(_))),
            "{sealed}"
        );
    }
}

#[test]
fn a_header_that_only_looks_the_same_does_not_authenticate() {
    let vector = vector();
    let mut header = decode(vector.sealed.split('.').next().unwrap(), "header").unwrap();
    header.push(b' ');
    let sealed = with_part(&vector.sealed, 0, &BASE64_URL_SAFE_NO_PAD.encode(header));
    assert_eq!(vector.open(&sealed), Err(JoseError::NotForUs));
}

#[test]
fn another_number_of_parts_is_refused() {
    let vector = vector();
    let parts: Vec<&str> = vector.sealed.split('.').collect();
    for sealed in [
        parts[..4].join("."),
        format!("{}.", vector.sealed),
        with_part(&vector.sealed, 1, "AA"),
        String::new(),
    ] {
        assert!(matches!(vector.open(&sealed), Err(JoseError::Malformed(_))));
    }
    for tag in ["", "AAAA", &format!("{}AAAA", parts[4])] {
        assert!(vector.open(&with_part(&vector.sealed, 4, tag)).is_err());
    }
}

#[test]
fn only_the_cas_key_signs() {
    let vector = vector();
    let other = verify(vector.signed().as_bytes(), &[7; 32]).err();
    assert!(matches!(other, Some(JoseError::OtherSigner { got, .. }) if got == vector.cas_key));
}

#[test]
fn a_changed_signed_content_is_refused() {
    let vector = vector();
    let signed = vector.signed();
    let refused = |signed: &str| verify(signed.as_bytes(), &vector.cas_key()).err();
    let payload = with_part(&signed, 1, &BASE64_URL_SAFE_NO_PAD.encode(b"{}"));
    assert_eq!(refused(&payload), Some(JoseError::BadSignature));
    assert_eq!(
        refused(&with_part(&signed, 2, "")),
        Some(JoseError::BadSignature)
    );
    for changed in [
        with_header(&signed, |header| header["alg"] = "none".into()),
        with_header(&signed, |header| {
            drop(header.insert("crit".into(), Value::Array(vec![])))
        }),
        with_header(&signed, |header| drop(header.remove("jwk"))),
    ] {
        assert!(
            matches!(refused(&changed), Some(JoseError::Malformed(_))),
            "{changed}"
        );
    }
}

proptest! {
    #[test]
    fn no_changed_character_of_the_jwe_is_accepted(at: prop::sample::Index, to in "[A-Za-z0-9_.-]") {
        let vector = vector();
        let at = at.index(vector.sealed.len());
        let mut sealed = vector.sealed.clone();
        sealed.replace_range(at..=at, &to);
        prop_assume!(sealed != vector.sealed);
        prop_assert!(vector.open(&sealed).is_err());
    }

    #[test]
    fn no_changed_character_of_the_jws_is_accepted(at: prop::sample::Index, to in "[A-Za-z0-9_.-]") {
        let vector = vector();
        let original = vector.signed();
        let at = at.index(original.len());
        let mut signed = original.clone();
        signed.replace_range(at..=at, &to);
        prop_assume!(signed != original);
        prop_assert!(verify(signed.as_bytes(), &vector.cas_key()).is_err());
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,100}", dotted in "[A-Za-z0-9_.-]{0,100}") {
        for text in [text, dotted] {
            let _ = open(&text, |_| None);
            let _ = verify(text.as_bytes(), &[0; 32]);
        }
    }
}
