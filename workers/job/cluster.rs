//! The `[cluster]` section: how the processes of a job find and trust one another. Nothing a result depends on.

use super::kafka::IN_CLEAR;
use super::table::Table;
use std::path::Path;
use std::time::Duration;
use tidegate::cluster::secure::Certificates;
use tidegate::limits::{CLUSTER_START_TIMEOUT_MS, SECRET_BYTES_MIN, STALL};
use tidegate::secret::Secret;

/// An hour is longer than anybody waits.
const TIMEOUTS_MS: std::ops::RangeInclusive<i64> = 1..=3_600_000;

/// What the processes of a job share beside the job itself.
#[derive(Clone, Debug)]
pub struct Processes {
    /// Known to all of them; none: the environment has it.
    pub secret: Option<Secret>,
    /// TLS with certificates of both sides, from files by absolute paths.
    pub certificates: Option<Certificates>,
    /// How long a start waits for all of them.
    pub start_timeout: Duration,
    /// A worker that makes no progress for so long has stalled.
    pub stall_timeout: Duration,
}

impl Default for Processes {
    fn default() -> Self {
        Processes {
            secret: None,
            certificates: None,
            start_timeout: Duration::from_millis(CLUSTER_START_TIMEOUT_MS),
            stall_timeout: STALL,
        }
    }
}

/// Reads `[cluster]`; paths are relative to `directory`.
pub fn processes(mut section: Table<'_>, directory: &Path) -> Processes {
    let is_reference = section.is_reference("secret");
    let secret = section.string("secret");
    if let Some(secret) = &secret {
        if !is_reference {
            section.add(secret.at, "secret", IN_CLEAR);
        } else if secret.value.len() < SECRET_BYTES_MIN {
            let what = format!("it has fewer than {SECRET_BYTES_MIN} bytes and may be guessed");
            section.add(secret.at, "secret", what);
        }
    }
    let at = section.at;
    let files = ["certificate", "key", "authority"].map(|key| (key, section.string(key)));
    let named = files.iter().filter(|(_, file)| file.is_some()).count();
    for (key, _) in files.iter().filter(|(_, file)| named > 0 && file.is_none()) {
        section.add(at, key, "missing: TLS takes `certificate`, `key` and `authority`");
    }
    let [certificate, key, authority] = files.map(|(_, file)| file.map(|file| directory.join(file.value)));
    let certificates = certificate
        .zip(key)
        .zip(authority)
        .map(|((certificate, key), authority)| Certificates {
            certificate,
            key,
            authority,
        });
    let mut timeout = |key, default| {
        let timeout = section.integer(key, TIMEOUTS_MS);
        let timeout = timeout.and_then(|timeout| u64::try_from(timeout).ok());
        timeout.map_or(default, Duration::from_millis)
    };
    let default = Processes::default();
    let start_timeout = timeout("start_timeout_ms", default.start_timeout);
    let stall_timeout = timeout("stall_timeout_ms", default.stall_timeout);
    section.finish();
    Processes {
        secret: secret.map(|secret| Secret::new(secret.value)),
        certificates,
        start_timeout,
        stall_timeout,
    }
}
