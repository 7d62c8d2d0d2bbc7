//! Runs a program from a protected file system without attestation, for tests and benchmarks: the key is on the command line.
//!
//! `launch INDEX KEY TAG [--embedded FILE START DIGESTS] [--env NAME=VALUE]... [--cwd DIRECTORY] [--no-fork] [--dlopen 0|1|2] [--inject PATH=TEXT]... [--template PATH]... [--secret NAME=VALUE]... [--volume DIRECTORY]... [--debug] -- PROGRAM ARGV...`
//!
//! `launch sconify:debug COMMAND...` runs a command beside the program that was launched with `--debug`.
//!
//! With `--embedded`, the packs stand in one file from a place on; a second file has the digests of their chunks.

use std::error::Error as _;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::process::exit;
use std::sync::Arc;
use std::time::Duration;

use sconify_runtime::executor::{
    Dlopen, Embedded, Executor, ExitStatus, FileSystem, InjectedFile, Launch, Origin, Template,
    Templates,
};
use sconify_runtime::log::{self, Level};
use sconify_runtime::supervisor::{debugging, Supervisor};
use sconify_runtime::volumes::{Ledger, LedgerError, Mount, OpenVolume, Recorded, UpdatePolicy};
use sconify_shield::{FileSystemKey, RootTag};
use sconify_volume::State;

fn main() {
    let level = std::env::var("SCONE_LOG")
        .ok()
        .and_then(|text| text.parse().ok());
    log::start(level.unwrap_or(Level::Warning));
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == debugging::ARGUMENT)
    {
        match debugging::ask(std::env::args_os().skip(2)) {
            Ok(code) => exit(code.into()),
            Err(error) => usage(&error.to_string()),
        }
    }
    match Supervisor.run(launch()) {
        Ok(ExitStatus::Exited(code)) => exit(code),
        Ok(ExitStatus::Signalled(signal)) => exit(128 + signal),
        Err(error) => {
            eprintln!("launch: {error}");
            exit(125);
        }
    }
}

fn launch() -> Launch {
    let mut words = std::env::args_os().skip(1).map(OsStringExt::into_vec);
    let mut next = |what: &str| words.next().unwrap_or_else(|| usage(what));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_else(|_| usage("text"));
    let index_path = next("the index");
    let key = FileSystemKey::from_hex(&text(next("the key")))
        .unwrap_or_else(|error| usage(&error.to_string()));
    let tag =
        RootTag::from_hex(&text(next("the tag"))).unwrap_or_else(|error| usage(&error.to_string()));
    let mut launch = Launch {
        program: Vec::new(),
        arguments: Vec::new(),
        environment: Vec::new(),
        working_directory: b"/".to_vec(),
        file_system: FileSystem {
            origin: Origin::Disk(index_path),
            key,
            tag,
        },
        injected_files: Vec::new(),
        templates: Templates::default(),
        volumes: Vec::new(),
        dlopen: Dlopen::Protected,
        fork: true,
        debug: false,
        attendant: None,
    };
    loop {
        match &next("--")[..] {
            b"--embedded" => {
                let words = ["a file", "a number", "a file"].map(|what| text(next(what)));
                launch.file_system.origin =
                    embedded(&launch.file_system, &words).unwrap_or_else(|error| usage(&error));
            }
            b"--env" => launch.environment.push(c_string(next("NAME=VALUE"))),
            b"--cwd" => launch.working_directory = next("a directory"),
            b"--debug" => launch.debug = true,
            b"--template" => launch.templates.files.push(Template {
                path: next("PATH"),
                mode: 0o640,
            }),
            b"--secret" => {
                let (name, value) = pair(next("NAME=VALUE"));
                let placeholder = [b"$$SCONE::", &name[..], b"$$"].concat();
                let values = &mut launch.templates.placeholders;
                values.insert(placeholder, value.into());
            }
            b"--no-fork" => launch.fork = false,
            b"--dlopen" => {
                launch.dlopen = match &next("0, 1 or 2")[..] {
                    b"0" => Dlopen::Closure,
                    b"1" => Dlopen::Protected,
                    b"2" => Dlopen::Any,
                    _ => usage("0, 1 or 2"),
                }
            }
            b"--inject" => {
                let (path, content) = pair(next("PATH=TEXT"));
                launch.injected_files.push(InjectedFile {
                    path,
                    content: content.into(),
                    mode: 0o600,
                });
            }
            b"--volume" => launch.volumes.push(volume(next("a directory"))),
            b"--" => break,
            other => usage(&String::from_utf8_lossy(other)),
        }
    }
    launch.program = next("the program");
    launch.arguments = words.map(c_string).collect();
    if launch.arguments.is_empty() {
        launch.arguments.push(c_string(launch.program.clone()));
    }
    launch
}

fn embedded(
    file_system: &FileSystem,
    [file, start, digests]: &[String; 3],
) -> Result<Origin, String> {
    let Origin::Disk(index) = &file_system.origin else {
        return Err("--embedded once".to_owned());
    };
    let index = String::from_utf8_lossy(index).into_owned();
    let digests = fs::read(digests).map_err(|error| error.to_string())?;
    let digests = digests.chunks_exact(32);
    let file = File::open(file).map_err(|error| error.to_string())?;
    let end = file.metadata().map_err(|error| error.to_string())?.len();
    let start = start.parse().map_err(|_| "a number".to_owned())?;
    Ok(Origin::Embedded(Embedded {
        index: fs::read(index).map_err(|error| error.to_string())?,
        digests: digests
            .map(|digest| digest.try_into().expect("cut to this length"))
            .collect(),
        file,
        packs: start..end,
        commitment: file_system.key.commitment(),
    }))
}

fn pair(text: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let equals = text
        .iter()
        .position(|&byte| byte == b'=')
        .unwrap_or_else(|| usage("NAME=VALUE"));
    (text[..equals].to_vec(), text[equals + 1..].to_vec())
}

/// A volume under a known key, of which nobody keeps the newest state.
fn volume(path: Vec<u8>) -> OpenVolume {
    struct Nobody;
    impl Ledger for Nobody {
        fn record(&self, _volume: &str, _state: State) -> Result<(), LedgerError> {
            Ok(())
        }
    }
    let mount = Mount {
        name: "test".to_owned(),
        path,
        key: FileSystemKey::new([9; 32]),
        policy: UpdatePolicy::NoRollbackProtection,
        read_only: false,
        recorded: Recorded {
            root: None,
            counter: 0,
        },
        strict: false,
        patience: Duration::MAX,
    };
    let nobody: Arc<dyn Ledger> = Arc::new(Nobody);
    mount
        .open(&nobody)
        .unwrap_or_else(|error| usage(&format!("{error}: {:?}", error.source())))
}

fn c_string(bytes: Vec<u8>) -> CString {
    CString::new(bytes).unwrap_or_else(|_| usage("a text without NUL"))
}

fn usage(what: &str) -> ! {
    eprintln!("launch INDEX KEY TAG [--embedded FILE START DIGESTS] [--env NAME=VALUE]... [--cwd DIRECTORY] [--no-fork] [--dlopen 0|1|2] [--inject PATH=TEXT]... [--template PATH]... [--secret NAME=VALUE]... [--volume DIRECTORY]... [--debug] -- PROGRAM ARGV...: {what}");
    exit(125);
}
