//! Live replays: benign acts after the labelled scenarios (`tests/scenarios`, whose ids they bear), and
//! then a leaked key, played with real programs on the lab's stage and judged by the real sensor and
//! correlator.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test program fails by panicking, its helpers too"
)]

mod common;

use std::time::Duration;

use keytrail_model::alert::Verdict;
use keytrail_tests::lab::child::wait_for;
use keytrail_tests::lab::codex::Server;
use keytrail_tests::lab::stand_in::model::Turn;
use keytrail_tests::lab::{Lab, cloudtrail};
use keytrail_tests::scenario::{Checks, Watched};
use keytrail_tests::story::Story;

/// A benign row: what the agent's user has it do, a word that the result must hold (the command
/// really worked), and how many uses of the key it makes.
struct Row {
    id: &'static str,
    command: &'static str,
    says: &'static str,
    uses: usize,
}

const ROWS: [Row; 7] = [
    Row {
        id: "B01 the agent lists buckets",
        command: "aws s3 ls",
        says: "team-artifacts",
        uses: 1,
    },
    Row {
        id: "B08 a credential process reads the key and prints JSON",
        command: "AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_CONFIG_FILE=$HOME/.aws/helper.config aws sts get-caller-identity",
        says: "user/dana",
        uses: 1,
    },
    Row {
        id: "B11 git asks its credential helper",
        command: "printf 'protocol=https\\nhost=git.corp.example\\n\\n' | git -c credential.helper=store credential fill",
        says: "username=dana",
        uses: 0,
    },
    Row {
        id: "B17 a search of the whole home",
        command: "grep -rls aws_secret_access_key $HOME",
        says: ".aws/credentials",
        uses: 0,
    },
    Row {
        id: "B18 a backup of the whole home, kept here",
        command: "tar -C $HOME -czf /tmp/keytrail-live-$$.tgz --exclude=.codex . ; tar -tzf /tmp/keytrail-live-$$.tgz | grep aws/credentials; rm /tmp/keytrail-live-$$.tgz",
        says: ".aws/credentials",
        uses: 0,
    },
    Row {
        id: "B20 the public half of a key is copied",
        command: "cp $HOME/.ssh/id_ed25519.pub $HOME/work/ && ls $HOME/work",
        says: "id_ed25519.pub",
        uses: 0,
    },
    Row {
        id: "B01 the agent asks twice who it is",
        command: "aws sts get-caller-identity && aws sts get-caller-identity",
        says: "user/dana",
        uses: 2,
    },
];

/// What the rows need in the home, beside the lab's own furniture.
fn furnish(lab: &Lab) {
    let home = lab.home();
    let write = |path: &str, text: &str| {
        let path = home.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let helper = home.join(".aws/helper");
    write(
        ".aws/helper",
        "#!/bin/sh\nk=$(sed -n 's/^aws_access_key_id = //p' $HOME/.aws/credentials)\ns=$(sed -n 's/^aws_secret_access_key = //p' $HOME/.aws/credentials)\nprintf '{\"Version\":1,\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"%s\"}' $k $s\n",
    );
    write(
        ".aws/helper.config",
        &format!(
            "[default]\nregion = us-east-1\noutput = json\ncredential_process = sh {}\n",
            helper.display()
        ),
    );
    write(
        ".git-credentials",
        "https://dana:made-up-password-1@git.corp.example\n",
    );
    write(".ssh/id_ed25519.pub", "ssh-ed25519 AAAA dana@laptop\n");
}

#[test]
fn benign_rows_raise_nothing_and_a_leaked_key_is_unexplained() {
    let name = "benign_rows_raise_nothing_and_a_leaked_key_is_unexplained";
    common::on_stage(
        name,
        |_| None,
        |story, checks, watched| {
            furnish(&watched.lab);
            let turns = ROWS.iter().map(|row| Turn::Shell(row.command.to_owned()));
            watched
                .lab
                .start_agent(Server::Honest, turns.collect())
                .unwrap();
            watched.lab.finish_agent(Duration::from_mins(8)).unwrap();
            let results: Vec<(usize, String)> = watched
                .lab
                .exchanges()
                .unwrap()
                .into_iter()
                .filter_map(|e| Some((e.turn, e.result?)))
                .collect();
            for (at, row) in ROWS.iter().enumerate() {
                // The result of a turn comes with the next request.
                let worked = results
                    .iter()
                    .any(|(turn, result)| *turn == at + 1 && result.contains(row.says));
                checks.that(worked, &format!("{} really happened", row.id));
            }
            let entries = watched.lab.aws_requests().unwrap();
            let wanted: usize = ROWS.iter().map(|row| row.uses).sum();
            keytrail_tests::scenario::let_watermarks_pass(&watched.correlator).unwrap();
            let delivered = watched.deliver_benign(&entries).unwrap();
            checks.that(
                delivered == wanted,
                &format!("{delivered} records of {wanted} uses"),
            );
            let (explained, unexplained, undecided) =
                watched.correlator.uses(&watched.credential());
            checks.that(
                (explained, unexplained, undecided) == (wanted as u64, 0, 0),
                &format!("{explained} explained, {unexplained} unexplained, {undecided} undecided"),
            );
            let raised = watched.correlator.alerts().unwrap();
            for alert in &raised {
                story.quote(&format!("{} {}", alert.verdict, alert.title));
            }
            checks.that(
                raised.is_empty(),
                &format!("{} rows, {} alerts", ROWS.len(), raised.len()),
            );
            leaked(story, checks, watched);
        },
    );
}

/// The key was leaked where no sensor is, and is used: an `unexplained-use`. Many commands read the
/// file before that, and none of them sent it anywhere: `confirmed` would claim too much.
fn leaked(story: &Story, checks: &mut Checks<'_>, watched: &Watched) {
    story.chapter("The key is used from elsewhere");
    let (lab, correlator) = (&watched.lab, &watched.correlator);
    lab.attack().unwrap();
    let entries = lab.aws_requests().unwrap();
    keytrail_tests::scenario::let_watermarks_pass(correlator).unwrap();
    let records = cloudtrail::records(&entries, &lab.principal);
    cloudtrail::deliver(&correlator.cloudtrail, &lab.principal.account, &records).unwrap();
    let raised = wait_for("the alert", Duration::from_mins(2), || {
        let raised = watched.accusations()?;
        let whole = raised.iter().any(|a| a.unexplained_total >= 2);
        Ok(whole.then_some(raised))
    })
    .unwrap_or_default();
    let verdicts: Vec<String> = raised.iter().map(|a| a.verdict.to_string()).collect();
    let of = |verdict| raised.iter().filter(|a| a.verdict == verdict).count();
    let (right, confirmed) = (of(Verdict::UnexplainedUse), of(Verdict::Confirmed));
    story.say(&format!(
        "unexplained-use: precision {right}/{}, recall {right}/1; confirmed: {confirmed}, after {} benign rows",
        raised.len(),
        ROWS.len()
    ));
    checks.that(
        (raised.len(), right) == (1, 1),
        &format!("one alert, unexplained-use: {verdicts:?}"),
    );
}
