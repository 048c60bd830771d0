//! Records of a Kafka topic (Cargo feature `kafka`), among them Azure Event Hubs, which speak
//! Kafka's protocol: user `$ConnectionString`, the connection string as the password.
//!
//! Every partition is read by a task of its own from the position in the store, which is committed
//! with the uses before it; the broker is asked for no consumer group and keeps no position. So a
//! crash repeats at most what the record ids recognise, and two correlators do not share a topic.

#[cfg(feature = "kafka")]
mod worker;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[cfg(feature = "kafka")]
pub(super) use worker::run;

/// `[source.kafka]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to begin with, `host:port`; of Event Hubs `NAMESPACE.servicebus.windows.net:9093`.
    pub brokers: Vec<String>,
    /// The topic; of Event Hubs the hub.
    pub topic: String,
    /// Whether to speak TLS (default true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// PEM file with the authorities that sign the brokers' certificates (default: the system's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How the password is shown, when there is a user (default `plain`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<Mechanism>,
    /// The user; of Event Hubs `$ConnectionString`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file with the password; read at every new connection, so that it can be renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Where reading begins the first time (default: at the oldest record).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// RFC 7677.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// The same with SHA-512.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// Where reading begins the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At the oldest record that the broker has.
    Oldest,
    /// Behind the newest.
    Newest,
}

impl KafkaConfig {
    /// Checks it; gives what is shown as its place.
    ///
    /// # Errors
    /// What is wrong, and how to mend it.
    pub fn check(&self) -> Result<String, String> {
        if !cfg!(feature = "kafka") {
            return Err(
                "this correlator was built without Kafka: build it with `--features kafka`"
                    .to_owned(),
            );
        }
        let good = |broker: &str| {
            let (host, port) = broker.rsplit_once(':').unwrap_or_default();
            !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
        };
        match self.brokers.iter().find(|broker| !good(broker)) {
            None if !self.brokers.is_empty() => {}
            wrong => {
                return Err(format!(
                    "`kafka.brokers`: {} write `host:port`",
                    wrong.map_or_else(|| "none;".to_owned(), |wrong| format!("{wrong:?};"))
                ));
            }
        }
        if self.topic.is_empty() {
            return Err("`kafka.topic` must name the topic (of Event Hubs: the hub)".to_owned());
        }
        if self.username.is_some() != self.password_file.is_some() {
            return Err("give `kafka.username` and `kafka.password_file` together".to_owned());
        }
        if self.mechanism.is_some() && self.username.is_none() {
            return Err("`kafka.mechanism` goes with `kafka.username`".to_owned());
        }
        let tls = self.tls.unwrap_or(true);
        if !tls && self.ca_file.is_some() {
            return Err("`kafka.ca_file` means nothing with `tls = false`".to_owned());
        }
        let loopback = |broker: &String| {
            ["127.0.0.1:", "localhost:", "[::1]:"]
                .iter()
                .any(|host| broker.starts_with(host))
        };
        if !tls && self.username.is_some() && !self.brokers.iter().all(loopback) {
            return Err(
                "`kafka.tls = false`: the password would go over the network in the clear"
                    .to_owned(),
            );
        }
        Ok(format!("kafka://{}/{}", self.brokers.join(","), self.topic))
    }
}

#[cfg(all(test, feature = "kafka"))]
mod tests {
    use super::*;

    #[test]
    fn wrong_settings_are_named() {
        let hub = "brokers = [\"ns.servicebus.windows.net:9093\"]\ntopic = \"insights\"\n";
        let user = "username = \"$ConnectionString\"\npassword_file = \"/etc/x\"\n";
        for (toml, expected) in [
            (
                format!("{hub}{user}"),
                "kafka://ns.servicebus.windows.net:9093/insights",
            ),
            (
                format!("{hub}tls = false"),
                "kafka://ns.servicebus.windows.net:9093/insights",
            ),
            (format!("{hub}{user}tls = false"), "in the clear"),
            (format!("{hub}username = \"x\""), "together"),
            (format!("{hub}mechanism = \"scram-sha-256\""), "goes with"),
            ("brokers = []\ntopic = \"t\"".to_owned(), "none; write"),
            (
                "brokers = [\"https://x\"]\ntopic = \"t\"".to_owned(),
                "\"https://x\"; write",
            ),
            (
                "brokers = [\"x:1\"]\ntopic = \"\"".to_owned(),
                "must name the topic",
            ),
        ] {
            let config: KafkaConfig = toml::from_str(&toml).unwrap();
            let told = config.check().unwrap_or_else(|problem| problem);
            assert!(told.contains(expected), "{toml}: {told}");
        }
    }
}
