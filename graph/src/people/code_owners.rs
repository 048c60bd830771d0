//! CODEOWNERS: who reviews which path of a repository.
//!
//! Source: GitHub documentation, "About code owners": the last line that fits a path counts;
//! owners are `@login`, `@organisation/team` or an address. GitLab's sections and optional marks
//! are read over.

use serde::{Deserialize, Serialize};

use crate::permission::ImportError;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// `owner/repository`.
    pub repository: String,
    /// The path's pattern.
    pub pattern: String,
    /// `@login`, `@organisation/team`, addresses.
    pub owners: Vec<String>,
}

/// Lines of one file at most.
const MAX_LINES: usize = 50_000;

pub(super) fn rules(repository: &str, file: &[u8]) -> Result<Vec<Rule>, ImportError> {
    let text = std::str::from_utf8(file)
        .map_err(|_| ImportError::shape("file", "not UTF-8", "give the CODEOWNERS file"))?;
    let mut rules = Vec::new();
    for (nr, line) in text.lines().enumerate() {
        if nr >= MAX_LINES {
            return Err(ImportError::shape(
                format!("line {nr}"),
                "the file is too long",
                "give the CODEOWNERS file",
            ));
        }
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with(['#', '[', '^']) {
            continue;
        }
        // A blank inside a path is written `\ `.
        let line = line.replace("\\ ", "\u{1}");
        let mut words = line.split_whitespace();
        let Some(pattern) = words.next() else {
            continue;
        };
        let owners: Vec<String> = words.map(str::to_owned).collect();
        if let Some(odd) = owners.iter().find(|owner| !owner.contains('@')) {
            let cut: String = odd.chars().take(60).collect();
            return Err(ImportError::shape(
                format!("line {}", nr + 1),
                format!("{cut:?} is no @login, @organisation/team or address"),
                "give the CODEOWNERS file",
            ));
        }
        rules.push(Rule {
            repository: repository.to_owned(),
            pattern: pattern.replace('\u{1}', " "),
            owners,
        });
    }
    Ok(rules)
}

/// Owners of a whole repository: of the last line that fits every path, else of its first line.
pub(super) fn of_repository<'r>(rules: &'r [Rule], repository: &str) -> Option<&'r Rule> {
    let mut own = rules
        .iter()
        .filter(|rule| rule.repository.eq_ignore_ascii_case(repository) && !rule.owners.is_empty());
    let whole = |rule: &&Rule| matches!(rule.pattern.as_str(), "*" | "**" | "/" | "/*" | "/**");
    let first = own.clone().next();
    own.rfind(whole).or(first)
}
