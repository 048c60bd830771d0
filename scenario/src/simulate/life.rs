//! An hour of an endpoint's life.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use keytrail_model::consumption::{ActionClass, Caller, Consumption};
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::RecordId;
use keytrail_model::process::{Package, UnitKind};

use super::sensor::{Doer, Sensor, file, variable};
use super::{Air, START, after, records};
use crate::random::Random;
use crate::world::credential;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const CREDENTIALS: &str = "/home/user/.aws/credentials";
const SERVICES: [&str; 8] = [
    "s3", "sts", "ec2", "lambda", "dynamodb", "logs", "sqs", "ecr",
];
const ACTIONS: [&str; 6] = [
    "GetCallerIdentity",
    "ListBuckets",
    "GetObject",
    "DescribeInstances",
    "ListFunctions20150331",
    "GetLogEvents",
];

/// Egress networks of the simulated organisation: office and VPN.
pub(super) fn declared<T: std::str::FromStr>() -> Vec<T> {
    ["192.0.2.0/25", "192.0.2.128/25"]
        .iter()
        .filter_map(|net| net.parse().ok())
        .collect()
}

/// Where every agent of the organisation may go.
pub(super) fn expected() -> Vec<String> {
    ["anthropic.com", "registry.npm.example", "corp.example"]
        .map(str::to_owned)
        .to_vec()
}

/// What kind of machine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Laptop,
    /// A build machine; a new one takes its place every day.
    Build,
    /// A workload in the cloud with an agent in it.
    Workload,
}

/// Where a laptop is today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Office,
    Home,
    /// Another address every hour.
    Hotel,
    /// The sensor's own stream goes around it.
    Vpn,
    /// A carrier's pool: another address for every connection.
    Telephone,
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    number: u32,
    seed: u64,
    random: Random,
    role: Role,
    pub(super) sensor: Sensor,
    place: Place,
    hotel: u64,
    pub(super) aws: CredentialId,
    pub(super) github: CredentialId,
    generation: u32,
    records: u64,
    session: Option<(CredentialId, Timestamp)>,
}

impl Endpoint {
    pub(super) fn new(seed: u64, number: u32) -> Self {
        let mut random = Random::new(seed ^ (u64::from(number) << 20));
        let role = match number % 10 {
            0 => Role::Build,
            1 => Role::Workload,
            _ => Role::Laptop,
        };
        // Most clocks are good; some are seconds off, a few are minutes off.
        let offset_ms = match random.below(100) {
            0 => 480_000,
            1..=5 => i64::try_from(random.draw(4_000)).unwrap_or(0) - 2_000,
            _ => 0,
        };
        // Build machines share one key.
        let holder = if role == Role::Build { 0 } else { number };
        Self {
            number,
            seed,
            random,
            role,
            sensor: Sensor::new(
                host_name(role, number, 0),
                format!("user{number}"),
                offset_ms,
                START,
            ),
            place: Place::Office,
            hotel: 0,
            aws: made_up("aws-access-key", seed, holder, 0),
            github: made_up("github-token", seed, number, 0),
            generation: 0,
            records: 0,
            session: None,
        }
    }

    /// True for a laptop: what thefts are tried on.
    pub(super) fn is_laptop(number: u32) -> bool {
        number % 10 > 1
    }

    pub(super) fn hour(&mut self, now: Timestamp, hour: u64, air: &mut Air) {
        if hour.is_multiple_of(24) {
            self.day(now, hour / 24);
        }
        if self.place == Place::Hotel {
            self.hotel = self.random.draw(200);
        }
        self.sensor.seen_from = self.stream_address();
        let mut random = self.random.clone();
        self.sensor.hour(&mut random, now, air);
        self.random = random;
        match self.role {
            Role::Laptop => {
                let morning = u64::from(self.number % 3) * 7;
                let local = (hour + morning) % 24;
                let weekday = (hour / 24) % 7;
                if weekday < 5 && (9..18).contains(&local) {
                    for _ in 0..self.random.draw(4) {
                        self.laptop_work(now, air);
                    }
                    if self.random.below(24 * 30 * 9 / 24) == 0 {
                        self.rotate(now, air);
                    }
                }
            }
            Role::Build => {
                for _ in 0..2 {
                    self.build_job(now, air);
                }
            }
            Role::Workload => self.workload(now, air),
        }
    }

