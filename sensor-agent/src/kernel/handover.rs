//! From one version's programs to the next's, when both are pinned and speak the same ABI.
//!
//! For a moment both sets record. What happened before the moment of the change counts as the old
//! set recorded it, what happened after it as the new one did: nothing is lost, and what lies so
//! close to the change that each set put it on its own side is taken once.

use std::path::Path;

use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};

use keytrail_abi::maps::{Conn, FileKey, ListenKey, Owner, Tracked};

use super::{
    attach::chain,
    event::KernelEvent,
    load::{Sensor, SensorConfig},
    pins::{self, Source},
    preflight::LoadError,
    rings::{MARGIN, Rings, boot_ns},
    stats,
};

/// Fills the maps of a set that is being pinned, before its programs are attached.
pub(super) type Copy<'a> = &'a dyn Fn(&Path) -> Result<(), LoadError>;

/// Around the change, events of the two sets may be the same one seen twice.
const CLOSE_NS: u64 = 5_000_000;
/// `BPF_NOEXIST`.
const NO_EXIST: u64 = 1;

/// What names of sets begin with that this version can read.
pub(super) fn prefix() -> String {
    format!("v{}-", keytrail_abi::VERSION)
}

/// True when this version can read the set's rings.
pub(super) fn is_readable(set: &Path) -> bool {
    let name = set.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.starts_with(&prefix()))
}

/// Loads a new set beside the old one, and takes over from it.
pub(super) fn succeed(
    config: &SensorConfig,
    old: &Path,
    fresh: impl FnOnce(Copy<'_>) -> Result<Sensor, LoadError>,
) -> Result<Sensor, LoadError> {
    let object = |e: aya::maps::MapError| LoadError::Object(chain(&e));
    let mut left = Rings::take(&mut Source::Pinned(old.to_owned()), false).map_err(object)?;
    left.resume(&config.resume);
    // From here on everything goes into `left` as long as the old links live.
    let links = pins::links(old);
    let mut sensor = fresh(&|new| copy_all(old, new))?;
    let Some(new) = sensor.set() else {
        return Ok(sensor);
    };
    settle(old, &new)?;
    let change = boot_ns();
    // Programs that had begun before are done then.
    std::thread::sleep(MARGIN);
    let lost = stats::of_set(&mut Source::Pinned(old.to_owned())).map_err(object)?;
    pins::remove_set(old)?;
    drop(links);
    let mut before = Vec::new();
    left.sift(|event| {
        if event.head().ts_boot_ns < change {
            before.push(event.clone());
        }
        false
    });
    sensor.rings.sift(|event| {
        let at = event.head().ts_boot_ns;
        at >= change && !(at < change + CLOSE_NS && seen_before(event, &before))
    });
    tracing::info!(
        events = before.len(),
        "took over from the programs of another version"
    );
    sensor.rings.put_first(before);
    sensor.left = Some(lost);
    Ok(sensor)
}

/// Whether the old set recorded the same event a moment earlier.
fn seen_before(event: &KernelEvent, before: &[KernelEvent]) -> bool {
    let at = event.head().ts_boot_ns;
    let close = before
        .iter()
        .rev()
        .take_while(|other| other.head().ts_boot_ns + CLOSE_NS > at);
    close
        .into_iter()
        .any(|other| other.clone().at(at) == *event)
}

/// The state of the programs: who is tracked, what is watched, which sockets are whose.
fn copy_all(old: &Path, new: &Path) -> Result<(), LoadError> {
    copy::<4, { size_of::<Tracked>() }>(old, new, "TRACKED")?;
    copy::<{ size_of::<FileKey>() }, 4>(old, new, "EXE_WATCH")?;
    copy::<{ size_of::<FileKey>() }, 4>(old, new, "WATCHED_INODES")?;
    copy::<{ size_of::<FileKey>() }, 4>(old, new, "WATCHED_DIRS")?;
    copy::<8, { size_of::<Conn>() }>(old, new, "CONN")?;
    copy::<{ size_of::<ListenKey>() }, { size_of::<Owner>() }>(old, new, "LISTENERS")?;
    copy::<8, { size_of::<Owner>() }>(old, new, "RESOLVING")
}

/// What changed between the first copy and the last program's being attached.
fn settle(old: &Path, new: &Path) -> Result<(), LoadError> {
    copy::<4, { size_of::<Tracked>() }>(old, new, "TRACKED")?;
    copy::<8, { size_of::<Conn>() }>(old, new, "CONN")?;
    copy::<{ size_of::<ListenKey>() }, { size_of::<Owner>() }>(old, new, "LISTENERS")?;
    // A process or a connection that ended in between is gone from the old set only. Where both
    // record, the old one's program runs first: what is new is in both.
    prune::<4, { size_of::<Tracked>() }>(old, new, "TRACKED")?;
    prune::<8, { size_of::<Conn>() }>(old, new, "CONN")
}

type Raw<const K: usize, const V: usize> = HashMap<MapData, [u8; K], [u8; V]>;

fn open<const K: usize, const V: usize>(set: &Path, name: &str) -> Result<Raw<K, V>, LoadError>
where
    [u8; K]: Pod,
    [u8; V]: Pod,
{
    let map = MapData::from_pin(set.join("maps").join(name)).and_then(Map::from_map_data);
    map.and_then(TryInto::try_into)
        .map_err(|e| LoadError::Object(format!("{name} of {}: {}", set.display(), chain(&e))))
}

fn copy<const K: usize, const V: usize>(old: &Path, new: &Path, name: &str) -> Result<(), LoadError>
where
    [u8; K]: Pod,
    [u8; V]: Pod,
{
    let (from, mut to) = (open::<K, V>(old, name)?, open::<K, V>(new, name)?);
    for (key, value) in from.iter().filter_map(Result::ok) {
        // There already, or full: a full map is what the kernel side counts as soon as it matters.
        drop(to.insert(key, value, NO_EXIST));
    }
    Ok(())
}

fn prune<const K: usize, const V: usize>(
    old: &Path,
    new: &Path,
    name: &str,
) -> Result<(), LoadError>
where
    [u8; K]: Pod,
    [u8; V]: Pod,
{
    let (from, mut to) = (open::<K, V>(old, name)?, open::<K, V>(new, name)?);
    let keys: Vec<[u8; K]> = to.keys().filter_map(Result::ok).collect();
    for key in keys {
        if from.get(&key, 0).is_err() {
            drop(to.remove(&key));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sets_of_this_abi_are_read() {
        assert!(is_readable(Path::new(&format!("/x/{}00ff", prefix()))));
        assert!(!is_readable(Path::new("/x/v0-00ff")));
        assert!(!is_readable(Path::new("/x/other")));
    }
}
