//! The connection to a bucket, with the provider's own chain of credentials.
//!
//! No secret is in the settings: credentials are the provider's own variables, in the correlator's
//! environment or in a file that the settings name, or what the machine has (instance metadata,
//! web identity, managed identity, a service account).

#[cfg(feature = "aws")]
pub(in crate::sources) mod profile;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};

use super::place::{BucketConfig, Place, Provider};
use crate::sources::poll::small_file;

/// One request takes at most so long, its body included; a body that breaks off is continued.
const TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT: Duration = Duration::from_secs(10);
/// Requests are tried again so often before the sweep is.
const RETRIES: usize = 3;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// A file of the settings'.
    #[error("{path}: {detail}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// AWS's keys.
    #[cfg(feature = "aws")]
    #[error(transparent)]
    Keys(#[from] profile::KeysError),
    /// The provider's variables do not go together, or the like.
    #[error("{0}")]
    Store(#[from] object_store::Error),
    /// Refused by `BucketConfig::check`.
    #[error("this correlator was built without {0}")]
    NotBuilt(&'static str),
}

/// Opens the bucket; nothing is asked of it yet.
pub(super) fn open(
    config: &BucketConfig,
    place: &Place,
) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let variables = match &config.credentials_file {
        Some(path) => variables(path)?,
        None => Vec::new(),
    };
    match place.provider {
        #[cfg(feature = "aws")]
        Provider::Aws => aws(config, place, variables),
        #[cfg(feature = "azure")]
        Provider::Azure => azure(config, place, variables),
        #[cfg(feature = "gcs")]
        Provider::Google => google(config, place, variables),
        #[allow(unreachable_patterns, reason = "reached in builds without all three")]
        _ => Err(OpenError::NotBuilt(place.scheme())),
    }
}

#[cfg(feature = "aws")]
fn aws(
    config: &BucketConfig,
    place: &Place,
    variables: Vec<Variable>,
) -> Result<Arc<dyn ObjectStore>, OpenError> {
    use object_store::aws::AmazonS3Builder;
    let mut builder = AmazonS3Builder::from_env();
    if variables.is_empty()
        && let Some(keys) = profile::AwsKeys::written()?
    {
        builder = builder
            .with_access_key_id(&keys.id)
            .with_secret_access_key(&keys.secret);
        if let Some(token) = &keys.token {
            builder = builder.with_token(token);
        }
    }
    for variable in variables {
        builder = builder.with_config(known(config, &variable)?, variable.value);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    let store = builder
        .with_bucket_name(&place.bucket)
        .with_client_options(client(config)?)
        .with_retry(retry())
        .build()?;
    Ok(Arc::new(store))
}

#[cfg(feature = "azure")]
fn azure(
    config: &BucketConfig,
    place: &Place,
    variables: Vec<Variable>,
) -> Result<Arc<dyn ObjectStore>, OpenError> {
    use object_store::azure::MicrosoftAzureBuilder;
    let mut builder = MicrosoftAzureBuilder::from_env();
    for variable in variables {
        builder = builder.with_config(known(config, &variable)?, variable.value);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let store = builder
        .with_account(&place.account)
        .with_container_name(&place.bucket)
        .with_client_options(client(config)?)
        .with_retry(retry())
        .build()?;
    Ok(Arc::new(store))
}

#[cfg(feature = "gcs")]
fn google(
    config: &BucketConfig,
    place: &Place,
    variables: Vec<Variable>,
) -> Result<Arc<dyn ObjectStore>, OpenError> {
    use object_store::gcp::GoogleCloudStorageBuilder;
    let mut builder = GoogleCloudStorageBuilder::from_env();
    for variable in variables {
        builder = builder.with_config(known(config, &variable)?, variable.value);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let store = builder
        .with_bucket_name(&place.bucket)
        .with_client_options(client(config)?)
        .with_retry(retry())
        .build()?;
    Ok(Arc::new(store))
}

/// A line of the credentials file. No `Debug`: whatever stands there may be a secret, the name too
/// when somebody wrote only the key.
struct Variable {
    line: usize,
    name: String,
    value: String,
}

/// Which of the provider's variables it is.
fn known<K: std::str::FromStr>(config: &BucketConfig, variable: &Variable) -> Result<K, OpenError> {
    let line = variable.line;
    variable
        .name
        .to_ascii_lowercase()
        .parse()
        .map_err(|_| OpenError::File {
            path: config.credentials_file.clone().unwrap_or_default(),
            detail: format!("line {line}: write NAME=value with a variable of this provider's"),
        })
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES,
        retry_timeout: TIMEOUT,
    }
}

fn client(config: &BucketConfig) -> Result<ClientOptions, OpenError> {
    let plain = config
        .endpoint
        .as_deref()
        .is_some_and(|endpoint| endpoint.starts_with("http:"));
    let mut options = ClientOptions::new()
        .with_timeout(TIMEOUT)
        .with_connect_timeout(CONNECT)
        // Only loopback gets so far; see `BucketConfig::check`.
        .with_allow_http(plain);
    if let Some(path) = &config.ca_file {
        let pem = small_file(path).map_err(|e| OpenError::File {
            path: path.clone(),
            detail: e.to_string(),
        })?;
        for certificate in Certificate::from_pem_bundle(&pem)? {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

/// `NAME=value` lines; empty ones and those that begin with `#` mean nothing.
fn variables(path: &Path) -> Result<Vec<Variable>, OpenError> {
    let wrong = |detail: String| OpenError::File {
        path: path.to_owned(),
        detail,
    };
    let bytes = small_file(path).map_err(|e| wrong(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("not text".to_owned()))?;
    let lines = text.lines().zip(1..);
    lines
        .map(|(line, number)| (line.trim(), number))
        .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, number)| {
            let line = line.strip_prefix("export ").unwrap_or(line);
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| wrong(format!("line {number}: write NAME=value")))?;
            let value = value.trim();
            let quoted = ['"', '\'']
                .iter()
                .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
            Ok(Variable {
                line: number,
                name: name.trim().to_owned(),
                value: quoted.unwrap_or(value).to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn variables_are_read_as_shells_and_systemd_write_them() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(
            file,
            "# a note\n\nA=1\nexport B = \"two words\"\n C='{{\"d\": 1}}'\nD=\n"
        )
        .unwrap();
        let all = variables(file.path()).unwrap();
        let all: Vec<_> = all
            .iter()
            .map(|v| format!("{}={}", v.name, v.value))
            .collect();
        assert_eq!(all, ["A=1", "B=two words", r#"C={"d": 1}"#, "D="]);
        write!(file, "nonsense").unwrap();
        let told = variables(file.path()).err().unwrap().to_string();
        assert!(told.ends_with("line 7: write NAME=value"), "{told}");
    }

    #[test]
    fn a_key_that_stands_alone_is_not_told() {
        let config: BucketConfig = serde_json::from_str(r#"{"url": "az://a/b"}"#).unwrap();
        // An Azure key ends with what reads as the end of a name.
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "bWFkZS11cC1rZXk==").unwrap();
        let all = variables(file.path()).unwrap();
        let told = known::<std::num::NonZeroU8>(&config, &all[0]).unwrap_err();
        assert!(!told.to_string().contains("bWFk"), "{told}");
        assert!(told.to_string().contains("line 1"), "{told}");
    }
}
