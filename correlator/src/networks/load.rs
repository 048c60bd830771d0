//! Reads the files, keeps what was read, and notices what changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use keytrail_networks::{Database, Role, Table};
use serde::Deserialize;

use super::config::NetworksConfig;
use super::view::{NetworkFile, NetworksView};
use crate::clock;

/// The folder that is looked into when none is set, in the data directory.
const FOLDER: &str = "networks";
/// In it: pools of the organisation.
const POOLS: &str = "pools";
/// In it: where its files come from.
const SOURCES: &str = "sources.toml";
/// Names that files of networks end in, before `.gz` or `.zst`.
const ENDINGS: [&str; 5] = ["csv", "tsv", "txt", "json", "mmdb"];
/// Most files.
const MAX_FILES: usize = 64;
/// Bytes buffered of a file.
const BUFFER: usize = 64 << 10;

/// How a file looked, to see whether it changed.
type Mark = (u64, u64, i64, i64);

/// `sources.toml`: where files come from, written by what installed them.
#[derive(Clone, Debug, Default, Deserialize)]
struct Sources {
    #[serde(default)]
    file: Vec<SourceOf>,
}

#[derive(Clone, Debug, Deserialize)]
struct SourceOf {
    name: String,
    dated: Option<String>,
    licence: Option<String>,
    attribution: Option<String>,
}

/// A file, and what was read of it.
#[derive(Debug)]
struct Kept {
    /// How it looked when last looked at, and when last read or refused.
    seen: Option<Mark>,
    done: Option<Mark>,
    database: Option<Arc<Database>>,
    read: Option<Timestamp>,
    written: Option<Timestamp>,
    problem: Option<String>,
}

/// What a look at the files gave.
#[derive(Debug)]
pub(super) struct Turn {
    /// The new table, if anything changed.
    pub(super) table: Option<Table>,
    pub(super) view: NetworksView,
    pub(super) loaded: u64,
    pub(super) refused: u64,
}

/// The files, as they were read.
#[derive(Debug)]
pub(super) struct Loader {
    config: NetworksConfig,
    folder: PathBuf,
    /// The folder was asked for, so that it must be there.
    wanted: bool,
    kept: BTreeMap<PathBuf, Kept>,
    first: bool,
}

/// Reads one file, plain, gzip or zstd.
///
/// # Errors
/// When it is refused: why, in words, with its line.
pub fn read_file(path: &Path, role: Role) -> Result<Database, String> {
    let name = name_of(path);
    let read = || {
        let file = File::open(path)?;
        let plain = crate::sources::plain(BufReader::with_capacity(BUFFER, file))?;
        keytrail_networks::read(plain, role, &name)
    };
    read().map_err(|error: keytrail_networks::ReadError| error.to_string())
}

/// The name without its endings.
fn name_of(path: &Path) -> String {
    let mut name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    for packed in [".gz", ".zst"] {
        name = name
            .strip_suffix(packed)
            .map_or(name.clone(), str::to_owned);
    }
    match name.rsplit_once('.') {
        Some((front, ending)) if !front.is_empty() && ENDINGS.contains(&ending) => front.to_owned(),
        _ => name,
    }
}

fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    !name.starts_with('.') && ending.is_some_and(|ending| ENDINGS.contains(&ending))
}

impl Loader {
    pub(super) fn new(config: &NetworksConfig, data_dir: &Path) -> Self {
        Self {
            config: config.clone(),
            folder: config
                .folder
                .clone()
                .unwrap_or_else(|| data_dir.join(FOLDER)),
            wanted: config.folder.is_some(),
            kept: BTreeMap::new(),
            first: true,
        }
    }

