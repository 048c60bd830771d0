//! `import`: log files into a running correlator through its API, or into a stopped one's data.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use keytrail_model::text::shown;
use keytrail_sources::framing::{Cut, Records};

use super::Client;
use super::client::Api;
use super::style::print;
use crate::config::{Config, Flags};
use crate::counters::Counters;
use crate::networks::Networks;
use crate::runner;
use crate::sources::import::{ImportReport, import, parser};
use crate::sources::plain;
use crate::store::Store;

/// Bytes of records sent at once.
const PART: usize = 4 << 20;

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// What the records are: aws.cloudtrail, github.audit, okta.system-log, ...
    #[arg(long)]
    kind: String,
    /// For --kind mapped: a mapping that comes with Keytrail, or with --offline also a file
    #[arg(long)]
    mapping: Option<PathBuf>,
    /// Write into --data-dir of a correlator that is not running
    #[arg(long)]
    offline: bool,
    /// With --offline: a TOML file with settings, as given to `serve`
    #[arg(long, requires = "offline")]
    config: Option<PathBuf>,
    /// Log files, plain, gzip or zstd; `-` for standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    client: Client,
}

pub(super) fn run(args: ImportArgs) -> Result<()> {
    let mut sum = ImportReport::default();
    let ended = if args.offline {
        offline(&args, &mut sum)
    } else {
        online(&args, &mut sum)
    };
    // What was taken in before a failure is told all the same.
    print(&report(&sum))?;
    ended
}

fn open(file: &Path) -> Result<Box<dyn BufRead>> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let input = File::open(file).with_context(|| file.display().to_string())?;
    Ok(Box::new(BufReader::with_capacity(64 << 10, input)))
}

fn offline(args: &ImportArgs, sum: &mut ImportReport) -> Result<()> {
    let config = Config::load(args.config.as_deref(), &Flags::default())?;
    let data_dir = &args.client.data_dir;
    let store = Store::open(data_dir)?;
    let options = config.runner_options();
    let networks = Networks::load(&config.networks, data_dir);
    let running = runner::start(store, options, Arc::new(Counters::default()))?;
    let running = running.with_networks(networks);
    let mut ended = Ok(());
    for file in &args.files {
        let parser = parser(&args.kind, args.mapping.clone())?;
        let (report, outcome) = import(
            &running.handle,
            parser,
            &data_dir.join("dead-letters"),
            (&file.to_string_lossy(), 0),
            open(file)?,
        );
        sum.add(&report);
        if let Err(error) = outcome {
            ended = Err(error).with_context(|| file.display().to_string());
            break;
        }
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(running.stop());
    ended
}

fn online(args: &ImportArgs, sum: &mut ImportReport) -> Result<()> {
    let api = Api::new(&args.client)?;
    for file in &args.files {
        send(args, &api, file, sum).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Cuts a file here and sends its records in parts, so that neither end holds more than one.
fn send(args: &ImportArgs, api: &Api, file: &Path, sum: &mut ImportReport) -> Result<()> {
    let (_, parser) = parser(&args.kind, args.mapping.clone())?;
    let mut records = Records::framed(plain(open(file)?)?, parser.framing());
    let mut part = Part::new(args, file);
    loop {
        match records.next_record() {
            Ok(Some(Cut::Record(record))) => {
                part.bytes.extend_from_slice(record);
                part.bytes.push(b'\n');
                part.records += 1;
            }
            Ok(Some(cut @ (Cut::NotObject | Cut::TooLarge))) => {
                let why = if cut == Cut::TooLarge {
                    "too-large"
                } else {
                    "not-object"
                };
                sum.records += 1;
                *sum.rejected.entry(why.to_owned()).or_insert(0) += 1;
                part.first += 1;
            }
            Ok(None) => break,
            Err(error) => {
                part.send(api, sum)?;
                bail!("{error}; what came before is taken in");
            }
        }
        if part.bytes.len() >= PART {
            part.send(api, sum)?;
        }
    }
    part.send(api, sum)
}

/// Records that wait to be sent.
struct Part {
    path: String,
    bytes: Vec<u8>,
    records: u64,
    first: u64,
}

impl Part {
    fn new(args: &ImportArgs, file: &Path) -> Self {
        use super::commands::escaped;
        let mut path = format!(
            "/v1/records?kind={}&place={}",
            escaped(&args.kind),
            escaped(&file.to_string_lossy())
        );
        if let Some(mapping) = &args.mapping {
            path.push_str(&format!("&mapping={}", escaped(&mapping.to_string_lossy())));
        }
        Self {
            path,
            bytes: Vec::new(),
            records: 0,
            first: 0,
        }
    }

    fn send(&mut self, api: &Api, sum: &mut ImportReport) -> Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let path = format!("{}&first={}", self.path, self.first);
        let report: ImportReport = api.post(&path, &std::mem::take(&mut self.bytes))?;
        self.first += self.records;
        self.records = 0;
        sum.add(&report);
        Ok(())
    }
}

fn report(sum: &ImportReport) -> String {
    let mut out = format!(
        "{} records: {} uses, {} of them new, {} seen before\n",
        sum.records, sum.uses, sum.new, sum.duplicates
    );
    for (what, reasons) in [("no use", &sum.skipped), ("refused", &sum.rejected)] {
        for (reason, n) in reasons {
            out.push_str(&format!("  {what}: {n} {}\n", shown(reason, 60)));
        }
    }
    if !sum.rejected.is_empty() {
        out.push_str(
            "  a note of each refused record is in <data-dir>/dead-letters/import.ndjson\n",
        );
    }
    out
}