    /// An hour in which nothing happens. An outage of the stream still lasts as long as it lasts: a
    /// watermark before the facts that it promises would be a lie.
    pub(super) fn idle(&mut self, now: Timestamp, air: &mut Air) {
        self.sensor.heartbeats(now, air);
    }

    fn day(&mut self, now: Timestamp, day: u64) {
        match self.role {
            Role::Laptop => {
                self.place = match self.random.below(100) {
                    0..55 => Place::Office,
                    55..80 => Place::Home,
                    80..88 => Place::Hotel,
                    88..95 => Place::Vpn,
                    _ => Place::Telephone,
                };
            }
            Role::Build if day > 0 => {
                let name = host_name(self.role, self.number, day);
                self.sensor = Sensor::new(name, "ci".to_owned(), 0, now);
            }
            Role::Build | Role::Workload => {}
        }
    }

    /// The machine's own address.
    pub(super) fn local(&self) -> IpAddr {
        let [.., high, low] = self.number.to_be_bytes();
        IpAddr::V4(match (self.role, self.place) {
            (Role::Workload, _) => Ipv4Addr::new(172, 31, high, low),
            (Role::Build, _) | (_, Place::Office) => Ipv4Addr::new(10, 1, high, low),
            (_, Place::Vpn) => Ipv4Addr::new(10, 8, high, low),
            (_, Place::Telephone) => Ipv4Addr::new(100, 70, high, low),
            (_, Place::Home) => Ipv4Addr::new(192, 168, 1, 23),
            (_, Place::Hotel) => Ipv4Addr::new(192, 168, 44, low),
        })
    }

    /// Its address on the outside, for a new connection.
    fn outside(&mut self) -> IpAddr {
        let [.., high, low] = self.number.to_be_bytes();
        let any = u8::try_from(self.random.draw(250)).unwrap_or(0);
        let hotel = u8::try_from(self.hotel).unwrap_or(0);
        IpAddr::V4(match (self.role, self.place) {
            (Role::Workload, _) => Ipv4Addr::new(52, 10, high, low),
            (Role::Build, _) | (_, Place::Office) => Ipv4Addr::new(192, 0, 2, 1 + any % 4),
            (_, Place::Vpn) => Ipv4Addr::new(192, 0, 2, 200 + any % 4),
            (_, Place::Telephone) => Ipv4Addr::new(83, 0, high, any),
            (_, Place::Home) => Ipv4Addr::new(81, 20, high, low),
            (_, Place::Hotel) => Ipv4Addr::new(82, hotel, high, low),
        })
    }

    /// The address that a provider sees now.
    pub(super) fn egress(&mut self) -> IpAddr {
        self.outside()
    }

    fn stream_address(&mut self) -> Option<IpAddr> {
        match self.place {
            // Split tunnel: the sensor's stream takes the way home.
            Place::Vpn => {
                let [.., high, low] = self.number.to_be_bytes();
                Some(IpAddr::V4(Ipv4Addr::new(81, 20, high, low)))
            }
            // The correlator's network and the provider's see different pools.
            Place::Telephone => None,
            Place::Office | Place::Home | Place::Hotel => Some(self.outside()),
        }
    }

    fn laptop_work(&mut self, now: Timestamp, air: &mut Air) {
        let time = after(now, self.random.draw(50 * MINUTE));
        match self.random.below(100) {
            0..40 => self.aws_command(time, air),
            40..60 => self.git_command(time, air),
            60..68 => self.terraform(time, air),
            68..78 => self.pooled_server(time, air),
            78..86 => self.assumed_role(time, air),
            86..92 => self.package_install(time, air),
            92..98 => self.script(time, air),
            _ => self.search_home(time, air),
        }
    }

