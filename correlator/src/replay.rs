//! Recorded inputs as files: written by `export`, replayed by `replay`.
//!
//! Format: one JSON object a line. The first line may be `{"settings":{...}}`; every other line is
//! an input. The same file gives the same output, bit for bit.

use std::io::{BufRead, Write};
use std::path::Path;

use keytrail_join::{Effect, Input, Settings};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::partition::Engine;
use crate::store::{Reader, StoreError};

/// Why a replay or an export failed.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// A line is no input.
    #[error("line {line}: {source}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// An output line could not be written.
    #[error("writing: {0}")]
    Write(#[source] serde_json::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    settings: Settings,
}

/// Applies recorded inputs to a fresh operator; writes each effect as a JSON line.
///
/// # Errors
/// At the first line that is no input, or when reading or writing fails.
pub fn replay(input: impl BufRead, mut output: impl Write) -> Result<(), ReplayError> {
    let mut engine = Engine::new(Settings::default());
    let mut effects: Vec<Effect> = Vec::new();
    for (at, line) in input.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        if at == 0
            && let Ok(header) = serde_json::from_str::<Header>(&line)
        {
            engine = Engine::new(header.settings);
            continue;
        }
        let input: Input = serde_json::from_str(&line).map_err(|source| ReplayError::Line {
            line: at + 1,
            source,
        })?;
        engine.apply(&input, &mut effects);
        for effect in effects.drain(..) {
            serde_json::to_writer(&mut output, &effect).map_err(ReplayError::Write)?;
            output.write_all(b"\n")?;
        }
    }
    Ok(output.flush()?)
}

/// Writes the inputs recorded in `data_dir`, under `settings`. A correlator may be running there:
/// what it records meanwhile is left out.
///
/// # Errors
/// When the store cannot be opened or read, or writing fails.
pub fn export(
    data_dir: &Path,
    settings: Settings,
    mut output: impl Write,
) -> Result<(), ReplayError> {
    let reader = Reader::of_dir(data_dir)?;
    serde_json::to_writer(&mut output, &Header { settings }).map_err(ReplayError::Write)?;
    output.write_all(b"\n")?;
    reader.inputs(|input| {
        serde_json::to_writer(&mut output, &input).map_err(ReplayError::Write)?;
        output.write_all(b"\n")?;
        Ok::<(), ReplayError>(())
    })?;
    Ok(output.flush()?)
}
