//! AWS's keys, in the order of AWS's own tools: the environment, the profile in the shared files,
//! then what the machine has (web identity, container, instance metadata).
//!
//! Shapes: AWS SDKs and Tools Reference Guide, "Shared config and credentials files" and
//! "Standardized credential providers".

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ini::Ini;
use object_store::aws::{AmazonS3Builder, AwsCredentialProvider};

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(in crate::sources) enum KeysError {
    /// A shared file.
    #[error("{0}: {1}")]
    File(PathBuf, String),
    /// The profile takes another way to keys.
    #[error(
        "AWS profile {0:?} gets its keys by `{1}`, which is not supported: give it keys, or use web \
         identity or the instance's role"
    )]
    Unsupported(String, &'static str),
    /// A profile was asked for and is in neither file.
    #[error("AWS profile {0:?} is in neither {1} nor {2}")]
    NoProfile(String, PathBuf, PathBuf),
    /// Nothing has keys.
    #[error(
        "no AWS keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE in the \
         correlator's environment, or give the machine a role ({0})"
    )]
    None(String),
}

/// Keys as they are written somewhere; they have no `Debug`, so that no log shows them.
pub(in crate::sources) struct AwsKeys {
    pub(in crate::sources) id: String,
    pub(in crate::sources) secret: String,
    pub(in crate::sources) token: Option<String>,
}

/// What the machine has, by region; it keeps its keys until shortly before they end.
static MACHINE: Mutex<BTreeMap<String, AwsCredentialProvider>> = Mutex::new(BTreeMap::new());

impl AwsKeys {
    /// The keys of the first place that has some. Blocks, on a thread of the runtime's.
    pub(in crate::sources) fn find(region: &str) -> Result<Self, KeysError> {
        if let Some(keys) = Self::written()? {
            return Ok(keys);
        }
        let provider = machine(region)?;
        let runtime =
            tokio::runtime::Handle::try_current().map_err(|e| KeysError::None(e.to_string()))?;
        let keys = runtime
            .block_on(provider.get_credential())
            .map_err(|e| KeysError::None(e.to_string()))?;
        Ok(Self {
            id: keys.key_id.clone(),
            secret: keys.secret_key.clone(),
            token: keys.token.clone(),
        })
    }

    /// Those in the environment or in the profile.
    pub(in crate::sources) fn written() -> Result<Option<Self>, KeysError> {
        Files::of(&variable).keys(&variable)
    }
}

