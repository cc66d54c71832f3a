//! Parsers of the kernel's text files. Pure; no bytes make them panic, and none of them allocates.
//!
//! Formats: proc(5), and `fs/proc/{array,task_mmu,meminfo,loadavg}.c` and `kernel/sched/psi.c` of Linux.

/// The fields of `/proc/PID/stat` that are used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stat {
    /// One letter: R, S, D, Z, X …
    pub state: u8,
    /// The parent's pid; 0: none that is visible.
    pub parent: u32,
    /// Since start.
    pub minor_faults: u64,
    /// Since start.
    pub major_faults: u64,
    /// User and system time, in clock ticks.
    pub cpu_ticks: u64,
    /// How many.
    pub threads: u64,
    /// Clock ticks since boot.
    pub start_time_ticks: u64,
}

/// The memory lines of `/proc/PID/status`, KiB. A kernel that lacks one leaves it 0.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// VmHWM.
    pub peak_rss_kib: u64,
    /// RssAnon.
    pub rss_anon_kib: u64,
    /// RssFile.
    pub rss_file_kib: u64,
    /// RssShmem.
    pub rss_shmem_kib: u64,
    /// VmData.
    pub data_kib: u64,
    /// VmSwap.
    pub swap_kib: u64,
}

// === impl Stat ===

impl Stat {
    /// Ended, and only not waited for yet.
    pub const fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Parses `/proc/PID/stat`. The command's name may hold spaces and parentheses: the fields begin after the last `)`.
pub fn stat(text: &[u8]) -> Option<Stat> {
    let name_end = text.iter().rposition(|&byte| byte == b')')?;
    let mut fields = words(text.get(name_end + 1..)?);
    let state = *fields.next()?.first()?;
    let parent = u32::try_from(number(fields.next()?)?).ok()?;
    // Fields 5 to 9: process group, session, terminal, its process group, flags.
    let minor_faults = number(fields.nth(5)?)?;
    let major_faults = number(fields.nth(1)?)?;
    let user_ticks = number(fields.nth(1)?)?;
    let system_ticks = number(fields.next()?)?;
    // Fields 16 to 19: times of children, priority, nice.
    let threads = number(fields.nth(4)?)?;
    let start_time_ticks = number(fields.nth(1)?)?;
    let cpu_ticks = user_ticks.checked_add(system_ticks)?;
    Some(Stat { state, parent, minor_faults, major_faults, cpu_ticks, threads, start_time_ticks })
}

/// Parses `/proc/PID/status`. `None` when there is no RssAnon: the process is ending and has no memory any more, or is a kernel thread.
pub fn status(text: &[u8]) -> Option<Status> {
    let mut found = Status::default();
    let mut has_anon = false;
    for line in lines(text) {
        let (place, value) = match line.first() {
            Some(b'V') => {
                if let Some(value) = line.strip_prefix(b"VmHWM:") {
                    (&mut found.peak_rss_kib, value)
                } else if let Some(value) = line.strip_prefix(b"VmData:") {
                    (&mut found.data_kib, value)
                } else if let Some(value) = line.strip_prefix(b"VmSwap:") {
                    found.swap_kib = kib(value)?;
                    break;
                } else {
                    continue;
                }
            }
            Some(b'R') => {
                if let Some(value) = line.strip_prefix(b"RssAnon:") {
                    has_anon = true;
                    (&mut found.rss_anon_kib, value)
                } else if let Some(value) = line.strip_prefix(b"RssFile:") {
                    (&mut found.rss_file_kib, value)
                } else if let Some(value) = line.strip_prefix(b"RssShmem:") {
                    (&mut found.rss_shmem_kib, value)
                } else {
                    continue;
                }
            }
            _ => continue,
        };
        *place = kib(value)?;
    }
    has_anon.then_some(found)
}

/// The value of a line `NAME:   123 kB`, as in meminfo and smaps_rollup. `name` holds the colon.
pub fn kib_line(text: &[u8], name: &[u8]) -> Option<u64> {
    lines(text).find_map(|line| line.strip_prefix(name)).and_then(kib)
}

/// The 1 minute load of `/proc/loadavg`, in hundredths.
pub fn load_centi(text: &[u8]) -> Option<u64> {
    let word = words(text).next()?;
    let point = word.iter().position(|&byte| byte == b'.')?;
    let whole = number(word.get(..point)?)?;
    let fraction = word.get(point + 1..)?;
    let hundredths = match fraction {
        [tenths] if tenths.is_ascii_digit() => u64::from(tenths - b'0') * 10,
        [_, _, ..] => number(fraction.get(..2)?)?,
        _ => return None,
    };
    whole.checked_mul(100)?.checked_add(hundredths)
}

/// `total=` of the line "some" of a pressure file, microseconds.
pub fn pressure_some_us(text: &[u8]) -> Option<u64> {
    let line = lines(text).find_map(|line| line.strip_prefix(b"some "))?;
    words(line).find_map(|word| word.strip_prefix(b"total=")).and_then(number)
}

/// The pids of a `children` file; words that are no pid are left out.
pub fn pids(text: &[u8]) -> impl Iterator<Item = u32> + '_ {
    words(text).filter_map(number).filter_map(|pid| u32::try_from(pid).ok()).filter(|&pid| pid > 0)
}

