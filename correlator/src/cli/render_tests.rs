//! A whole alert, rendered; the text is the test.

use expect_test::expect_file;

use super::*;

fn alert() -> Alert {
    serde_json::from_str(include_str!("../../tests/data/alert.json")).unwrap()
}

#[test]
fn a_confirmed_theft() {
    expect_file!["../../tests/data/alert.txt"].assert_eq(&render_alert(&alert(), Style::PLAIN));
}

/// A misuse by way of a session, known and kept quiet.
#[test]
fn a_suppressed_misuse() {
    let mut alert = alert();
    alert.verdict = Verdict::SameSourceMisuse;
    alert.exposure = None;
    alert.egress.clear();
    alert.actions.clear();
    alert.history.clear();
    let session: keytrail_model::credential::CredentialId =
        "aws-access-key:ASIAIOSFODNN7EXAMPLE".parse().unwrap();
    alert.unexplained[0].via = vec![alert.credential.clone(), session.clone()];
    alert.ancestors = vec![session];
    alert.misuse = alert.explained.drain(..1).collect();
    alert.reasons = vec![keytrail_model::alert::Reason {
        verdict: Verdict::SameSourceMisuse,
        code: "mass-secret-read".to_owned(),
        text: "read 40 different secrets within 10 minutes\x1b[2J".to_owned(),
        first: alert.first_seen,
        records: vec!["aws.cloudtrail:s1".to_owned()],
    }];
    alert.suppressed = Some(keytrail_model::alert::Suppressed {
        rule: "pentest".to_owned(),
        owner: "sec@corp.example".to_owned(),
        why: "exercise".to_owned(),
        until: alert.last_seen,
    });
    expect_file!["../../tests/data/misuse.txt"].assert_eq(&render_alert(&alert, Style::PLAIN));
}

#[test]
fn hostile_text_cannot_reach_the_terminal() {
    let mut alert = alert();
    alert.title = "fine\x1b[2J\nCLOSED everything is fine\u{202e}".to_owned();
    alert.blind_spots = vec!["\x1b]0;pwned\x07".to_owned()];
    if let Some(exposure) = &mut alert.exposure
        && let Some(process) = exposure.actor.lineage.first_mut()
    {
        process.argv = vec!["\r\x1b[1A".to_owned()];
        process.exe = "/tmp/\x1b[31m".to_owned();
    }
    let plain = render_alert(&alert, Style::PLAIN);
    assert!(
        !plain.contains(|c: char| c.is_control() && c != '\n'),
        "{plain}"
    );
    assert!(!plain.contains("\nCLOSED"), "{plain}");
    assert!(!plain.contains('\u{202e}'));
}

#[test]
fn sizes() {
    for (count, expected) in [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB (1536 bytes)"),
        (5 << 30, "5.0 GiB (5368709120 bytes)"),
    ] {
        assert_eq!(bytes(count), expected);
    }
}
