//! Readings from the kernel by descriptors that stay open.
//!
//! Cheaper than opening each time, and safe against pids that are used again: a read after the process's end says ESRCH.
//! A process costs two descriptors, three once it was asked for its children.

use crate::probe::{
    HostSample, Probe, ProcessKey, ProcessSample,
    children::{Children, Scan},
    host::HostReader,
    parse,
};
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
    io::Errno,
    process::{Resource, getrlimit, setrlimit},
};
use std::io;

/// More than any file that is read whole here; a list of children is read in pieces.
const BUFFER_BYTES: usize = 16 << 10;

const MICROSECONDS: u64 = 1_000_000;

/// Reads `/proc`. One buffer, no allocation per reading.
#[derive(Debug)]
pub struct KernelProbe {
    buffer: Vec<u8>,
    ticks_per_second: u64,
    host: HostReader,
    scan: Scan,
}

/// A process with its descriptors.
#[derive(Debug)]
pub struct KernelProcess {
    key: ProcessKey,
    stat: OwnedFd,
    status: OwnedFd,
    children: Children,
}

// === impl KernelProbe ===

impl KernelProbe {
    /// A probe for the server of `postmaster`, whose cgroup counts as the job's.
    pub fn new(postmaster: u32) -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES],
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
            host: HostReader::open(postmaster),
            scan: Scan::default(),
        }
    }

    fn cpu_us(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(MICROSECONDS) / self.ticks_per_second
    }
}

impl Probe for KernelProbe {
    type Process = KernelProcess;

    fn open(&mut self, pid: u32) -> io::Result<Option<KernelProcess>> {
        let Some(stat) = open(&format!("/proc/{pid}/stat"))? else { return Ok(None) };
        let Some(status) = open(&format!("/proc/{pid}/status"))? else { return Ok(None) };
        // Both belong to one process when the first still lives after the second was opened.
        let Some(text) = read_at(&stat, &mut self.buffer, 0)? else { return Ok(None) };
        let read = parse::stat(text).ok_or_else(|| not_understood(pid, "stat"))?;
        if read.is_dead() {
            return Ok(None);
        }
        let key = ProcessKey { pid, start_time_ticks: read.start_time_ticks };
        Ok(Some(KernelProcess { key, stat, status, children: Children::Unopened }))
    }

    fn key(process: &KernelProcess) -> ProcessKey {
        process.key
    }

    fn sample(&mut self, process: &KernelProcess) -> io::Result<Option<ProcessSample>> {
        let pid = process.key.pid;
        let Some(text) = read_at(&process.stat, &mut self.buffer, 0)? else { return Ok(None) };
        let stat = parse::stat(text).ok_or_else(|| not_understood(pid, "stat"))?;
        if stat.is_dead() {
            return Ok(None);
        }
        let Some(text) = read_at(&process.status, &mut self.buffer, 0)? else { return Ok(None) };
        // Without its memory lines the process is on its way out.
        let Some(memory) = parse::status(text) else { return Ok(None) };
        Ok(Some(ProcessSample {
            rss_anon_kib: memory.rss_anon_kib,
            rss_file_kib: memory.rss_file_kib,
            rss_shmem_kib: memory.rss_shmem_kib,
            swap_kib: memory.swap_kib,
            data_kib: memory.data_kib,
            peak_rss_kib: memory.peak_rss_kib,
            cpu_us: self.cpu_us(stat.cpu_ticks),
            minor_faults: stat.minor_faults,
            major_faults: stat.major_faults,
            threads: stat.threads,
        }))
    }

    fn children(&mut self, process: &mut KernelProcess, found: &mut Vec<u32>) -> io::Result<()> {
        process.children.read(process.key.pid, &mut self.buffer, &mut self.scan, found)
    }

    fn pss_anon_kib(&mut self, process: &KernelProcess) -> io::Result<Option<u64>> {
        let pid = process.key.pid;
        let Some(rollup) = open(&format!("/proc/{pid}/smaps_rollup"))? else { return Ok(None) };
        // The kept descriptor tells whether the path was still this process's.
        if read_at(&process.stat, &mut self.buffer, 0)?.is_none() {
            return Ok(None);
        }
        let Some(text) = read_at(&rollup, &mut self.buffer, 0)? else { return Ok(None) };
        Ok(parse::kib_line(text, b"Pss_Anon:"))
    }

