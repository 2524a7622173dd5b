//! Locks: no two processes write one state directory or one output.
//!
//! Files know no fence, so every process that writes holds `flock` on the state directory's `lock` file and
//! on the progress log of each of its file shards for as long as it lives. The system frees the lock when the
//! process dies, however it dies; descriptors are close-on-exec, so no child keeps it alive.
//!
//! A log may be replaced by rename while somebody waits for it. Whoever gets the lock therefore checks that
//! the path still leads to the file it locked, and starts over if it does not.

use crate::error::{Error, Kind, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// The orphans of a killed cluster leave within two seconds; `flock` has no timeout, so it is asked this
/// often ...
const ATTEMPTS: u32 = 100;

/// ... with this much between.
const BETWEEN: Duration = Duration::from_millis(20);

/// Opens the file, creating it if need be, and locks it. Held by somebody for two seconds: `AnotherInstance`.
pub fn lock(path: &Path) -> Result<File> {
    lock_within(path, ATTEMPTS)
}

/// Locks a state directory on a local disk, creating it if need be, leaves the own process id in its `lock`
/// file, and removes what a process killed in the middle of a put left there.
pub fn lock_state(directory: &Path) -> Result<File> {
    std::fs::create_dir_all(directory).map_err(|error| write_failed(directory, &error))?;
    let path = directory.join("lock");
    let mut file = lock(&path)?;
    let pid = std::process::id().to_string();
    let written = file.set_len(0).and_then(|()| file.write_all(pid.as_bytes()));
    written.map_err(|error| write_failed(&path, &error))?;
    for folder in ["claims", "manifests", "chunks"] {
        sweep(&directory.join(folder))?;
    }
    Ok(file)
}

/// Removes staged objects: the store writes `name#1` and links it to `name` once it is whole.
fn sweep(folder: &Path) -> Result<()> {
    // A folder that does not exist yet holds nothing; one that cannot be read is found out by the store.
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains('#'))
    {
        std::fs::remove_file(entry.path()).map_err(|error| write_failed(&entry.path(), &error))?;
    }
    Ok(())
}

/// The error of a durable write that failed. After it nothing more is written.
pub fn write_failed(path: &Path, error: &std::io::Error) -> Error {
    Error::new(
        Kind::WriteFailed,
        format!("cannot write {}: {error}", path.display()),
    )
}

fn lock_within(path: &Path, attempts: u32) -> Result<File> {
    LazyLock::force(&FILE_SIZE_SIGNAL).clone()?;
    let failed = |error: std::io::Error| write_failed(path, &error);
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(path).map_err(failed)?;
    for attempt in 1..=attempts {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if leads_to(path, &file).map_err(failed)? => return Ok(file),
            Ok(()) => file = options.open(path).map_err(failed)?,
            Err(Errno::WOULDBLOCK | Errno::INTR) if attempt < attempts => std::thread::sleep(BETWEEN),
            Err(Errno::WOULDBLOCK | Errno::INTR) => break,
            Err(error) => return Err(failed(error.into())),
        }
    }
    let message = format!(
        "{} is in use by {}; stop it first",
        path.display(),
        holder(&mut file)
    );
    Err(Error::new(Kind::AnotherInstance, message))
}

/// Whether the path still names this very file.
fn leads_to(path: &Path, file: &File) -> std::io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Who wrote its process id into the file; a progress log holds none.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file
        .take(20)
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse::<u32>().ok())
    {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

/// A write past `RLIMIT_FSIZE` raises SIGXFSZ, which kills by default. With a handler, whatever it does, the
/// write returns EFBIG instead, and is reported with its file like a full disk.
static FILE_SIZE_SIGNAL: LazyLock<Result<()>> = LazyLock::new(|| {
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)))
        .map(|_| ())
        .map_err(|error| Error::internal(format!("cannot handle SIGXFSZ: {error}")))
});

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn second_holder_is_refused_and_told_who_holds() {
        let scratch = Scratch::new();
        let held = lock_state(scratch.path()).unwrap();
        let refused = lock_within(&scratch.path().join("lock"), 1).unwrap_err();
        assert_eq!(refused.kind, Kind::AnotherInstance);
        assert!(
            refused
                .message
                .contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(held);
        lock_within(&scratch.path().join("lock"), 1).unwrap();
    }

    /// The file that was locked is no longer the one the path names: the lock would protect nothing.
    #[test]
    fn lock_follows_a_rename() {
        let scratch = Scratch::new();
        let (path, other) = (scratch.path().join("log"), scratch.path().join("log.new"));
        let old = lock_within(&path, 1).unwrap();
        let new = lock_within(&other, 1).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(!leads_to(&path, &old).unwrap());
        drop(old);
        assert_eq!(
            lock_within(&path, 2).unwrap_err().kind,
            Kind::AnotherInstance,
            "the new file is locked"
        );
        drop(new);
        lock_within(&path, 1).unwrap();
    }

    #[test]
    fn half_written_objects_are_swept() {
        let scratch = Scratch::new();
        let chunks = scratch.path().join("chunks");
        std::fs::create_dir(&chunks).unwrap();
        std::fs::write(chunks.join("03-1-7#1"), "half").unwrap();
        std::fs::write(chunks.join("03-1-7"), "whole").unwrap();
        let _held = lock_state(scratch.path()).unwrap();
        let left: Vec<_> = std::fs::read_dir(&chunks)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["03-1-7"]);
    }

    #[test]
    fn unwritable_place_is_a_failed_write() {
        let scratch = Scratch::new();
        std::fs::write(scratch.path().join("file"), "").unwrap();
        assert_eq!(
            lock_state(&scratch.path().join("file/state")).unwrap_err().kind,
            Kind::WriteFailed
        );
    }
}
