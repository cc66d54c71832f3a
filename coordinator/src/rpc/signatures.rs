//! Leak signatures as people ask for them.

use crate::domain::history::{Sighted, Signature};
use crate::rpc::view;
use pgsoak_analysis::releases::release_order;
use pgsoak_analysis::result::Owner;
use pgsoak_proto::wire;

/// Those that are meant, the one that was seen last first.
pub(super) fn found(
    mut signatures: Vec<Signature>,
    wanted: &wire::ListSignaturesRequest,
) -> wire::ListSignaturesResponse {
    let wire::ListSignaturesRequest { fingerprint, build, workload, text } = wanted;
    let text = text.to_lowercase();
    signatures.retain(|signature| {
        let fits_one = |(name, seen): (&String, &Sighted)| {
            (build.is_empty() || name == build)
                && (workload.is_empty() || seen.workloads.contains(workload))
        };
        signature.fingerprint.starts_with(fingerprint)
            && signature.builds.iter().any(fits_one)
            && (text.is_empty()
                || signature.function.to_lowercase().contains(&text)
                || signature.stack.iter().any(|line| line.to_lowercase().contains(&text)))
    });
    signatures.sort_by_key(|signature| std::cmp::Reverse(signature.last().map(|(_, at)| *at)));
    wire::ListSignaturesResponse { signatures: signatures.into_iter().map(one).collect() }
}

fn one(signature: Signature) -> wire::SignatureView {
    let Signature { fingerprint, function, owner, stack, builds } = signature;
    let owner = match owner {
        Owner::Extension => "extension",
        Owner::Postgres => "postgres",
        Owner::Library => "library",
        Owner::Unknown => "unknown",
    };
    let mut builds: Vec<(String, Sighted)> = builds.into_iter().collect();
    builds.sort_by(|(a, _), (b, _)| release_order(a, b));
    let builds = builds.into_iter().map(|(build, seen)| wire::SightedIn {
        build,
        first_run: seen.first.1.to_string(),
        first_at_unix_us: seen.first.0.0,
        last_run: seen.last.1.to_string(),
        last_at_unix_us: seen.last.0.0,
        runs: seen.runs,
        hosts: seen.hosts.into_iter().collect(),
        workloads: seen.workloads.into_iter().collect(),
        worst: view::verdict(seen.worst).to_owned(),
    });
    wire::SignatureView {
        builds: builds.collect(),
        fingerprint,
        function,
        owner: owner.to_owned(),
        stack,
    }
}