    /// `aws ...` under an agent's shell tool: a few short connections.
    fn aws_command(&mut self, time: Timestamp, air: &mut Air) {
        let doer = self.sensor.doer(UnitKind::ShellTool, "/usr/local/bin/aws");
        let key = self.aws.clone();
        self.sensor
            .expose(time, &key, &doer, file(CREDENTIALS), false, air);
        let mut time = after(time, 300);
        for _ in 0..=self.random.draw(3) {
            self.call(time, &key, &doer, 1 + self.random.clone().draw(3), air);
            time = after(time, 2_000 + self.random.draw(20_000));
        }
    }

    /// One connection to a service and so many calls over it, a second apart.
    fn call(
        &mut self,
        time: Timestamp,
        key: &CredentialId,
        doer: &Doer,
        calls: u64,
        air: &mut Air,
    ) {
        let (service, name) = self.service();
        let local = self.local();
        let from = self.outside();
        self.sensor
            .connect(time, doer, (local, &name), calls * 1_000 + 200, 3_000, air);
        for call in 0..calls {
            let moment = after(time, 150 + call * 1_000);
            self.record(moment, key, service, &name, from, air);
        }
    }

    fn service(&mut self) -> (&'static str, String) {
        let at = self.random.below(SERVICES.len());
        let service = SERVICES.get(at).copied().unwrap_or("s3");
        let region = match self.random.below(10) {
            0 => "eu-central-1",
            1 => "us-west-2",
            _ => "us-east-1",
        };
        let prefix = if service == "ecr" { "api.ecr" } else { service };
        (service, format!("{prefix}.{region}.amazonaws.com"))
    }

    /// `terraform apply`: one long connection, many calls.
    fn terraform(&mut self, time: Timestamp, air: &mut Air) {
        let exe = "/home/user/app/.terraform/providers/terraform-provider-aws_v6";
        let doer = self.sensor.doer(UnitKind::ShellTool, exe);
        let key = self.aws.clone();
        self.sensor
            .expose(time, &key, &doer, file(CREDENTIALS), false, air);
        for turn in 0..2 + self.random.draw(3) {
            let calls = 4 + self.random.draw(16);
            self.call(after(time, 500 + turn * 700), &key, &doer, calls, air);
        }
    }

    /// An MCP server that keeps a connection for hours and uses it now and then.
    fn pooled_server(&mut self, time: Timestamp, air: &mut Air) {
        let mut doer = self
            .sensor
            .doer(UnitKind::McpServer, "/home/user/.cache/uv/bin/python");
        doer.package = Some(Package {
            ecosystem: "pypi".to_owned(),
            name: "awslabs.core-mcp-server".to_owned(),
            version: Some("1.0.9".to_owned()),
        });
        let key = self.aws.clone();
        self.sensor
            .expose(time, &key, &doer, variable("AWS_ACCESS_KEY_ID"), false, air);
        let (service, name) = self.service();
        let (local, from) = (self.local(), self.outside());
        let opened = after(time, 500);
        let mut lasts = 20 * MINUTE + self.random.draw(90 * MINUTE);
        if self.place == Place::Hotel {
            // A connection does not outlive the address that it was made from.
            let into = u64::try_from(opened.as_millisecond()).unwrap_or(0) % HOUR;
            lasts = lasts.min(HOUR.saturating_sub(into + 1_000)).max(3_000);
        }
        self.sensor
            .connect(opened, &doer, (local, &name), lasts, 90_000, air);
        self.record(after(opened, 300), &key, service, &name, from, air);
        for _ in 0..self.random.draw(6) {
            let moment = after(opened, 1_000 + self.random.draw(lasts - 2_000));
            self.record(moment, &key, service, &name, from, air);
        }
    }

