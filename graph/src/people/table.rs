//! Exports as tables: CSV (RFC 4180) or JSON, one row an entry, nested members as `a.b.0.c`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::permission::ImportError;

/// One entry: column (lower case) -> text.
pub type Row = BTreeMap<String, String>;

/// Rows of one file at most.
pub const MAX_ROWS: usize = 1_000_000;
/// Columns of one row at most.
const MAX_COLUMNS: usize = 400;
/// Deepest nesting looked into.
const MAX_DEPTH: usize = 6;
/// Members under which exports put their list of entries.
const LISTS: [&str; 8] = [
    "value",
    "users",
    "resources",
    "devices",
    "items",
    "results",
    "data",
    "computers",
];

/// The rows of a file.
///
/// # Errors
/// When it is neither: with the line.
pub fn rows(file: &[u8]) -> Result<Vec<Row>, ImportError> {
    let text = std::str::from_utf8(file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file))
        .map_err(|_| ImportError::shape("file", "not UTF-8", "export it as UTF-8"))?;
    let rows = if text.trim_start().starts_with(['{', '[']) {
        json_rows(text)?
    } else {
        csv_rows(text)?
    };
    if rows.len() > MAX_ROWS {
        return Err(ImportError::shape(
            "file",
            format!("more than {MAX_ROWS} entries"),
            "give it in parts",
        ));
    }
    Ok(rows)
}

fn json_rows(text: &str) -> Result<Vec<Row>, ImportError> {
    let mut rows = Vec::new();
    // Several documents after each other are pages.
    for page in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let page = page.map_err(|e| ImportError::Json {
            detail: format!("line {}, column {}", e.line(), e.column()),
            expected: "JSON or CSV as the directory exports it",
        })?;
        let entries = match page {
            Value::Array(entries) => entries,
            Value::Object(mut members) => {
                let key = members
                    .iter()
                    .find(|(k, v)| LISTS.contains(&k.to_lowercase().as_str()) && v.is_array())
                    .map(|(key, _)| key.clone());
                match key.and_then(|key| members.remove(&key)) {
                    Some(Value::Array(entries)) => entries,
                    _ => vec![Value::Object(members)],
                }
            }
            _ => Vec::new(),
        };
        for entry in entries {
            if let Value::Object(_) = &entry {
                let mut row = Row::new();
                flatten(&entry, "", MAX_DEPTH, &mut row);
                rows.push(row);
            } else {
                return Err(ImportError::shape(
                    format!("[{}]", rows.len()),
                    "the entry is no object",
                    "give a list of entries as the directory exports it",
                ));
            }
        }
    }
    Ok(rows)
}

fn flatten(value: &Value, at: &str, depth: usize, row: &mut Row) {
    if depth == 0 || row.len() >= MAX_COLUMNS {
        return;
    }
    let under = |key: &str| {
        if at.is_empty() {
            key.to_lowercase()
        } else {
            format!("{at}.{}", key.to_lowercase())
        }
    };
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                flatten(value, &under(key), depth - 1, row);
            }
        }
        Value::Array(list) => {
            for (nr, value) in list.iter().enumerate() {
                flatten(value, &under(&nr.to_string()), depth - 1, row);
            }
        }
        Value::String(text) => {
            row.insert(at.to_owned(), text.trim().to_owned());
        }
        Value::Bool(_) | Value::Number(_) => {
            row.insert(at.to_owned(), value.to_string());
        }
        Value::Null => {}
    }
}

fn csv_rows(text: &str) -> Result<Vec<Row>, ImportError> {
    let mut lines = csv(text)?.into_iter();
    let Some(head) = lines.next() else {
        return Err(ImportError::shape(
            "file",
            "it is empty",
            "give JSON or CSV with a head line",
        ));
    };
    let head: Vec<String> = head
        .iter()
        .map(|column| column.trim().to_lowercase())
        .collect();
    lines
        .enumerate()
        .filter(|(_, cells)| cells.iter().any(|cell| !cell.trim().is_empty()))
        .map(|(nr, cells)| {
            if cells.len() > head.len() {
                return Err(ImportError::shape(
                    format!("entry {}", nr + 1),
                    format!("{} cells under {} columns", cells.len(), head.len()),
                    "quote cells that contain a comma",
                ));
            }
            let cells = cells.into_iter().map(|cell| cell.trim().to_owned());
            Ok(head
                .iter()
                .cloned()
                .zip(cells)
                .filter(|(_, cell)| !cell.is_empty())
                .collect())
        })
        .collect()
}

/// Cells by line. A comma, or a semicolon where the head line has no comma, separates.
fn csv(text: &str) -> Result<Vec<Vec<String>>, ImportError> {
    let head = text.lines().next().unwrap_or_default();
    let separator = if head.contains(';') && !head.contains(',') {
        ';'
    } else {
        ','
    };
    let mut lines = Vec::new();
    let mut cells: Vec<String> = Vec::new();
    let mut cell = String::new();
    let mut quoted = false;
    let mut any = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        any = true;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if cell.is_empty() => quoted = true,
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                cells.push(std::mem::take(&mut cell));
                lines.push(std::mem::take(&mut cells));
                any = false;
            }
            c if c == separator && !quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    if quoted {
        return Err(ImportError::shape(
            format!("entry {}", lines.len()),
            "a quote is not closed",
            "export it again",
        ));
    }
    if any {
        cells.push(cell);
        lines.push(cells);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_give_the_same_rows() {
        let csv = "Email,Name,Note\r\nana@x.example,\"Ana \"\"A\"\" Ruiz\",\"a, b\nc\"\n\n";
        let json = r#"{"users": [{"Email": "ana@x.example", "name": "Ana \"A\" Ruiz", "Note": "a, b\nc"}]}"#;
        assert_eq!(
            rows(csv.as_bytes()).unwrap(),
            rows(json.as_bytes()).unwrap()
        );
        let nested = r#"[{"profile": {"login": "a"}, "emails": [{"value": "x"}], "n": null}]"#;
        let row = &rows(nested.as_bytes()).unwrap()[0];
        assert_eq!(
            (
                row["profile.login"].as_str(),
                row["emails.0.value"].as_str()
            ),
            ("a", "x")
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (file, words) in [
            ("", "it is empty"),
            ("a,b\n1,2,3\n", "3 cells under 2 columns"),
            ("a\n\"x", "not closed"),
            ("{\"a\": ", "line 1"),
            ("[1]", "no object"),
        ] {
            let error = rows(file.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{file:?}: {error}");
        }
        assert!(rows(b"\xff").is_err());
    }

    proptest! {
        #[test]
        fn what_was_quoted_is_read(
            table in proptest::collection::vec(
                proptest::collection::vec("[a-z,\"\n\r; ]{0,8}", 3), 1..6)
        ) {
            let quote = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
            let mut text = "\"x\",\"y\",\"z\"\n".to_owned();
            for cells in &table {
                text.push_str(&cells.iter().map(quote).collect::<Vec<_>>().join(","));
                text.push('\n');
            }
            let read = csv(&text).unwrap();
            prop_assert_eq!(&read[1..], &table[..]);
        }

        #[test]
        fn any_text_ends(text in ".{0,200}") {
            let _ = rows(text.as_bytes());
        }
    }
}
