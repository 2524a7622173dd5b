//! The files of a job: what an input's pattern matches, and whether two names of the job file mean one file.
//!
//! The partitions of an input are its matches in bytewise order of their paths. A pattern that matches
//! nothing, and a match that is not a regular file, are refused: both would otherwise look like an input
//! without records.

use glob::{MatchOptions, Pattern};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// One file of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Its path relative to the job file's directory (absolute where the pattern is): what bindings record.
    pub name: String,
    /// Its path for this process.
    pub path: PathBuf,
    /// Its length when it was found, bytes.
    pub bytes: u64,
}

/// `*` matches no leading dot, so that progress logs, which lie beside outputs, are never taken for input.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// The files that `pattern`, relative to `directory`, matches, in bytewise order. The error says what is
/// wrong.
pub fn matching(directory: &Path, pattern: &str) -> Result<Vec<InputFile>, String> {
    let matches = glob::glob_with(&absolute(directory, pattern)?, OPTIONS)
        .map_err(|error| format!("`{pattern}` is not a pattern: {}", error.msg))?;
    let mut files = Vec::new();
    for found in matches {
        let path = found.map_err(|error| format!("{}: {}", error.path().display(), error.error()))?;
        let name = path.strip_prefix(directory).unwrap_or(&path);
        let name = name
            .to_str()
            .ok_or_else(|| format!("{}: its name is not UTF-8", path.display()))?
            .to_owned();
        let metadata = std::fs::metadata(&path).map_err(|error| format!("{name}: {error}"))?;
        if metadata.is_dir() {
            return Err(format!("{name} is a directory"));
        }
        if !metadata.is_file() {
            return Err(format!("{name} is not a regular file"));
        }
        files.push(InputFile {
            name,
            bytes: metadata.len(),
            path,
        });
    }
    if files.is_empty() {
        return Err(format!("`{pattern}` matches no file"));
    }
    files.sort_by(|left, right| {
        left.path
            .as_os_str()
            .as_bytes()
            .cmp(right.path.as_os_str().as_bytes())
    });
    Ok(files)
}

/// Whether an input's pattern would match this path, now or once the file is there.
pub fn would_match(directory: &Path, pattern: &str, path: &Path) -> bool {
    let pattern = absolute(directory, pattern)
        .ok()
        .map(|pattern| plain(Path::new(&pattern)));
    let pattern = pattern.and_then(|pattern| Pattern::new(&pattern.to_string_lossy()).ok());
    pattern.is_some_and(|pattern| pattern.matches_path_with(&plain(path), OPTIONS))
}

/// The pattern with the directory, whose own name is no pattern, in front.
fn absolute(directory: &Path, pattern: &str) -> Result<String, String> {
    if Path::new(pattern).is_absolute() {
        return Ok(pattern.to_owned());
    }
    let directory = directory
        .to_str()
        .ok_or_else(|| format!("{}: its name is not UTF-8", directory.display()))?;
    Ok(format!("{}/{pattern}", Pattern::escape(directory)))
}

/// A longer chain of links is a circle, to the system too.
const LINKS_MAX: usize = 40;

/// What two names of one file have in common: the path without links as far as it exists, and plain beyond.
/// A link to what does not exist yet stands for that: it is where a file made by this name will be.
pub fn identity(path: &Path) -> PathBuf {
    let mut path = plain(path);
    for _ in 0..LINKS_MAX {
        let (Some(above), Ok(target)) = (path.parent(), path.read_link()) else {
            break;
        };
        path = plain(&existing(above.to_path_buf()).join(target));
    }
    existing(path)
}

/// The path without links as far as it exists.
fn existing(path: PathBuf) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            return match path.strip_prefix(ancestor) {
                Ok(rest) if rest.as_os_str().is_empty() => real,
                Ok(rest) => real.join(rest),
                Err(_) => path,
            };
        }
    }
    path
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}
