//! The CPUs of this machine: there is a buffer for each that can ever exist.

use std::io;

pub use crate::pin::Pin;

/// The kernel's list of CPUs that can ever come up.
const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// All CPUs that can ever come up, in order.
///
/// # Errors
/// Where sysfs is not there, or says what cannot be understood.
pub fn possible() -> io::Result<Vec<u32>> {
    let list = std::fs::read_to_string(POSSIBLE)?;
    parse(&list)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{POSSIBLE} says {list:?}")))
}

/// The numbers in a list such as `0-3,8`, as the kernel prints it.
pub(crate) fn parse(list: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ranges() {
        assert_eq!(parse("0"), Some(vec![0]));
        assert_eq!(parse("0-2,5,7-8"), Some(vec![0, 1, 2, 5, 7, 8]));
        assert_eq!(parse("0-"), None);
        assert!(possible().is_ok_and(|cpus| cpus.contains(&0)));
    }
}
