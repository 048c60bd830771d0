//! The part of HCL that Vault policies use: `path "x" { capabilities = ["read", "list"] ... }`.
//!
//! Everything else in a block (allowed parameters, wrapping times) is read over, balanced.

use super::import::ImportError;
use super::vault::Paths;

/// Deepest nesting read over.
const MAX_DEPTH: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// The paths of a policy and their capabilities.
pub(super) fn paths(source: &str) -> Result<Paths, ImportError> {
    let tokens = tokens(source)?;
    let mut at = 0;
    let mut paths = Paths::new();
    while at < tokens.len() {
        let (head, name, brace) = (tokens.get(at), tokens.get(at + 1), tokens.get(at + 2));
        match (head, name, brace) {
            (
                Some((Token::Word(word), _)),
                Some((Token::Text(path), line)),
                Some((Token::Sign('{'), _)),
            ) if word == "path" => {
                let (capabilities, end) = block(&tokens, at + 3, *line)?;
                paths.insert(path.clone(), capabilities);
                at = end;
            }
            (Some((_, line)), _, _) => {
                return Err(wrong(*line, "expected path \"...\" { ... }"));
            }
            (None, ..) => break,
        }
    }
    if paths.is_empty() {
        return Err(wrong(1, "no path block is in it"));
    }
    Ok(paths)
}

fn wrong(line: usize, what: &str) -> ImportError {
    ImportError::shape(
        format!("line {line}"),
        what,
        "give a Vault policy as HCL or JSON",
    )
}

/// The capabilities of a block, and the place after its closing brace.
fn block(
    tokens: &[(Token, usize)],
    from: usize,
    line: usize,
) -> Result<(Vec<String>, usize), ImportError> {
    let mut capabilities = Vec::new();
    let mut depth = 1_usize;
    let mut at = from;
    while let Some((token, line)) = tokens.get(at) {
        at += 1;
        match token {
            Token::Sign('{' | '[') => depth += 1,
            Token::Sign('}' | ']') => {
                depth -= 1;
                if depth == 0 {
                    return Ok((capabilities, at));
                }
            }
            Token::Word(word)
                if depth == 1 && matches!(word.as_str(), "capabilities" | "policy") =>
            {
                at = values(tokens, at, *line, word, &mut capabilities)?;
            }
            Token::Word(_) | Token::Text(_) | Token::Sign(_) => {}
        }
        if depth > MAX_DEPTH {
            return Err(wrong(*line, "nested too deeply"));
        }
    }
    Err(wrong(line, "the block is not closed"))
}

/// `= ["a", "b"]`, or the old `policy = "read"`.
fn values(
    tokens: &[(Token, usize)],
    from: usize,
    line: usize,
    word: &str,
    into: &mut Vec<String>,
) -> Result<usize, ImportError> {
    let mut at = from;
    if !matches!(tokens.get(at), Some((Token::Sign('='), _))) {
        return Err(wrong(line, &format!("= is missing after {word}")));
    }
    at += 1;
    if let Some((Token::Text(one), _)) = tokens.get(at) {
        let meant: &[&str] = match one.as_str() {
            "write" => &["create", "read", "update", "delete", "list"],
            "sudo" => &["create", "read", "update", "delete", "list", "sudo"],
            "read" => &["read", "list"],
            _ => &["deny"],
        };
        into.extend(meant.iter().map(|c| (*c).to_owned()));
        return Ok(at + 1);
    }
    if !matches!(tokens.get(at), Some((Token::Sign('['), _))) {
        return Err(wrong(line, &format!("a list is missing after {word} =")));
    }
    at += 1;
    while let Some((token, line)) = tokens.get(at) {
        at += 1;
        match token {
            Token::Text(one) => into.push(one.clone()),
            Token::Sign(',') => {}
            Token::Sign(']') => return Ok(at),
            Token::Sign(_) | Token::Word(_) => {
                return Err(wrong(*line, "a list of texts is expected"));
            }
        }
    }
    Err(wrong(line, "the list is not closed"))
}

fn tokens(source: &str) -> Result<Vec<(Token, usize)>, ImportError> {
    let mut all = Vec::new();
    let mut line = 1;
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            c if c.is_whitespace() => {}
            '#' => skip_line(&mut chars),
            '/' if chars.peek() == Some(&'/') => skip_line(&mut chars),
            '/' if chars.peek() == Some(&'*') => {
                let mut before = ' ';
                for c in chars.by_ref() {
                    line += usize::from(c == '\n');
                    if before == '*' && c == '/' {
                        break;
                    }
                    before = c;
                }
            }
            '"' => {
                let mut text = String::new();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => text.extend(chars.next()),
                        Some('\n') | None => return Err(wrong(line, "a text is not closed")),
                        Some(c) => text.push(c),
                    }
                }
                all.push((Token::Text(text), line));
            }
            c if c.is_alphanumeric() || c == '_' || c == '-' => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || "_-.".contains(*c)) {
                    word.push(c);
                }
                all.push((Token::Word(word), line));
            }
            c => all.push((Token::Sign(c), line)),
        }
    }
    Ok(all)
}

fn skip_line(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while chars.next_if(|c| *c != '\n').is_some() {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn policies_are_read() {
        let source = r#"
            # comment
            path "secret/data/team/*" { capabilities = ["read", "list"] }
            path "sys/+/x" {
              capabilities = [
                "sudo", // another
                "update",
              ]
              allowed_parameters = { "ttl" = ["1h", "2h"], "x" = [] }
            }
            /* block
               comment */
            path "old/" { policy = "write" }
        "#;
        let paths = paths(source).unwrap();
        assert_eq!(paths["secret/data/team/*"], ["read", "list"]);
        assert_eq!(paths["sys/+/x"], ["sudo", "update"]);
        assert!(paths["old/"].contains(&"delete".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (source, words) in [
            ("", "no path block"),
            ("\npath \"x\" {", "line 2: the block is not closed"),
            ("path \"x\" { capabilities [\"read\"] }", "= is missing"),
            ("path \"x\" { capabilities = [read] }", "a list of texts"),
            ("path \"x", "not closed"),
            ("name = \"x\"", "expected path"),
        ] {
            let error = paths(source).unwrap_err().to_string();
            assert!(error.contains(words), "{source:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends(source in "[a-z\"{}=\\[\\], \n#/*\\\\]{0,200}") {
            let _ = paths(&source);
        }

        #[test]
        fn what_was_written_is_read(
            paths_in in proptest::collection::btree_map(
                "[a-z/+*]{1,12}",
                proptest::collection::vec("(read|list|create|update|delete|sudo|deny)", 1..4), 1..6)
        ) {
            let source: String = paths_in
                .iter()
                .map(|(path, list)| format!("path \"{path}\" {{ capabilities = {list:?} }}\n"))
                .collect();
            prop_assert_eq!(paths(&source).unwrap(), paths_in);
        }
    }
}
