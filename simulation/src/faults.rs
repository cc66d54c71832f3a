//! What goes wrong, drawn from the seed: links, daemons, machines, runners, the coordinator, clocks. Each fault has its end.

use crate::dice::Dice;
use crate::fleet::Fleet;
use crate::shape::Shape;
use pgsoak_coordinator::blocking;
use std::{collections::BTreeMap, fs, time::Duration};
use turmoil::Sim;

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Link {
    /// Nothing gets through, and what is sent is gone.
    Cut,
    /// The same in one direction: from the first to the second.
    OneWay,
    /// What is sent waits, and arrives when the fault is over: long after its connection was given up.
    Held,
}

/// Faults that are there now, and when each is over.
#[derive(Debug, Default)]
pub struct Faults {
    links: BTreeMap<(String, String), (Link, Duration)>,
    down: BTreeMap<String, Duration>,
    /// The coordinator was told to die at a step towards the disk.
    is_doomed: bool,
    /// How many of each kind there were.
    pub counts: BTreeMap<&'static str, u64>,
}

// === impl Faults ===

impl Faults {
    /// Ends what is over at `now`.
    pub fn heal(&mut self, sim: &mut Sim<'static>, now: Duration) {
        let over: Vec<_> = self
            .links
            .iter()
            .filter(|(_, (_, until))| *until <= now)
            .map(|(link, (kind, _))| (link.clone(), *kind))
            .collect();
        for ((a, b), kind) in over {
            match kind {
                Link::Held => sim.release(a.as_str(), b.as_str()),
                Link::Cut => sim.repair(a.as_str(), b.as_str()),
                Link::OneWay => sim.repair_oneway(a.as_str(), b.as_str()),
            }
            self.links.remove(&(a, b));
        }
        let back: Vec<String> = self
            .down
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(host, _)| host.clone())
            .collect();
        for host in back {
            sim.bounce(host.as_str());
            self.down.remove(&host);
        }
    }

    /// Ends everything: nothing more goes wrong.
    pub fn end(&mut self, sim: &mut Sim<'static>) {
        if self.is_doomed {
            blocking::die_after(None);
            self.is_doomed = false;
        }
        self.heal(sim, Duration::MAX);
        sim.set_max_message_latency(Duration::from_millis(100));
    }

    /// Whether the coordinator is down.
    pub fn is_coordinator_down(&self) -> bool {
        self.down.contains_key("coordinator")
    }

    /// The coordinator dies now, if it was told to and got there.
    pub fn bury(&mut self, sim: &mut Sim<'static>, fleet: &Fleet, dice: &mut Dice, now: Duration) {
        if self.is_doomed && blocking::is_dead() {
            self.count("coordinator died at a write");
            self.crash_coordinator(sim, fleet, dice, now);
        }
    }

    fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// Draws new faults.
    pub fn draw(
        &mut self,
        sim: &mut Sim<'static>,
        fleet: &Fleet,
        shape: &Shape,
        dice: &mut Dice,
        now: Duration,
    ) {
        for host in &fleet.hosts {
            if dice.one_in(shape.rate) {
                self.break_link(sim, dice, &host.name, host.talks_to, now);
            }
            if dice.one_in(shape.rate * 2) && !self.down.contains_key(&host.name) {
                let mut for_ = dice.spread(1, 3_600);
                match dice.below(8) {
                    0 => {
                        self.count("machine rebooted");
                        host.machine.reboot();
                        for_ = for_.max(Duration::from_secs(60));
                    }
                    1 => {
                        self.count("machine reinstalled");
                        host.machine.wipe();
                        let _ = fs::remove_dir_all(host.data.join("jobs"));
                    }
                    _ => self.count("daemon crashed"),
                }
                sim.crash(host.name.as_str());
                self.down.insert(host.name.clone(), now + for_);
            }
            if dice.one_in(shape.rate * 4) {
                self.count("runner killed");
                host.machine.kill_one(dice);
            }
        }
        if dice.one_in(shape.rate * 2) {
            self.break_link(sim, dice, "relay", "coordinator", now);
        }
        if dice.one_in(shape.rate) {
            self.break_link(sim, dice, "people", "coordinator", now);
        }
        if dice.one_in(shape.rate * 2) && !self.down.contains_key("relay") {
            self.count("relay crashed");
            sim.crash("relay");
            self.down.insert("relay".to_owned(), now + dice.spread(1, 600));
        }
        if dice.one_in(shape.rate / 2) && !self.is_coordinator_down() && !self.is_doomed {
            if dice.one_in(3) {
                self.count("coordinator crashed");
                self.crash_coordinator(sim, fleet, dice, now);
            } else {
                self.is_doomed = true;
                blocking::die_after(Some(1 + dice.below(40)));
            }
        }
        if dice.one_in(shape.rate) {
            self.count("latency changed");
            let most = [100, 1_000, 4_000, 9_000][usize::try_from(dice.below(4)).unwrap()];
            sim.set_max_message_latency(Duration::from_millis(most));
        }
    }

    fn crash_coordinator(
        &mut self,
        sim: &mut Sim<'static>,
        fleet: &Fleet,
        dice: &mut Dice,
        now: Duration,
    ) {
        blocking::die_after(None);
        self.is_doomed = false;
        *fleet.store.borrow_mut() = None;
        sim.crash("coordinator");
        self.down.insert("coordinator".to_owned(), now + dice.spread(1, 5_400));
        if dice.one_in(4) {
            self.count("coordinator's clock jumped");
            let hours = i64::try_from(dice.below(13)).unwrap() - 6;
            fleet.wall_error_us.set(hours * 3_600_000_000);
        }
    }

    fn break_link(
        &mut self,
        sim: &mut Sim<'static>,
        dice: &mut Dice,
        a: &str,
        b: &str,
        now: Duration,
    ) {
        let (mut a, mut b) = (a.to_owned(), b.to_owned());
        if self.links.contains_key(&(a.clone(), b.clone()))
            || self.links.contains_key(&(b.clone(), a.clone()))
        {
            return;
        }
        let kind = match dice.below(4) {
            0 => Link::Cut,
            1 => Link::Held,
            2 => Link::OneWay,
            _ => {
                std::mem::swap(&mut a, &mut b);
                Link::OneWay
            }
        };
        match kind {
            Link::Cut => sim.partition(a.as_str(), b.as_str()),
            Link::Held => sim.hold(a.as_str(), b.as_str()),
            Link::OneWay => sim.partition_oneway(a.as_str(), b.as_str()),
        }
        self.count(match kind {
            Link::Cut => "link cut",
            Link::Held => "link held",
            Link::OneWay => "link cut one way",
        });
        self.links.insert((a, b), (kind, now + dice.spread(2, 3 * 3_600)));
    }
}