/// The first number of a text, as in `memory.current`.
pub fn first_number(text: &[u8]) -> Option<u64> {
    words(text).next().and_then(number)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// A number with its unit, which is always kB, said or not.
fn kib(value: &[u8]) -> Option<u64> {
    let mut parts = words(value);
    let amount = number(parts.next()?)?;
    matches!(parts.next(), None | Some(b"kB")).then_some(amount)
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = b"77 (a) S 1 (b c)) R 42 77 77 0 -1 4194304 500 9 3 1 70 30 5 6 20 0 4 0 123456 1000 200\n";
        let expected = Stat {
            state: b'R',
            parent: 42,
            minor_faults: 500,
            major_faults: 3,
            cpu_ticks: 100,
            threads: 4,
            start_time_ticks: 123_456,
        };
        assert_eq!(stat(text), Some(expected));
    }

    #[test]
    fn a_zombie_is_dead_and_a_sleeper_is_not() {
        let of = |state: char| {
            stat(format!("1 (x) {state} 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5").as_bytes())
                .unwrap()
                .is_dead()
        };
        assert!(of('Z') && of('X'));
        assert!(!of('S') && !of('R') && !of('D'));
    }

    #[test]
    fn status_takes_the_memory_lines() {
        let text = b"Name:\tpostgres\nState:\tS\nVmPeak:\t  300000 kB\nVmHWM:\t    7000 kB\nVmRSS:\t    6500 kB\nRssAnon:\t    3832 kB\nRssFile:\t    2000 kB\nRssShmem:\t     668 kB\nVmData:\t    9000 kB\nVmStk:\t 132 kB\nVmSwap:\t      12 kB\nThreads:\t1\n";
        let expected = Status {
            peak_rss_kib: 7000,
            rss_anon_kib: 3832,
            rss_file_kib: 2000,
            rss_shmem_kib: 668,
            data_kib: 9000,
            swap_kib: 12,
        };
        assert_eq!(status(text), Some(expected));
    }

    #[test]
    fn a_status_without_memory_is_no_reading() {
        assert_eq!(status(b"Name:\tpostgres\nState:\tZ (zombie)\nThreads:\t1\n"), None);
    }

    #[test]
    fn host_files_are_read() {
        assert_eq!(
            kib_line(b"MemTotal: 1000 kB\nMemAvailable:     512 kB\n", b"MemAvailable:"),
            Some(512)
        );
        assert_eq!(kib_line(b"Rss: 9 kB\nPss_Anon:   77 kB\n", b"Pss_Anon:"), Some(77));
        assert_eq!(load_centi(b"12.34 0.10 0.01 1/100 12345\n"), Some(1234));
        assert_eq!(
            pressure_some_us(
                b"some avg10=0.00 avg60=0.00 avg300=0.00 total=9876\nfull avg10=0.00 total=1\n"
            ),
            Some(9876)
        );
        assert_eq!(pids(b"12 13 4000000 \n").collect::<Vec<_>>(), [12, 13, 4_000_000]);
    }

    /// Text that is nearly what the kernel writes, then damaged.
    fn nearly() -> impl Strategy<Value = Vec<u8>> {
        let seeds = prop::sample::select(vec![
            "77 (a) S 1) R 42 77 77 0 -1 4194304 500 9 3 1 70 30 5 6 20 0 4 0 123456 1000",
            "VmHWM:\t 7000 kB\nRssAnon:\t 3832 kB\nRssFile:\t 2000 kB\nVmData:\t 1 kB\nVmSwap:\t 12 kB\n",
            "some avg10=0.00 total=9876\n",
            "0.34 0.10",
            "MemAvailable: 99999999999999999999999 kB\n",
        ]);
        (seeds, any::<prop::sample::Index>(), any::<u8>(), any::<prop::sample::Index>()).prop_map(
            |(seed, at, byte, cut)| {
                let mut bytes = seed.as_bytes().to_vec();
                let at = at.index(bytes.len());
                bytes[at] = byte;
                bytes.truncate(cut.index(bytes.len() + 1));
                bytes
            },
        )
    }

    fn read_all(bytes: &[u8]) {
        let _ = stat(bytes);
        let _ = status(bytes);
        let _ = kib_line(bytes, b"MemAvailable:");
        let _ = load_centi(bytes);
        let _ = pressure_some_us(bytes);
        let _ = pids(bytes).count();
        let _ = first_number(bytes);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            read_all(&bytes);
        }

        #[test]
        fn damaged_text_does_not_panic(bytes in nearly()) {
            read_all(&bytes);
        }

        #[test]
        fn every_name_gives_the_same_fields(name in "[^\n]{0,15}") {
            let text = format!("77 ({name}) S 42 77 77 0 -1 0 500 9 3 1 70 30 5 6 20 0 4 0 123456 1000");
            let read = stat(text.as_bytes()).unwrap();
            prop_assert_eq!((read.parent, read.cpu_ticks, read.start_time_ticks), (42, 100, 123_456));
        }
    }
}
