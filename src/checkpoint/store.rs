//! The state store: named objects that are put once, read, listed and deleted. Nothing is ever overwritten.
//!
//! [`Store`] is the seam for injected failures ([`super::unreliable`]); [`open`] gives the real one, which is
//! `object_store` on a local directory or at a URL ([`objects`]), blocking, on a runtime of its own.
//!
//! Every answer is one of four: done, [`AlreadyThere`](StoreError::AlreadyThere),
//! [`Failed`](StoreError::Failed) (it did not happen) or [`Unknown`](StoreError::Unknown) (it may have;
//! [`Unreachable`](StoreError::Unreachable) where that is known to be the reason).
//! Callers use [`publish`], [`fetch`] and [`names`], which settle an unknown outcome by reading back and
//! never guess. That is sound because names are unique to a generation and contents to a process (claims
//! carry a nonce): equal bytes under our name are our bytes.

use super::objects;
use crate::error::{Error, Kind, Result};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use std::sync::Arc;
use tokio::runtime::Runtime;

/// How often an answer that says nothing is asked for again before the job stops.
const ATTEMPTS: usize = 4;

/// What a store may answer beside success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// An object of that name exists; nothing was done.
    #[error("{0} is already there")]
    AlreadyThere(String),
    /// It did not happen, for this reason.
    #[error("{0}")]
    Failed(String),
    /// It may have happened or not.
    #[error("{0}")]
    Unknown(String),
    /// The same, for nobody answers there.
    #[error("{0}")]
    Unreachable(String),
}

/// A store of objects. Names are `name` or `folder/name`.
pub trait Store: Send + Sync {
    /// Puts an object, durably, unless one of that name exists.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;
    /// Reads an object; none if it does not exist.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// The names of the objects in a folder, ascending, without the folder.
    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError>;
    /// Deletes an object; deleting one that is not there is success.
    fn delete(&self, name: &str) -> Result<(), StoreError>;
}

/// Whose object stands under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Ours.
    Ours,
    /// Somebody else was first.
    Theirs,
}

/// Opens the store of a job's `state`: a directory, created when missing, or a URL ([`objects`]).
pub fn open(state: &str) -> Result<Arc<dyn Store>> {
    let (objects, prefix) = objects::connect(state)?;
    // One thread drives it, and one more runs what blocks on a disk.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .thread_name("store")
        .build()
        .map_err(|error| Error::internal(format!("cannot make the store's runtime: {error}")))?;
    Ok(Arc::new(Objects {
        objects,
        prefix,
        runtime,
    }))
}

/// Puts an object if its name is free and says whose stands there. An unknown outcome is settled by reading
/// back.
pub fn publish(store: &dyn Store, name: &str, bytes: &[u8]) -> Result<Published> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match store.put_new(name, bytes) {
            Ok(()) => return Ok(Published::Ours),
            Err(StoreError::Failed(reason)) => return Err(unwritten(name, &reason)),
            // Also where an earlier attempt of ours, reported as unknown, came through after all.
            Err(
                StoreError::AlreadyThere(reason)
                | StoreError::Unknown(reason)
                | StoreError::Unreachable(reason),
            ) => last = reason,
        }
        match fetch(store, name)? {
            Some(there) if there == bytes => return Ok(Published::Ours),
            Some(_) => return Ok(Published::Theirs),
            None => {}
        }
    }
    Err(unwritten(name, &last))
}

/// Reads an object; none if it does not exist.
pub fn fetch(store: &dyn Store, name: &str) -> Result<Option<Vec<u8>>> {
    again(|| store.get(name)).map_err(|error| unread(name, &error))
}

/// The names in a folder, ascending.
pub fn names(store: &dyn Store, folder: &str) -> Result<Vec<String>> {
    again(|| store.list(folder)).map_err(|error| unread(folder, &error))
}

/// The numbers that are names in a folder, ascending; what is no number is not ours and is left alone.
pub fn numbers(store: &dyn Store, folder: &str) -> Result<Vec<u64>> {
    Ok(names(store, folder)?
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect())
}

/// Asks again while the answer says nothing; only for questions, and for what may be done twice.
fn again<T>(mut ask: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut answer = ask();
    for _ in 1..ATTEMPTS {
        match answer {
            // Who cannot be reached was tried for a while already.
            Err(StoreError::Unknown(_)) => answer = ask(),
            settled => return settled,
        }
    }
    answer
}

fn unwritten(name: &str, reason: &str) -> Error {
    Error::new(
        Kind::WriteFailed,
        format!("cannot write {name} to the state store: {reason}"),
    )
}

