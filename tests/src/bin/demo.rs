//! Plays the theft on this machine, with real programs in namespaces of their own, and shows what
//! Keytrail makes of it. Exit code 0 only if exactly the expected came out; 1 if something else did,
//! 2 if the play could not be given here, 130 after Ctrl-C.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use keytrail_tests::lab::{child, enter, install, stand_in};
use keytrail_tests::product::Programs;
use keytrail_tests::scenario::theft::{self, Weather};
use keytrail_tests::scenario::{Checks, Watched, benign, stage};
use keytrail_tests::story::Story;
use nix::sys::signal::{SigSet, Signal};

#[derive(Parser)]
#[command(about = "Shows the theft of an AWS key by an MCP server, and Keytrail confirming it")]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Only install the real programs that the play needs (no root needed), then end.
    #[arg(long)]
    install_only: bool,
    /// With --install-only: what more is installed.
    #[arg(long, value_enum, requires = "install_only")]
    with: Option<More>,
    /// Play the stage alone, without Keytrail: prove that the theft and the log records are real.
    #[arg(long)]
    stage_only: bool,
    /// Play the honest half alone: an agent at work, nothing stolen, no alert.
    #[arg(long)]
    benign: bool,
    /// Where `correlator` and `sensor-agent` are; else beside this program.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// What only tests need.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum More {
    /// Gemini CLI, opencode, MCP servers through npx and uvx (420 MB)
    Agents,
    /// Those, and Claude Code (390 MB more)
    Claude,
}

#[derive(Subcommand)]
enum Part {
    /// Join a place of the lab and become a program (used by the lab itself).
    #[command(hide = true)]
    Enter(enter::Enter),
    /// Be one of the lab's servers (used by the lab itself).
    #[command(hide = true)]
    StandIn,
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    let done = match args.part.take() {
        Some(Part::Enter(enter)) => enter.run().map(|never| match never {}),
        Some(Part::StandIn) => stand_in::run().map(|()| true),
        None => play(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(_) if child::check_stop().is_err() => ExitCode::from(130),
        Err(error) => {
            let story = Story::new();
            story.bad(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Plays what was asked for; whether everything came out as it must.
fn play(args: &Args) -> Result<bool> {
    stop_on_signals()?;
    let story = Story::new();
    let tools = install::install(&|step| story.say(step))?;
    if let Some(more) = args.with {
        install::agents::install(&|step| story.say(step), more == More::Claude)?;
    }
    if args.install_only {
        story.say(&format!(
            "the lab is installed in {}",
            tools.cache.display()
        ));
        return Ok(true);
    }
    let demo = std::env::current_exe()?;
    let mut checks = Checks::new(&story);
    if args.stage_only {
        stage::play(&story, &mut checks, tools, &demo)?;
    } else {
        let programs = programs(args, &demo)?;
        let mut watched = Watched::start(&story, tools, &programs, &demo)?;
        if args.benign {
            benign::play(&story, &mut checks, &mut watched)?;
        } else {
            theft::play(&story, &mut checks, &mut watched, Weather::Fair)?;
        }
        watched.end(&mut checks)?;
    }
    story.chapter("The end");
    let failed = checks.failed();
    if failed.is_empty() {
        story.say("exactly what was expected came out");
    } else {
        story.bad(&format!("{} expectations did not hold", failed.len()));
        for what in failed {
            story.say(&format!("- {what}"));
        }
    }
    Ok(failed.is_empty())
}

fn programs(args: &Args, demo: &Path) -> Result<Programs> {
    match &args.bin_dir {
        Some(dir) => Programs::beside(&dir.join("demo")),
        None => Programs::find(demo),
    }
}

/// From here on SIGINT and SIGTERM end every wait of the lab, so that the stage is taken down by the
/// ordinary way out. The signals are blocked in this thread and in those that it starts; children
/// start with an empty mask (std resets it).
fn stop_on_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("blocking the signals")?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            child::request_stop();
        }
    });
    Ok(())
}
