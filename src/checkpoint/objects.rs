//! Where a `state` lies: from a path or a URL to the `object_store` that keeps it.
//!
//! ```text
//!  state/alerts, file:///srv/state   a local directory, synced, with a lock
//!  s3://bucket/path                  Amazon S3 and what speaks its language   AWS_*
//!  gs://bucket/path                  Google Cloud Storage                     GOOGLE_*
//!  az://container/path               Azure Blob Storage                       AZURE_*
//!  memory:///                        gone with the process: for tests
//! ```
//!
//! Credentials, region and endpoint are read from the environment, under the names in the last column as
//! `object_store` documents them (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, ...), so no secret stands in a job file.
//! The aliases that `object_store` knows for these (`s3a`, `abfss`, `https` to one of their hosts) are taken too.
//!
//! **Put-if-absent** is decided by the store itself, in one step, on each of them: a hard link on a local
//! disk, `If-None-Match: *` on S3 and Azure, generation 0 on Google. `object_store` 0.14 sends it to S3 unless
//! `AWS_CONDITIONAL_PUT` says otherwise; here nothing can say otherwise. Assumed, for nobody could tell before
//! it is too late: a store that speaks S3's language keeps this header. A plain HTTP store (WebDAV) has no
//! such put and is refused.
//!
//! Only a local directory can be locked. Elsewhere the claims alone keep two starts apart, beside the locks
//! on the output files.

use super::lock::write_failed;
use crate::error::{Error, Kind, Result};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreScheme, RetryConfig};
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// How often a request is sent again before it counts as unanswered, about 1.5 s with the pauses in between.
/// The store's own callers ask a few times more.
const RETRIES: usize = 4;

/// After this long a request is not sent again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// The directory of a `state` on a local disk, where a lock can be held; none for other URLs.
pub fn local_directory(state: &str) -> Option<PathBuf> {
    match state.contains("://") {
        false => Some(Path::new(state).to_owned()),
        true => Url::parse(state)
            .ok()
            .filter(|url| url.scheme() == "file")?
            .to_file_path()
            .ok(),
    }
}

/// Why no store is known by this URL, or none that can keep a state; none for others and for paths. Looks at
/// the text alone.
pub fn refusal(state: &str) -> Option<String> {
    state.contains("://").then(|| recognised(state).err()).flatten()
}

/// The kind of store and the place in it.
fn recognised(url: &str) -> Result<(ObjectStoreScheme, Location), String> {
    const KNOWN: &str = "use a directory, file://, s3://, gs:// or az://";
    let parsed = Url::parse(url).map_err(|error| format!("`{url}`: {error}"))?;
    match ObjectStoreScheme::parse(&parsed) {
        Ok((ObjectStoreScheme::Http, _)) => Err(format!(
            "`{url}`: a plain HTTP store cannot put an object only if it is absent: {KNOWN}"
        )),
        Ok(recognised) => Ok(recognised),
        Err(_) => Err(format!("`{url}` is no store that is known: {KNOWN}")),
    }
}

/// The store of a job's `state`, and the place in it. A local directory is created when missing; nothing is
/// asked of any other store yet.
pub fn connect(state: &str) -> Result<(Box<dyn ObjectStore>, Location)> {
    if let Some(directory) = local_directory(state) {
        std::fs::create_dir_all(&directory).map_err(|error| write_failed(&directory, &error))?;
        let local = LocalFileSystem::new_with_prefix(&directory);
        let local = local.map_err(|error| refused(state, &error.to_string()))?;
        return Ok((Box::new(local.with_fsync(true)), Location::default()));
    }
    let (scheme, location) = recognised(state).map_err(|reason| refused(state, &reason))?;
    let store = build(&scheme, state).map_err(|error| refused(state, &super::store::with_causes(&error)))?;
    Ok((store, location))
}

fn refused(state: &str, reason: &str) -> Error {
    Error::new(Kind::Configuration, format!("state = \"{state}\": {reason}"))
}

fn build(scheme: &ObjectStoreScheme, url: &str) -> object_store::Result<Box<dyn ObjectStore>> {
    // The one TLS library of the program; an earlier store has installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig {
        max_retries: RETRIES,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    Ok(match scheme {
        ObjectStoreScheme::Memory => Box::new(InMemory::new()),
        ObjectStoreScheme::AmazonS3 => Box::new(
            AmazonS3Builder::from_env()
                .with_url(url)
                .with_conditional_put(S3ConditionalPut::ETagMatch)
                .with_retry(retry)
                .build()?,
        ),
        ObjectStoreScheme::GoogleCloudStorage => Box::new(
            GoogleCloudStorageBuilder::from_env()
                .with_url(url)
                .with_retry(retry)
                .build()?,
        ),
        ObjectStoreScheme::MicrosoftAzure => Box::new(
            MicrosoftAzureBuilder::from_env()
                .with_url(url)
                .with_retry(retry)
                .build()?,
        ),
        // Local directories are opened by their path, HTTP was refused.
        other => {
            return Err(object_store::Error::NotSupported {
                source: format!("{other:?} is not compiled in").into(),
            });
        }
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn urls_are_recognised_by_what_can_put_if_absent() {
        for url in [
            "file:///state",
            "memory:///",
            "s3://bucket/a/b",
            "gs://bucket",
            "az://container/a",
            "https://s3.eu-west-1.amazonaws.com/bucket/a",
        ] {
            assert_eq!(refusal(url), None, "{url}");
        }
        for (url, reason) in [
            ("http://host/a", "only if it is absent"),
            ("https://host/a", "only if it is absent"),
            ("nowhere://bucket/a", "no store that is known"),
            ("file://host/a", "no store that is known"),
            ("s3://", "no store that is known"),
        ] {
            let refusal = refusal(url).unwrap_or_default();
            assert!(refusal.contains(reason), "{url}: {refusal}");
        }
    }

    /// Nothing is asked of a store that is only built, so this needs no network.
    #[test]
    fn every_kind_of_store_is_built_with_its_place() {
        let azure = "https://account.blob.core.windows.net/container/a/b";
        for (url, shown) in [("s3://bucket/a/b", "AmazonS3"), (azure, "MicrosoftAzure")] {
            let (store, location) = connect(url).unwrap();
            assert!(store.to_string().starts_with(shown), "{store}");
            assert_eq!(location.as_ref(), "a/b");
        }
        assert_eq!(
            connect("nowhere://bucket/state").err().unwrap().kind,
            Kind::Configuration
        );
    }
}
