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

const NO_HOST: Host = Host {
    arguments: &[],
    variable: &|_| None,
};

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
    match read(&payload).and_then(|configuration| configuration.into_launch(&manifest(), NO_HOST)) {
        Ok(_) => panic!("accepted: {payload}"),
        Err(error) => error,
    }
}

#[test]
fn a_configuration_becomes_a_launch() {
    let launch = read(&payload())
        .unwrap()
        .into_launch(&manifest(), NO_HOST)
        .unwrap();
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
        (
            "/disk_injection_files",
            json!({"files": [{"path": "etc", "mode": 0}], "placeholders": {}}),
            "disk_injection_files.files[0].path",
        ),
        (
            "/disk_injection_files",
            json!({"files": [{"path": "/etc", "mode": 512}], "placeholders": {}}),
            "disk_injection_files.files[0].mode",
        ),
        (
            "/disk_injection_files",
            json!({"files": [], "placeholders": {"$$SCONE::a$$": "!"}}),
            "disk_injection_files.placeholders \"$$SCONE::a$$\"",
        ),
    ] {
        let error = refused(|payload| match payload.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => payload[&pointer[1..]] = value,
        });
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

/// The launch of a payload that went through a change, on a host that gives two arguments and one variable.
fn launched(change: impl FnOnce(&mut Value)) -> Result<Launch, ConfigError> {
    let mut payload = payload();
    change(&mut payload);
    let host = Host {
        arguments: &[b"first".to_vec(), b"second \xff".to_vec()],
        variable: &|name| (name == "HOSTNAME").then(|| b"box".to_vec()),
    };
    read(&payload)?.into_launch(&manifest(), host)
}

#[test]
fn the_host_fills_the_places_that_the_policy_names() {
    let launch = launched(|payload| {
        payload["command"] = json!(["program", "", "-v", ""]);
        payload["host"] = json!({
            "arguments": [{"at": 1, "argument": 2}, {"at": 3, "argument": 1}],
            "environment": ["HOSTNAME", "UNSET"],
        });
    })
    .unwrap();
    assert_eq!(
        launch.arguments,
        [c"program", c"second \xff", c"-v", c"first"].map(CString::from)
    );
    assert!(launch.environment.contains(&c"HOSTNAME=box".into()));
    assert!(launch.environment.contains(&c"UNSET=".into()));
    // What it does not name is not taken.
    let launch = launched(|_| ()).unwrap();
    assert!(!launch.environment.contains(&c"HOSTNAME=box".into()));
    assert_eq!(launch.arguments.len(), 3);
}

#[test]
fn places_for_the_host_that_do_not_fit_are_refused() {
    for (arguments, variables, expected) in [
        (json!([{"at": 1, "argument": 3}]), json!([]), "argument 3"),
        (
            json!([{"at": 1, "argument": 0}]),
            json!([]),
            "arguments[0].argument",
        ),
        (
            json!([{"at": 0, "argument": 1}]),
            json!([]),
            "arguments[0].at",
        ),
        (
            json!([{"at": 2, "argument": 1}]),
            json!([]),
            "arguments[0].at",
        ),
        (
            json!([{"at": 1, "argument": 1}, {"at": 1, "argument": 2}]),
            json!([]),
            "arguments[1].at",
        ),
        (json!([]), json!(["PATH"]), "host.environment \"PATH\""),
        (json!([]), json!(["A=B"]), "the name \"A=B\""),
    ] {
        let error = launched(|payload| {
            payload["command"] = json!(["program", ""]);
            payload["host"] = json!({"arguments": arguments, "environment": variables});
        });
        let Err(error) = error else {
            panic!("accepted: {expected}")
        };
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn templates_come_with_all_placeholders() {
    let templates = launched(|payload| {
        payload["disk_injection_files"] = json!({
            "files": [{"path": "/etc/app.conf", "mode": 0o440}],
            "placeholders": {"$$SCONE::key:hex$$": "c2VjcmV0"},
        });
    })
    .unwrap()
    .templates;
    assert_eq!(templates.files[0].path, b"/etc/app.conf");
    assert_eq!(templates.files[0].mode, 0o440);
    assert_eq!(
        **templates
            .placeholders
            .get(&b"$$SCONE::key:hex$$"[..])
            .unwrap(),
        b"secret"
    );
}

#[test]
fn a_lease_a_proof_and_debugging_are_there_only_if_they_are_given() {
    let configuration = read(&payload()).unwrap();
    assert_eq!(configuration.lease(), None);
    assert_eq!(configuration.access_proof(), None);
    assert!(!launched(|_| ()).unwrap().debug);
    assert!(
        !launched(|payload| payload["debug"] = json!(false))
            .unwrap()
            .debug
    );
    assert!(
        launched(|payload| payload["debug"] = json!(true))
            .unwrap()
            .debug
    );
    let mut payload = payload();
    payload["lease_seconds"] = json!(60);
    payload["access_proof"] = json!("ab");
    let configuration = read(&payload).unwrap();
    assert_eq!(configuration.lease(), Some(Duration::from_secs(60)));
    assert_eq!(configuration.access_proof(), Some("ab"));
}

#[test]
fn optional_members_are_never_null_and_have_no_unknown_ones() {
    let members = [
        "host",
        "disk_injection_files",
        "access_proof",
        "lease_seconds",
        "debug",
    ];
    for name in members {
        let error = refused(|payload| payload[name] = Value::Null);
        assert!(matches!(error, ConfigError::Malformed { .. }), "{name}");
    }
    for (name, value) in [
        (
            "host",
            json!({"arguments": [], "environment": [], "more": 1}),
        ),
        ("host", json!({"arguments": []})),
        ("disk_injection_files", json!({"files": []})),
        (
            "disk_injection_files",
            json!({"files": [{"path": "/a", "mode": 1, "more": 1}], "placeholders": {}}),
        ),
        ("lease_seconds", json!(-1)),
        ("debug", json!("yes")),
    ] {
        let error = refused(|payload| payload[name] = value);
        assert!(matches!(error, ConfigError::Malformed { .. }), "{name}");
    }
    let error = refused(|payload| payload["lease_seconds"] = json!(0));
    assert!(error.to_string().contains("lease_seconds"));
}

proptest! {
    #[test]
    fn no_content_makes_it_panic(content in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Configuration::read(&Signed::sample(content), CONFIG_ID, &nonce());
    }
}
