//! Feeds every reader with broken files for so many seconds: `fuzz_readers SECONDS [SEED]`. An input that makes a panic or takes too long is
//! kept in `tests/golden/fuzz`, from where the tests read it ever after, and ends the program. Run it under a limit of memory (`make fuzz` does).

#![allow(clippy::print_stdout, reason = "a program for people")]

#[path = "../tests/fuzz/mutation.rs"]
#[allow(clippy::indexing_slicing, reason = "ranges are made from the lengths")]
mod mutation;
#[path = "../tests/fuzz/readers.rs"]
mod readers;

use mutation::{Dice, input};
use readers::{Desk, Reader, readers, seeds};
use std::{
    env,
    error::Error,
    fs, panic,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// One input must not take so much CPU.
const ONE_AT_MOST: Duration = Duration::from_secs(5);

/// Inputs of one reader before the next has its turn.
const IN_A_ROW: u64 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let seconds: u64 = args.next().ok_or("fuzz_readers SECONDS [SEED]")?.parse()?;
    let first: u64 = match args.next() {
        Some(seed) => seed.parse()?,
        None => u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?,
    };
    println!("seed {first}; once more the same: fuzz_readers {seconds} {first}");
    let readers = readers()?;
    let mut desk = Desk::new()?;
    // Real files first: they load the symbols that all inputs share.
    for reader in &readers {
        for bytes in &reader.corpus {
            (reader.read)(bytes, &mut desk);
        }
    }
    let mut done = vec![(0_u64, Duration::ZERO); readers.len()];
    let began = Instant::now();
    let mut seed = first;
    while began.elapsed() < Duration::from_secs(seconds) {
        for (reader, (inputs, slowest)) in readers.iter().zip(&mut done) {
            for _ in 0..IN_A_ROW {
                let took = one(reader, seed, &mut desk)?;
                *inputs += 1;
                *slowest = took.max(*slowest);
                seed = seed.wrapping_add(1);
            }
        }
    }
    for (reader, (inputs, slowest)) in readers.iter().zip(&done) {
        println!("{:<18} {inputs:>9} inputs, the slowest {} ms", reader.name, slowest.as_millis());
    }
    println!("no panic in {} s", began.elapsed().as_secs());
    Ok(())
}

fn one(reader: &Reader, seed: u64, desk: &mut Desk) -> Result<Duration, Box<dyn Error>> {
    let bytes = input(&mut Dice::new(seed), &reader.corpus);
    // Memory that runs away ends the program at once: then this is what was being read.
    let current = env::temp_dir().join(format!("pgsoak-fuzz-{}.last", std::process::id()));
    fs::write(&current, &bytes)?;
    let began = cpu_time()?;
    let read = panic::catch_unwind(panic::AssertUnwindSafe(|| (reader.read)(&bytes, desk)));
    let took = cpu_time()?.saturating_sub(began);
    if read.is_err() || took > ONE_AT_MOST {
        let folder = seeds(reader.name);
        fs::create_dir_all(&folder)?;
        let kept = folder.join(format!("{seed}.bin"));
        fs::write(&kept, &bytes)?;
        let what = if read.is_err() { "panics" } else { "takes too long" };
        return Err(
            format!("{} {what} with seed {seed}; kept as {}", reader.name, kept.display()).into()
        );
    }
    fs::remove_file(&current)?;
    Ok(took)
}

/// Of this thread: the machine may do other things too.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next().ok_or("an empty schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
