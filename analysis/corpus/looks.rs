//! Days that go on: how often a look at them is suspect or proves a leak, and when.

use super::generate::{FAMILIES, Leaks, Random, Run, Shape};
use super::on_all_cores;
use pgsoak_analysis::sequential::{Course, Standing, look_at_series};
use pgsoak_analysis::trend::Settings;

const DAY: f64 = 86_400.0;

/// One day, with the looks that were suspect and the first that proved.
struct Watched {
    family: &'static str,
    leaks: bool,
    suspect: bool,
    suspect_late: bool,
    proven_at: Option<f64>,
}

/// Prints the table: leaks of 2 δ and more of a day, up to 32 δ.
pub fn print(seeds: std::ops::Range<u64>) {
    let mut shapes = Vec::new();
    for seed in seeds {
        for family in FAMILIES {
            for noise in [0.3_f64, 1.0, 3.0] {
                let detectable = 2.0 * Settings::default().threshold(DAY);
                let words = [seed, 7, noise.to_bits(), family.key()];
                let leak = detectable * Random::of(&words).between(1.0, 16.0);
                shapes.push(Shape { family, seed, length: DAY, every: 30.0, noise, leak });
            }
        }
    }
    let watched = on_all_cores(&shapes, watch);
    println!(
        "| family | days | suspect once | suspect after 6 h | proven | hours to proof, median |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    let line = |name: &str, days: Vec<&Watched>| {
        let share = |of: fn(&Watched) -> bool| {
            100.0 * days.iter().filter(|day| of(day)).count() as f64 / days.len().max(1) as f64
        };
        let mut hours: Vec<f64> =
            days.iter().filter_map(|day| day.proven_at).map(|at| at / 3_600.0).collect();
        hours.sort_by(f64::total_cmp);
        let median = hours.get(hours.len() / 2).map_or("–".to_owned(), |at| format!("{at:.1}"));
        println!(
            "| {name} | {} | {:.1} % | {:.1} % | {:.1} % | {median} |",
            days.len(),
            share(|day| day.suspect),
            share(|day| day.suspect_late),
            share(|day| day.proven_at.is_some())
        );
    };
    for leaks in [false, true] {
        for family in FAMILIES.iter().filter(|family| (family.leaks != Leaks::Nobody) == leaks) {
            line(family.name, watched.iter().filter(|day| day.family == family.name).collect());
        }
        let name = if leaks { "all leaks" } else { "all healthy" };
        line(name, watched.iter().filter(|day| day.leaks == leaks).collect());
    }
}

fn watch(shape: &Shape) -> Watched {
    let run = Run::draw(shape);
    let series = run.series();
    let course = Course { planned_s: shape.length, warm_up_s: 0.0 };
    let mut watched = Watched {
        family: shape.family.name,
        leaks: shape.family.leaks != Leaks::Nobody,
        suspect: false,
        suspect_late: false,
        proven_at: None,
    };
    // As the verdict of a run does: workers and server processes share the chance of a false alarm.
    let settings = Settings { looks: 2, ..run.settings.clone() };
    for at in course.looks() {
        let Some(look) = look_at_series(&series, &settings, course, at) else { continue };
        watched.suspect |= look.standing >= Standing::Suspect;
        watched.suspect_late |= look.standing >= Standing::Suspect && course.may_prove(at);
        if look.standing == Standing::Proven && watched.proven_at.is_none() {
            watched.proven_at = Some(at);
        }
    }
    watched
}
