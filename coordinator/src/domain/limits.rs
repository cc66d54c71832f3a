//! How patient the coordinator is, and how much it takes at once.

use std::time::Duration;

/// Times and counts that no plan sets. The defaults are for the field; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Between two looks at the fleet when nothing nudges.
    pub tick_every: Duration,
    /// Attempts of one job when attempts are lost (one that ended by itself is not repeated).
    pub max_attempts: u32,
    /// The same when its agents refuse it: nothing was run then, so a few more are cheap.
    pub max_refused: u32,
    /// Least time after a job's hard end in which its agent may come back with evidence.
    pub grace: Duration,
    /// Longest silence of a job that is over and still owes artifacts (or, when cancelled, its last frame). Its run goes on
    /// without them then; what comes later is stored all the same.
    pub artifacts_wait: Duration,
    /// How long a job that is over may hold its run (and its slot) up in all, and how long a finished run stays in memory
    /// for artifacts that come late.
    pub linger: Duration,
    /// How long a job waits while agents are there and each of them lacks something that it needs. A host may still come, or be
    /// given what it lacks; after this the job is over as infrastructure, with what each agent lacks.
    pub unplaceable_after: Duration,
    /// Before a job is offered again to an agent that refused it.
    pub refusal_pause: Duration,
    /// Least time before a job that has not come to its loop is looked at again.
    pub look_pause: Duration,
    /// Between two looks at what is to be packed or removed.
    pub housekeeping_every: Duration,
    /// Longest a unary request may take.
    pub request_timeout: Duration,
    /// Requests in work at once over all connections; more are shed.
    pub max_requests: usize,
    /// Jobs that one plan may expand to.
    pub max_jobs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tick_every: Duration::from_secs(1),
            max_attempts: 3,
            max_refused: 6,
            grace: Duration::from_secs(600),
            artifacts_wait: Duration::from_secs(30),
            linger: Duration::from_secs(600),
            unplaceable_after: Duration::from_secs(300),
            refusal_pause: Duration::from_secs(10),
            look_pause: Duration::from_secs(30),
            housekeeping_every: Duration::from_secs(600),
            request_timeout: Duration::from_secs(60),
            max_requests: 512,
            max_jobs: 5_000,
        }
    }
}
