//! Path templates (`${XDG_CONFIG_HOME:-~/.config}/gh`) and globs (`**/bin/codex`), as the
//! catalogues write them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files::FsView;

/// Values for a template: a home directory and a few variables that name places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vars {
    home: Option<String>,
    values: BTreeMap<String, String>,
}

impl Vars {
    /// For one home directory.
    #[must_use]
    pub fn home(home: impl Into<String>) -> Self {
        Self {
            home: Some(home.into()),
            values: BTreeMap::new(),
        }
    }

    /// Adds a variable.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.values.insert(name.into(), value.into());
    }

    /// The home directory.
    #[must_use]
    pub fn home_dir(&self) -> Option<&str> {
        self.home.as_deref()
    }

    fn get(&self, name: &str) -> Option<&str> {
        if name == "HOME" {
            return self.home.as_deref();
        }
        self.values
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    /// Fills in `~/`, `${NAME}` and `${NAME:-default}`; `None` when a value is missing.
    #[must_use]
    pub fn expand(&self, template: &str) -> Option<String> {
        self.expand_at(template, 0)
    }

    fn expand_at(&self, template: &str, depth: u8) -> Option<String> {
        // The grammar nests only in defaults; four levels are more than any catalogue needs.
        if depth > 4 {
            return None;
        }
        let mut out = String::with_capacity(template.len() + 32);
        let mut rest = template;
        if rest == "~" || rest.starts_with("~/") {
            out.push_str(self.home.as_deref()?);
            rest = rest.strip_prefix('~')?;
        }
        while let Some((before, after)) = rest.split_once("${") {
            let (inner, tail) = split_at_closing(after)?;
            out.push_str(before);
            let (name, default) = match inner.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inner, None),
            };
            match (self.get(name), default) {
                (Some(value), _) => out.push_str(value),
                (None, Some(default)) => out.push_str(&self.expand_at(default, depth + 1)?),
                (None, None) => return None,
            }
            rest = tail;
        }
        out.push_str(rest);
        Some(out)
    }
}

/// Splits at the brace that closes the variable, minding those in its default.
fn split_at_closing(text: &str) -> Option<(&str, &str)> {
    let mut open = 1_u32;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some((text.get(..at)?, text.get(at + 1..)?));
        }
    }
    None
}

/// Names of the variables in a template, except `HOME`.
pub fn variables_of(template: &str) -> impl Iterator<Item = &str> {
    template
        .split("${")
        .skip(1)
        .filter_map(|part| part.split(['}', ':']).next())
        .filter(|name| !name.is_empty() && *name != "HOME")
}

/// True when `path` fits `pattern`: `*` and `?` within a component, `**` over any number of
/// components.
#[must_use]
pub fn glob_matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    components_match(&pattern, &path)
}

/// Iterative with one point of return per `**`, so that no pattern costs more than
/// `pattern x path`.
fn components_match(pattern: &[&str], path: &[&str]) -> bool {
    wildcard(
        pattern,
        path,
        |p| *p == "**",
        |p, c| component_matches(p, c),
    )
}

fn component_matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    wildcard(&pattern, &text, |p| *p == '*', |p, c| *p == '?' || p == c)
}

