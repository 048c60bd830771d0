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
