//! S3 objects announced by SQS, with moto in AWS's place: its buckets, queues and notifications,
//! filled by AWS's own client; the keys come from a profile, as AWS's own tools take them.

use std::time::{Duration, Instant};

use crate::common::{file, gzip, minutes_ago, record};
use crate::kill::{Program, taken};
use crate::parts::{self, Part};

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

#[test]
fn objects_announced_by_a_queue_are_taken_and_their_messages_deleted() {
    let name = "objects_announced_by_a_queue_are_taken_and_their_messages_deleted";
    let Some(python) = parts::python(name) else {
        return;
    };
    let port = parts::port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let _moto = Part::start(
        python
            .command()
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p"])
            .arg(port.to_string()),
        port,
    );
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
    let url = python.run(FILL, &[dir.path().to_str().unwrap(), &endpoint]);
    let config = format!(
        "listen_push = \"127.0.0.1:0\"\n\
         [[source]]\nname = \"trail\"\nkind = \"aws.cloudtrail\"\nvia = \"s3\"\n\
         [source.s3]\nqueue_url = \"{url}\"\nregion = \"us-east-1\"\nendpoint = \"{endpoint}\"\n"
    );
    std::fs::write(dir.path().join("keytrail.toml"), config).unwrap();
    // No keys in the environment: the profile's.
    let aws = dir.path().join("credentials");
    let keys = "[audit]\naws_access_key_id = made-up\naws_secret_access_key = made-up\n";
    std::fs::write(&aws, keys).unwrap();
    let _program = Program::start_with(
        dir.path(),
        &[
            ("AWS_PROFILE", "audit"),
            ("AWS_SHARED_CREDENTIALS_FILE", aws.to_str().unwrap()),
        ],
    );
    let start = Instant::now();
    let left = || python.run(LEFT, &[&endpoint, &url]);
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
