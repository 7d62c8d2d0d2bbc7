use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sconify_shield::FileSystemKey;

use super::super::mount::{Recorded, UpdatePolicy};
use super::*;

/// A CAS that is there, away, or has given the volume to somebody else.
#[derive(Default)]
struct Records {
    states: Mutex<Vec<State>>,
    is_away: AtomicBool,
    refuses: AtomicBool,
}

impl Records {
    fn counters(&self) -> Vec<u64> {
        let states = self.states.lock().unwrap();
        states.iter().map(|state| state.counter).collect()
    }
}

impl Ledger for Records {
    fn record(&self, volume: &str, state: State) -> Result<(), LedgerError> {
        assert_eq!(volume, "data");
        if self.refuses.load(Ordering::SeqCst) {
            return Err(LedgerError::Refused("another run".to_owned()));
        }
        if self.is_away.load(Ordering::SeqCst) {
            return Err(LedgerError::Away("no answer".to_owned()));
        }
        self.states.lock().unwrap().push(state);
        Ok(())
    }
}

fn state(counter: u64) -> State {
    State {
        counter,
        root: [counter as u8; 32],
    }
}

/// Reports of a volume whose state 1 is recorded, with their thread at work.
fn reports(records: &Arc<Records>, strict: bool, patience: Duration) -> Arc<Reports> {
    let reports = idle_reports(records, strict, patience);
    let reporter = Arc::clone(&reports);
    thread::spawn(move || reporter.run(|_, _| {}));
    reports
}

fn idle_reports(records: &Arc<Records>, strict: bool, patience: Duration) -> Arc<Reports> {
    let mount = Mount {
        name: "data".to_owned(),
        path: b"/data".to_vec(),
        key: FileSystemKey::new([1; 32]),
        policy: UpdatePolicy::RollbackProtected,
        read_only: false,
        recorded: Recorded {
            root: Some([1; 32]),
            counter: 1,
        },
        strict,
        patience,
    };
    let ledger: Arc<dyn Ledger> = Arc::<Records>::clone(records);
    Arc::new(Reports::new(&mount, ledger, state(1)))
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn commits_are_gathered() {
    let records = Arc::new(Records::default());
    let reports = reports(&records, false, LONG);
    let began = Instant::now();
    for counter in 2..=100 {
        reports.admit();
        reports.committed(state(counter));
    }
    assert!(began.elapsed() < BATCH, "nobody waits");
    assert!(reports.finish(LONG));
    let counters = records.counters();
    assert_eq!(counters.last(), Some(&100));
    assert!(counters.len() <= 2, "{counters:?}");
    // At the end nothing is waited for: there is nothing more to gather.
    assert!(reports.finish(Duration::ZERO));
}

#[test]
fn a_report_comes_by_itself() {
    let records = Arc::new(Records::default());
    let reports = reports(&records, false, LONG);
    reports.committed(state(2));
    thread::sleep(2 * BATCH + Duration::from_millis(300));
    assert_eq!(records.counters(), [2]);
}

#[test]
fn strict_commits_are_recorded_when_they_return() {
    let records = Arc::new(Records::default());
    let reports = reports(&records, true, LONG);
    for counter in 2..=20 {
        reports.committed(state(counter));
        assert_eq!(records.counters().last(), Some(&counter));
    }
    // A commit that another thread's has taken along.
    reports.committed(state(7));
    assert_eq!(records.counters().last(), Some(&20));
}

#[test]
fn what_is_noted_before_there_are_reports_is_not_waited_for() {
    let records = Arc::new(Records::default());
    let reports = idle_reports(&records, true, LONG);
    reports.note(state(2));
    let reporter = Arc::clone(&reports);
    thread::spawn(move || reporter.run(|_, _| {}));
    reports.committed(state(2));
    assert_eq!(records.counters(), [2]);
}

#[test]
fn writers_wait_once_the_patience_is_over() {
    let records = Arc::new(Records::default());
    records.is_away.store(true, Ordering::SeqCst);
    let reports = reports(&records, false, Duration::from_millis(300));
    reports.admit();
    reports.committed(state(2));
    reports.admit();
    thread::sleep(Duration::from_millis(400));
    let waits = Arc::clone(&reports);
    let writer = thread::spawn(move || waits.admit());
    thread::sleep(Duration::from_millis(200));
    assert!(!writer.is_finished());
    records.is_away.store(false, Ordering::SeqCst);
    writer.join().unwrap();
    assert_eq!(records.counters(), [2]);
    // The time begins anew with the next commit.
    reports.committed(state(3));
    reports.admit();
}

#[test]
fn no_more_commits_go_unconfirmed_than_the_history_tells() {
    let records = Arc::new(Records::default());
    let reports = idle_reports(&records, false, LONG);
    reports.committed(state(MOST_UNCONFIRMED));
    reports.admit();
    reports.committed(state(1 + MOST_UNCONFIRMED));
    let waits = Arc::clone(&reports);
    let writer = thread::spawn(move || waits.admit());
    thread::sleep(Duration::from_millis(100));
    assert!(!writer.is_finished());
    let reporter = Arc::clone(&reports);
    thread::spawn(move || reporter.run(|_, _| {}));
    writer.join().unwrap();
    assert_eq!(records.counters(), [1 + MOST_UNCONFIRMED]);
}

#[test]
fn the_end_waits_for_a_while_at_most() {
    let records = Arc::new(Records::default());
    records.is_away.store(true, Ordering::SeqCst);
    let reports = reports(&records, false, LONG);
    reports.committed(state(2));
    let began = Instant::now();
    assert!(!reports.finish(Duration::from_millis(200)));
    assert!(began.elapsed() >= Duration::from_millis(200));
    records.is_away.store(false, Ordering::SeqCst);
    assert!(reports.finish(LONG));
    assert_eq!(records.counters(), [2]);
}

#[test]
fn a_refusal_is_told_and_ends_the_reports() {
    let records = Arc::new(Records::default());
    records.refuses.store(true, Ordering::SeqCst);
    let reports = idle_reports(&records, false, LONG);
    reports.committed(state(2));
    let told = Mutex::new(Vec::new());
    reports.run(|name, reason| told.lock().unwrap().push(format!("{name}: {reason}")));
    assert_eq!(*told.lock().unwrap(), ["data: another run"]);
    assert!(!reports.finish(Duration::ZERO));
}
