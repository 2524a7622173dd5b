//! What is wrong with a broker's certificate.
//!
//! librdkafka says of every certificate that it does not accept the same, and blames the authorities. Expired, of
//! another host, of an authority unknown to us: each has its own way out, so where librdkafka has refused one, a
//! handshake of our own is made to learn which it is. It decides nothing and nothing is sent over it.

use super::{REQUEST, Settings};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;

/// What is wrong with the certificate of the first broker whose certificate is not accepted; none if that
/// cannot be learnt, such as where the authorities are not in the file `ssl.ca.location`.
pub fn fault(settings: &Settings) -> Option<String> {
    let file = settings.properties.get("ssl.ca.location")?;
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).ok()? {
        authorities.add(certificate.ok()?).ok()?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    let config = Arc::new(config);
    let brokers = settings.brokers.split(',').map(str::trim);
    brokers
        .filter_map(|broker| Some((broker, of_broker(broker, &config)?)))
        .map(|(broker, error)| match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the certificate of {broker} has expired")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the certificate of {broker} is of another host")
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                format!("the certificate of {broker} is of no authority in {file}")
            }
            other => format!("the certificate of {broker} is not accepted: {other}"),
        })
        .next()
}

/// Why the certificate of a broker, `host:port`, is not accepted.
fn of_broker(broker: &str, config: &Arc<ClientConfig>) -> Option<CertificateError> {
    let (host, _) = broker.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let address = broker.to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, REQUEST / 5).ok()?;
    stream.set_read_timeout(Some(REQUEST / 5)).ok()?;
    stream.set_write_timeout(Some(REQUEST / 5)).ok()?;
    let name = ServerName::try_from(host).ok()?;
    let mut connection = ClientConnection::new(Arc::clone(config), name).ok()?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            let cause = error.get_ref()?.downcast_ref::<rustls::Error>()?;
            return match cause {
                rustls::Error::InvalidCertificate(error) => Some(error.clone()),
                _ => None,
            };
        }
    }
    None
}
