//! What `SCONE_VERSION=1` prints. No I/O.

use crate::manifest::Manifest;
use crate::settings;

/// The settings that apply to this platform, then what runs, as `NAME=value` and `Name: value` lines.
///
/// `environment` gives the value of an environment variable, or None if it is not set.
pub fn text(manifest: &Manifest, environment: impl Fn(&str) -> Option<String>) -> String {
    let (level, _) = settings::log_level(environment("SCONE_LOG"));
    let variables = manifest.variables();
    let size = |value: &Option<String>| {
        value
            .clone()
            .unwrap_or_else(|| "<not specified>".to_owned())
    };
    let dlopen = match manifest.dlopen() {
        crate::executor::Dlopen::Closure => "no",
        crate::executor::Dlopen::Protected => "yes (protected)",
        crate::executor::Dlopen::Any => "yes (unprotected)",
    };
    let config_id =
        environment(settings::CONFIG_ID).unwrap_or_else(|| "<not specified>".to_owned());
    format!(
        "SCONE_LOG={}\nSCONE_HEAP={}\nSCONE_STACK={}\nSCONE_ALLOW_DLOPEN={dlopen}\nSCONE_FORK={}\n\n\
         SCONE_CONFIG_ID: {config_id}\nSCONE version: {} (runtime {})\nEnclave hash: {}\n",
        level.name(),
        size(&variables.scone_heap),
        size(&variables.scone_stack),
        if manifest.fork() { "yes" } else { "no" },
        env!("CARGO_PKG_VERSION"),
        &manifest.runtime()[..16],
        hex::encode(manifest.measurement()),
    )
}
