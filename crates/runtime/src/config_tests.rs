use proptest::prelude::*;
use serde_json::{json, Value};

use super::*;

const CONFIG_ID: &str = "example/flask/service";

/// The payload of tests/vectors/protocol/sealed.json.
fn payload() -> Value {
    let vector = include_str!("../../../tests/vectors/protocol/sealed.json");
    let mut vector: Value = serde_json::from_str(vector).unwrap();
    vector["payload"].take()
}

fn nonce() -> Nonce {
    Nonce(std::array::from_fn(|at| at as u8))
}

fn manifest() -> Manifest {
    Manifest::sample("/usr/bin/python3")
}

fn read(payload: &Value) -> Result<Configuration, ConfigError> {
    Configuration::read(
        &Signed::sample(payload.to_string().into_bytes()),
        CONFIG_ID,
        &nonce(),
    )
}

/// The error of a payload that went through a change.
fn refused(change: impl FnOnce(&mut Value)) -> ConfigError {
    let mut payload = payload();
    change(&mut payload);
    match read(&payload).and_then(|configuration| configuration.into_launch(&manifest())) {
        Ok(_) => panic!("accepted: {payload}"),
        Err(error) => error,
    }
}

#[test]
fn a_configuration_becomes_a_launch() {
    let launch = read(&payload()).unwrap().into_launch(&manifest()).unwrap();
    assert_eq!(launch.program, b"/usr/bin/python3");
    let arguments: Vec<_> = launch
        .arguments
        .iter()
        .map(|text| text.to_str().unwrap())
        .collect();
    assert_eq!(arguments, ["python3", "-B", "/app/rest_api.py"]);
    let mut environment: Vec<_> = launch
        .environment
        .iter()
        .map(|text| text.to_str().unwrap())
        .collect();
    environment.sort_unstable();
    assert_eq!(
        environment,
        [
            "EMPTY=",
            "GREETING=h\u{e9}llo \"world\"",
            "PATH=/usr/bin:/bin"
        ]
    );
    assert_eq!(launch.working_directory, b"/app");
    assert!(matches!(launch.file_system.origin, Origin::Disk(path) if path == b"/.sconify/index"));
    assert!(launch.file_system.key == FileSystemKey::new([0x0f; 32]));
    assert!(launch.file_system.tag == RootTag::new([0xa0; 16]));
    let file = &launch.injected_files[0];
    assert_eq!(
        (&file.path[..], &file.content[..], file.mode),
        (&b"/etc/secret"[..], &b"\0secret\xff"[..], 0o400)
    );
}

#[test]
fn a_configuration_of_another_start_is_refused() {
    assert_eq!(
        refused(|payload| payload["config_id"] = "example/other/service".into()),
        ConfigError::Replayed("config_id")
    );
    let other = Nonce([9; 32]).encoded();
    assert_eq!(
        refused(|payload| payload["nonce"] = other.into()),
        ConfigError::Replayed("nonce")
    );
}

#[test]
fn each_missing_and_each_unknown_key_is_refused() {
    let keys: Vec<String> = payload().as_object().unwrap().keys().cloned().collect();
    for key in keys {
        let error = refused(|payload| drop(payload.as_object_mut().unwrap().remove(&key)));
        assert!(matches!(error, ConfigError::Malformed { .. }), "{key}");
    }
    for pointer in ["", "/file_system", "/injection_files/0"] {
        let error = refused(|payload| payload.pointer_mut(pointer).unwrap()["more"] = 1.into());
        assert!(matches!(error, ConfigError::Malformed { .. }), "{pointer}");
    }
}

#[test]
fn values_that_break_a_rule_are_refused_by_name() {
    for (pointer, value, what) in [
        ("/format", json!("sconify-config/2"), "format"),
        ("/command", json!([]), "command"),
        ("/command/1", json!("a\0b"), "command[1]"),
        (
            "/environment",
            json!({"A=B": "c"}),
            "the name \"A=B\" in environment",
        ),
        (
            "/environment",
            json!({"": "c"}),
            "the name \"\" in environment",
        ),
        ("/environment", json!({"A": "secret\0"}), "environment.A"),
        ("/pwd", json!("app"), "pwd"),
        ("/pwd", json!(""), "pwd"),
        ("/file_system/path", json!("index"), "file_system.path"),
        ("/file_system/key", json!("0f"), "file_system.key"),
        (
            "/file_system/tag",
            json!("xy".repeat(16)),
            "file_system.tag",
        ),
        (
            "/injection_files/0/path",
            json!("/etc/../x"),
            "injection_files[0].path",
        ),
        (
            "/injection_files/0/path",
            json!("/"),
            "injection_files[0].path",
        ),
        (
            "/injection_files/0/path",
            json!("etc"),
            "injection_files[0].path",
        ),
        (
            "/injection_files/0/content",
            json!("!"),
            "injection_files[0].content",
        ),
        (
            "/injection_files/0/mode",
            json!(0o4755),
            "injection_files[0].mode",
        ),
    ] {
        let error = refused(|payload| *payload.pointer_mut(pointer).unwrap() = value);
        assert!(
            matches!(&error, ConfigError::Invalid { what: got, .. } if got == what),
            "{pointer}: {error}"
        );
    }
}

#[test]
fn a_variable_that_stands_twice_is_refused() {
    let text = payload()
        .to_string()
        .replace("\"EMPTY\":\"\"", "\"EMPTY\":\"\",\"EMPTY\":\"x\"");
    let result = Configuration::read(&Signed::sample(text.into_bytes()), CONFIG_ID, &nonce());
    assert!(matches!(result, Err(ConfigError::Malformed { .. })));
}

#[test]
fn errors_do_not_quote_values() {
    let error = refused(|payload| payload["file_system"]["key"] = json!("secret-key"));
    assert!(!error.to_string().contains("secret-key"));
    let error = refused(|payload| payload["injection_files"] = json!("secret-file"));
    assert!(!error.to_string().contains("secret-file"));
}

proptest! {
    #[test]
    fn no_content_makes_it_panic(content in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Configuration::read(&Signed::sample(content), CONFIG_ID, &nonce());
    }
}