    /// The files there are now, in ascending precedence, and what hindered the search.
    fn files(&self) -> (Vec<(PathBuf, Role)>, Option<String>) {
        let mut problem = None;
        let mut list = |folder: &Path, wanted: bool| -> Vec<PathBuf> {
            let mut found = Vec::new();
            match fs::read_dir(folder) {
                Ok(entries) => {
                    found.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
                    found.retain(|path| is_ours(path) && path.is_file());
                    found.sort();
                }
                Err(error) if error.kind() == ErrorKind::NotFound && !wanted => {}
                Err(error) => {
                    let text = format!(
                        "{}: {error}; make the folder, or mend networks.folder",
                        folder.display()
                    );
                    problem.get_or_insert(text);
                }
            }
            found
        };
        let with =
            |paths: Vec<PathBuf>, role: Role| paths.into_iter().map(move |path| (path, role));
        let mut world = list(&self.folder, self.wanted);
        // A file of the folder's that is named as a pool is one.
        world.retain(|path| !self.config.pools.contains(path));
        let mut all: Vec<(PathBuf, Role)> = with(world, Role::World).collect();
        all.extend(with(self.config.files.clone(), Role::World));
        all.extend(with(list(&self.folder.join(POOLS), false), Role::Pool));
        all.extend(with(self.config.pools.clone(), Role::Pool));
        if all.len() > MAX_FILES {
            let more = all.len() - MAX_FILES;
            problem.get_or_insert(format!(
                "{more} files more than {MAX_FILES} are not read; join them or take some away"
            ));
            all.truncate(MAX_FILES);
        }
        (all, problem)
    }

    /// Looks at the files; reads those that changed and have been the same since the last look.
    pub(super) fn turn(&mut self) -> Turn {
        let (files, problem) = self.files();
        let mut turn = Turn {
            table: None,
            view: NetworksView {
                problem,
                ..NetworksView::default()
            },
            loaded: 0,
            refused: 0,
        };
        let before = self.kept.len();
        self.kept
            .retain(|path, _| files.iter().any(|(known, _)| known == path));
        let mut changed = self.kept.len() != before;
        for (path, role) in &files {
            changed |= self.look(path, *role, &mut turn);
        }
        self.first = false;
        let databases: Vec<Arc<Database>> = files
            .iter()
            .filter_map(|(path, _)| self.kept.get(path)?.database.clone())
            .collect();
        turn.view.files = self.view(&files);
        let table = Table::new(databases);
        turn.view.bytes = table.bytes() as u64;
        if changed {
            turn.table = Some(table);
        }
        turn
    }

    /// True when the table changes with this file.
    fn look(&mut self, path: &Path, role: Role, turn: &mut Turn) -> bool {
        let kept = self.kept.entry(path.to_owned()).or_insert(Kept {
            seen: None,
            done: None,
            database: None,
            read: None,
            written: None,
            problem: None,
        });
        let (mark, written) = match fs::metadata(path) {
            Ok(meta) => (
                (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()),
                Timestamp::from_second(meta.mtime()).ok(),
            ),
            Err(error) => {
                let problem = format!("cannot be read: {error}");
                if kept.problem.as_ref() != Some(&problem) {
                    turn.refused += 1;
                    tracing::warn!(path = %path.display(), %error, "a file of networks cannot be read; what was read of it stays in use");
                }
                kept.problem = Some(problem);
                // Once it is back it is read, whatever it looks like.
                (kept.seen, kept.done) = (None, None);
                return false;
            }
        };
        let steady = self.first || kept.seen == Some(mark);
        kept.seen = Some(mark);
        if kept.done == Some(mark) || !steady {
            return false;
        }
        kept.done = Some(mark);
        match read_file(path, role) {
            Ok(database) => {
                tracing::info!(path = %path.display(), ranges = database.rows(), "read a file of networks");
                turn.loaded += 1;
                kept.database = Some(Arc::new(database));
                kept.read = Some(clock::now());
                kept.written = written;
                kept.problem = None;
                true
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a file of networks is refused; what was read of it before stays in use");
                turn.refused += 1;
                kept.problem = Some(error);
                false
            }
        }
    }

    fn view(&self, files: &[(PathBuf, Role)]) -> Vec<NetworkFile> {
        let mut sources: BTreeMap<PathBuf, Sources> = BTreeMap::new();
        let mut all = Vec::new();
        for (path, role) in files {
            let Some(kept) = self.kept.get(path) else {
                continue;
            };
            let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
            let beside = sources.entry(folder).or_insert_with_key(|folder| {
                let text = fs::read_to_string(folder.join(SOURCES)).unwrap_or_default();
                toml::from_str(&text).unwrap_or_default()
            });
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let told = beside.file.iter().find(|file| *file.name == *name);
            let database = kept.database.as_ref();
            let day = told.and_then(|told| day(told.dated.as_deref()?));
            let own = database.and_then(|database| database.dated());
            all.push(NetworkFile {
                path: path.to_string_lossy().into_owned(),
                pools: *role == Role::Pool,
                format: database.map(|database| database.format().to_owned()),
                ranges: database.map_or(0, |database| database.rows()),
                read: kept.read,
                dated: own.or(day).or(kept.written),
                age_days: None,
                old: false,
                licence: told.and_then(|told| told.licence.clone()),
                attribution: told.and_then(|told| told.attribution.clone()),
                problem: kept.problem.clone(),
            });
        }
        all
    }
}

