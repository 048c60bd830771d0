//! Measures one parser on one file, in a process of its own; `cargo xtask bench sources` runs it.
//!
//! `make FOLDER MIB` writes a file of records a source, by repeating the cases' (and, where they are
//! beside the repository, recorded ones); `parse|gzip|value KIND FILE` measures and prints JSON.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a developer's tool: it talks on its terminal and stops at what it cannot read"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use keytrail_sources::framing::{Cut, Records};
use keytrail_sources::{Mapping, Options, Parser, SourceKind};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["cut", file] => cut(Path::new(file)),
        ["make", folder, mib] => make(Path::new(folder), mib.parse().unwrap()),
        [mode @ ("parse" | "gzip" | "value"), kind, file] => measure(mode, kind, Path::new(file)),
        _ => panic!("make FOLDER MIB | parse KIND FILE | gzip KIND FILE | value KIND FILE"),
    }
}

fn parser(kind: &str) -> Parser {
    let kind = SourceKind::named(kind).unwrap();
    let mapping = (kind == SourceKind::Mapped).then(|| Mapping::shipped("slack.audit").unwrap());
    Parser::new(
        kind,
        Options {
            mapping,
            ..Options::default()
        },
    )
}

/// Writes the files; prints `KIND FILE` for each.
fn make(folder: &Path, mib: usize) {
    fs::create_dir_all(folder).unwrap();
    for kind in SourceKind::ALL {
        let records = cases(kind);
        write(folder, kind.as_str(), kind, &records, mib);
    }
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/corpora/invictus/cloudtrail.ndjson.gz");
    if let Ok(file) = File::open(recorded) {
        let decoder = BufReader::new(MultiGzDecoder::new(BufReader::new(file)));
        let records: Vec<Vec<u8>> = decoder.split(b'\n').map(Result::unwrap).collect();
        let kind = SourceKind::AwsCloudTrail;
        write(folder, "aws.cloudtrail-recorded", kind, &records, mib);
        write(
            folder,
            "aws.cloudtrail-recorded-8-times-as-long",
            kind,
            &records,
            mib * 8,
        );
    }
}

fn write(folder: &Path, name: &str, kind: SourceKind, records: &[Vec<u8>], mib: usize) {
    let path = folder.join(format!("{name}.ndjson"));
    let mut plain = std::io::BufWriter::new(File::create(&path).unwrap());
    let packed = File::create(path.with_extension("ndjson.gz")).unwrap();
    let mut packed = GzEncoder::new(packed, Compression::fast());
    let mut written = 0;
    for record in records.iter().cycle() {
        plain.write_all(record).unwrap();
        plain.write_all(b"\n").unwrap();
        packed.write_all(record).unwrap();
        packed.write_all(b"\n").unwrap();
        written += record.len() + 1;
        if written >= mib << 20 {
            break;
        }
    }
    plain.flush().unwrap();
    packed.finish().unwrap();
    println!("{kind} {}", path.display());
}

/// The source's cases that give a use, a line each.
fn cases(kind: SourceKind) -> Vec<Vec<u8>> {
    let folder = if kind == SourceKind::Mapped {
        "mapped/slack"
    } else {
        kind.as_str()
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    let parser = parser(kind.as_str());
    let lines = files
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "json"));
    let records = lines.filter_map(|file| {
        let value: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).ok()?;
        let line = serde_json::to_vec(&value).unwrap();
        let mut uses = Vec::new();
        let parsed = parser.parse(&line, &mut uses).ok()?;
        (parsed.uses == 1).then_some(line)
    });
    records.collect()
}

fn measure(mode: &str, kind: &str, path: &Path) {
    let name = if mode == "gzip" {
        path.with_extension("ndjson.gz")
    } else {
        path.to_owned()
    };
    // into the page cache
    std::io::copy(&mut File::open(&name).unwrap(), &mut std::io::sink()).unwrap();
    let (since, worked) = (Instant::now(), worked_ns());
    let (records, uses, bytes) = if mode == "value" {
        values(&name)
    } else {
        let raw = BufReader::with_capacity(256 << 10, File::open(&name).unwrap());
        if mode == "gzip" {
            let decoder = BufReader::with_capacity(256 << 10, MultiGzDecoder::new(raw));
            uses(kind, decoder)
        } else {
            uses(kind, raw)
        }
    };
    // What the thread worked, not what it waited for others on the machine.
    let cpu = (worked_ns() - worked) as f64 / 1e9;
    let seconds = if cpu > 0.0 {
        cpu
    } else {
        since.elapsed().as_secs_f64()
    };
    println!(
        "{}",
        serde_json::json!({
            "records": records,
            "uses": uses,
            "cpu_s": cpu,
            "wall_s": since.elapsed().as_secs_f64(),
            "records_per_s": records as f64 / seconds,
            "mb_per_s": bytes as f64 / 1e6 / seconds,
            "peak_kib": peak_kib(),
        })
    );
}

/// Cutting alone.
fn cut(path: &Path) {
    let worked = worked_ns();
    let input = BufReader::with_capacity(256 << 10, File::open(path).unwrap());
    let mut records = Records::new(input);
    let mut count = 0;
    while records.next_record().unwrap().is_some() {
        count += 1;
    }
    let cpu = (worked_ns() - worked) as f64 / 1e9;
    println!("{count} records, {:.0} a second", f64::from(count) / cpu);
}

fn uses(kind: &str, input: impl std::io::BufRead) -> (u64, u64, u64) {
    let parser = parser(kind);
    let mut records = Records::framed(input, parser.framing());
    let (mut count, mut found) = (0, 0);
    let mut out = Vec::new();
    while let Some(cut) = records.next_record().unwrap() {
        count += 1;
        if let Cut::Record(record) = cut
            && let Ok(parsed) = parser.parse(record, &mut out)
        {
            found += u64::try_from(parsed.uses).unwrap();
        }
        // as a delivery does, in batches
        if out.len() >= 512 {
            out.clear();
        }
    }
    (count, found, records.bytes())
}

/// What the simplest reader does: each line a `serde_json::Value`.
fn values(path: &Path) -> (u64, u64, u64) {
    let mut input = BufReader::with_capacity(256 << 10, File::open(path).unwrap());
    let (mut count, mut bytes, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        let read = input.read_until(b'\n', &mut line).unwrap();
        if read == 0 {
            return (count, 0, bytes);
        }
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        std::hint::black_box(&value);
        count += 1;
        bytes += u64::try_from(read).unwrap();
    }
}

/// Time on a processor (proc(5), `schedstat`).
fn worked_ns() -> u64 {
    let text = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}
