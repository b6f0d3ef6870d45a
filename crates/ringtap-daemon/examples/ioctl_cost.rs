//! What a GET_READER through FUSE costs, beside an empty ioctl through FUSE in the same run.
//!
//! `cargo run --release -p ringtap-daemon --example ioctl_cost`

use ringtap::clock::ClockId;
use ringtap::{Config, Instances, Reader};
use ringtap_daemon::control::Control;
use ringtap_daemon::fs::{Mount, Ownership, Tree};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::path::Path;
use std::time::Instant;

const ROUNDS: usize = 31;
const CALLS: u32 = 500;
/// `TRACE_MMAP_IOCTL_GET_READER`.
const GET_READER: libc::c_ulong = 0x5220;
/// Wakes all waiters, of whom there are none.
const EMPTY: libc::c_ulong = 0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instances = Instances::new(&Config { clock: Some(ClockId::Mono), ..Config::default() })?;
    let tree = Tree::new(Control::new(instances.clone()), Ownership::default());
    let directory = std::env::temp_dir().join(format!("ringtap-ioctl-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let mount = Mount::new(&tree, &directory);
    let measured = mount.map_err(Into::into).and_then(|mount| {
        let result = measure(&directory, &instances);
        drop(mount);
        result
    });
    std::fs::remove_dir(&directory)?;
    measured
}

fn measure(directory: &Path, instances: &Instances) -> Result<(), Box<dyn std::error::Error>> {
    let open = || -> Result<OwnedFd, rustix::io::Errno> {
        let path = directory.join("per_cpu/cpu0/trace_pipe_raw");
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    };
    // Kept, so that the buffer stays mapped.
    let _mapped = Reader::open_kernel(open()?, 0, ClockId::Mono)?;
    let raw = open()?;
    rustix::fs::fcntl_setfl(&raw, OFlags::NONBLOCK)?;
    let writer = instances.writer();
    let mut each = [EMPTY, GET_READER].map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (command, times) in [EMPTY, GET_READER].into_iter().zip(&mut each) {
            let begin = Instant::now();
            for _ in 0..CALLS {
                ringtap::event::marker::print(&writer, "one event for each")?;
                // SAFETY: these commands take no argument and touch no memory of ours but what is mapped.
                let done = unsafe { libc::ioctl(raw.as_raw_fd(), command as _) };
                if done != 0 {
                    return Err(std::io::Error::last_os_error().into());
                }
            }
            times.push(begin.elapsed() / CALLS);
        }
    }
    let [empty, get_reader] = each.map(|mut times| {
        times.sort();
        times[ROUNDS / 2]
    });
    let ratio = get_reader.as_secs_f64() / empty.as_secs_f64();
    println!("empty ioctl {empty:?}, GET_READER {get_reader:?}: {ratio:.2} times (wanted: at most 1.5)");
    Ok(())
}
