//! Polling, against a provider that misbehaves in every way at once.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use correlator::sources::config::{SourceConfig, Via};
use correlator::sources::poll::{OauthConfig, PollConfig};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::common::Rig;

/// What was asked: `METHOD target`, and the header with the token.
#[derive(Clone, Debug)]
pub struct Asked {
    target: String,
    authorization: String,
    body: String,
}

impl Asked {
    /// A parameter of the query, decoded.
    fn parameter(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let value = query
            .split('&')
            .find_map(|p| p.strip_prefix(&format!("{name}=")))?;
        Some(
            value
                .replace("%3A", ":")
                .replace("%3E", ">")
                .replace("%3D", "=")
                .replace("%20", " "),
        )
    }
}

type Reply = (u16, Vec<(&'static str, String)>, String);

/// An HTTP server that answers as `answer` says; a log of what was asked.
fn provider(
    answer: impl Fn(usize, &Asked, &str) -> Reply + Send + 'static,
) -> (String, Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let (log, own) = (Arc::clone(&asked), base.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut headers) = (String::new(), BTreeMap::new());
            if reader.read_line(&mut first).unwrap_or(0) == 0 {
                continue;
            }
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).unwrap();
                match header.trim().split_once(':') {
                    Some((name, value)) => {
                        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
                    }
                    None => break,
                }
            }
            let length = headers
                .get("content-length")
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
            let mut body = vec![0; length];
            std::io::Read::read_exact(&mut reader, &mut body).unwrap();
            let request = Asked {
                target: first.split(' ').nth(1).unwrap().to_owned(),
                authorization: headers.get("authorization").cloned().unwrap_or_default(),
                body: String::from_utf8(body).unwrap(),
            };
            let number = {
                let mut log = log.lock().unwrap();
                log.push(request.clone());
                log.len()
            };
            let (status, headers, body) = answer(number, &request, &own);
            let mut head = format!(
                "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n",
                body.len()
            );
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            drop(stream.write_all(format!("{head}\r\n{body}").as_bytes()));
        }
    });
    (base, asked)
}

fn poll(dir: &Path, base: &str, kind: &str) -> SourceConfig {
    let token = dir.join("provider-token");
    std::fs::write(&token, "made-up-provider-token\n").unwrap();
    let mut source = SourceConfig::of("saas", kind, Via::Poll);
    source.poll = Some(PollConfig {
        url: base.to_owned(),
        scope: None,
        token_file: Some(token),
        oauth: None,
        interval_seconds: Some(1),
        overlap_seconds: None,
        start_hours: None,
        page_size: Some(4),
        ca_file: None,
    });
    source
}

fn okta(nth: usize, start: Timestamp) -> Value {
    let published = start + SignedDuration::from_secs(i64::try_from(nth).unwrap());
    json!({
        "uuid": format!("made-up-{nth}"),
        "published": published.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string(),
        "eventType": "user.session.access_admin_app",
        "actor": {"id": "00u1", "type": "User", "alternateId": "a@example.com"},
        "client": {"ipAddress": "203.0.113.5", "userAgent": {"rawUserAgent": "made-up"}},
        "authenticationContext": {"externalSessionId": "trs-made-up"},
        "outcome": {"result": "SUCCESS"},
        "transaction": {"id": "t1", "type": "WEB", "detail": {}},
        "target": [],
    })
}

