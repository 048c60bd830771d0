//! Thefts, and what is right to say about each.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use keytrail_model::alert::Verdict;
use keytrail_model::consumption::ActionClass;
use keytrail_model::process::{Package, UnitKind};
use serde::Serialize;

use super::life::{Endpoint, made_up};
use super::sensor::{file, variable};
use super::tally::{Tally, Truth};
use super::{Air, Options, after};
use crate::random::Random;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// From theft to first use, ms: published cases (67 s, 119 s, 30 min, 3 days).
const DELAYS: [u64; 4] = [67_000, 119_000, 30 * MINUTE, 72 * HOUR];

/// How a credential is stolen and used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A malicious MCP server reads the file, sends it away; it is used from elsewhere.
    File,
    /// The same, out of the server's environment.
    Environment,
    /// The same, of a GitHub token.
    Github,
    /// It leaks where no sensor looks, and is used.
    Leak,
    /// The thief mints a session and goes on with that.
    Session,
    /// Read and sent away, not used.
    Unused,
    /// The thief calls the same service in the very second of an honest call.
    SameSecond,
    /// The sensor's stream is down at the theft.
    Offline,
    /// Every secret is read from the victim's own host.
    MassSecrets,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::File,
        Self::Environment,
        Self::Github,
        Self::Leak,
        Self::Session,
        Self::Unused,
        Self::SameSecond,
        Self::Offline,
        Self::MassSecrets,
    ];

    /// True when `verdict` says what happened.
    #[must_use]
    pub fn is_told_by(self, verdict: Verdict) -> bool {
        match self {
            Self::Leak => matches!(verdict, Verdict::UnexplainedUse | Verdict::Confirmed),
            Self::Unused => matches!(verdict, Verdict::Suspected | Verdict::Confirmed),
            Self::MassSecrets => {
                matches!(verdict, Verdict::SameSourceMisuse | Verdict::Confirmed)
            }
            _ => verdict == Verdict::Confirmed,
        }
    }
}

/// One planned theft.
#[derive(Debug)]
pub(super) struct Plan {
    number: u64,
    kind: Kind,
    victim: usize,
    hour: u64,
    delay: u64,
    random: Random,
}

/// Plans the thefts: kinds in turn, each from a laptop of its own as far as they reach.
pub(super) fn plan(options: Options) -> Vec<Plan> {
    let mut random = Random::new(options.seed ^ 0x7e57);
    let mut victims: Vec<u32> = (0..options.endpoints)
        .filter(|number| Endpoint::is_laptop(*number))
        .collect();
    for at in (1..victims.len()).rev() {
        victims.swap(at, random.below(at + 1));
    }
    let last_day = u64::from(options.days).saturating_sub(1);
    let mut plans = Vec::new();
    for (number, kind) in (0..options.thefts).zip(Kind::ALL.into_iter().cycle()) {
        let Some(victim) = victims.pop() else { break };
        // Not on the first day, and early enough for the use to happen.
        let day = 1 + random.draw((last_day / 2).max(1));
        let hour = (day * 24 + random.draw(24)).min(last_day * 24 + 20);
        let left = (u64::from(options.days) * 24).saturating_sub(hour + 2) * HOUR;
        let delay = DELAYS.get(random.below(DELAYS.len())).copied();
        plans.push(Plan {
            number: u64::from(number),
            kind,
            victim: usize::try_from(victim).unwrap_or(0),
            hour,
            delay: delay.unwrap_or(MINUTE).min(left),
            random: Random::new(options.seed ^ (u64::from(number) << 8) ^ 0x5ea1),
        });
    }
    plans
}

impl Plan {
    /// Before the hour of the theft: the stream of the victim's sensor goes down, if that is part
    /// of it.
    pub(super) fn prepare(&self, now: Timestamp, hour: u64, endpoints: &mut [Endpoint]) {
        if hour == self.hour
            && self.kind == Kind::Offline
            && let Some(victim) = endpoints.get_mut(self.victim)
        {
            victim.sensor.away(after(now, 4 * HOUR));
        }
    }

    /// Acts when its hour has come.
    pub(super) fn act(
        plan: &mut Self,
        now: Timestamp,
        hour: u64,
        endpoints: &mut [Endpoint],
        air: &mut Air,
        tally: &mut Tally,
    ) {
        if hour != plan.hour {
            return;
        }
        let Some(victim) = endpoints.get_mut(plan.victim) else {
            return;
        };
        let time = after(now, 10 * MINUTE + plan.random.draw(30 * MINUTE));
        plan.steal(time, victim, air);
        let used = after(time, plan.delay.max(MINUTE));
        let truth = Truth {
            kind: plan.kind,
            began: if plan.kind == Kind::Unused {
                time
            } else {
                used
            },
        };
        let stolen = match plan.kind {
            Kind::Github => victim.github.clone(),
            _ => victim.aws.clone(),
        };
        tally.truth(stolen, truth);
        plan.misuse(time, used, victim, air, tally);
    }

