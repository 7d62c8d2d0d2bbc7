//! Protected files with placeholders.

use super::run::Run;
use super::world::{Plan, World};

fn world() -> World {
    let mut plan = Plan::new();
    plan.encrypted("conf", b"user=me\npassword=$$SCONE::password$$\n", 0o755);
    plan.encrypted("unknown", b"$$SCONE::other$$", 0o644);
    plan.link("app/link", "conf");
    plan.plain("conf", b"$$SCONE::password$$");
    plan.seeded("conf", b"<$$SCONE::password$$>");
    let world = plan.build();
    std::fs::write(world.path("host/conf"), "$$SCONE::password$$").unwrap();
    world
}

/// Shows a file, of which the session makes templates.
fn cat(world: &World, file: &str, templates: &[&str]) -> Run {
    let templates: Vec<_> = templates.iter().map(|name| world.path(name)).collect();
    let mut options = vec!["--secret", "password=open $$SCONE::password$$"];
    for path in &templates {
        options.extend(["--template", path]);
    }
    world.run_with(&options, &["/bin/cat", &world.path(file)])
}

#[test]
fn files_of_all_protected_regions_are_filled_in_once() {
    let world = world();
    let value = "open $$SCONE::password$$";
    let filled = format!("user=me\npassword={value}\n");
    assert_eq!(cat(&world, "app/conf", &["app/conf"]).stdout(), filled);
    assert_eq!(cat(&world, "app/link", &["app/conf"]).stdout(), filled);
    assert_eq!(cat(&world, "app/conf", &["app/link"]).stdout(), filled);
    assert_eq!(cat(&world, "plain/conf", &["plain/conf"]).stdout(), value);
    let templates = ["app/conf", "scratch/conf"];
    assert_eq!(
        cat(&world, "scratch/conf", &templates).stdout(),
        format!("<{value}>")
    );
    // What the session does not name stays as it is.
    assert_eq!(
        cat(&world, "plain/conf", &["app/conf"]).stdout(),
        "$$SCONE::password$$"
    );
}

#[test]
fn their_mode_is_the_sessions_and_they_are_not_written() {
    let world = world();
    let path = world.path("app/conf");
    let options = ["--secret", "password=x", "--template", &path];
    let shell = format!("[ ! -x {path} ] && test -r {path} && ! echo > {path}");
    world
        .run_with(&options, &["/bin/sh", "-c", &shell])
        .stdout();
}

#[test]
fn what_cant_be_filled_in_ends_the_start_and_is_named() {
    let world = world();
    for (file, reason) in [
        ("app/unknown", "no value for $$SCONE::other$$"),
        ("app/missing", "it is not there"),
        ("app", "no regular file"),
        ("host/conf", "in a region of kind host"),
    ] {
        let run = cat(&world, "app/conf", &[file]);
        assert_eq!(run.code(), 125, "{file}");
        let expected = world.path(file);
        assert!(run.log().contains(&expected), "{}", run.log());
        assert!(run.log().contains(reason), "{}", run.log());
        assert!(!run.log().contains("open $$"), "{}", run.log());
    }
}