/// Okta's paging over `all`: four a page from `after` on, always with a next link.
fn okta_page(all: &[Value], asked: &Asked, base: &str) -> Reply {
    let since = asked.parameter("since").unwrap();
    let from: usize = asked.parameter("after").map_or(0, |n| n.parse().unwrap());
    let fitting: Vec<&Value> = all
        .iter()
        .filter(|event| event["published"].as_str().unwrap() >= since.as_str())
        .collect();
    let page: Vec<&Value> = fitting.iter().skip(from).take(4).copied().collect();
    let next = from + page.len();
    let links = format!(
        "<{base}/self>; rel=\"self\", <{base}/api/v1/logs?since={since}&after={next}>; rel=\"next\""
    );
    (
        200,
        vec![("link", links)],
        serde_json::to_string(&page).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_misbehaves_costs_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let start = Timestamp::now() - SignedDuration::from_hours(2);
    let all: Vec<Value> = (0..18).map(|nth| okta(nth, start)).collect();
    let late = okta(900, start - SignedDuration::from_secs(890));
    let (base, asked) = provider(move |number, asked, base| match number {
        1 => (429, vec![("retry-after", "1".to_owned())], "{}".to_owned()),
        2 => (503, vec![], "busy".to_owned()),
        4 => (200, vec![], "[{\"torn\":".to_owned()),
        // The position of the third page is forgotten.
        6 => (404, vec![], "{}".to_owned()),
        // A page that was given before.
        9 => okta_page(
            &all,
            &Asked {
                target: asked.target.replace("after=8", "after=4"),
                ..asked.clone()
            },
            base,
        ),
        // An event that the provider had not shown in the first sweep, older than the newest.
        n if n > 16 => {
            let mut more = all.clone();
            more.insert(10, late.clone());
            okta_page(&more, asked, base)
        }
        _ => okta_page(&all, asked, base),
    });
    let source = poll(dir.path(), &base, "okta.system-log");
    let rig = Rig::start_with(dir.path(), |config| config.source.push(source)).await;
    rig.reaches("uses_new", 19).await;
    let status = rig.source("saas").await;
    assert_eq!(status["watching"], true, "{status}");
    assert_eq!(status["rejected"], json!({}), "{status}");
    assert!(rig.counter("uses_duplicate").await >= 4);
    assert_eq!(rig.counter("saas_rate_limited").await, 1);
    assert_eq!(rig.counter("saas_cursor_expired").await, 1);
    assert!(rig.counter("saas_requests_failed").await >= 2);
    let asked = asked.lock().unwrap().clone();
    assert!(
        asked
            .iter()
            .all(|a| a.authorization == "SSWS made-up-provider-token")
    );
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_goes_on_at_the_committed_page() {
    let dir = tempfile::tempdir().unwrap();
    let start = Timestamp::now() - SignedDuration::from_hours(2);
    let all: Vec<Value> = (0..12).map(|nth| okta(nth, start)).collect();
    // The third page fails until the restart.
    let (base, asked) = provider({
        let all = all.clone();
        move |number, asked, base| match asked.parameter("after").as_deref() {
            Some("8") if number < 6 => (500, vec![], String::new()),
            _ => okta_page(&all, asked, base),
        }
    });
    let source = poll(dir.path(), &base, "okta.system-log");
    let again = source.clone();
    let rig = Rig::start_with(dir.path(), |config| config.source.push(source)).await;
    rig.reaches("uses_new", 8).await;
    rig.reaches("saas_requests_failed", 1).await;
    assert_eq!(rig.source("saas").await["watching"], false);
    rig.server.crash().await;
    let before = asked.lock().unwrap().len();
    let rig = Rig::start_with(dir.path(), |config| config.source.push(again)).await;
    rig.reaches("uses_new", 4).await;
    let first = asked.lock().unwrap()[before].clone();
    assert_eq!(first.parameter("after").as_deref(), Some("8"), "{first:?}");
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_sent_to_the_provider_only() {
    let dir = tempfile::tempdir().unwrap();
    let (thief, stolen) = provider(|_, _, _| (200, vec![], "[]".to_owned()));
    let (base, _) = provider(move |_, _, _| {
        let link = format!("<{thief}/api/v1/logs>; rel=\"next\"");
        let event = okta(1, Timestamp::now());
        (200, vec![("link", link)], json!([event]).to_string())
    });
    let source = poll(dir.path(), &base, "okta.system-log");
    let rig = Rig::start_with(dir.path(), |config| config.source.push(source)).await;
    rig.reaches("saas_requests_failed", 1).await;
    let problem = rig.source("saas").await["problem"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(problem.contains("another host"), "{problem}");
    assert_eq!(stolen.lock().unwrap().len(), 0);
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_paging_reads_every_record() {
    let now = Timestamp::now();
    let at = move |nth: i64| (now - SignedDuration::from_secs(3600 - nth)).to_string();
    let workday = move |asked: &Asked| {
        let from: i64 = asked.parameter("offset").map_or(0, |n| n.parse().unwrap());
        let data: Vec<Value> = (from..10.min(from + 4))
            .map(|nth| json!({"requestTime": at(nth), "systemAccount": "made-up", "taskId": nth.to_string()}))
            .collect();
        json!({"data": data, "total": 10}).to_string()
    };
    let graph = move |asked: &Asked, base: &str| {
        let from: i64 = asked
            .parameter("$skiptoken")
            .map_or(0, |n| n.parse().unwrap());
        let value: Vec<Value> = (from..10.min(from + 4))
            .map(|nth| json!({"id": nth.to_string(), "createdDateTime": at(nth)}))
            .collect();
        let mut page = json!({ "value": value });
        if from + 4 < 10 {
            let next = format!("{base}/v1.0/auditLogs/signIns?$skiptoken={}", from + 4);
            page["@odata.nextLink"] = Value::from(next);
        }
        page.to_string()
    };
    let salesforce = move |asked: &Asked| {
        if asked.target.contains("/LogFile") {
            return "\"EVENT_TYPE\",\"TIMESTAMP_DERIVED\",\"USER_ID\"\n\
                    \"ApiEvent\",\"2026-11-24T10:00:00.000Z\",\"005x\"\n\
                    \"ApiEvent\",\"2026-11-24T10:00:01.000Z\",\"005x\"\n"
                .to_owned();
        }
        let from: i64 = asked
            .target
            .rsplit_once("query/01g-")
            .map_or(0, |(_, n)| n.parse().unwrap());
        let records: Vec<Value> = (from..from + 2)
            .map(|nth| {
                json!({"Id": nth.to_string(), "CreatedDate": at(nth),
                "LogFile": format!("/services/data/v60.0/sobjects/EventLogFile/{nth}/LogFile")})
            })
            .collect();
        let mut page = json!({"records": records, "done": from > 0});
        if from == 0 {
            page["nextRecordsUrl"] = Value::from("/services/data/v60.0/query/01g-2");
        }
        page.to_string()
    };
    for (kind, scope, records) in [
        ("workday.activity", Some("acme"), 10),
        ("entra.sign-in", None, 10),
        ("salesforce.events", None, 8),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (base, asked) = provider(move |_, asked, base| {
            if asked.target == "/token" {
                let answer = json!({"access_token": "made-up-access", "expires_in": 3600});
                return (200, vec![], answer.to_string());
            }
            let body = match kind {
                "workday.activity" => workday(asked),
                "entra.sign-in" => graph(asked, base),
                _ => salesforce(asked),
            };
            (200, vec![], body)
        });
        let mut source = poll(dir.path(), &base, kind);
        let poll = source.poll.as_mut().unwrap();
        poll.scope = scope.map(str::to_owned);
        poll.token_file = None;
        let secret = dir.path().join("client-secret");
        std::fs::write(&secret, "made-up-secret").unwrap();
        poll.oauth = Some(OauthConfig {
            token_url: format!("{base}/token"),
            client_id: "made-up-client".to_owned(),
            client_secret_file: secret,
            refresh_token_file: None,
            scope: Some("logs.read".to_owned()),
        });
        let rig = Rig::start_with(dir.path(), |config| config.source.push(source)).await;
        rig.reaches("saas_records", records).await;
        let asked = asked.lock().unwrap().clone();
        assert_eq!(
            asked[0].body,
            "grant_type=client_credentials&client_id=made-up-client&client_secret=made-up-secret&scope=logs.read"
        );
        assert!(
            asked[1..]
                .iter()
                .all(|a| a.authorization == "Bearer made-up-access"),
            "{kind}"
        );
        rig.server.stop().await;
    }
}