/// `2026-06-17`, at midnight UTC.
fn day(text: &str) -> Option<Timestamp> {
    let date: Date = text.parse().ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path) -> NetworksConfig {
        NetworksConfig {
            folder: Some(folder.to_owned()),
            ..NetworksConfig::default()
        }
    }

    fn organisation(table: &Table, address: &str) -> String {
        let network = table.network(address.parse().unwrap());
        network.map_or_else(String::new, |network| network.to_string())
    }

    #[test]
    fn files_are_read_again_when_they_changed_and_settled() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("asn.csv");
        fs::write(&file, "192.0.2.0,192.0.2.255,64500,Before\n").unwrap();
        fs::write(folder.path().join("LICENSE"), "text").unwrap();
        fs::create_dir(folder.path().join("pools")).unwrap();
        fs::write(folder.path().join("pools/vpn.txt"), "192.0.2.7\n").unwrap();
        let mut loader = Loader::new(&config(folder.path()), Path::new("/nowhere"));
        let turn = loader.turn();
        assert_eq!((turn.loaded, turn.refused), (2, 0));
        let table = turn.table.unwrap();
        assert_eq!(
            organisation(&table, "192.0.2.7"),
            "AS64500 Before, own egress pool vpn"
        );
        assert!(loader.turn().table.is_none());

        fs::write(&file, "192.0.2.0,192.0.2.255,64500,Behind it\n").unwrap();
        assert!(
            loader.turn().table.is_none(),
            "it may still be being written"
        );
        let table = loader.turn().table.unwrap();
        assert_eq!(organisation(&table, "192.0.2.1"), "AS64500 Behind it");

        // A bad file leaves what was read of it in use, is counted once and says where.
        fs::write(&file, "192.0.2.0,192.0.2.255,64500,A\nbroken\n").unwrap();
        loader.turn();
        let turn = loader.turn();
        assert_eq!((turn.loaded, turn.refused), (0, 1));
        assert!(turn.table.is_none());
        let shown = turn.view.files.first().unwrap();
        assert!(
            shown.problem.as_ref().unwrap().contains("line 2"),
            "{shown:?}"
        );
        assert_eq!(shown.ranges, 1);
        assert_eq!(loader.turn().refused, 0);

        fs::remove_file(folder.path().join("pools/vpn.txt")).unwrap();
        let table = loader.turn().table.unwrap();
        assert_eq!(organisation(&table, "192.0.2.7"), "AS64500 Behind it");
    }

    #[test]
    fn the_day_of_data_and_whose_it_is_stand_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("asn.csv.gz"), {
            use std::io::Write as _;
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(b"192.0.2.0,192.0.2.255,64500,Packed\n")
                .unwrap();
            out.finish().unwrap()
        })
        .unwrap();
        let sources = "[[file]]\nname = \"asn.csv.gz\"\ndated = \"2026-01-01\"\nlicence = \"CC-BY-4.0\"\nattribution = \"by Example\"\n";
        fs::write(folder.path().join(SOURCES), sources).unwrap();
        let mut loader = Loader::new(&config(folder.path()), Path::new("/nowhere"));
        let view = loader
            .turn()
            .view
            .aged("2026-02-15T00:00:00Z".parse().unwrap());
        let file = view.files.first().unwrap();
        assert_eq!((file.age_days, file.old), (Some(45), true));
        assert_eq!(view.attributions(), ["by Example"]);
    }

    #[test]
    fn a_folder_that_was_asked_for_must_be_there() {
        let view = Loader::new(&config(Path::new("/nowhere/x")), Path::new("/"))
            .turn()
            .view;
        assert!(view.problem.unwrap().contains("/nowhere/x"));
        let view = Loader::new(&NetworksConfig::default(), Path::new("/nowhere"))
            .turn()
            .view;
        assert_eq!(view, NetworksView::default());
    }
}
