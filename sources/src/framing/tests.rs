//! What files are cut into.

use proptest::prelude::*;

use super::*;

/// What a file is cut into, then how it ended.
fn cut(text: &[u8]) -> String {
    let mut records = Records::new(text);
    let mut out = Vec::new();
    loop {
        match records.next_record() {
            Ok(Some(Cut::Record(bytes))) => {
                out.push(String::from_utf8_lossy(bytes).into_owned());
            }
            Ok(Some(Cut::NotObject)) => out.push("not-object".to_owned()),
            Ok(Some(Cut::TooLarge)) => out.push("too-large".to_owned()),
            Ok(None) => break,
            Err(FramingError::Truncated { .. }) => {
                out.push("TRUNCATED".to_owned());
                break;
            }
            Err(error) => {
                out.push(format!("ERROR {error}"));
                break;
            }
        }
    }
    out.join(" | ")
}

#[test]
fn every_framing_is_cut() {
    for (text, expected) in [
        ("", ""),
        ("\n \n", ""),
        (r#"{"Records":[]}"#, ""),
        (
            r#"{"Records":[{"a":1},{"b":"}"}]}"#,
            r#"{"a":1} | {"b":"}"}"#,
        ),
        (
            r#"{"records" : [ {"a":[1,{"c":2}]} ] , "x":[1] }"#,
            r#"{"a":[1,{"c":2}]}"#,
        ),
        (r#"{"NextToken":"t","Events":[{"a":1}]}"#, r#"{"a":1}"#),
        (r#"[{"a":1},{"b":2}]"#, r#"{"a":1} | {"b":2}"#),
        ("{\"a\":1}\n{\"b\":2}\n", r#"{"a":1} | {"b":2}"#),
        ("{\"a\":1}{\"b\":2}", r#"{"a":1} | {"b":2}"#),
        ("\u{feff}{\"a\":1}", r#"{"a":1}"#),
        // Not a wrapper: the name is deeper, or holds no array, or is a value.
        (
            r#"{"x":{"Records":[{"a":1}]}}"#,
            r#"{"x":{"Records":[{"a":1}]}}"#,
        ),
        (r#"{"Records":"none"}"#, r#"{"Records":"none"}"#),
        (r#"{"x":"Records","y":[1]}"#, r#"{"x":"Records","y":[1]}"#),
        // Two files written one after another (gzip members).
        (
            r#"{"Records":[{"a":1}]}{"Records":[{"b":2}]}"#,
            r#"{"a":1} | {"b":2}"#,
        ),
        (
            r#"{"Records":[1,"x",null,[1,[2]],{"a":1}]}"#,
            r#"not-object | not-object | not-object | not-object | {"a":1}"#,
        ),
        // Damage inside one record is for the record's parser.
        (r#"{"Records":[{"a":},{"b":2}]}"#, r#"{"a":} | {"b":2}"#),
        (r#"{"Records":[{"a":1},{"b""#, r#"{"a":1} | TRUNCATED"#),
        (r#"{"Records":[{"a":1}"#, r#"{"a":1} | TRUNCATED"#),
        (r#"{"Records":[{"a":1}]"#, r#"{"a":1} | TRUNCATED"#),
        ("{\"a\":1}\n{\"b\":", r#"{"a":1} | TRUNCATED"#),
        (r#"{"a":"\""#, "TRUNCATED"),
        (
            "hello",
            "ERROR byte 0 is 'h', expected a JSON object or array of records",
        ),
        (
            r#"{"a":[1}"#,
            "ERROR byte 7 is '}', expected the other closing bracket",
        ),
    ] {
        assert_eq!(cut(text.as_bytes()), expected, "{text}");
    }
}

/// What a file of another shape is cut into.
fn cut_shaped(text: &str, shape: Shape) -> String {
    let mut records = Records::framed(text.as_bytes(), Framing::shaped(shape));
    let mut out = Vec::new();
    loop {
        match records.next_record() {
            Ok(Some(Cut::Record(bytes))) => out.push(String::from_utf8_lossy(bytes).into_owned()),
            Ok(Some(cut)) => out.push(format!("{cut:?}")),
            Ok(None) => return out.join(" | "),
            Err(error) => {
                out.push(format!("ERROR {error}"));
                return out.join(" | ");
            }
        }
    }
}

#[test]
fn a_damaged_line_costs_only_itself() {
    for (text, expected) in [
        // cut off in the middle, in a string and outside
        (
            "{\"a\":1}\n{\"a\":\"x\n{\"a\":3}\n",
            r#"{"a":1} | {"a":"x | {"a":3}"#,
        ),
        (
            "{\"a\":1}\n{\"a\":{\"b\":2\n{\"a\":3}\n",
            "{\"a\":1} | {\"a\":{\"b\":2\n | {\"a\":3}",
        ),
        // the wrong bracket, and no record at all
        (
            "{\"a\":1}\n{\"b\":[2}\n{\"c\":3}\n",
            r#"{"a":1} | {"b":[2 | {"c":3}"#,
        ),
        (
            "{\"a\":1}\nnot a record\n{\"a\":3}\n",
            r#"{"a":1} | not-object | {"a":3}"#,
        ),
        // lines alike are taken whole, with their damage
        (
            "{\"a\":1}\n{\"a\":[2}\n{\"a\":3}",
            r#"{"a":1} | {"a":[2} | {"a":3}"#,
        ),
        ("{\"a\":1}\r\n{\"a\":2}\r\n", r#"{"a":1} | {"a":2}"#),
        // two on a line, and a wrapper after lines
        (
            "{\"a\":1}\n{\"a\":2}{\"a\":3}\n",
            r#"{"a":1} | {"a":2} | {"a":3}"#,
        ),
        (
            "{\"a\":1}\n{\"Records\":[{\"a\":2}]}\n",
            r#"{"a":1} | {"a":2}"#,
        ),
        // an object over several lines is one record
        (
            "{\"a\":\n{\"b\":1},\n\"c\":[\n{}\n]}\n",
            "{\"a\":\n{\"b\":1},\n\"c\":[\n{}\n]}",
        ),
    ] {
        assert_eq!(cut(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn csv_and_lines_are_told_from_json() {
    for (text, shape, expected) in [
        (
            "A,B\n1,\"x, \"\"y\"\"\nz\"\n",
            Shape::JsonOrCsv,
            r#"{"A":"1","B":"x, \"y\"\nz"}"#,
        ),
        (
            "A,B\r\n1,2\r\nA,B\r\n3,4",
            Shape::JsonOrCsv,
            r#"{"A":"1","B":"2"} | {"A":"3","B":"4"}"#,
        ),
        (
            "A,B\n1\n1,2,3\n\n4,5\n",
            Shape::JsonOrCsv,
            r#"NotObject | NotObject | {"A":"4","B":"5"}"#,
        ),
        ("{\"a\":1}\n", Shape::JsonOrCsv, r#"{"a":1}"#),
        (
            "A,B\n\"1,2\n",
            Shape::JsonOrCsv,
            "ERROR ends in the middle, after 0 whole records and 9 bytes",
        ),
        (
            "alone\n",
            Shape::JsonOrCsv,
            "ERROR byte 0 is a line of 1 columns, expected a CSV header, or JSON",
        ),
        (
            "CEF:0|a|b\n\n  \n<5> x\r\n",
            Shape::JsonOrLines,
            "CEF:0|a|b | <5> x",
        ),
        ("[{\"a\":1}]", Shape::JsonOrLines, r#"{"a":1}"#),
        ("", Shape::JsonOrLines, ""),
    ] {
        assert_eq!(cut_shaped(text, shape), expected, "{text}");
    }
}

#[test]
fn a_huge_record_is_skipped_and_its_neighbours_are_kept() {
    let huge = "x".repeat(MAX_RECORD_BYTES);
    let text = format!(r#"{{"Records":[{{"a":1}},{{"h":"{huge}"}},{{"b":2}}]}}"#);
    assert_eq!(cut(text.as_bytes()), r#"{"a":1} | too-large | {"b":2}"#);
}

#[test]
fn nesting_is_bounded() {
    let deep = r#"{"a":"#.repeat(5000);
    assert!(cut(deep.as_bytes()).contains("nested"));
}

proptest! {
    #[test]
    fn any_bytes_end_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        cut(&bytes);
    }

    #[test]
    fn any_bracket_soup_ends_without_panic(text in "[\\[\\]{}\",:a1\\\\ \n]{0,200}") {
        cut(text.as_bytes());
    }

    /// A whole file gives its records; every proper prefix of it says that it is truncated.
    #[test]
    fn a_prefix_is_never_whole(
        values in proptest::collection::vec("[a-z\"\\\\{}\\[\\]]{0,8}", 1..6),
        cut_at in any::<prop::sample::Index>(),
    ) {
        let records: Vec<String> = values
            .iter()
            .map(|v| serde_json::json!({"k": v, "n": [v, {"m": 1}]}).to_string())
            .collect();
        let whole = format!("{{\"Records\":[{}]}}", records.join(","));
        prop_assert_eq!(cut(whole.as_bytes()), records.join(" | "));
        let end = 1 + cut_at.index(whole.len() - 1);
        let prefix = cut(&whole.as_bytes()[..end]);
        prop_assert!(prefix.ends_with("TRUNCATED"), "{}", prefix);
    }
}