    fn host(&mut self) -> HostSample {
        self.host.read(&mut self.buffer)
    }
}

/// Opens a file for reading; `None`: it, or its process, does not exist.
///
/// When the process runs out of descriptors, its soft limit is raised to the hard one and the file tried again: a server with
/// hundreds of backends needs more than the usual 1,024.
pub(super) fn open(path: &str) -> io::Result<Option<OwnedFd>> {
    let try_open = || rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let opened = match try_open() {
        Err(Errno::MFILE) if raise_descriptor_limit() => try_open(),
        opened => opened,
    };
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        Err(errno) => {
            Err(io::Error::new(io::Error::from(errno).kind(), format!("open {path}: {errno}")))
        }
    }
}

/// Whether there was room to raise it.
fn raise_descriptor_limit() -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return false;
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).is_ok()
}

/// Reads from `offset` into the buffer; `None`: the process has gone.
pub(super) fn read_at<'buffer>(
    file: &OwnedFd,
    buffer: &'buffer mut [u8],
    offset: u64,
) -> io::Result<Option<&'buffer [u8]>> {
    loop {
        match rustix::io::pread(file, &mut *buffer, offset) {
            Ok(length) => return Ok(buffer.get(..length)),
            Err(Errno::INTR) => {}
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}

pub(super) fn not_understood(pid: u32, file: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("/proc/{pid}/{file} is not in the form this program knows"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    #[test]
    fn a_live_process_is_read_and_an_ended_one_is_news() {
        let mut child = sleeper();
        let mut probe = KernelProbe::new(child.id());
        let process = probe.open(child.id()).unwrap().unwrap();
        let sample = probe.sample(&process).unwrap().unwrap();
        assert!(sample.rss_anon_kib > 0 && sample.threads == 1, "{sample:?}");
        child.kill().unwrap();
        // Not waited for, it is a zombie; waited for, it is nothing.
        while probe.sample(&process).unwrap().is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(probe.sample(&process).unwrap(), None);
        assert_eq!(probe.pss_anon_kib(&process).unwrap(), None);
        assert!(probe.open(child.id()).unwrap().is_none());
    }

    #[test]
    fn readings_agree_with_the_procfs_crate() {
        let mut child = sleeper();
        let mut probe = KernelProbe::new(child.id());
        let process = probe.open(child.id()).unwrap().unwrap();
        // Past its exec, so that the image has settled.
        let peer = procfs::process::Process::new(i32::try_from(child.id()).unwrap()).unwrap();
        while peer.stat().unwrap().comm != "sleep" || peer.stat().unwrap().state != 'S' {
            std::thread::yield_now();
        }
        let sample = probe.sample(&process).unwrap().unwrap();
        let (stat, status) = (peer.stat().unwrap(), peer.status().unwrap());
        assert_eq!(process.key.start_time_ticks, stat.starttime);
        assert_eq!(Some(sample.rss_anon_kib), status.rssanon);
        assert_eq!(Some(sample.rss_file_kib), status.rssfile);
        assert_eq!(Some(sample.rss_shmem_kib), status.rssshmem);
        assert_eq!(Some(sample.data_kib), status.vmdata);
        assert_eq!(Some(sample.swap_kib), status.vmswap);
        assert_eq!(Some(sample.peak_rss_kib), status.vmhwm);
        assert_eq!((sample.minor_faults, sample.major_faults), (stat.minflt, stat.majflt));
        assert_eq!(i64::try_from(sample.threads).unwrap(), stat.num_threads);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn pss_is_at_most_the_anonymous_memory() {
        let mut child = sleeper();
        let mut probe = KernelProbe::new(child.id());
        let process = probe.open(child.id()).unwrap().unwrap();
        let pss = probe.pss_anon_kib(&process).unwrap().unwrap();
        let sample = probe.sample(&process).unwrap().unwrap();
        assert!(pss <= sample.rss_anon_kib + 64, "{pss} of {sample:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