    /// A session minted from the key, and used by a child.
    fn assumed_role(&mut self, time: Timestamp, air: &mut Air) {
        let doer = self.sensor.doer(UnitKind::ShellTool, "/usr/local/bin/aws");
        let key = self.aws.clone();
        self.sensor
            .expose(time, &key, &doer, file(CREDENTIALS), false, air);
        let (local, from) = (self.local(), self.outside());
        let name = "sts.us-east-1.amazonaws.com";
        self.sensor
            .connect(after(time, 200), &doer, (local, name), 900, 2_000, air);
        self.records += 1;
        let session = made_up(
            "aws-session-key",
            self.seed,
            self.number,
            self.records + 1_000,
        );
        let mut usage = self.usage(after(time, 400), &key, "sts", name, from);
        usage.minted = Some(session.clone());
        usage.class = ActionClass::Mint;
        "AssumeRole".clone_into(&mut usage.action);
        self.deliver(usage, air);
        let child = self.sensor.doer(UnitKind::ShellTool, "/usr/bin/terraform");
        let later = after(time, 2_000);
        self.sensor.expose(
            later,
            &session,
            &child,
            variable("AWS_ACCESS_KEY_ID"),
            false,
            air,
        );
        self.call(after(later, 500), &session, &child, 3, air);
    }

    fn git_command(&mut self, time: Timestamp, air: &mut Air) {
        let doer = self.sensor.doer(UnitKind::ShellTool, "/usr/bin/gh");
        let token = self.github.clone();
        let source = file("/home/user/.config/gh/hosts.yml");
        self.sensor.expose(time, &token, &doer, source, false, air);
        let (local, from) = (self.local(), self.outside());
        let opened = after(time, 300);
        self.sensor
            .connect(opened, &doer, (local, "api.github.com"), 3_000, 9_000, air);
        for call in 0..=self.random.draw(3) {
            let moment = after(opened, 200 + call * 700);
            let usage = self.github_usage(moment, &token, from);
            self.deliver(usage, air);
        }
    }

    pub(super) fn github_usage(
        &mut self,
        time: Timestamp,
        token: &CredentialId,
        from: IpAddr,
    ) -> Consumption {
        Consumption {
            caller: Caller::Address { address: from },
            granularity_ms: 1,
            service: "github".to_owned(),
            action: "api.request".to_owned(),
            endpoints: vec!["github.com".to_owned()],
            ..Consumption::new(self.record_id(), token.clone(), time)
        }
    }

    fn package_install(&mut self, time: Timestamp, air: &mut Air) {
        let doer = self.sensor.doer(UnitKind::ShellTool, "/usr/bin/node");
        let local = self.local();
        for (at, name) in [
            (0, "registry.npm.example"),
            (4_000, "github.com"),
            (7_000, "cdn.playwright.dev"),
        ] {
            self.sensor
                .connect(after(time, at), &doer, (local, name), 3_000, 2_000, air);
        }
    }

    /// A script of the user's own: no catalogue knows it as a reader of the key.
    fn script(&mut self, time: Timestamp, air: &mut Air) {
        let doer = self.sensor.doer(UnitKind::ShellTool, "/usr/bin/python3");
        let key = self.aws.clone();
        self.sensor
            .expose(time, &key, &doer, file(CREDENTIALS), true, air);
        self.call(after(time, 700), &key, &doer, 4, air);
        if self.random.below(4) == 0 {
            let local = self.local();
            let name = "staging.corp.example";
            self.sensor
                .connect(after(time, 9_000), &doer, (local, name), 900, 5_000, air);
        }
    }

    fn search_home(&mut self, time: Timestamp, air: &mut Air) {
        let doer = self.sensor.doer(UnitKind::ShellTool, "/usr/bin/rg");
        let (key, token) = (self.aws.clone(), self.github.clone());
        self.sensor
            .expose(time, &key, &doer, file(CREDENTIALS), true, air);
        let source = file("/home/user/.config/gh/hosts.yml");
        self.sensor.expose(time, &token, &doer, source, true, air);
    }

    /// A new key takes the place of the old one.
    fn rotate(&mut self, now: Timestamp, air: &mut Air) {
        let time = after(now, 52 * MINUTE);
        let doer = self.sensor.doer(UnitKind::ShellTool, "/usr/local/bin/aws");
        let old = self.aws.clone();
        self.sensor
            .expose(time, &old, &doer, file(CREDENTIALS), false, air);
        let (local, from) = (self.local(), self.outside());
        let name = "iam.amazonaws.com";
        self.sensor
            .connect(after(time, 300), &doer, (local, name), 4_000, 2_000, air);
        self.generation += 1;
        self.aws = made_up(
            "aws-access-key",
            self.seed,
            self.number,
            u64::from(self.generation),
        );
        let mut usage = self.usage(after(time, 700), &old, "iam", name, from);
        usage.minted = Some(self.aws.clone());
        usage.class = ActionClass::Mint;
        "CreateAccessKey".clone_into(&mut usage.action);
        self.deliver(usage, air);
        let (new, later) = (self.aws.clone(), after(time, 3_000));
        self.sensor
            .expose(later, &new, &doer, file(CREDENTIALS), false, air);
    }

