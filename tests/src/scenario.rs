//! The plays: what happens on the stage, and what must come out.

pub mod benign;
pub mod evidence;
pub mod stage;
pub mod theft;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::SignedDuration;
use keytrail_model::alert::{Alert, Verdict};
use serde_json::{Value, json};

use crate::canary::Canary;
use crate::lab::child::wait_for;
use crate::lab::codex::SERVER_NAME;
use crate::lab::install::Tools;
use crate::lab::stand_in::edge::Entry;
use crate::lab::stand_in::model::Turn;
use crate::lab::{Lab, cloudtrail};
use crate::product::{Correlator, Programs, Sensor};
use crate::story::Story;

/// Expectations of a run: each is told as it is checked; the failed ones are kept.
#[derive(Debug)]
pub struct Checks<'a> {
    story: &'a Story,
    failed: Vec<String>,
}

impl<'a> Checks<'a> {
    /// No expectations yet.
    #[must_use]
    pub fn new(story: &'a Story) -> Self {
        Self {
            story,
            failed: Vec::new(),
        }
    }

    /// Tells whether `what` holds.
    pub fn that(&mut self, holds: bool, what: &str) {
        if holds {
            self.story.good(what);
        } else {
            self.story.bad(what);
            self.failed.push(what.to_owned());
        }
    }

    /// What did not hold.
    #[must_use]
    pub fn failed(&self) -> &[String] {
        &self.failed
    }
}

/// The stage with the product watching it.
#[derive(Debug)]
pub struct Watched {
    // In the order in which they are dropped: the sensor lets go of the kernel before the stage falls.
    /// The sensor, limited to the laptop.
    pub sensor: Sensor,
    /// The correlator.
    pub correlator: Correlator,
    /// The stage.
    pub lab: Lab,
}

impl Watched {
    /// Builds the stage and starts the product beside it.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(story: &Story, tools: Tools, programs: &Programs, demo: &Path) -> Result<Self> {
        story.chapter(
            "The stage: a laptop, an attacker and an Internet, in namespaces of this machine",
        );
        let lab = Lab::build(tools, demo)?;
        story.say(&format!(
            "the laptop is {}, the attacker {}; AWS is moto behind {} and {}",
            crate::lab::LAPTOP,
            crate::lab::ATTACKER,
            "s3.amazonaws.com",
            "sts.us-east-1.amazonaws.com"
        ));
        story.say(&format!(
            "the user's key is {} (made up, of account {}); home {}",
            lab.bait.key_id,
            lab.principal.account,
            lab.home().display()
        ));
        story.chapter("Keytrail starts");
        let dir = lab.dir().join("product");
        std::fs::create_dir_all(&dir)?;
        let correlator = Correlator::start(programs, &dir)?;
        story.say(&format!(
            "correlator at {}, sensors at {}",
            correlator.api, correlator.ingest
        ));
        let sensor = Sensor::start(programs, &correlator, &dir, lab.scope())?;
        story.say(&format!("sensor live on {} only", lab.scope().display()));
        Ok(Self {
            sensor,
            correlator,
            lab,
        })
    }

    /// Ends the product as a user would (SIGTERM), sensor first, and checks that it ends well.
    ///
    /// # Errors
    /// When a signal cannot be sent.
    pub fn end(mut self, checks: &mut Checks<'_>) -> Result<()> {
        let sensor = self.sensor.stop();
        checks.that(sensor.is_ok(), &ended("sensor", &sensor));
        let correlator = self.correlator.stop();
        checks.that(correlator.is_ok(), &ended("correlator", &correlator));
        Ok(())
    }

    /// The folder of everything that the product wrote.
    #[must_use]
    pub fn written(&self) -> PathBuf {
        self.lab.dir().join("product")
    }

    /// Alerts that claim a misuse: `confirmed` or `unexplained-use`.
    ///
    /// # Errors
    /// When the API fails.
    pub fn accusations(&self) -> Result<Vec<Alert>> {
        let alerts = self.correlator.alerts()?.into_iter();
        Ok(alerts
            .filter(|a| a.verdict >= Verdict::UnexplainedUse)
            .collect())
    }

    /// Delivers records of these requests and waits until the correlator has decided all of them.
    ///
    /// # Errors
    /// When the number of explained uses does not grow by the number of records in time.
    pub fn deliver_benign(&self, entries: &[Entry]) -> Result<usize> {
        let (lab, correlator) = (&self.lab, &self.correlator);
        let records = cloudtrail::records(entries, &lab.principal);
        let before = correlator.uses(&self.credential()).0;
        cloudtrail::deliver(&correlator.cloudtrail, &lab.principal.account, &records)?;
        let wanted = before + records.len() as u64;
        let decided = wait_for(
            "the explanation of the benign uses",
            Duration::from_mins(2),
            || {
                let (explained, unexplained, _) = correlator.uses(&self.credential());
                Ok((explained + unexplained >= wanted).then_some(()))
            },
        );
        decided.with_context(|| {
            let uses = correlator.get_text(&format!("/v1/credentials/{}", self.credential()));
            format!("lineage: {uses:?}")
        })?;
        Ok(records.len())
    }

    /// The AWS key as the product names it.
    #[must_use]
    pub fn credential(&self) -> String {
        format!("aws-access-key:{}", self.lab.bait.key_id)
    }

    /// Looks for the run's secrets in everything that the product wrote, and in `shown` (what the
    /// API and the CLI gave out).
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn canary(&self, checks: &mut Checks<'_>, shown: &[(&str, String)]) -> Result<()> {
        let canary = Canary::new(&self.lab.bait.secrets());
        let (mut leaks, files) = canary.search_dir(&self.written())?;
        for (place, text) in shown {
            leaks.extend(canary.search(place, text.as_bytes()));
        }
        for leak in &leaks {
            checks.that(
                false,
                &format!("{} in {} ({})", leak.secret, leak.place, leak.form),
            );
        }
        let outputs = shown.len();
        checks.that(
            leaks.is_empty() && files > 0,
            &format!("no secret, base64 or hex of one in {files} files and {outputs} outputs"),
        );
        Ok(())
    }
}

