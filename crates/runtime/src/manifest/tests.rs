use std::collections::BTreeMap;
use std::path::Path;

use base64::prelude::{Engine as _, BASE64_STANDARD};
use proptest::prelude::*;

use super::*;

const JSON: &str = concat!(
    r#"{"cas_key":"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff","format":"sconify-launch/1","#,
    r#""mode":"file-protection","program":"/app","#,
    r#""runtime":"ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100","variables":{"SCONE_FORK":"0"}}"#,
);

/// A case of tests/vectors/launch, which the Python side checks too.
#[derive(Deserialize)]
struct Vector {
    runtime: String,
    program: String,
    cas_key: Option<String>,
    environment: BTreeMap<String, String>,
    manifest: String,
    binary: String,
    measurement: String,
}

fn vectors() -> Vec<Vector> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/launch");
    let files = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let vectors: Vec<Vector> = files
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        .collect();
    assert!(vectors.len() >= 5);
    vectors
}

#[test]
fn the_vectors_are_measured_as_python_measures_them() {
    for vector in vectors() {
        let binary = BASE64_STANDARD.decode(&vector.binary).unwrap();
        let statement =
            Statement::of_elf(&binary, |name| vector.environment.get(name).cloned()).unwrap();
        let (manifest, _) = statement.measured();
        assert_eq!(hex::encode(manifest.measurement()), vector.measurement);
        assert_eq!(manifest.runtime(), vector.runtime);
        assert_eq!(manifest.program(), vector.program);
        assert_eq!(statement.cas_key().ok().map(hex::encode), vector.cas_key);
        assert_eq!(
            elf::read(&binary).unwrap().manifest,
            vector.manifest.as_bytes()
        );
    }
}

#[test]
fn every_changed_byte_before_the_section_table_changes_the_measurement_or_is_refused() {
    let vector = vectors()
        .into_iter()
        .find(|vector| vector.environment.is_empty())
        .unwrap();
    let binary = BASE64_STANDARD.decode(&vector.binary).unwrap();
    let json = vector.manifest.as_bytes();
    let start = binary.windows(json.len()).rposition(|bytes| bytes == json);
    let end = start.unwrap() + json.len();
    // Without an embedded file system, the header fields that lead to the manifest are not measured.
    let free = [0x28..0x30, 0x3c..0x40];
    for at in (0..end).filter(|at| !free.iter().any(|range| range.contains(at))) {
        let mut changed = binary.clone();
        changed[at] ^= 1;
        if let Ok(statement) = Statement::of_elf(&changed, |_| None) {
            let (manifest, _) = statement.measured();
            assert_ne!(
                hex::encode(manifest.measurement()),
                vector.measurement,
                "byte {at}"
            );
        }
    }
}

#[test]
fn every_changed_byte_before_embedded_packs_changes_the_measurement_or_is_refused() {
    let vectors = vectors();
    let embedded = vectors
        .iter()
        .filter(|vector| vector.manifest.contains("binary-fs"));
    for vector in embedded {
        let binary = BASE64_STANDARD.decode(&vector.binary).unwrap();
        for at in 0..binary.len() {
            let mut changed = binary.clone();
            changed[at] ^= 1;
            let environment = |name: &str| vector.environment.get(name).cloned();
            if let Ok(statement) = Statement::of_elf(&changed, environment) {
                let (manifest, _) = statement.measured();
                let measurement = hex::encode(manifest.measurement());
                assert_ne!(measurement, vector.measurement, "byte {at}");
            }
        }
    }
}

#[test]
fn an_embedded_file_system_is_found() {
    let vectors = vectors();
    let embedded = |key: &str| {
        let vector = vectors
            .iter()
            .find(|vector| vector.manifest.contains("binary-fs") && vector.manifest.contains(key));
        let binary = BASE64_STANDARD.decode(&vector.unwrap().binary).unwrap();
        let header = binary.first_chunk().unwrap();
        assert_eq!(head_length(header), binary.len() as u64);
        Statement::of_elf(&binary, |_| None)
            .unwrap()
            .measured()
            .1
            .unwrap()
    };
    let files = embedded(r#""file_system":{"commitment":"cd"#);
    assert_eq!(files.commitment, [0xcd; 32]);
    assert_eq!(files.packs.start, 4096);
    assert!(files.index == b"an index" && files.digests.len() == 2 || files.index == b"odd");
    assert_eq!(embedded(r#""key":"0000"#).digests, Vec::<[u8; 32]>::new());
}

#[test]
fn a_mode_without_what_belongs_to_it_is_refused() {
    let other = JSON.replace("file-protection", "binary-fs");
    assert!(matches!(
        Fields::parse(other.as_bytes()),
        Err(ManifestError::Embedded { .. })
    ));
}

#[test]
fn a_manifest_gives_its_values() {
    let manifest = Manifest(Fields::parse(JSON.as_bytes()).unwrap());
    assert_eq!(manifest.0.cas_key().unwrap()[..2], [0x00, 0x11]);
    assert_eq!(manifest.program(), "/app");
    assert_eq!(manifest.dlopen(), Dlopen::Closure);
    assert!(!manifest.fork());
}

#[test]
fn what_is_unknown_missing_or_of_another_form_is_refused() {
    for (from, to) in [
        (r#""mode":"#, r#""more":"x","mode":"#),
        (r#","program":"/app""#, ""),
        (r#""file-protection""#, r#""binary-fs""#),
        (r#""sconify-launch/1""#, r#""sconify-launch/2""#),
        (r#""/app""#, r#""app""#),
        (r#""/app""#, r#""/a\u0000""#),
        (r#""/app""#, "7"),
        ("ffeeddcc", "FFEEDDCC"),
        ("00112233", "0011223"),
        (r#""SCONE_FORK":"0""#, r#""SCONE_FORK":"2""#),
        (r#""SCONE_FORK":"0""#, r#""SCONE_FORK":null"#),
        (r#""SCONE_FORK":"0""#, r#""SCONE_HEAP":"1G""#),
        (r#""SCONE_FORK":"0""#, r#""SCONE_MODE":"sim""#),
        (
            r#""SCONE_FORK":"0""#,
            r#""SCONE_FORK":"0","SCONE_FORK":"0""#,
        ),
        (r#""mode":"#, r#" "mode":"#),
        ("/app", r"\/app"),
    ] {
        let changed = JSON.replacen(from, to, 1);
        assert_ne!(changed, JSON, "{from}");
        assert!(Fields::parse(changed.as_bytes()).is_err(), "{changed}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Fields::parse(&bytes);
    }

    #[test]
    fn what_is_accepted_is_canonical(at in 0..JSON.len(), value in 0x20u8..0x7f) {
        let mut json = JSON.as_bytes().to_vec();
        json[at] = value;
        if let Ok(fields) = Fields::parse(&json) {
            prop_assert_eq!(fields.canonical(), json);
        }
    }
}
