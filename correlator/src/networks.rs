//! Whose network an address belongs to: files that the user supplies, read again when they change.
//!
//! Architecture invariant (NW-1): a use is given its network once, on its way to the log. What the
//! join sees is what was recorded, so that a replay gives the same verdicts whatever the files say
//! by then, and a new file makes no alert.

pub mod config;
mod load;
pub mod view;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use keytrail_model::consumption::{Caller, Consumption, Network};
use keytrail_model::fact::Watermark;
use keytrail_networks::Table;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use config::NetworksConfig;
pub use view::{NetworkFile, NetworksView};

use crate::counters::{Counter, CounterView};
use load::Loader;
pub use load::read_file as check_file;

/// The table in use; cheap to clone. Without files it knows nothing and changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Networks(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    table: RwLock<Table>,
    view: RwLock<NetworksView>,
    counts: Counts,
}

/// What it counts.
#[derive(Debug, Default)]
struct Counts {
    known: Counter,
    unknown: Counter,
    loaded: Counter,
    refused: Counter,
}

impl Networks {
    /// The table as it is now.
    fn table(&self) -> Table {
        let table = self.0.table.read().unwrap_or_else(PoisonError::into_inner);
        table.clone()
    }

    /// The network of an address.
    #[must_use]
    pub fn network(&self, address: IpAddr) -> Option<Network> {
        self.table().network(address)
    }

    /// Gives a use its network. What the table knows counts before what the record itself says:
    /// uses of one principal come from several providers, whose tables differ.
    fn fill_one(&self, table: &Table, usage: &mut Consumption) {
        let Caller::Address { address } = usage.caller else {
            return;
        };
        let Some(found) = table.network(address) else {
            self.0.counts.unknown.one();
            return;
        };
        self.0.counts.known.one();
        let said = usage.network.take().unwrap_or_default();
        let named = found.asn.is_some() || found.organisation.is_some();
        let (asn, organisation) = if named {
            (found.asn, found.organisation)
        } else {
            (said.asn, said.organisation)
        };
        usage.network = Some(Network {
            asn,
            organisation,
            country: found.country.or(said.country),
            provider: found.provider.or(said.provider),
            pool: found.pool,
        });
    }

    /// Gives uses their networks.
    pub fn fill(&self, uses: &mut [Consumption]) {
        let table = self.table();
        if !table.is_empty() {
            uses.iter_mut()
                .for_each(|usage| self.fill_one(&table, usage));
        }
    }

    /// Gives the address that a host's stream came from its network.
    pub fn fill_watermark(&self, watermark: &mut Watermark) {
        watermark.seen_network = watermark
            .seen_from
            .and_then(|address| self.network(address));
    }

    /// Reads the files of `config` in `data_dir` once, and says what became of them.
    #[must_use]
    pub fn load(config: &NetworksConfig, data_dir: &Path) -> Self {
        let networks = Self::default();
        networks.take(&mut Loader::new(config, data_dir));
        networks
    }

    /// Reads the files, then again whatever changes, until `stop`. Returns when they were read for
    /// the first time.
    pub async fn start(
        config: &NetworksConfig,
        data_dir: &Path,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let networks = Self::default();
        let every = Duration::from_secs(config.refresh_seconds.max(1));
        let mut loader = Some(Loader::new(config, data_dir));
        networks.turn(&mut loader).await;
        for file in networks.view().files.iter().filter(|file| file.old) {
            tracing::warn!(
                path = %file.path,
                days = file.age_days,
                "the data of a file of networks is old; get a newer one (docs/networks.md)"
            );
        }
        let again = networks.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(every) => again.turn(&mut loader).await,
                    () = stop.cancelled() => return,
                }
            }
        });
        (networks, task)
    }

    /// One look at the files, on a thread that may block.
    async fn turn(&self, loader: &mut Option<Loader>) {
        let Some(mut taken) = loader.take() else {
            return;
        };
        let networks = self.clone();
        let turned = tokio::task::spawn_blocking(move || {
            networks.take(&mut taken);
            taken
        });
        match turned.await {
            Ok(back) => *loader = Some(back),
            Err(error) => {
                tracing::error!(%error, "files of networks are read no more until a restart; the table stays in use");
            }
        }
    }

    fn take(&self, loader: &mut Loader) {
        let turn = loader.turn();
        self.0.counts.loaded.add(turn.loaded);
        self.0.counts.refused.add(turn.refused);
        if let Some(table) = turn.table {
            *self.0.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        }
        *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = turn.view;
    }

    /// The files and their ages, for people.
    #[must_use]
    pub fn view(&self) -> NetworksView {
        let view = self.0.view.read().unwrap_or_else(PoisonError::into_inner);
        view.clone().aged(crate::clock::now())
    }

    /// Its counts, for the status page.
    #[must_use]
    pub fn counters(&self) -> Vec<CounterView> {
        let counts = &self.0.counts;
        [
            ("networks_known", &counts.known, "Uses whose address the table of networks knew."),
            ("networks_unknown", &counts.unknown, "Uses with an address that the table of networks did not know."),
            ("networks_loaded", &counts.loaded, "Files of networks read, at the start or after a change."),
            ("networks_refused", &counts.refused, "Files of networks refused; what was read of them before stays in use. `correlator networks status` says why."),
        ]
        .into_iter()
        .map(|(name, counter, meaning)| CounterView {
            name: name.to_owned(),
            value: counter.get(),
            meaning: meaning.to_owned(),
        })
        .collect()
    }
}