fn ended(who: &str, how: &Result<()>) -> String {
    match how {
        Ok(()) => format!("the {who} ended well when asked to"),
        Err(error) => format!("the {who} ended when asked to: {error:#}"),
    }
}

/// What the model has the agent do: look at the project through the MCP server, then at AWS.
#[must_use]
pub fn script(lab: &Lab) -> Vec<Turn> {
    vec![
        Turn::Mcp {
            server: SERVER_NAME.to_owned(),
            tool: "list_directory".to_owned(),
            arguments: json!({"path": lab.home().join("work")}),
        },
        Turn::Shell("aws sts get-caller-identity".to_owned()),
        Turn::Shell("aws s3 ls".to_owned()),
    ]
}

/// Checks that the agent's session did what it should: the MCP server really served and the `aws`
/// command really reached moto.
pub(crate) fn check_session(checks: &mut Checks<'_>, lab: &Lab) -> Result<()> {
    let results: Vec<String> = lab
        .exchanges()?
        .into_iter()
        .filter_map(|e| e.result)
        .collect();
    let said = |text: &str| results.iter().any(|r| r.contains(text));
    checks.that(
        said("README.md"),
        "the MCP server listed the project for the agent",
    );
    let arn = format!(
        "arn:aws:iam::{}:user/{}",
        lab.principal.account, lab.principal.user
    );
    checks.that(
        said(&arn),
        &format!("aws sts get-caller-identity said {arn}"),
    );
    checks.that(said(crate::lab::BUCKET), "aws s3 ls listed the bucket");
    Ok(())
}

/// How far a watermark must be past a use before the use can be judged: the log gives whole seconds,
/// so the use may lie anywhere in its second, and the two clocks may differ by a little.
const JUDGED_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// Waits until every sensor's watermark has passed what has happened so far and all that the log's
/// whole seconds leave open, as it has long before AWS delivers a log in production.
///
/// # Errors
/// When it does not within three minutes.
pub fn let_watermarks_pass(correlator: &Correlator) -> Result<()> {
    let settled = jiff::Timestamp::now() + JUDGED_AFTER;
    wait_for("the sensor's watermark", Duration::from_mins(3), || {
        let sensors: Value = correlator.get("/v1/sensors")?;
        let marks = texts(&sensors, "watermark");
        let passed = |m: &String| m.parse::<jiff::Timestamp>().is_ok_and(|m| m > settled);
        Ok((!marks.is_empty() && marks.iter().all(passed)).then_some(()))
    })
    .with_context(|| format!("sensors: {:?}", correlator.get_text("/v1/sensors")))
}

/// Every text under a key of this name, however deep.
fn texts(value: &Value, key: &str) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(k, v)| match v {
                Value::String(text) if k == key => vec![text.clone()],
                other => texts(other, key),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|v| texts(v, key)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}
