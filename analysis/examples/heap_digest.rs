//! Reads a heaptrack file to its totals, its sums by function and, where asked, all four flame graphs: what `deploy/bench-heap.sh` measures
//! beside heaptrack's own programs.
//!
//! `heap_digest FILE [--functions | --graphs FOLDER | --series | --diff OTHER]`

use pgsoak_analysis::heap;
use pgsoak_analysis::heap::flame::{HeapCost, graph};
use std::{collections::BTreeMap, env, error::Error, fs, io::Write, path::Path};

const COSTS: [(HeapCost, &str); 4] = [
    (HeapCost::Peak, "peak"),
    (HeapCost::Leaked, "leaked"),
    (HeapCost::Allocations, "allocations"),
    (HeapCost::Temporary, "temporary"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let Some(file) = args.first() else { return Err("heap_digest FILE".into()) };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let asked = args.get(1).map(String::as_str);
    let digest = match asked {
        Some("--series") => heap::read_totals(Path::new(file))?,
        _ => heap::read(Path::new(file))?,
    };
    writeln!(
        out,
        "allocations {} temporary {} peak {} leaked {} sites {}",
        digest.allocations,
        digest.temporary,
        digest.peak_bytes,
        digest.leaked_bytes,
        digest.sites.len()
    )?;
    match (asked, args.get(2)) {
        (Some("--functions"), _) => {
            let mut sums: BTreeMap<&str, [u64; 4]> = BTreeMap::new();
            for site in &digest.sites {
                let sum = sums.entry(&site.function).or_default();
                let costs = [site.peak_bytes, site.leaked_bytes, site.allocations, site.temporary];
                for (sum, cost) in sum.iter_mut().zip(costs) {
                    *sum += cost;
                }
            }
            for (function, [peak, leaked, allocations, temporary]) in sums {
                writeln!(out, "{function}\t{peak}\t{leaked}\t{allocations}\t{temporary}")?;
            }
        }
        (Some("--graphs"), Some(folder)) => {
            for (cost, name) in COSTS {
                let svg = graph(&digest, cost, file)?;
                fs::write(Path::new(folder).join(format!("{name}.svg")), svg)?;
            }
        }
        // Two stored digests: what `pgsoak heap diff` does.
        (Some("--diff"), Some(other)) => {
            let found = heap::diff::diff(&digest, &heap::read(Path::new(other))?);
            writeln!(out, "{} sites differ", found.sites.len())?;
        }
        (Some("--series"), _) => {
            for point in &digest.series {
                writeln!(out, "{},{}", point.ms, point.bytes)?;
            }
        }
        _ => {}
    }
    Ok(())
}