    fn build_job(&mut self, now: Timestamp, air: &mut Air) {
        let time = after(now, self.random.draw(55 * MINUTE));
        let doer = self.sensor.doer(UnitKind::Other, "/usr/local/bin/aws");
        let key = self.aws.clone();
        let source = variable("AWS_ACCESS_KEY_ID");
        self.sensor.expose(time, &key, &doer, source, false, air);
        self.call(after(time, 400), &key, &doer, 5, air);
    }

    /// A role session from the metadata service, renewed every six hours.
    fn workload(&mut self, now: Timestamp, air: &mut Air) {
        let doer = self.sensor.doer(UnitKind::Agent, "/usr/bin/node");
        let old = self.session.as_ref().is_none_or(|(_, until)| *until <= now);
        if old {
            self.records += 1;
            let session = made_up(
                "aws-session-key",
                self.seed,
                self.number,
                self.records + 1_000,
            );
            self.session = Some((session, after(now, 6 * HOUR)));
        }
        let Some((session, _)) = self.session.clone() else {
            return;
        };
        let source = variable("AWS_ACCESS_KEY_ID");
        self.sensor.expose(now, &session, &doer, source, false, air);
        for _ in 0..3 {
            let time = after(now, 1_000 + self.random.draw(50 * MINUTE));
            self.call(time, &session, &doer, 3, air);
        }
    }

    fn record_id(&mut self) -> RecordId {
        self.records += 1;
        RecordId(format!("simulated:{}-{}", self.number, self.records))
    }

    pub(super) fn usage(
        &mut self,
        time: Timestamp,
        key: &CredentialId,
        service: &str,
        name: &str,
        from: IpAddr,
    ) -> Consumption {
        let action = ACTIONS.get(self.random.below(ACTIONS.len())).copied();
        // CloudTrail's times are whole seconds; its tlsDetails are not always there.
        let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
        let repeated = self.random.below(10) < 7;
        let region = name
            .split('.')
            .rev()
            .nth(2)
            .filter(|label| label.contains('-'));
        Consumption {
            caller: Caller::Address { address: from },
            granularity_ms: 1_000,
            service: format!("{service}.amazonaws.com"),
            region: Some(region.unwrap_or("us-east-1").to_owned()),
            action: action.unwrap_or("GetObject").to_owned(),
            server_name: repeated.then(|| name.to_owned()),
            user_agent: Some("aws-cli/2.17.0".to_owned()),
            ..Consumption::new(self.record_id(), key.clone(), whole)
        }
    }

    fn record(
        &mut self,
        time: Timestamp,
        key: &CredentialId,
        service: &str,
        name: &str,
        from: IpAddr,
        air: &mut Air,
    ) {
        let usage = self.usage(time, key, service, name, from);
        self.deliver(usage, air);
    }

    /// Records come minutes late; some hours late, some twice.
    pub(super) fn deliver(&mut self, usage: Consumption, air: &mut Air) {
        records::deliver(&mut self.random, usage, air);
    }
}

fn host_name(role: Role, number: u32, day: u64) -> String {
    match role {
        Role::Laptop => format!("laptop-{number:05}"),
        Role::Build => format!("build-{number:05}-{day}"),
        Role::Workload => format!("workload-{number:05}"),
    }
}

pub(super) fn made_up(kind: &str, seed: u64, number: u32, version: u64) -> CredentialId {
    credential(kind, &format!("{seed}/{number}/{version}"))
        .map_or_else(|_| CredentialId::github_token(b"none"), |(id, _)| id)
}
