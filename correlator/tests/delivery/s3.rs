//! S3 objects announced by SQS, with moto in AWS's place: its buckets, queues and notifications,
//! filled by AWS's own client.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{file, gzip, minutes_ago, record};
use crate::kill::{Program, taken};

const FILL: &str = r#"
import boto3, json, sys
folder, endpoint = sys.argv[1], sys.argv[2]
at = dict(endpoint_url=endpoint, region_name="us-east-1")
s3, sqs = boto3.client("s3", **at), boto3.client("sqs", **at)
s3.create_bucket(Bucket="trail")
url = sqs.create_queue(QueueName="trail")["QueueUrl"]
arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
s3.put_bucket_notification_configuration(Bucket="trail", NotificationConfiguration={
    "QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]})
for name in ["one.json.gz", "two.json", "torn.json"]:
    key = "AWSLogs/1/CloudTrail/us-east-1/2026/11/24/a b+c=" + name
    s3.put_object(Bucket="trail", Key=key, Body=open(folder + "/" + name, "rb").read())
sqs.send_message(QueueUrl=url, MessageBody="no announcement")
gone = {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "trail"}, "object": {"key": "gone"}}}]}
sqs.send_message(QueueUrl=url, MessageBody=json.dumps(gone))
print(url)
"#;

const LEFT: &str = r#"
import boto3, sys
sqs = boto3.client("sqs", endpoint_url=sys.argv[1], region_name="us-east-1")
names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
got = sqs.get_queue_attributes(QueueUrl=sys.argv[2], AttributeNames=names)["Attributes"]
print(sum(int(got[name]) for name in names))
"#;

struct Moto(Child);

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn python(script: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new("python3")
        .arg("-c")
        .arg(script)
        .args(arguments)
        .env("AWS_ACCESS_KEY_ID", "made-up")
        .env("AWS_SECRET_ACCESS_KEY", "made-up")
        .output()
        .ok()?;
    if !output.status.success() {
        println!("{}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn objects_announced_by_a_queue_are_taken_and_their_messages_deleted() {
    let name = "objects_announced_by_a_queue_are_taken_and_their_messages_deleted";
    if python("import boto3, moto.server", &[]).is_none() {
        println!(
            "SKIPPED {name}: no moto and boto3 for python3 (pip install 'moto[server]' boto3)"
        );
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let moto = Command::new("python3")
        .args([
            "-m",
            "moto.server",
            "-H",
            "127.0.0.1",
            "-p",
            &port.to_string(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _moto = Moto(moto);
    let start = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(40),
            "moto does not start"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let dir = tempfile::tempdir().unwrap();
    let good = |id: &str| record(id, minutes_ago(10));
    let whole = file(&[good("s1"), good("s2")]);
    for (name, bytes) in [
        ("one.json.gz", gzip(&whole)),
        ("two.json", file(&[good("s3"), good("s2")])),
        (
            "torn.json",
            file(&[good("s4"), good("s5")])[..whole.len() - 30].to_vec(),
        ),
    ] {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let url = python(FILL, &[dir.path().to_str().unwrap(), &endpoint]).unwrap();
    let config = format!(
        "listen_push = \"127.0.0.1:0\"\n\
         [[source]]\nname = \"trail\"\nkind = \"aws.cloudtrail\"\nvia = \"s3\"\n\
         [source.s3]\nqueue_url = \"{url}\"\nregion = \"us-east-1\"\nendpoint = \"{endpoint}\"\n"
    );
    std::fs::write(dir.path().join("keytrail.toml"), config).unwrap();
    let _program = Program::start(dir.path());
    let start = Instant::now();
    let left = || python(LEFT, &[&endpoint, &url]).unwrap();
    while left() != "0" {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{} messages left",
            left()
        );
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(taken(&dir.path().join("data")), 4);
    let notes = std::fs::read_to_string(dir.path().join("data/dead-letters/trail.ndjson")).unwrap();
    // The torn object, the message that announces nothing, the object that is gone.
    assert_eq!(notes.lines().count(), 3, "{notes}");
    assert!(notes.contains("s3://trail/gone"), "{notes}");
}
