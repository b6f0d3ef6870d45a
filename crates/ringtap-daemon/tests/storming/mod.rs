//! What each process of a storm does.

use crate::random::Random;
use ringtap::Reader;
use ringtap::clock::ClockId;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::path::Path;

/// One operation on the tree at `root`. That it is refused is no failure: others remove and resize meanwhile.
pub(crate) fn operate(root: &Path, random: &mut Random) {
    let name = format!("storm{}", random.below(6));
    let instance = root.join("instances").join(&name);
    let place = if random.below(2) == 0 { root } else { &instance };
    let raw = place.join(format!("per_cpu/cpu{}/trace_pipe_raw", random.below(2)));
    let open = |flags| rustix::fs::open(&raw, flags | OFlags::CLOEXEC, Mode::empty());
    match random.below(10) {
        0 => drop(fs::create_dir(&instance)),
        1 => drop(fs::remove_dir(&instance)),
        2 => drop(fs::write(place.join("buffer_size_kb"), (16 + random.below(64)).to_string())),
        3 => drop(fs::write(place.join("trace_marker"), "a marker in the storm")),
        4 => drop(fs::read(place.join("trace"))),
        5 => drop(fs::read_dir(place.join("per_cpu")).map(Iterator::count)),
        6 => drop(open(OFlags::RDWR)),
        7 => {
            let Ok(raw) = open(OFlags::RDONLY | OFlags::NONBLOCK) else { return };
            for _ in 0..random.below(8) {
                let _ = rustix::io::read(&raw, &mut [0; 4096]);
            }
        }
        8 => {
            let Ok(raw) = open(OFlags::RDONLY) else { return };
            let wait = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
            let _ = rustix::event::poll(&mut [PollFd::new(&raw, PollFlags::IN)], Some(&wait));
        }
        _ => {
            let Ok(raw) = open(OFlags::RDONLY) else { return };
            let Ok(mut reader) = Reader::open_kernel(raw, 0, ClockId::Mono) else { return };
            for _ in 0..random.below(200) {
                let _ = reader.next();
            }
        }
    }
}
