use std::time::Duration;

use proptest::prelude::*;
use serde_json::{json, Value};

use super::*;

const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const ROOT: &str = "0202020202020202020202020202020202020202020202020202020202020202";

fn fields() -> Value {
    json!({
        "name": "data", "path": "/data", "key": KEY, "update_policy": "rollback_protected", "root": null, "counter": 0,
        "strict": false, "cas_absence_seconds": 3600,
    })
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut fields = fields();
    fields[name] = value.into();
    fields
}

/// What becomes of a volume's element, or the field that is refused.
fn read(fields: Value) -> Result<Mount, String> {
    let fields: MountFields = serde_json::from_value(fields).map_err(|error| error.to_string())?;
    fields.read().map_err(|(name, _)| name.to_owned())
}

#[test]
fn a_volume_that_was_never_written() {
    let mount = read(fields()).unwrap();
    assert_eq!((&*mount.name, &*mount.path), ("data", &b"/data"[..]));
    assert_eq!(mount.policy, UpdatePolicy::RollbackProtected);
    assert_eq!((mount.recorded.root, mount.recorded.counter), (None, 0));
    assert!(!mount.strict && !mount.read_only);
    assert_eq!(mount.patience, Duration::from_secs(3600));
}

#[test]
fn a_volume_whose_state_is_recorded() {
    let mut fields = with("root", ROOT);
    fields["counter"] = 7.into();
    fields["strict"] = true.into();
    fields["update_policy"] = "ephemeral".into();
    let mount = read(fields).unwrap();
    assert_eq!(
        (mount.recorded.root, mount.recorded.counter),
        (Some([2; 32]), 7)
    );
    assert!(mount.strict);
    assert_eq!(mount.policy, UpdatePolicy::Ephemeral);
    // The owner has named the root of a volume that no service has used yet.
    assert_eq!(read(with("root", ROOT)).unwrap().recorded.counter, 0);
}

#[test]
fn readers_are_told_so() {
    for policy in ["rollback_protected", "no_rollback_protection"] {
        let mut fields = with("read_only", true);
        fields["update_policy"] = policy.into();
        assert!(read(fields).unwrap().read_only);
    }
    let mut fields = with("read_only", true);
    fields["update_policy"] = "ephemeral".into();
    assert_eq!(read(fields).err().as_deref(), Some("read_only"));
}

#[test]
fn values_that_mean_nothing_are_refused() {
    for (name, value) in [
        ("name", json!("")),
        ("name", json!("a/b")),
        ("path", json!("")),
        ("path", json!("data")),
        ("path", json!("/")),
        ("path", json!("/data/")),
        ("path", json!("/a/../b")),
        ("path", json!("/a\0b")),
        ("key", json!(&KEY[2..])),
        ("key", json!("no digits")),
        ("root", json!(&ROOT[2..])),
        ("root", json!("")),
        // A counter of no state.
        ("counter", json!(1)),
    ] {
        let expected = if name == "counter" { "root" } else { name };
        let refused = read(with(name, value.clone())).err();
        assert_eq!(refused.as_deref(), Some(expected), "{name}: {value}");
    }
}

#[test]
fn every_member_is_there_and_no_other() {
    let whole = fields();
    for name in whole.as_object().unwrap().keys() {
        let mut fields = whole.clone();
        fields.as_object_mut().unwrap().remove(name);
        // Null and absent are the same for the root alone.
        assert_eq!(read(fields).is_ok(), name == "root", "without {name}");
    }
    for (name, value) in [
        ("more", json!(1)),
        ("update_policy", json!("never")),
        ("counter", json!(-1)),
        ("strict", json!(1)),
        ("read_only", json!(null)),
        ("cas_absence_seconds", json!("1")),
    ] {
        assert!(read(with(name, value.clone())).is_err(), "{name}: {value}");
    }
}

proptest! {
    #[test]
    fn only_normal_paths_are_taken(path in "(/|\\.|a|\0){0,8}") {
        let is_normal = path.len() > 1
            && path.starts_with('/')
            && !path.contains('\0')
            && path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
        prop_assert_eq!(read(with("path", path)).is_ok(), is_normal);
    }
}
