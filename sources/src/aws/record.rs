//! The members of a CloudTrail record that are looked at, borrowed from its bytes.
//!
//! Source: AWS CloudTrail User Guide, "CloudTrail record contents" and "userIdentity element".
//!
//! No member's type can spoil a record: a text that is no text counts as absent. Requests and
//! responses stay raw; `parameters` looks for the few names that matter.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::Rejection;
use crate::doc::Doc;

/// A record.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Record<'a> {
    #[serde(borrow, alias = "eventversion")]
    pub(super) event_version: Text<'a>,
    #[serde(borrow, rename = "eventID", alias = "eventid", alias = "eventId")]
    pub(super) event_id: Text<'a>,
    #[serde(borrow, alias = "eventtime")]
    pub(super) event_time: Text<'a>,
    /// Panther's copy of the event's time, where its own was lost on the way.
    #[serde(borrow, rename = "p_event_time")]
    pub(super) normalised_time: Text<'a>,
    #[serde(borrow, alias = "eventtype")]
    pub(super) event_type: Text<'a>,
    #[serde(borrow, alias = "eventcategory")]
    pub(super) event_category: Text<'a>,
    #[serde(borrow, alias = "eventsource")]
    pub(super) event_source: Text<'a>,
    #[serde(borrow, alias = "eventname")]
    pub(super) event_name: Text<'a>,
    #[serde(borrow, alias = "awsregion")]
    pub(super) aws_region: Text<'a>,
    #[serde(borrow, rename = "sourceIPAddress", alias = "sourceipaddress")]
    pub(super) source_ip_address: Text<'a>,
    #[serde(borrow, alias = "useragent")]
    pub(super) user_agent: Text<'a>,
    #[serde(borrow, alias = "errorcode")]
    pub(super) error_code: Text<'a>,
    #[serde(borrow, alias = "errormessage")]
    pub(super) error_message: Text<'a>,
    #[serde(borrow, alias = "recipientaccountid")]
    pub(super) recipient_account_id: Text<'a>,
    #[serde(borrow, alias = "sessioncredentialfromconsole")]
    pub(super) session_credential_from_console: Text<'a>,
    #[serde(borrow, alias = "useridentity")]
    pub(super) user_identity: Maybe<Identity<'a>>,
    #[serde(borrow, alias = "tlsdetails")]
    pub(super) tls_details: Maybe<Tls<'a>>,
    #[serde(borrow, alias = "requestparameters")]
    pub(super) request_parameters: Option<&'a RawValue>,
    #[serde(borrow, alias = "responseelements")]
    pub(super) response_elements: Option<&'a RawValue>,
    #[serde(borrow, alias = "additionaleventdata")]
    pub(super) additional_event_data: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) resources: Option<&'a RawValue>,
}

/// Who called.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Identity<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, alias = "principalid")]
    pub(super) principal_id: Text<'a>,
    #[serde(borrow)]
    pub(super) arn: Text<'a>,
    #[serde(borrow, alias = "accountid")]
    pub(super) account_id: Text<'a>,
    #[serde(borrow, alias = "accesskeyid")]
    pub(super) access_key_id: Text<'a>,
    #[serde(borrow, alias = "username")]
    pub(super) user_name: Text<'a>,
    #[serde(borrow, alias = "invokedby")]
    pub(super) invoked_by: Text<'a>,
    #[serde(borrow, alias = "identityprovider")]
    pub(super) identity_provider: Text<'a>,
    #[serde(borrow, alias = "credentialid")]
    pub(super) credential_id: Text<'a>,
    #[serde(borrow, alias = "onbehalfof")]
    pub(super) on_behalf_of: Maybe<OnBehalfOf<'a>>,
    #[serde(borrow, alias = "inscopeof")]
    pub(super) in_scope_of: Maybe<Scope<'a>>,
    #[serde(borrow, alias = "sessioncontext")]
    pub(super) session_context: Maybe<Session<'a>>,
}

/// An IAM Identity Center user.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct OnBehalfOf<'a> {
    #[serde(borrow, alias = "userid")]
    pub(super) user_id: Text<'a>,
}

/// The service or workload that a call belongs to.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Scope<'a> {
    /// The resource that made a service call another.
    #[serde(borrow, alias = "sourcearn")]
    pub(super) source_arn: Text<'a>,
    /// The workload to which the credential was issued.
    #[serde(borrow, alias = "credentialsissuedto")]
    pub(super) credentials_issued_to: Text<'a>,
}

/// A session's origin.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Session<'a> {
    #[serde(borrow, alias = "sessionissuer")]
    pub(super) session_issuer: Maybe<Issuer<'a>>,
}

/// The role or user that a session was made from.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Issuer<'a> {
    #[serde(borrow)]
    pub(super) arn: Text<'a>,
}

