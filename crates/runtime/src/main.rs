//! The runtime, PID 1 of the container: says what it is, attests, launches the program, reports its end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;

use rustix::process::{set_dumpable_behavior, setrlimit, DumpableBehavior, Resource, Rlimit};
use sconify_runtime::attest::{attest, Cas, Claim, Las, Lease, Patience, RETRY_TIME};
use sconify_runtime::config::{Configuration, Host};
use sconify_runtime::executor::{Embedded, Executor as _, ExitStatus, Launch, Origin};
use sconify_runtime::failure::{Code, Failure};
use sconify_runtime::manifest::{head_length, EmbeddedFiles, Manifest, Statement};
use sconify_runtime::settings::{is_on, log_level, Settings};
use sconify_runtime::supervisor::{debugging, health, Supervisor};
use sconify_runtime::volumes::Ledger;
use sconify_runtime::{info, log, version, warn};

const OWN_BINARY: &str = "/proc/self/exe";

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.code())
        }
    }
}

fn run() -> Result<u8, Failure> {
    start_log();
    protect_memory()?;
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == health::ARGUMENT)
    {
        return Ok(ask_for_health());
    }
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == debugging::ARGUMENT)
    {
        return debugging::ask(std::env::args_os().skip(2)).map_err(Failure::from);
    }
    let OwnBinary { file, head } = OwnBinary::open()?;
    let statement = Statement::of_elf(&head, variable)?;
    if is_on(variable("SCONE_HASH")) {
        let (manifest, _) = statement.measured();
        print(&format!("{}\n", hex::encode(manifest.measurement())))?;
        return Ok(0);
    }
    if is_on(variable("SCONE_VERSION")) {
        print(&version::text(&statement.measured().0, variable))?;
    }
    let settings = Settings::read(variable)?;
    let cas_key = statement.cas_key()?;

    let cas = Cas::new(&settings.cas, cas_key, Patience::default())
        .map_err(|error| Failure::of_attestation(&error.into(), &settings))?;
    let claim = Claim {
        config_id: &settings.config_id,
        access_token: settings.access_token.as_ref(),
    };
    let measured = OnceLock::new();
    let measure = || measured.get_or_init(|| statement.measured());
    let attested = thread::scope(|scope| {
        // It takes about as long as the first answers of the CAS. Without a thread it is done when it is needed.
        let measuring = thread::Builder::new().spawn_scoped(scope, || {
            measure();
        });
        drop(measuring);
        let measurement = || measure().0.measurement();
        let las = Las::new(&settings.las, &measurement);
        attest(&las, &cas, claim, RETRY_TIME)
    })
    .map_err(|error| Failure::of_attestation(&error, &settings))?;
    let (manifest, embedded) = measured
        .into_inner()
        .unwrap_or_else(|| statement.measured());
    // The program is forked from this process, which lives as long as it does.
    drop(head);
    info!(
        "attested to the CAS at {} as {}",
        settings.cas, settings.config_id
    );
    drop(cas);

    let ledger: Arc<dyn Ledger> = attested.session.clone();
    let mounts = attested.configuration.mounts()?;
    let mut launch = launch(attested.configuration, &manifest)?;
    launch.attendant = attested.lease.map(|lease| Box::new(|| keep(lease)) as _);
    for mount in mounts {
        launch.volumes.push(mount.open(&ledger)?);
    }
    if let Some(files) = embedded {
        launch.file_system.origin = Origin::Embedded(with_packs(file, files)?);
    }
    let status = Supervisor.run(launch)?;
    if let Err(error) = attested.session.report_exit(status) {
        info!("the CAS was not told how the program ended: {error}");
    }
    Ok(exit_code(status))
}

/// What is to be launched, with the host's arguments and variables where the policy asks for them.
fn launch(configuration: Configuration, manifest: &Manifest) -> Result<Launch, Failure> {
    let arguments: Vec<_> = std::env::args_os()
        .skip(1)
        .map(OsString::into_vec)
        .collect();
    if !arguments.is_empty() {
        info!("of the container's arguments the program gets those that the policy names: @@1 and so on");
    }
    let host = Host {
        arguments: &arguments,
        variable: &|name| std::env::var_os(name).map(OsString::into_vec),
    };
    Ok(configuration.into_launch(manifest, host)?)
}

/// Keeps the place of a service that runs once at a time; returns the exit code if that is no longer possible.
fn keep(lease: Lease) -> u8 {
    let failure = Failure::of_lease(&lease.keep());
    failure.report();
    failure.code()
}

/// Logs at the level of `SCONE_LOG`, and lets a panic, in whichever thread, end the runtime with a line in the log.
fn start_log() {
    let (level, problem) = log_level(variable("SCONE_LOG"));
    log::start(level);
    if let Some(problem) = problem {
        warn!("SCONE_LOG: {problem}; using WARNING");
    }
    std::panic::set_hook(Box::new(|panic| {
        sconify_runtime::fatal!("a state that can't be: {panic}");
        std::process::exit(Code::Bug as i32);
    }));
}

/// Keeps other processes, and core files on the host's disk, away from our memory and the program's.
fn protect_memory() -> Result<(), Failure> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| setrlimit(Resource::Core, none))
        .map_err(|error| {
            Failure::new(
                Code::System,
                "Could not protect the memory of the runtime",
                &error,
            )
        })
}

/// What a health check of the container engine gets: 0 if the program is healthy, 1 if it is not or nobody can say.
fn ask_for_health() -> u8 {
    health::ask().unwrap_or_else(|error| {
        sconify_runtime::error!("no program of this container answers for its health: {error}");
        1
    })
}

/// The file that we run from.
struct OwnBinary {
    file: File,
    /// All of it but an embedded file system's packs.
    head: Vec<u8>,
}

impl OwnBinary {
    fn open() -> Result<Self, Failure> {
        let read = || {
            let file = File::open(OWN_BINARY)?;
            let mut header = [0; 64];
            file.read_exact_at(&mut header, 0)?;
            let mut head = Vec::new();
            (&file).take(head_length(&header)).read_to_end(&mut head)?;
            Ok(Self { file, head })
        };
        read().map_err(|error| unreadable(&error))
    }
}

/// The embedded file system that the manifest and the sections of a file tell of.
fn with_packs(file: File, files: EmbeddedFiles) -> Result<Embedded, Failure> {
    let length = file.metadata().map_err(|error| unreadable(&error))?.len();
    if files.packs.end != length {
        let found = format!("it has {length} bytes, expected {}", files.packs.end);
        return Err(unreadable(&io::Error::other(found)));
    }
    Ok(Embedded {
        index: files.index,
        digests: files.digests,
        file,
        packs: files.packs,
        commitment: files.commitment,
    })
}

fn unreadable(error: &io::Error) -> Failure {
    let what = format!("Could not read the runtime's own file, {OWN_BINARY}");
    Failure::new(Code::System, what, error)
        .mended_by("mount /proc in the container, let its user read the binary, and leave it as sconify_image made it")
}

/// The value of an environment variable; one that is no UTF-8 is read as far as it goes, and then refused by whom it concerns.
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::new(Code::System, "Could not write to standard output", &error))
}

/// What `docker run` shows natively: the program's code, or 128 and the number of the signal that ended it. PID 1 can't die by a signal itself.
fn exit_code(status: ExitStatus) -> u8 {
    match status {
        ExitStatus::Exited(code) => code as u8,
        ExitStatus::Signalled(signal) => 128 + signal as u8,
    }
}
