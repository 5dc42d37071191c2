//! Who may open ping sockets: the sysctl that PING_CHECK needs, put back at the end.

use std::fs;
use std::io;

use tracing::{info, warn};

/// The groups that may ping, widened by our own while this lives.
#[derive(Debug)]
pub struct PingGroups {
    before: Option<String>,
}

impl PingGroups {
    /// Lets this process ping, if it may not yet.
    pub fn widen() -> Self {
        let group = rustix::process::getegid().as_raw();
        let before = match widen(group) {
            Ok(before) => before,
            Err(error) => {
                warn!("{SYSCTL} does not let group {group} ping, and can't be changed: {error}");
                None
            }
        };
        if before.is_some() {
            info!("{SYSCTL} lets group {group} ping");
        }
        Self { before }
    }
}

impl Drop for PingGroups {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = fs::write(PATH, before)
        {
            warn!("{SYSCTL} can't be put back: {error}");
        }
    }
}

/// What it was, if it had to be changed.
fn widen(group: u32) -> io::Result<Option<String>> {
    let before = fs::read_to_string(PATH)?;
    let Some(wider) = widened(&before, group) else {
        return Ok(None);
    };
    fs::write(PATH, wider)?;
    Ok(Some(before))
}

/// The smallest range that has this group too; `None` if it is in there.
fn widened(range: &str, group: u32) -> Option<String> {
    let mut numbers = range.split_whitespace().map(str::parse::<u32>);
    let (Some(Ok(first)), Some(Ok(last))) = (numbers.next(), numbers.next()) else {
        return Some(format!("{group} {group}"));
    };
    if first > last {
        return Some(format!("{group} {group}"));
    }
    if (first..=last).contains(&group) {
        return None;
    }
    Some(format!("{} {}", first.min(group), last.max(group)))
}

const SYSCTL: &str = "net.ipv4.ping_group_range";
const PATH: &str = "/proc/sys/net/ipv4/ping_group_range";

#[cfg(test)]
mod tests {
    use super::widened;

    #[test]
    fn range_grows_no_more_than_needed() {
        assert_eq!(widened("1\t0\n", 0).as_deref(), Some("0 0"));
        assert_eq!(widened("0\t2147483647\n", 0), None);
        assert_eq!(widened("100 200", 50).as_deref(), Some("50 200"));
        assert_eq!(widened("100 200", 150), None);
    }
}