fn unread(name: &str, error: &StoreError) -> Error {
    let kind = match error {
        StoreError::Unreachable(_) => Kind::Unreachable,
        StoreError::AlreadyThere(_) | StoreError::Failed(_) | StoreError::Unknown(_) => Kind::StateDamaged,
    };
    Error::new(kind, format!("cannot read {name} from the state store: {error}"))
}

/// A store on `object_store`.
struct Objects {
    objects: Box<dyn ObjectStore>,
    prefix: Location,
    runtime: Runtime,
}

impl Objects {
    fn location(&self, name: &str) -> Location {
        name.split('/')
            .fold(self.prefix.clone(), |location, part| location.join(part))
    }
}

/// Which errors prove that nothing happened. A failed local write may have been linked before its sync
/// failed.
fn classify(error: object_store::Error) -> StoreError {
    match error {
        object_store::Error::AlreadyExists { path, .. } => StoreError::AlreadyThere(path),
        object_store::Error::InvalidPath { .. }
        | object_store::Error::NotSupported { .. }
        | object_store::Error::NotImplemented { .. }
        | object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => StoreError::Failed(with_causes(&error)),
        other if is_unreachable(&other) => StoreError::Unreachable(with_causes(&other)),
        other => StoreError::Unknown(with_causes(&other)),
    }
}

/// Whether a request found nobody, or no answer in time.
fn is_unreachable(error: &(dyn std::error::Error + 'static)) -> bool {
    use HttpErrorKind::{Connect, Timeout};
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<HttpError>())
        .any(|cause| matches!(cause.kind(), Connect | Timeout))
}

/// The error and its causes on one line: the errno is the last of them.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let own = error.to_string();
        if !text.contains(&own) {
            text.push_str(": ");
            text.push_str(&own);
        }
        cause = error.source();
    }
    text
}

impl Store for Objects {
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (location, payload) = (self.location(name), PutPayload::from(bytes.to_vec()));
        let put = self.objects.put_opts(&location, payload, PutMode::Create.into());
        self.runtime.block_on(put).map(|_| ()).map_err(classify)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let location = self.location(name);
        let read = async { self.objects.get(&location).await?.bytes().await };
        match self.runtime.block_on(read) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(classify(error)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let location = self.location(folder);
        let list = self.objects.list_with_delimiter(Some(&location));
        let objects = self.runtime.block_on(list).map_err(classify)?.objects;
        let mut names: Vec<_> = objects
            .iter()
            .filter_map(|object| object.location.filename().map(str::to_owned))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let location = self.location(name);
        match self.runtime.block_on(self.objects.delete(&location)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(classify(error)),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// The contract of [`Store`], for every kind that is compiled in.
    #[test]
    fn every_store_keeps_the_contract() {
        let scratch = Scratch::new();
        let directory = scratch.path().join("new/state").to_string_lossy().into_owned();
        let url = format!("file://{directory}-2");
        for state in [directory.as_str(), url.as_str(), "memory:///"] {
            let store = open(state).unwrap();
            assert_eq!(store.list("claims").unwrap(), Vec::<String>::new(), "{state}");
            assert_eq!(store.get("claims/2").unwrap(), None);
            store.put_new("claims/2", b"two").unwrap();
            store.put_new("claims/1", b"").unwrap();
            assert!(
                matches!(
                    store.put_new("claims/2", b"other"),
                    Err(StoreError::AlreadyThere(_))
                ),
                "{state}"
            );
            assert_eq!(store.get("claims/2").unwrap().as_deref(), Some(&b"two"[..]));
            assert_eq!(store.list("claims").unwrap(), ["1", "2"]);
            assert_eq!(store.list("chunks").unwrap(), Vec::<String>::new());
            store.delete("claims/1").unwrap();
            store.delete("claims/1").unwrap();
            assert_eq!(store.list("claims").unwrap(), ["2"]);
        }
    }

    #[test]
    fn one_of_two_threads_wins_a_name() {
        let scratch = Scratch::new();
        for round in 0..50 {
            let name = format!("manifests/{round}");
            let contenders = [1_u8, 2].map(|who| {
                let (store, name) = (open(&scratch.path().to_string_lossy()).unwrap(), name.clone());
                let race = move || publish(store.as_ref(), &name, &[who]).unwrap();
                std::thread::Builder::new()
                    .name(format!("racer-{who}"))
                    .spawn(race)
                    .unwrap()
            });
            let won = contenders.map(|thread| thread.join().unwrap() == Published::Ours);
            assert!(won[0] ^ won[1], "exactly one wins: {won:?}");
        }
    }

    #[test]
    fn unwritable_directory_is_a_failed_write() {
        let scratch = Scratch::new();
        std::fs::write(scratch.path().join("file"), "").unwrap();
        let state = scratch.path().join("file/state");
        assert_eq!(
            open(&state.to_string_lossy()).err().unwrap().kind,
            Kind::WriteFailed
        );
    }
}
