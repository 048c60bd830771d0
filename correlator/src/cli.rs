//! The command line.
//!
//! `serve` runs the correlator; the other commands ask a running one through its API, except
//! `replay` and `export`, which work on recorded inputs.

mod baseline;
mod bench;
mod client;
mod commands;
mod graph;
mod import;
mod lists;
mod networks;
mod owners;
mod render;
mod run;
mod scenario;
mod simulate;
mod style;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use render::render_alert;
pub use style::Style;

/// Joins what sensors see with what cloud logs record; tells stolen credentials from used ones.
#[derive(Debug, Parser)]
#[command(name = "correlator", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the correlator until SIGINT or SIGTERM
    Serve(ServeArgs),
    /// Alerts: list, show, follow
    #[command(subcommand)]
    Alert(AlertCommand),
    /// Credentials: who holds them, how they were used
    #[command(subcommand)]
    Credential(CredentialCommand),
    /// What a credential reaches, who depends on it, how it got there
    #[command(subcommand)]
    Graph(graph::GraphCommand),
    /// Owners: import people and devices, ask who answers for a node
    #[command(subcommand)]
    Owners(owners::OwnersCommand),
    /// Baselines: what is usual for agents, as a policy to be edited
    #[command(subcommand)]
    Baseline(baseline::BaselineCommand),
    /// Sensors: what each sees, how far behind it is
    #[command(subcommand)]
    Sensor(SensorCommand),
    /// Sources of cloud-side uses: what each has brought, how late it is
    #[command(subcommand)]
    Source(SourceCommand),
    /// Whose network an address belongs to, and the files that say so
    #[command(subcommand)]
    Networks(networks::NetworksCommand),
    /// Take log files in, once
    Import(import::ImportArgs),
    /// Counts, sizes and sources
    Status(Client),
    /// Apply recorded inputs (one JSON object a line) and print what follows from them
    Replay(ReplayArgs),
    /// Print the inputs that a correlator recorded, running or not, for `replay`
    Export(ExportArgs),
    /// Labelled incidents and their benign look-alikes: what the join makes of them
    #[command(subcommand)]
    Scenario(scenario::ScenarioCommand),
    /// Made-up days of life of many endpoints with thefts in them: what the join makes of them
    Simulate(simulate::SimulateArgs),
    /// Print the OpenAPI document
    Openapi,
    /// Measure the time from a CloudTrail file's arrival to its alert
    #[command(hide = true)]
    BenchAlert(BenchArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Where everything is kept [default: keytrail-data]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where sensors connect; port 0 takes a free one [default: 127.0.0.1:7443]
    #[arg(long)]
    listen_ingest: Option<SocketAddr>,
    /// Where the API is served; port 0 takes a free one [default: 127.0.0.1:7480]
    #[arg(long)]
    listen_api: Option<SocketAddr>,
    /// The folder that receives CloudTrail files, watched with everything below it
    #[arg(long)]
    cloudtrail_dir: Option<PathBuf>,
    /// A TOML file with settings
    #[arg(long)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum AlertCommand {
    /// Alerts, latest change first
    List {
        #[command(flatten)]
        client: Client,
        /// Only this verdict
        #[arg(long)]
        verdict: Option<String>,
        /// Only this credential (`<kind>:<value>`)
        #[arg(long)]
        credential: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// changed (latest change first) or blast-radius (most harm first)
        #[arg(long, default_value = "changed")]
        sort: String,
    },
    /// One alert with its whole evidence
    Show {
        /// Its id, or `latest`
        id: String,
        #[command(flatten)]
        client: Client,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Alerts as they begin or change, until interrupted
    Follow {
        #[command(flatten)]
        client: Client,
        /// Also those that exist already
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
enum CredentialCommand {
    /// Every credential that a sensor or a cloud log has named
    List(Client),
    /// Holders and uses of one credential
    Show {
        /// `<kind>:<value>`, e.g. `aws-access-key:AKIA...`
        id: String,
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Subcommand)]
enum SensorCommand {
    /// Every sensor
    List(Client),
}

#[derive(Debug, Subcommand)]
enum SourceCommand {
    /// Every configured source
    List(Client),
    /// Make a token for a source that is pushed to, and its hash for the settings
    Token,
}

/// Which correlator to ask.
#[derive(Debug, Args)]
struct Client {
    /// The API's address
    #[arg(long, default_value = "http://127.0.0.1:7480")]
    api: String,
    /// The file with the API's token [default: api-token in --data-dir]
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// The correlator's data directory
    #[arg(long, default_value = "keytrail-data")]
    data_dir: PathBuf,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// The file; `-` for standard input
    file: PathBuf,
    /// Write the file first: what a correlator has recorded by now, running or not
    #[arg(long)]
    record: bool,
    #[command(flatten)]
    from: ExportArgs,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The correlator's data directory
    #[arg(long, default_value = "keytrail-data")]
    data_dir: PathBuf,
    /// A TOML file with settings, as given to `serve`
    #[arg(long)]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// An empty directory for the measurement
    #[arg(long)]
    data_dir: PathBuf,
    /// How many files
    #[arg(long, default_value_t = 50)]
    rounds: u32,
}

/// Runs the command line; errors go to stderr as one line.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match run::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            style::complain(&error);
            ExitCode::FAILURE
        }
    }
}
