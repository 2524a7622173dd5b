//! TLS with certificates of both sides.

use std::path::PathBuf;

/// The certificate of a process, its key, and the authority that every peer's certificate must be of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// PEM file: the own certificate, then those between it and the authority, if any.
    pub certificate: PathBuf,
    /// PEM file: its private key.
    pub key: PathBuf,
    /// PEM file: the authority's certificates. A peer's certificate counts for any of the cluster's hosts.
    pub authority: PathBuf,
}