fn wildcard<P, T>(
    pattern: &[P],
    text: &[T],
    is_star: impl Fn(&P) -> bool,
    is_match: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while let Some(unit) = text.get(t) {
        match pattern.get(p) {
            Some(star) if is_star(star) => {
                back = Some((p, t));
                p += 1;
            }
            Some(part) if is_match(part, unit) => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match back {
                // Let the last star take one more.
                Some((star, taken)) => {
                    back = Some((star, taken + 1));
                    p = star + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(is_star)
}

/// `a/{b,c}/d` as `a/b/d` and `a/c/d`; groups do not nest. At most 16 results.
#[must_use]
pub fn alternatives(pattern: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut todo = vec![pattern.to_owned()];
    while let Some(next) = todo.pop() {
        let group = next.split_once('{').and_then(|(before, rest)| {
            let (inner, after) = rest.split_once('}')?;
            Some((before.to_owned(), inner.to_owned(), after.to_owned()))
        });
        match group {
            Some((before, inner, after)) if todo.len() < 16 => {
                let parts: Vec<&str> = inner.split(',').collect();
                todo.extend(
                    parts
                        .iter()
                        .rev()
                        .map(|part| format!("{before}{part}{after}")),
                );
            }
            Some(_) | None => done.push(next),
        }
        if done.len() >= 16 {
            break;
        }
    }
    done
}

/// Files and directories that fit an absolute `pattern`, at most `limit`; `**` goes at most six
/// levels down and does not follow links.
#[must_use]
pub fn glob_files(view: &FsView, pattern: &str, limit: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut budget = 4096;
    for pattern in alternatives(pattern) {
        let Some(relative) = pattern.strip_prefix('/') else {
            continue;
        };
        let parts: Vec<&str> = relative.split('/').collect();
        descend(
            view,
            Path::new("/"),
            &parts,
            6,
            limit,
            &mut budget,
            &mut found,
        );
    }
    found
}

fn descend(
    view: &FsView,
    at: &Path,
    parts: &[&str],
    depth: u8,
    limit: usize,
    budget: &mut u32,
    found: &mut Vec<PathBuf>,
) {
    if found.len() >= limit || *budget == 0 {
        return;
    }
    *budget -= 1;
    let Some((part, rest)) = parts.split_first() else {
        if view.metadata(at).is_ok() && !found.iter().any(|f| f == at) {
            found.push(at.to_owned());
        }
        return;
    };
    if *part == "**" {
        descend(view, at, rest, depth, limit, budget, found);
        if depth > 0 {
            for name in view.list(at, 256) {
                let child = at.join(name);
                let real_dir = view.realpath(&child).is_ok_and(|real| real == child)
                    && view.metadata(&child).is_ok_and(|m| m.is_dir());
                if real_dir {
                    descend(view, &child, parts, depth - 1, limit, budget, found);
                }
            }
        }
    } else if part.contains(['*', '?']) {
        for name in view.list(at, 1024) {
            if component_matches(part, &name.to_string_lossy()) {
                descend(view, &at.join(name), rest, depth, limit, budget, found);
            }
        }
    } else {
        descend(view, &at.join(part), rest, depth, limit, budget, found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn templates_are_filled_in() {
        let mut vars = Vars::home("/home/ada");
        vars.set("CODEX_HOME", "/srv/codex");
        vars.set("EMPTY", "");
        for (template, expected) in [
            ("~/.aws/credentials", Some("/home/ada/.aws/credentials")),
            (
                "${CODEX_HOME:-~/.codex}/config.toml",
                Some("/srv/codex/config.toml"),
            ),
            (
                "${XDG_CONFIG_HOME:-~/.config}/gh",
                Some("/home/ada/.config/gh"),
            ),
            (
                "${GH:-${XDG:-~/.config}/gh}/hosts.yml",
                Some("/home/ada/.config/gh/hosts.yml"),
            ),
            ("${EMPTY:-/x}/y", Some("/x/y")),
            ("${NOT_SET}/y", None),
            ("${HOME}/y", Some("/home/ada/y")),
            ("/a/~/b", Some("/a/~/b")),
            ("${broken", None),
        ] {
            assert_eq!(vars.expand(template).as_deref(), expected, "{template}");
        }
        assert_eq!(
            variables_of("${A:-~/x}/${HOME}/${B}").collect::<Vec<_>>(),
            ["A", "B"]
        );
    }

    #[test]
    fn groups_are_spelt_out() {
        assert_eq!(alternatives("x"), ["x"]);
        assert_eq!(alternatives("{a,b}/{c,d}"), ["a/c", "a/d", "b/c", "b/d"]);
        assert_eq!(alternatives("{a"), ["{a"]);
    }

    #[test]
    fn globs_match_by_component() {
        for (pattern, path, expected) in [
            ("**/bin/codex", "/usr/lib/x/bin/codex", true),
            ("**/bin/codex", "/bin/codex", true),
            ("**/bin/codex", "/x/sbin/codex", false),
            ("**/versions/*", "/h/versions/1.2.3", true),
            ("**/versions/*", "/h/versions/1.2.3/x", false),
            (
                "**/@openai/codex*/vendor/**/codex",
                "/n/@openai/codex-linux-x64/vendor/a/b/codex",
                true,
            ),
            ("/a/?b", "/a/xb", true),
            ("/a/?b", "/a//b", false),
            ("**", "/anything/at/all", true),
        ] {
            assert_eq!(glob_matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn files_are_found_without_following_links_downwards() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b/c")).unwrap();
        std::fs::write(root.join("a/b/c/.mcp.json"), "{}").unwrap();
        std::fs::write(root.join("a/.mcp.json"), "{}").unwrap();
        std::os::unix::fs::symlink(&root, root.join("a/loop")).unwrap();
        let pattern = format!("{}/**/.mcp.json", root.display());
        let found = glob_files(&FsView::host(), &pattern, 10);
        assert_eq!(
            found,
            [root.join("a/.mcp.json"), root.join("a/b/c/.mcp.json")]
        );
        assert_eq!(glob_files(&FsView::host(), &pattern, 1).len(), 1);
    }

    proptest! {
        #[test]
        fn a_text_matches_itself_and_stars(path in "(/[a-z.]{0,5}){1,6}") {
            prop_assert!(glob_matches(&path, &path));
            prop_assert!(glob_matches("**", &path));
        }

        #[test]
        fn any_pattern_terminates(pattern in "[a*?/]{0,40}", path in "[a/]{0,60}") {
            let _ = glob_matches(&pattern, &path);
        }

        #[test]
        fn any_template_terminates(template in "[~$a-z{}:/-]{0,40}") {
            let _ = Vars::home("/h").expand(&template);
        }
    }
}
