//! Every reader on some thousand inputs of fixed seeds, and on all that ever broke one. `make fuzz` goes on for ten minutes with fresh ones.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "inputs of a test; a failure here is the report"
)]

mod mutation;
mod readers;

use mutation::{Dice, input};
use readers::{Desk, readers};
use std::time::{Duration, Instant};

/// Inputs of each reader; less where its time is up before.
const INPUTS: u64 = 600;

/// Of each reader. The first inputs always run.
const AT_MOST: Duration = Duration::from_secs(5);

/// One input must not take so long, in a build that is not optimised, on a machine that does other things too.
const ONE_AT_MOST: Duration = Duration::from_secs(20);

#[test]
fn no_input_makes_a_panic_or_an_endless_wait() {
    let mut desk = Desk::new().unwrap();
    for reader in readers().unwrap() {
        for bytes in &reader.corpus {
            (reader.read)(bytes, &mut desk);
        }
        let began = Instant::now();
        for seed in 0..INPUTS {
            if began.elapsed() > AT_MOST && seed > 20 {
                break;
            }
            let bytes = input(&mut Dice::new(seed), &reader.corpus);
            let one = Instant::now();
            // A panic says which seed it was by what was printed last.
            println!("{}: seed {seed}, {} bytes", reader.name, bytes.len());
            (reader.read)(&bytes, &mut desk);
            assert!(
                one.elapsed() < ONE_AT_MOST,
                "{}: seed {seed} takes {:?}",
                reader.name,
                one.elapsed()
            );
        }
    }
}

#[test]
fn the_same_seed_makes_the_same_input() {
    let corpus = vec![b"a real file\nof two lines\n".to_vec()];
    let made = |seed| input(&mut Dice::new(seed), &corpus);
    assert_eq!(made(7), made(7));
    let different: std::collections::BTreeSet<Vec<u8>> = (0..50).map(made).collect();
    assert!(different.len() > 25, "{}", different.len());
}