/// How the call was encrypted.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Tls<'a> {
    #[serde(borrow, alias = "clientprovidedhostheader")]
    pub(super) client_provided_host_header: Text<'a>,
}

impl Record<'_> {
    /// Reads a record and gives it to `then`.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub(super) fn with<T>(
        bytes: &[u8],
        then: impl FnOnce(&Record<'_>) -> T,
    ) -> Result<T, Rejection> {
        // Checked once for the whole record, not again for each of its texts.
        if let Ok(text) = std::str::from_utf8(bytes) {
            match serde_json::from_str::<Record<'_>>(text) {
                Ok(record) if record.is_named() => return Ok(then(&record)),
                Err(error) if !error.is_data() => return Err(Rejection::BadJson),
                _ => {}
            }
        }
        // Names in another case, twice, or bytes that are no UTF-8: rare, so it may be slow.
        let text = String::from_utf8_lossy(bytes);
        let mut doc = Doc::read(text.as_bytes())?;
        respell(&mut doc, 0);
        let spelt = serde_json::to_vec(&doc).map_err(|_| Rejection::BadJson)?;
        let record = serde_json::from_slice(&spelt).map_err(|_| Rejection::BadJson)?;
        Ok(then(&record))
    }

    /// True when the names that every record has were found.
    fn is_named(&self) -> bool {
        self.event_name.get().is_some() && self.event_source.get().is_some()
    }
}

/// The names as documented; others keep their spelling.
const SPELLINGS: [&str; 44] = [
    "eventVersion",
    "eventID",
    "eventTime",
    "eventType",
    "eventCategory",
    "eventSource",
    "eventName",
    "awsRegion",
    "sourceIPAddress",
    "userAgent",
    "errorCode",
    "errorMessage",
    "recipientAccountId",
    "sessionCredentialFromConsole",
    "userIdentity",
    "tlsDetails",
    "requestParameters",
    "responseElements",
    "additionalEventData",
    "resources",
    "type",
    "principalId",
    "arn",
    "accountId",
    "accessKeyId",
    "userName",
    "invokedBy",
    "identityProvider",
    "credentialId",
    "onBehalfOf",
    "userId",
    "inScopeOf",
    "sourceArn",
    "credentialsIssuedTo",
    "sessionContext",
    "sessionIssuer",
    "clientProvidedHostHeader",
    "credentials",
    "accessKey",
    "roleCredentials",
    "roleArn",
    "secretId",
    "bucketName",
    "status",
];

/// Writes members' names as documented, and drops those that come a second time.
fn respell(doc: &mut Doc<'_>, depth: usize) {
    if depth > 6 {
        return;
    }
    match doc {
        Doc::Object(members) => {
            let mut seen: Vec<String> = Vec::new();
            members.retain_mut(|(key, value)| {
                if let Some(known) = SPELLINGS.iter().find(|s| s.eq_ignore_ascii_case(key)) {
                    *key = Cow::Borrowed(*known);
                }
                respell(value, depth + 1);
                let new = !seen.iter().any(|s| s == key);
                seen.push(key.clone().into_owned());
                new
            });
        }
        Doc::List(items) => items.iter_mut().for_each(|item| respell(item, depth + 1)),
        _ => {}
    }
}

/// A text, or nothing when the member holds something else.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(Option<Cow<'a, str>>);

impl Text<'_> {
    /// The text, unless it is empty.
    pub(super) fn get(&self) -> Option<&str> {
        self.0
            .as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Some(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Some(Cow::Owned(text.to_owned()))))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Text<'de>, E> {
        Ok(Text(Some(Cow::Borrowed(if truth {
            "true"
        } else {
            "false"
        }))))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Text<'de>, E> {
        Ok(Text(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Text<'de>, E> {
        Ok(Text(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Text<'de>, E> {
        Ok(Text(None))
    }

    fn visit_unit<E>(self) -> Result<Text<'de>, E> {
        Ok(Text(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }
}

/// An object, or its empty form when the member holds something else.
#[derive(Debug, Default)]
pub(super) struct Maybe<T>(pub(super) T);

impl<T> std::ops::Deref for Maybe<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MaybeVisitor(PhantomData))
    }
}

struct MaybeVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for MaybeVisitor<T> {
    type Value = Maybe<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Maybe<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Maybe)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Maybe<T>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Maybe::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Maybe<T>, E> {
        Ok(Maybe::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Maybe<T>, E> {
        Ok(Maybe::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Maybe<T>, E> {
        Ok(Maybe::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Maybe<T>, E> {
        Ok(Maybe::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Maybe<T>, E> {
        Ok(Maybe::default())
    }

    fn visit_unit<E>(self) -> Result<Maybe<T>, E> {
        Ok(Maybe::default())
    }
}