    /// The endpoint's half.
    fn steal(&mut self, time: Timestamp, victim: &mut Endpoint, air: &mut Air) {
        if self.kind == Kind::Leak {
            // The victim has used it before, so that sensors know it.
            let doer = victim
                .sensor
                .doer(UnitKind::ShellTool, "/usr/local/bin/aws");
            let (key, source) = (victim.aws.clone(), file("/home/user/.aws/credentials"));
            let before = time.checked_sub(jiff::SignedDuration::from_secs(300));
            victim
                .sensor
                .expose(before.unwrap_or(time), &key, &doer, source, false, air);
            return;
        }
        let mut doer = victim.sensor.doer(UnitKind::McpServer, "/usr/bin/node");
        doer.package = Some(Package {
            ecosystem: "npm".to_owned(),
            name: "mcp-server-filesytem".to_owned(),
            version: Some("1.0.3".to_owned()),
        });
        let (credential, source) = match self.kind {
            Kind::Github => (
                victim.github.clone(),
                file("/home/user/.config/gh/hosts.yml"),
            ),
            Kind::Environment => (victim.aws.clone(), variable("AWS_ACCESS_KEY_ID")),
            _ => (victim.aws.clone(), file("/home/user/.aws/credentials")),
        };
        victim
            .sensor
            .expose(time, &credential, &doer, source, true, air);
        let local = victim.local();
        if self.kind == Kind::MassSecrets {
            let name = "secretsmanager.us-east-1.amazonaws.com";
            let lasts = self.delay.max(MINUTE) + 4 * MINUTE;
            victim
                .sensor
                .connect(after(time, 500), &doer, (local, name), lasts, 60_000, air);
            return;
        }
        let name = format!("drop-{}.workers.dev", self.number);
        victim
            .sensor
            .connect(after(time, 900), &doer, (local, &name), 800, 2_200, air);
    }

    /// The cloud's half.
    fn misuse(
        &mut self,
        stolen: Timestamp,
        used: Timestamp,
        victim: &mut Endpoint,
        air: &mut Air,
        tally: &mut Tally,
    ) {
        let octet = |n: u64| u8::try_from(n % 250).unwrap_or(0);
        let draw = self.random.draw(1 << 30);
        let thief = IpAddr::V4(Ipv4Addr::new(45, octet(draw), octet(draw >> 8), 66));
        let name = "sts.us-east-1.amazonaws.com";
        let key = victim.aws.clone();
        match self.kind {
            Kind::Unused => {}
            Kind::Github => {
                let token = victim.github.clone();
                let usage = victim.github_usage(used, &token, thief);
                victim.deliver(usage, air);
            }
            Kind::MassSecrets => Self::read_secrets(stolen, victim, air),
            Kind::SameSecond => {
                let doer = victim
                    .sensor
                    .doer(UnitKind::ShellTool, "/usr/local/bin/aws");
                let (local, source) = (victim.local(), file("/home/user/.aws/credentials"));
                victim.sensor.expose(used, &key, &doer, source, false, air);
                victim
                    .sensor
                    .connect(used, &doer, (local, name), 1_500, 2_000, air);
                let own = victim.egress();
                for from in [own, thief] {
                    let usage = victim.usage(after(used, 300), &key, "sts", name, from);
                    victim.deliver(usage, air);
                }
            }
            _ => {
                for call in 0..3 {
                    let moment = after(used, call * 20_000);
                    let mut usage = victim.usage(moment, &key, "sts", name, thief);
                    if self.kind == Kind::Session && call == 0 {
                        let session = made_up("aws-session-key", self.number, 0, 1 << 40);
                        usage.minted = Some(session.clone());
                        usage.class = ActionClass::Mint;
                        "GetSessionToken".clone_into(&mut usage.action);
                        let mut next =
                            victim.usage(after(moment, MINUTE), &session, "s3", name, thief);
                        next.server_name = None;
                        victim.deliver(next, air);
                        tally.accomplice(session);
                    }
                    victim.deliver(usage, air);
                }
            }
        }
    }

    /// Forty secrets in two minutes, over the connection of the victim's host.
    fn read_secrets(stolen: Timestamp, victim: &mut Endpoint, air: &mut Air) {
        let name = "secretsmanager.us-east-1.amazonaws.com";
        let key = victim.aws.clone();
        let from = victim.egress();
        for secret in 0..40 {
            let moment = after(stolen, 2_000 + secret * 3_000);
            let mut usage = victim.usage(moment, &key, "secretsmanager", name, from);
            "GetSecretValue".clone_into(&mut usage.action);
            usage.class = ActionClass::SecretRead;
            usage.resources = vec![format!(
                "arn:aws:secretsmanager:us-east-1:1:secret:app-{secret}"
            )];
            victim.deliver(usage, air);
        }
    }
}
