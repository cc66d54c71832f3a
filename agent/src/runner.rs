//! The job runner: a process of its own that does one attempt of one job in the job's folder, and leaves evidence.
//!
//! Started by the daemon and detached from it, it needs nobody: it reads its assignment, ends by itself at the hard end, and
//! writes a last frame whatever happens. It touches its folder and the cache of cluster templates, nothing else.
//!
//! Tasks and threads: the attempt (`attempt`), its work in a task that can be aborted (`work`, with a task per loop worker while a
//! round runs), a watch for what stops it (`stop`), the writer of `progress.json`, the sampler's thread, the spool's thread, and
//! a watchdog thread for the case that all of this hangs.
//!
//! - `course`: what the job runs of its workload (no I/O) · `fault`: why an attempt ends and what that is called
//! - `record`: frames on their way into the spool · `progress`: for people · `stop`: cancel, signal, hard end
//! - `engine`, `looped`: phases, readings at rest, checks · `instruments`: the tool's word on a session at rest · `marks`: where rounds lie in
//!   heaptrack's file · `lookout`: captures of processes that grow, while they work
//! - `work`: from package to last phase · `wind_up`: the end, with `digests`, `profiles`, `artifacts`, `orphans`
//! - `costs`: what the runner itself takes

mod artifacts;
mod attempt;
mod costs;
mod course;
mod digests;
mod engine;
mod fault;
mod instruments;
mod lookout;
mod looped;
mod marks;
mod oom;
mod orphans;
mod profiles;
mod progress;
mod record;
mod stop;
mod wind_up;
mod work;

pub use attempt::run_job;
