//! Requests to a schema registry, and what its answers mean.
//!
//! ```text
//!   GET  /schemas/ids/{id}                          200: a schema · 404 with code 40403: there is none
//!   GET  /subjects/{subject}/versions/{version}     200: a schema that another one refers to
//!   POST /subjects/{subject}/versions               200: an id · 409: incompatible with earlier ones
//!   POST /subjects/{subject}                        200: an id · 404: not registered
//! ```
//!
//! One request, one [`Trouble`] at most; who asks again, and when, is [`super`]'s matter. Bodies are read up to
//! [`REGISTRY_ANSWER_BYTES`]. A 404 without the registry's own code means that the URL leads elsewhere.

use super::Settings;
use crate::error::{Error, Kind};
use crate::format::avro::Writer;
use crate::format::shorten;
use crate::limits::REGISTRY_ANSWER_BYTES;
use crate::secret::Secret;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use url::Url;

/// The registry's code for an id that it does not know.
const NO_SCHEMA: u32 = 40403;

/// Codes of a registry that does not know what was asked for; a server that is none answers 404 without them.
const NOT_FOUND: std::ops::Range<u32> = 40400..40500;

/// Most schemas that one schema refers to, directly or not.
const REFERENCES: usize = 256;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may be there later: one line for people.
    Unreachable(String),
    /// It will not be there before somebody changes something.
    Refused(Error),
}

/// A registry and how to talk to it.
pub(super) struct Client {
    agent: ureq::Agent,
    /// Without a slash at its end.
    url: String,
    /// The value of the header, which holds the password.
    authorization: Option<Secret>,
}

/// The answer to a request for a schema.
#[derive(Deserialize)]
struct Found {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    references: Option<Vec<Reference>>,
}

/// A schema that another one refers to.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord, Clone)]
struct Reference {
    subject: String,
    version: i64,
}

/// The answer to a request for an id.
#[derive(Deserialize)]
struct Registered {
    id: u32,
}

/// What a registry says when it does not do what was asked.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Complaint {
    error_code: u32,
    message: String,
}

impl Client {
    /// Checks the settings and reads the files that they name.
    pub fn new(settings: &Settings) -> Result<Client, Error> {
        let wrong = |text: &str| Error::new(Kind::Configuration, format!("schema registry: {text}"));
        let url = Url::parse(&settings.url).map_err(|error| wrong(&format!("its URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("its URL is http://host:port/path or https://..."));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "user and password do not belong into the URL, which is shown",
            ));
        }
        let authorization = settings.user.as_ref().map(|(user, password)| {
            let credentials = STANDARD.encode(format!("{user}:{}", password.reveal()));
            Secret::new(format!("Basic {credentials}"))
        });
        let config = ureq::Agent::config_builder()
            // A status is an answer like others.
            .http_status_as_error(false)
            // A redirect may lead to a host that shall not see the password.
            .max_redirects(0)
            .timeout_global(Some(settings.timeout))
            // What is reached does not depend on the environment.
            .proxy(None)
            .user_agent("tidegate")
            .tls_config(tls(settings)?)
            .build();
        Ok(Client {
            agent: config.new_agent(),
            url: settings.url.trim_end_matches('/').to_owned(),
            authorization,
        })
    }

    /// Where the registry is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The schema of an id; the inner error is that of a settled id, for dead letters.
    pub fn writer(&self, id: u32) -> Result<Result<Writer, String>, Trouble> {
        let (status, body) = self.send(&format!("/schemas/ids/{id}"), None)?;
        if status == 404 && complaint(&body).error_code == NO_SCHEMA {
            return Ok(Err(format!("the schema registry has no schema {id}")));
        }
        let found: Found = self.answer(status, &body)?;
        if let Some(kind) = found.kind.as_ref().filter(|kind| *kind != "AVRO") {
            return Ok(Err(shorten(format!("schema {id} is not Avro but {kind}"))));
        }
        let mut definitions = Vec::new();
        self.definitions(
            found.references.unwrap_or_default(),
            &mut BTreeSet::new(),
            &mut definitions,
        )?;
        let writer = Writer::parse(&found.schema, &definitions);
        Ok(writer.map_err(|error| shorten(format!("schema {id}: {error}"))))
    }

    /// The schemas that another one refers to, each after those that it refers to itself.
    fn definitions(
        &self,
        references: Vec<Reference>,
        known: &mut BTreeSet<Reference>,
        definitions: &mut Vec<String>,
    ) -> Result<(), Trouble> {
        for reference in references {
            if known.len() == REFERENCES || !known.insert(reference.clone()) {
                continue; // more are not fetched; the parser names what is then undefined
            }
            let Reference { subject, version } = reference;
            let path = format!("/subjects/{}/versions/{version}", encoded(&subject));
            let (status, body) = self.send(&path, None)?;
            let found: Found = self.answer(status, &body)?;
            self.definitions(found.references.unwrap_or_default(), known, definitions)?;
            definitions.push(found.schema);
        }
        Ok(())
    }

    /// Registers a schema and gives its id.
    pub fn register(&self, subject: &str, schema: &str) -> Result<u32, Trouble> {
        let (status, body) = self.post(&format!("/subjects/{}/versions", encoded(subject)), schema)?;
        let refused = |what: &str| {
            let reason = said(&body);
            refusal(format!("schema registry: subject '{subject}': {what}: {reason}"))
        };
        match status {
            409 => Err(refused("the schema is incompatible with an earlier one")),
            422 => Err(refused("the schema was not accepted")),
            _ => self.answer(status, &body).map(|Registered { id }| id),
        }
    }

