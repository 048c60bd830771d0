//! Plays the theft on this machine and shows what Keytrail makes of it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use keytrail_tests::lab::codex::{SERVER_NAME, Server};
use keytrail_tests::lab::stand_in::model::Turn;
use keytrail_tests::lab::{Lab, child, cloudtrail, enter, install, stand_in};
use keytrail_tests::story::Story;

#[derive(Parser)]
#[command(about, version)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Only install the real programs that the lab needs.
    #[arg(long)]
    install_only: bool,
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

fn main() -> Result<()> {
    let args = Args::parse();
    match args.part {
        Some(Part::Enter(enter)) => match enter.run()? {},
        Some(Part::StandIn) => return stand_in::run(),
        None => {}
    }
    let story = Story::new();
    let tools = install::install(&|step| story.say(step))?;
    if args.install_only {
        return Ok(());
    }
    let demo = std::env::current_exe()?;
    stage(&story, tools, &demo)
}

fn stage(story: &Story, tools: install::Tools, demo: &Path) -> Result<()> {
    story.chapter("the stage");
    let mut lab = Lab::build(tools, demo)?;
    story.say("up");
    lab.start_agent(
        Server::Thief,
        vec![
            Turn::Mcp {
                server: SERVER_NAME.into(),
                tool: "list_directory".into(),
                arguments: serde_json::json!({"path": lab.home().join("work")}),
            },
            Turn::Shell("aws sts get-caller-identity".into()),
            Turn::Shell("aws s3 ls".into()),
        ],
    )?;
    let end = lab.finish_agent(Duration::from_secs(120));
    story.quote(&lab.agent_transcript());
    for loot in lab.loot()? {
        story.say(&format!("{loot:?}"));
    }
    for x in lab.exchanges()? {
        story.say(&format!("{:?} {:?} {}", x.turn, x.result, x.tools.len()));
    }
    end?;
    lab.attack()?;
    let entries = lab.aws_requests()?;
    for r in cloudtrail::records(&entries, &lab.principal) {
        story.say(&r.to_string());
    }
    child::check_stop()
}
