//! An object store that speaks as much of S3's language as a state needs, on a loopback port of its own.
//!
//! ```text
//!  tidegate ── PUT If-None-Match: * ─► 200 | 412    GET ─► 200 | 404    GET ?list-type=2    POST ?delete
//! ```
//!
//! It takes conditional puts only: a put without the condition would overwrite, is answered 400, and fails the run
//! that sent it. Signatures are not checked. What it holds is gone with the test.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Objects by key, without the bucket's name.
type Objects = BTreeMap<String, Vec<u8>>;

/// What it holds, and what a rival will have put there just before somebody else does.
#[derive(Default)]
struct Held {
    objects: Objects,
    rivals: Objects,
}

/// A running store with one bucket, `tide`.
pub struct Bucket {
    address: SocketAddr,
    held: Arc<Mutex<Held>>,
}

impl Bucket {
    /// Starts it; its threads end with the process.
    pub fn start() -> Bucket {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("a bound port");
        let held = Arc::new(Mutex::new(Held::default()));
        let serving = held.clone();
        let accept = move || {
            for connection in listener.incoming().flatten() {
                let held = serving.clone();
                let serve = move || while answer(&connection, &held).is_some() {};
                let thread = std::thread::Builder::new().name("bucket-connection".to_owned());
                thread.spawn(serve).expect("a thread");
            }
        };
        let thread = std::thread::Builder::new().name("bucket".to_owned());
        thread.spawn(accept).expect("a thread");
        Bucket { address, held }
    }

    /// Its objects, now.
    pub fn objects(&self) -> Objects {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.objects.clone()
    }

    /// The next put of this key finds that a rival was a moment earlier.
    pub fn rival(&self, key: &str, bytes: &[u8]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.rivals.insert(key.to_owned(), bytes.to_vec());
    }

    /// What a process that is to use it has in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(&self.address.to_string())
    }
}

/// The environment for a store at an address.
pub fn environment(address: &str) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT", format!("http://{address}").as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "tide"),
        ("AWS_SECRET_ACCESS_KEY", "gate"),
        // What a user may have set does not reach the puts.
        ("AWS_CONDITIONAL_PUT", "disabled"),
        ("NO_PROXY", "127.0.0.1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Reads one request and answers it; none when the other side has hung up.
fn answer(mut connection: &TcpStream, held: &Mutex<Held>) -> Option<()> {
    let mut reader = BufReader::new(connection);
    let mut line = || {
        let mut line = String::new();
        let length = reader.read_line(&mut line).ok()?;
        (length > 0).then(|| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = line()?.split_once(": ") {
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap_or(0));
    let mut body = vec![0; length];
    // One request at a time: what was buffered is all of it.
    reader.read_exact(&mut body).ok()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let key = path.strip_prefix("/tide")?.trim_start_matches('/');
    let is_conditional = headers.get("if-none-match").is_some_and(|value| value == "*");
    let held = &mut *held.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, body) = match (method, key) {
        ("PUT", _) => (put(held, key, body, is_conditional), Vec::new()),
        ("GET", "") => ("200 OK", listed(&held.objects, &prefix(query)).into_bytes()),
        ("GET", _) => held
            .objects
            .get(key)
            .map_or(("404 Not Found", Vec::new()), |object| ("200 OK", object.clone())),
        ("POST", "") => (
            "200 OK",
            deleted(&mut held.objects, &String::from_utf8_lossy(&body)),
        ),
        _ => ("405 Method Not Allowed", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"e\"\r\nLast-Modified: {MODIFIED}\r\n\r\n",
        body.len()
    );
    connection.write_all(&[head.as_bytes(), &body].concat()).ok()
}

/// Nobody asks when.
const MODIFIED: &str = "Fri, 31 Jan 2025 00:00:00 GMT";

fn put(held: &mut Held, key: &str, body: Vec<u8>, is_conditional: bool) -> &'static str {
    held.objects.extend(held.rivals.remove_entry(key));
    match (is_conditional, held.objects.contains_key(key)) {
        (false, _) => "400 Bad Request",
        (true, true) => "412 Precondition Failed",
        (true, false) => {
            held.objects.insert(key.to_owned(), body);
            "200 OK"
        }
    }
}

/// The prefix that a listing asks for.
fn prefix(query: &str) -> String {
    let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix="));
    prefix.unwrap_or_default().replace("%2F", "/")
}

fn listed(objects: &Objects, prefix: &str) -> String {
    let below = objects.iter().filter(|(key, _)| key.starts_with(prefix));
    let content = |(key, object): (&String, &Vec<u8>)| {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2025-01-31T00:00:00.000Z</LastModified>\
             <ETag>\"e\"</ETag><Size>{}</Size></Contents>",
            object.len()
        )
    };
    let contents: String = below.map(content).collect();
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
}

/// Deletes every key that the request names.
fn deleted(objects: &mut Objects, request: &str) -> Vec<u8> {
    let keys = request
        .split("<Key>")
        .skip(1)
        .filter_map(|rest| rest.split("</Key>").next());
    let mut answer = String::from("<DeleteResult>");
    for key in keys {
        objects.remove(key);
        answer += &format!("<Deleted><Key>{key}</Key></Deleted>");
    }
    (answer + "</DeleteResult>").into_bytes()
}