    /// The id of a schema that is registered under a subject.
    pub fn look_up(&self, subject: &str, schema: &str) -> Result<u32, Trouble> {
        let (status, body) = self.post(&format!("/subjects/{}", encoded(subject)), schema)?;
        if status == 404 && NOT_FOUND.contains(&complaint(&body).error_code) {
            let text = "the schema is not registered: register it, or let Tidegate do so";
            return Err(refusal(format!("schema registry: subject '{subject}': {text}")));
        }
        self.answer(status, &body).map(|Registered { id }| id)
    }

    fn post(&self, path: &str, schema: &str) -> Result<(u16, Vec<u8>), Trouble> {
        let request = serde_json::json!({ "schema": schema }).to_string();
        self.send(path, Some(&request))
    }

    /// Sends a request (a GET if it has no body) and gives status and body of the answer.
    fn send(&self, path: &str, request: Option<&str>) -> Result<(u16, Vec<u8>), Trouble> {
        const JSON: &str = "application/vnd.schemaregistry.v1+json";
        let url = format!("{}{path}", self.url);
        let authorization = self.authorization.as_ref().map(Secret::reveal);
        let sent = match request {
            None => {
                let get = self.agent.get(&url).header("Accept", JSON);
                authorized(get, authorization).call()
            }
            Some(body) => {
                let post = self
                    .agent
                    .post(&url)
                    .header("Accept", JSON)
                    .header("Content-Type", JSON);
                authorized(post, authorization).send(body)
            }
        };
        let mut answer = sent.map_err(|error| self.trouble(&error))?;
        let body = answer
            .body_mut()
            .with_config()
            .limit(REGISTRY_ANSWER_BYTES)
            .read_to_vec();
        Ok((
            answer.status().as_u16(),
            body.map_err(|error| self.trouble(&error))?,
        ))
    }

    /// What to do about a request without an answer.
    fn trouble(&self, error: &ureq::Error) -> Trouble {
        let text = one_line(&format!("schema registry {}: {error}", self.url));
        let is_refused = match error {
            // A certificate that does not fit, or no TLS at the other end; the library wraps some of these.
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
            ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
            _ => false,
        };
        if is_refused {
            refusal(text)
        } else {
            Trouble::Unreachable(text)
        }
    }

    /// Reads an answer that is expected to be good.
    fn answer<'a, T: Deserialize<'a>>(&self, status: u16, body: &'a [u8]) -> Result<T, Trouble> {
        let url = &self.url;
        match status {
            200..300 => serde_json::from_slice(body).map_err(|error| {
                Trouble::Unreachable(format!("schema registry {url}: not a registry's answer: {error}"))
            }),
            408 | 429 | 500.. => {
                let text = format!("schema registry {url}: status {status}: {}", said(body));
                Err(Trouble::Unreachable(text))
            }
            401 | 403 => {
                let text = format!("schema registry {url}: it refuses our user or rights (status {status})");
                Err(refusal(text))
            }
            _ => {
                let text = format!(
                    "schema registry {url}: status {status}: {}; is the URL right?",
                    said(body)
                );
                Err(refusal(text))
            }
        }
    }
}

fn authorized<B>(request: ureq::RequestBuilder<B>, authorization: Option<&str>) -> ureq::RequestBuilder<B> {
    match authorization {
        Some(value) => request.header("Authorization", value),
        None => request,
    }
}

fn refusal(text: String) -> Trouble {
    Trouble::Refused(Error::new(Kind::Configuration, text))
}

/// What the answer of a registry complains about; nothing in particular if it is none of a registry's.
fn complaint(body: &[u8]) -> Complaint {
    serde_json::from_slice(body).unwrap_or_default()
}

/// The same as a line for people.
fn said(body: &[u8]) -> String {
    match complaint(body).message {
        message if message.is_empty() => "no reason given".to_owned(),
        message => one_line(&message),
    }
}

/// A foreign text, cut and on one line.
fn one_line(text: &str) -> String {
    let line = |letter: char| if letter.is_control() { ' ' } else { letter };
    shorten(text.chars().map(line).collect())
}

/// A subject as a segment of a path: every byte but letters, digits and `-._~` is written in percent.
fn encoded(subject: &str) -> String {
    let mut path = String::with_capacity(subject.len());
    for byte in subject.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                path.push(char::from(byte))
            }
            _ => drop(write!(path, "%{byte:02X}")), // into a String, which takes all
        }
    }
    path
}

/// Whom to trust, and who we are.
fn tls(settings: &Settings) -> Result<TlsConfig, Error> {
    let mut config = TlsConfig::builder();
    if let Some(path) = &settings.authorities {
        config = config.root_certs(RootCerts::new_with_certs(&certificates(path)?));
    }
    if let Some((chain, key)) = &settings.identity {
        let private = PrivateKey::from_pem(&read(key)?).map_err(|error| in_file(key, error))?;
        config = config.client_cert(Some(ClientCert::new_with_certs(&certificates(chain)?, private)));
    }
    Ok(config.build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let mut certificates = Vec::new();
    for item in parse_pem(&read(path)?) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| in_file(path, error))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(in_file(path, "no certificate in it"));
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| in_file(path, error))
}

fn in_file(path: &Path, error: impl std::fmt::Display) -> Error {
    let text = format!("schema registry: {}: {error}", path.display());
    Error::new(Kind::Configuration, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_written_in_percent() {
        assert_eq!(
            encoded("email-messages.v1_x~-value"),
            "email-messages.v1_x~-value"
        );
        assert_eq!(encoded("a/b ?#%é"), "a%2Fb%20%3F%23%25%C3%A9");
    }
}