fn machine(region: &str) -> Result<AwsCredentialProvider, KeysError> {
    let mut known = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(provider) = known.get(region) {
        return Ok(Arc::clone(provider));
    }
    // The bucket is of no account: only its provider of credentials is wanted.
    let store = AmazonS3Builder::from_env()
        .with_region(region)
        .with_bucket_name("none")
        .build()
        .map_err(|e| KeysError::None(e.to_string()))?;
    let provider = Arc::clone(store.credentials());
    known.insert(region.to_owned(), Arc::clone(&provider));
    Ok(provider)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// The shared files and the profile in them.
struct Files {
    credentials: PathBuf,
    config: PathBuf,
    profile: String,
    /// The profile was named: it must be there.
    named: bool,
}

impl Files {
    fn of(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let home = PathBuf::from(variable("HOME").unwrap_or_else(|| "/".to_owned()));
        let file = |name: &str, usual: &str| {
            variable(name).map_or_else(|| home.join(".aws").join(usual), PathBuf::from)
        };
        let named = variable("AWS_PROFILE");
        Self {
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: file("AWS_CONFIG_FILE", "config"),
            named: named.is_some(),
            profile: named.unwrap_or_else(|| "default".to_owned()),
        }
    }

    fn keys(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<AwsKeys>, KeysError> {
        if let (Some(id), Some(secret)) = (
            variable("AWS_ACCESS_KEY_ID"),
            variable("AWS_SECRET_ACCESS_KEY"),
        ) {
            return Ok(Some(AwsKeys {
                id,
                secret,
                token: variable("AWS_SESSION_TOKEN"),
            }));
        }
        let in_config = if self.profile == "default" {
            "default".to_owned()
        } else {
            format!("profile {}", self.profile)
        };
        let places = [
            (&self.credentials, self.profile.clone()),
            (&self.config, in_config),
        ];
        let (mut found, mut other_way) = (false, None);
        for (path, section) in places {
            let Some(file) = read(path)? else { continue };
            let Some(section) = file.section(Some(section)) else {
                continue;
            };
            found = true;
            if let (Some(id), Some(secret)) = (
                section.get("aws_access_key_id"),
                section.get("aws_secret_access_key"),
            ) {
                return Ok(Some(AwsKeys {
                    id: id.to_owned(),
                    secret: secret.to_owned(),
                    token: section.get("aws_session_token").map(str::to_owned),
                }));
            }
            other_way = other_way.or_else(|| {
                [
                    "credential_process",
                    "sso_session",
                    "sso_start_url",
                    "role_arn",
                ]
                .into_iter()
                .find(|way| section.contains_key(*way))
            });
        }
        match other_way {
            Some(way) => Err(KeysError::Unsupported(self.profile.clone(), way)),
            None if self.named && !found => Err(KeysError::NoProfile(
                self.profile.clone(),
                self.credentials.clone(),
                self.config.clone(),
            )),
            None => Ok(None),
        }
    }
}

fn read(path: &PathBuf) -> Result<Option<Ini>, KeysError> {
    let wrong = |detail: String| KeysError::File(path.clone(), detail);
    match std::fs::read_to_string(path) {
        // Values are taken as they are: keys may hold what others take for an escape.
        Ok(text) => Ini::load_from_str_noescape(&text)
            .map(Some)
            .map_err(|e| wrong(format!("line {}: not `name = value`", e.line))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_the_first_place_that_has_some() {
        let dir = tempfile::tempdir().unwrap();
        let aws = dir.path().join(".aws");
        std::fs::create_dir_all(&aws).unwrap();
        std::fs::write(
            aws.join("credentials"),
            "[default]\naws_access_key_id = made-up-1\naws_secret_access_key = made/up+1\\n\n\
             [audit]\naws_access_key_id=made-up-2\naws_secret_access_key=s2\naws_session_token=t2\n",
        )
        .unwrap();
        std::fs::write(
            aws.join("config"),
            "[profile tool]\naws_access_key_id = made-up-3\naws_secret_access_key = s3\n\
             [profile sso]\nsso_session = corp\n[profile plain]\nregion = eu-central-1\n",
        )
        .unwrap();
        let home = dir.path().to_str().unwrap();
        for (environment, expected) in [
            (vec![], "made-up-1 made/up+1\\n -"),
            (vec![("AWS_PROFILE", "audit")], "made-up-2 s2 t2"),
            (vec![("AWS_PROFILE", "tool")], "made-up-3 s3 -"),
            (vec![("AWS_PROFILE", "plain")], "the machine's"),
            (
                vec![("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")],
                "the machine's",
            ),
            (vec![("AWS_PROFILE", "sso")], "`sso_session`"),
            (vec![("AWS_PROFILE", "none")], "is in neither"),
            (
                vec![
                    ("AWS_PROFILE", "sso"),
                    ("AWS_ACCESS_KEY_ID", "made-up-4"),
                    ("AWS_SECRET_ACCESS_KEY", "s4"),
                ],
                "made-up-4 s4 -",
            ),
        ] {
            let variable = |name: &str| {
                let named = environment.iter().find(|(known, _)| *known == name);
                let home = (name == "HOME").then_some(home);
                named.map(|(_, value)| *value).or(home).map(str::to_owned)
            };
            let told = match Files::of(&variable).keys(&variable) {
                Ok(Some(keys)) => format!(
                    "{} {} {}",
                    keys.id,
                    keys.secret,
                    keys.token.as_deref().unwrap_or("-")
                ),
                Ok(None) => "the machine's".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(told.contains(expected), "{environment:?}: {told}");
        }
    }
}
