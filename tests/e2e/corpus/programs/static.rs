//! What a program linked against musl does: files, processes, threads. Prints what came out.

use std::process::{exit, Command};
use std::{env, fs, thread};

fn main() {
    let arguments: Vec<_> = env::args().collect();
    if arguments.get(1).is_some_and(|word| word == "child") {
        println!("child {arguments:?}");
        exit(7);
    }
    println!("{arguments:?} {:?} {:?}", env::current_exe(), env::current_dir());
    let mut names: Vec<_> = fs::read_dir("/data")
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    println!("{names:?}");
    let threads: Vec<_> = (0..16)
        .map(|_| thread::spawn(|| (0..50).map(|_| fs::read("/data/small").unwrap().len()).sum::<usize>()))
        .collect();
    let total: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    println!("{total} bytes by threads");
    let big = fs::read("/data/big").unwrap();
    println!("{} {}", big.len(), big.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    for name in ["/proc/self/exe", "/app/link", "/no/such"] {
        match Command::new(name).arg("child").output() {
            Ok(output) => println!("{name}: {} {}", output.status, String::from_utf8_lossy(&output.stdout)),
            Err(error) => println!("{name}: {error}"),
        }
    }
    println!("{:?}", fs::metadata("/data/small").map(|data| (data.len(), data.permissions())));
    println!("{:?}", fs::write("/data/new", "x"));
    exit(4);
}
