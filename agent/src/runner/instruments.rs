//! What a job's tool says about a session at rest.
//!
//! Asked by the engine between two pieces of work, never while a backend works. A check that fails is the harness's
//! fault, not the product's, unless the backend is gone, and then its connection says so too.

use crate::probe::rss_anon_now;
use crate::runner::engine::Place;
use crate::runner::fault::Fault;
use crate::runner::marks::Marks;
use crate::tools::Tooling;
use crate::tools::allocator::{Visit, Visited, visit};
use crate::tools::memcheck::Check;
use crate::tools::memcheck::CheckError;
use crate::workers::failure::WorkError;
use crate::workers::rest;
use crate::workers::session::Session;
use pgsoak_analysis::valgrind::{AddressMap, Sources, parse_leak_check};
use pgsoak_proto::chain::chain;
use pgsoak_proto::evidence::{AllocatorUse, LeakCheck, SiteMark};
use pgsoak_proto::job::Tool;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long one leak check may take: 1 s is usual, heaps of gigabytes take minutes.
const CHECK_LIMIT: Duration = Duration::from_secs(600);

/// How often a session is asked at most until heaptrack's file grows: one question fills about a quarter of its buffer.
const MOST_QUESTIONS: u32 = 50;

/// The tool of a job, as the engine uses it.
#[derive(Debug)]
pub struct Instruments {
    tooling: Tooling,
    /// Mappings of the processes that were checked, and of the postmaster, which its children inherit.
    maps: Mutex<Maps>,
    sources: Sources,
    /// Of heaptrack, by pid.
    marks: Mutex<BTreeMap<u32, Marks>>,
}

#[derive(Debug, Default)]
struct Maps {
    postmaster: AddressMap,
    /// By pid; a backend that is here has had its first check. With the place of its last one.
    checked: BTreeMap<u32, (AddressMap, Place)>,
    /// Backends of which a check told of blocks: every backend has some.
    alive: BTreeSet<u32>,
}

impl Instruments {
    /// Of this tool.
    pub fn new(tooling: Tooling) -> Self {
        Self {
            tooling,
            maps: Mutex::default(),
            sources: Sources::default(),
            marks: Mutex::default(),
        }
    }

    /// Checks a session for leaks; `None` under other tools than memcheck. The first check of a backend only sets the
    /// mark that later ones count from.
    ///
    /// # Errors
    /// The check has no answer.
    pub async fn leak_check(
        &self,
        session: &Session,
        process: u32,
        place: Place,
    ) -> Result<Option<LeakCheck>, Fault> {
        let Some(memcheck) = self.tooling.memcheck() else { return Ok(None) };
        let pid = session.pid();
        let is_first = !self.maps().checked.contains_key(&pid);
        let check = if is_first { Check::Mark } else { Check::Increased };
        let answer = memcheck
            .leak_check(pid, check, CHECK_LIMIT)
            .await
            .map_err(|error| of_check(&error, session))?;
        let map = self.map(&answer.maps);
        let parsed = parse_leak_check(&answer.text, &map);
        {
            let mut maps = self.maps();
            maps.checked.insert(pid, (map, place));
            if parsed.complete && parsed.summary.reachable.bytes > 0 {
                maps.alive.insert(pid);
            }
        }
        Ok(Some(LeakCheck {
            session: session.number(),
            process,
            phase: place.phase,
            round: place.round,
            operations: place.operations,
            records: parsed.records,
            at_exit: false,
            took_us: u64::try_from(answer.took.as_micros()).unwrap_or(u64::MAX),
        }))
    }

    /// Reads the postmaster's mappings: libraries that are preloaded lie at the same place in all its children.
    pub fn remember_postmaster(&self, pid: u32) {
        if self.tooling.memcheck().is_some() {
            let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
            self.maps().postmaster = self.map(&maps);
        }
    }

    /// Notes where a session at rest stands in the tool's own file: under heaptrack how far the file has come, under massif what is mapped.
    ///
    /// heaptrack writes from a buffer. The session is asked for its contexts until the file grows: then everything before the first
    /// question is in the file, and what the questions took they gave back.
    ///
    /// # Errors
    /// Of the session.
    pub async fn mark(&self, session: &Session, place: Place, major: u32) -> Result<(), WorkError> {
        let pid = session.pid();
        if self.tooling.tool == Tool::Massif {
            let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
            self.maps().checked.insert(pid, (self.map(&maps), place));
        }
        let Some(heaptrack) = self.tooling.heaptrack() else { return Ok(()) };
        let file = heaptrack.raw_file(pid);
        let length = || std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
        let before = length();
        let mut asked = 0;
        while length() == before && asked < MOST_QUESTIONS {
            rest::contexts(session, major).await?;
            asked += 1;
        }
        let offset = length();
        if offset == before {
            tracing::debug!(pid, "heaptrack's file does not grow; the mark is as it is");
        }
        let mark = SiteMark {
            phase: place.phase,
            round: place.round,
            operations: place.operations,
            live_bytes: 0,
        };
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.entry(pid).or_default().note(offset, mark);
        Ok(())
    }

    /// The marks of a process that its digest is to have, with their offsets into heaptrack's file, rising.
    pub fn marks_of(&self, pid: u32) -> Vec<(u64, SiteMark)> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get(&pid).map(Marks::chosen).unwrap_or_default()
    }

    /// Where the objects of a process lie, as far as is known.
    pub fn map_of(&self, pid: u32) -> AddressMap {
        let maps = self.maps();
        maps.checked.get(&pid).map_or(&maps.postmaster, |(map, _)| map).clone()
    }

    fn map(&self, maps: &str) -> AddressMap {
        AddressMap::from_maps(maps).with_sources(&self.sources)
    }

    /// Where in the workload a backend was checked last.
    pub fn last_place(&self, pid: u32) -> Option<Place> {
        self.maps().checked.get(&pid).map(|(_, place)| *place)
    }

    /// Whether a check of this backend told of blocks that it holds.
    pub fn is_alive(&self, pid: u32) -> bool {
        self.maps().alive.contains(&pid)
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a backend's allocator what the place wants of it: its books, and RssAnon plus swap in bytes after it gave back what it can. Under a tool that
    /// replaces the allocator, and where it is not possible, neither is known.
    pub async fn allocator(&self, pid: u32, place: Place) -> (Option<AllocatorUse>, Option<u64>) {
        if self.tooling.tool != Tool::Plain {
            return (None, None);
        }
        let wanted = Visit { books: place.wants_books, trim: place.is_trimmed };
        let Visited { books, is_trimmed } = visit(pid, &self.tooling.folder, wanted).await;
        let trimmed = if is_trimmed { rss_anon_now(pid).ok().flatten() } else { None };
        (books, trimmed)
    }
}

/// A backend without a channel is gone, as its session will see.
fn of_check(error: &CheckError, session: &Session) -> Fault {
    match error {
        CheckError::NoChannel { .. } => Fault::Work {
            phase: String::new(),
            line: None,
            error: WorkError::Lost {
                session: session.number(),
                statement: String::new(),
                message: chain(error),
            },
        },
        _ => Fault::Infrastructure(chain(error)),
    }
}
