//! The Internet of the lab: moto and the stand-ins, started in their place, and the key that moto mints.

use std::ffi::OsString;
use std::fs;
use std::io::BufReader;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::authority::Authority;
use super::bait::Bait;
use super::child::{Launch, Place, Proc, wait_for};
use super::cloudtrail::Principal;
use super::install::{Package, Tools};
use super::stand_in::http::Message;
use super::stand_in::{Config, Role, collector, edge, registry};
use super::{
    ACCOUNT, BUCKET, COLLECTOR, COLLECTOR_ADDR, EDGE_NAMES, REGISTRY, REGISTRY_ADDR, S3, STS,
};

const MOTO: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);

/// Starts the Internet's servers.
pub(super) struct Builder<'a> {
    pub(super) demo: &'a Path,
    pub(super) dir: &'a Path,
    pub(super) internet: &'a Place,
    pub(super) authority: &'a Authority,
}

impl Builder<'_> {
    fn launch(&self, env: Vec<(OsString, OsString)>) -> Launch<'_> {
        Launch {
            demo: self.demo,
            place: self.internet,
            mounts: None,
            cwd: self.dir,
            env,
        }
    }

    pub(super) fn stand_in(
        &self,
        name: &str,
        at: &[Ipv4Addr],
        names: &[&str],
        role: Role,
    ) -> Result<Proc> {
        let config = Config {
            listen: at
                .iter()
                .map(|a| SocketAddr::new(IpAddr::V4(*a), 443))
                .collect(),
            identity: self.authority.identity(names, &[])?,
            role,
        };
        let args: Vec<OsString> = vec!["stand-in".into()];
        let input = serde_json::to_string(&config)?;
        let mut proc = self
            .launch(Vec::new())
            .start(name, self.demo, &args, &input)?;
        proc.ready(Duration::from_mins(1))?;
        Ok(proc)
    }

    pub(super) fn moto(&self, tools: &Tools) -> Result<Proc> {
        let env: Vec<(OsString, OsString)> = vec![
            ("HOME".into(), self.dir.into()),
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("MOTO_ACCOUNT_ID".into(), ACCOUNT.into()),
            ("PYTHONUNBUFFERED".into(), "1".into()),
        ];
        let port = MOTO.port().to_string();
        let args: Vec<OsString> = ["-H", "127.0.0.1", "-p", &port]
            .iter()
            .map(Into::into)
            .collect();
        let program = tools.python_bin.join("moto_server");
        let mut moto = self.launch(env).start("moto", &program, &args, "")?;
        let net = &self.internet.net;
        wait_for("moto's start", Duration::from_mins(3), || {
            if let Some(status) = moto.ended()? {
                bail!("moto ended ({status}):\n{}", moto.last_words());
            }
            Ok(net.inside(|| Ok(TcpStream::connect(MOTO)?)).ok())
        })?;
        Ok(moto)
    }

    /// Has moto make a bucket and a user with an access key, as the account's administrator would.
    pub(super) fn mint_key(&self) -> Result<(Bait, Principal)> {
        const USER: &str = "dana";
        self.ask_moto("s3", "PUT", &format!("/{BUCKET}"), "")?;
        let iam = |body: &str| self.ask_moto("iam", "POST", "/", body);
        let user = iam(&format!(
            "Action=CreateUser&Version=2010-05-08&UserName={USER}"
        ))?;
        let key = iam(&format!(
            "Action=CreateAccessKey&Version=2010-05-08&UserName={USER}"
        ))?;
        let text = |xml: &str, name: &str| {
            edge::tag(xml, name).with_context(|| format!("moto's answer has no {name}: {xml}"))
        };
        let bait = Bait::new(text(&key, "AccessKeyId")?, text(&key, "SecretAccessKey")?)?;
        let principal = Principal {
            account: ACCOUNT.to_owned(),
            principal_id: text(&user, "UserId")?,
            user: USER.to_owned(),
        };
        Ok((bait, principal))
    }

    fn ask_moto(&self, service: &str, method: &str, target: &str, body: &str) -> Result<String> {
        // moto finds the service by the signature's scope and does not check the signature.
        let scope = format!("admin/20260101/us-east-1/{service}/aws4_request");
        let request = Message {
            start: format!("{method} {target} HTTP/1.1"),
            headers: vec![
                ("host".into(), format!("{service}.amazonaws.com")),
                (
                    "authorization".into(),
                    format!("AWS4-HMAC-SHA256 Credential={scope}"),
                ),
                (
                    "content-type".into(),
                    "application/x-www-form-urlencoded".into(),
                ),
                ("connection".into(), "close".into()),
            ],
            body: body.as_bytes().to_vec(),
        };
        let answer = self.internet.net.inside(move || {
            let moto = TcpStream::connect(MOTO)?;
            request.write(&mut &moto, false)?;
            Message::read(&mut BufReader::new(&moto))?.context("moto said nothing")
        })?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status() == 200, "moto: {} {text}", answer.start);
        Ok(text)
    }

    pub(super) fn edge(&self) -> Result<Proc> {
        let names: Vec<&str> = EDGE_NAMES.iter().map(|(name, _)| *name).collect();
        self.stand_in(
            "edge",
            &[S3, STS],
            &names,
            Role::Edge(edge::Edge { moto: MOTO }),
        )
    }

    pub(super) fn collector(&self, bait: &Bait) -> Result<Proc> {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let secrets = bait.secrets().into_iter().map(own).collect();
        let role = Role::Collector(collector::Collector { secrets });
        self.stand_in("collector", &[COLLECTOR_ADDR], &[COLLECTOR], role)
    }

    pub(super) fn registry(&self, tools: &Tools) -> Result<Proc> {
        let offer = |package: &Package, manifest: &Path| -> Result<registry::Offer> {
            Ok(registry::Offer {
                name: package.name.clone(),
                version: package.version.clone(),
                manifest: serde_json::from_slice(&fs::read(manifest)?)?,
                tarball: package.tarball.clone(),
            })
        };
        let mut packages = vec![offer(
            &tools.thief,
            &tools.cache.join("thief/package.json"),
        )?];
        if let Some(agents) = &tools.agents {
            let own = agents.npx.join("node_modules").join(&agents.files.name);
            packages.push(offer(&agents.files, &own.join("package.json"))?);
        }
        let role = Role::Registry(registry::Registry {
            host: REGISTRY.to_owned(),
            packages,
        });
        self.stand_in("registry", &[REGISTRY_ADDR], &[REGISTRY], role)
    }
}
