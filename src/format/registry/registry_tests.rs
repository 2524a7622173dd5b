//! The client against a small server in this process that answers by a script: what each answer settles, what
//! is tried again, and what stops the job. The real registry is asked in the tests of the whole program.

use super::*;
use crate::scratch::Scratch;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

/// What the server does with a connection.
enum Deed {
    /// Answers with this status and body, and hangs up.
    Answer(u16, String),
    /// Hangs up in the middle of an answer.
    Cut,
    /// Sends what is no HTTP.
    Garbage,
    /// Never answers; the connection stays open.
    Hang,
}
use Deed::{Answer, Cut, Garbage, Hang};

/// A server with a script of one deed a connection, and the requests that it got.
struct Server {
    url: String,
    requests: Receiver<String>,
}

impl Server {
    fn new(script: Vec<Deed>) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (send, requests) = channel();
        std::thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || {
                let mut hung = Vec::new();
                for deed in script {
                    let (stream, _) = listener.accept().expect("a connection");
                    hung.extend(serve(stream, deed, &send));
                }
                // Connections that hang, and the port, stay until the test hangs up.
                for stream in &mut hung {
                    let _ = stream.read(&mut [0]);
                }
            })
            .expect("a thread");
        Server { url, requests }
    }

    fn settings(&self) -> Settings {
        Settings::new(&self.url)
    }
}

/// Reads a request and does the deed; gives the connection back if it is to stay open.
fn serve(stream: TcpStream, deed: Deed, requests: &Sender<String>) -> Option<TcpStream> {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line of the request");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        request += &line;
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the request's body");
    request += &String::from_utf8(body).expect("UTF-8");
    let _ = requests.send(request); // a test may not care
    let mut stream = stream;
    let answer = match deed {
        Answer(status, body) => format!(
            "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
        Cut => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"sch".to_owned(),
        Garbage => "\0\x01\x02 what is this\r\n\r\n".to_owned(),
        Hang => return Some(stream),
    };
    let _ = stream.write_all(answer.as_bytes()); // the client may have seen enough
    None
}

fn schema(schema: &str) -> Deed {
    Answer(200, serde_json::json!({ "schema": schema }).to_string())
}

fn complaint(status: u16, code: u32) -> Deed {
    Answer(status, format!(r#"{{"error_code":{code},"message":"no\nsuch"}}"#))
}

/// Wants an id and waits until it is settled, or never will be; gives what is known then.
pub(super) fn fetched(settings: &Settings, id: u32) -> (Schemas, Option<Result<Arc<Writer>, String>>) {
    let schemas = Schemas::start(settings).expect("settings");
    let (send, woken) = channel();
    schemas.on_change(move || send.send(()).unwrap_or_default()); // the test may be over
    assert!(!schemas.settled(id));
    assert!(!schemas.settled(id), "asking again asks for nothing more");
    woken.recv().expect("woken");
    let known = schemas.get(id);
    assert_eq!(schemas.settled(id), known.is_some());
    (schemas, known)
}

#[test]
fn a_schema_is_fetched_once() {
    let server = Server::new(vec![schema("\"long\"")]);
    let mut settings = Settings::new(format!("{}/", server.url));
    settings.user = Some(("ann".to_owned(), Secret::new("canary:1")));
    let (schemas, known) = fetched(&settings, 7);
    let again = schemas.get(7).expect("settled").expect("a schema");
    assert!(Arc::ptr_eq(&again, &known.expect("settled").expect("a schema")));
    let request = server.requests.recv().expect("a request");
    assert!(
        request.starts_with("GET /schemas/ids/7 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request
            .to_lowercase()
            .contains("authorization: basic yw5uomnhbmfyetox\r\n"),
        "{request}"
    );
    assert!(matches!(schemas.state(), State::Answering));
    assert!(!format!("{settings:?}").contains("canary"));
}

#[test]
fn what_fails_is_tried_again_until_it_is_answered() {
    let bad = vec![
        complaint(500, 50001),
        complaint(429, 0),
        complaint(408, 0),
        Answer(503, "<html>".to_owned()),
        Cut,
        Garbage,
        Answer(200, "<html>".to_owned()),
        Answer(200, "{}".to_owned()),
        Answer(200, format!(r#"{{"schema":"{}"}}"#, " ".repeat(1 << 20))),
    ];
    // Each by itself: together the pauses would grow.
    for bad in bad {
        let server = Server::new(vec![bad, schema("\"long\"")]);
        let (schemas, known) = fetched(&server.settings(), u32::MAX);
        assert!(matches!(known, Some(Ok(_))));
        server.requests.iter().take(2).for_each(drop);
        drop(schemas);
    }
}

#[test]
fn a_request_that_hangs_is_given_up() {
    let server = Server::new(vec![Hang, schema("\"long\"")]);
    let mut settings = server.settings();
    settings.timeout = Duration::from_millis(50);
    let (_schemas, known) = fetched(&settings, 1);
    assert!(matches!(known, Some(Ok(_))));
}

#[test]
fn an_outage_is_shown_while_it_lasts() {
    let server = Server::new(vec![complaint(500, 1), schema("\"int\"")]);
    let schemas = Schemas::start(&server.settings()).expect("settings");
    schemas.0.note_failure("so".to_owned());
    let State::Unreachable { failures: 1, cause } = schemas.state() else {
        panic!("{:?}", schemas.state());
    };
    assert_eq!(cause, "so");
    schemas.0.note_failure("and so".to_owned());
    assert!(matches!(schemas.state(), State::Unreachable { failures: 2, .. }));
    schemas.0.note_answer();
    assert!(matches!(schemas.state(), State::Answering));
}

#[test]
fn one_bad_id_delays_no_other() {
    let server = Server::new(vec![complaint(500, 1), schema("\"int\""), schema("\"long\"")]);
    let schemas = Schemas::start(&server.settings()).expect("settings");
    let (send, woken) = channel();
    schemas.on_change(move || send.send(()).unwrap_or_default()); // the test may be over
    schemas.0.work().wanted.extend([4, 3]);
    schemas.0.changed.notify_all();
    woken.recv().expect("woken");
    woken.recv().expect("woken");
    let asked: Vec<String> = server.requests.iter().take(3).collect();
    let asked: Vec<&str> = asked
        .iter()
        .filter_map(|request| request.split(' ').nth(1))
        .collect();
    assert_eq!(asked.len(), 3);
    assert_ne!(asked[0], asked[1], "the one that failed waits for its turn");
    assert!(schemas.settled(3) && schemas.settled(4));
}

#[test]
fn an_unknown_id_is_settled_as_such() {
    for (answer, text) in [
        (complaint(404, 40403), "the schema registry has no schema 9"),
        (
            schema("\"strnig\""),
            "schema 9: nothing defines the type 'strnig'",
        ),
        (
            Answer(
                200,
                r#"{"schemaType":"PROTOBUF","schema":"message X {}"}"#.to_owned(),
            ),
            "schema 9 is not Avro but PROTOBUF",
        ),
    ] {
        let server = Server::new(vec![answer]);
        let (schemas, known) = fetched(&server.settings(), 9);
        assert_eq!(known.expect("settled").map(|_| ()), Err(text.to_owned()));
        assert!(matches!(schemas.state(), State::Answering));
    }
}

#[test]
fn schemas_may_refer_to_others() {
    let referring = |schema: &str, to: &str| {
        let references = serde_json::json!([{"name": "any", "subject": to, "version": 3}]);
        Answer(
            200,
            serde_json::json!({"schema": schema, "references": references}).to_string(),
        )
    };
    let server = Server::new(vec![
        referring(r#"{"type":"array","items":"a.X"}"#, "of/X"),
        referring(
            r#"{"type":"record","name":"a.X","fields":[{"name":"y","type":"b.Y"}]}"#,
            "Y",
        ),
        schema(r#"{"type":"fixed","name":"b.Y","size":1}"#),
    ]);
    let (_schemas, known) = fetched(&server.settings(), 5);
    assert!(matches!(known, Some(Ok(_))));
    let asked: Vec<String> = server.requests.iter().take(3).collect();
    assert!(
        asked[1].starts_with("GET /subjects/of%2FX/versions/3 "),
        "{}",
        asked[1]
    );
}

#[test]
fn what_refuses_us_stops_the_job() {
    for (status, body, text) in [
        (401, "", "it refuses our user or rights (status 401)"),
        (403, "{}", "it refuses our user or rights (status 403)"),
        (404, "<html>", "status 404: no reason given; is the URL right?"),
        (302, "", "status 302: no reason given; is the URL right?"),
        (
            400,
            r#"{"error_code":1,"message":"a\u0007\nb"}"#,
            "status 400: a  b; is the URL right?",
        ),
    ] {
        let server = Server::new(vec![Answer(status, body.to_owned())]);
        let mut settings = server.settings();
        settings.user = Some(("ann".to_owned(), Secret::new("canary")));
        let (schemas, known) = fetched(&settings, 1);
        assert!(known.is_none(), "never a dead letter");
        let State::Refused(error) = schemas.state() else {
            panic!("{:?}", schemas.state());
        };
        assert_eq!(error.kind, Kind::Configuration);
        assert_eq!(error.message, format!("schema registry {}: {text}", server.url));
    }
}

#[test]
fn outputs_are_registered_or_looked_up() {
    let id = || Answer(200, r#"{"id":41}"#.to_owned());
    let server = Server::new(vec![complaint(500, 1), id(), id()]);
    let schemas = Schemas::start(&server.settings()).expect("settings");
    assert_eq!(schemas.register("a b/c-value", "\"long\"").ok(), Some(41));
    assert_eq!(schemas.look_up("x-value", "\"long\"").ok(), Some(41));
    let asked: Vec<String> = server.requests.iter().take(3).collect();
    assert!(
        asked[1].starts_with("POST /subjects/a%20b%2Fc-value/versions HTTP/1.1\r\n"),
        "{}",
        asked[1]
    );
    assert!(
        asked[1].ends_with("\r\n\r\n{\"schema\":\"\\\"long\\\"\"}"),
        "{}",
        asked[1]
    );
    assert!(
        asked[2].starts_with("POST /subjects/x-value HTTP/1.1\r\n"),
        "{}",
        asked[2]
    );
}

#[test]
fn outputs_that_the_registry_refuses_are_named() {
    let refused = |answer: Deed, ask: fn(&Schemas) -> Result<u32>| {
        let server = Server::new(vec![answer]);
        let schemas = Schemas::start(&server.settings()).expect("settings");
        let error = ask(&schemas).expect_err("a refusal");
        assert_eq!(error.kind, Kind::Configuration);
        error.message.replace(&server.url, "URL")
    };
    let register = |schemas: &Schemas| schemas.register("x-value", "\"long\"");
    let look_up = |schemas: &Schemas| schemas.look_up("x-value", "\"long\"");
    for (status, text) in [
        (
            409,
            "subject 'x-value': the schema is incompatible with an earlier one: no such",
        ),
        (422, "subject 'x-value': the schema was not accepted: no such"),
    ] {
        assert_eq!(
            refused(complaint(status, status.into()), register),
            format!("schema registry: {text}")
        );
    }
    let text = concat!(
        "schema registry: subject 'x-value': ",
        "the schema is not registered: register it, or let Tidegate do so"
    );
    assert_eq!(refused(complaint(404, 40401), look_up), text);
    assert_eq!(refused(complaint(404, 40403), look_up), text);
    let text = "schema registry URL: it refuses our user or rights (status 401)";
    assert_eq!(refused(complaint(401, 40101), register), text);
    let text = "schema registry URL: status 404: no reason given; is the URL right?";
    assert_eq!(refused(Answer(404, "<html>".to_owned()), look_up), text);
    let text = "schema registry URL: status 404: no such; is the URL right?";
    assert_eq!(refused(complaint(404, 404), look_up), text);
}

#[test]
fn whoever_waits_comes_back_when_it_is_closed() {
    let server = Server::new(vec![complaint(500, 1)]);
    let schemas = Schemas::start(&server.settings()).expect("settings");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| schemas.register("x-value", "\"long\""));
        server.requests.recv().expect("the first try");
        schemas.close();
        let error = waiting.join().expect("no panic").expect_err("closed");
        assert_eq!(error.kind, Kind::Aborted);
    });
}

#[test]
fn wrong_settings_are_refused_before_anything_is_sent() {
    let refused = |settings: Settings| match Schemas::start(&settings) {
        Ok(_) => panic!("accepted {settings:?}"),
        Err(error) => {
            assert_eq!(error.kind, Kind::Configuration);
            assert!(!error.message.contains("canary"), "{error}");
            error.message
        }
    };
    for url in [
        "",
        "localhost:8081",
        "ftp://x",
        "http://",
        "http://x/?a=b",
        "http://ann:canary@x",
        "http://canary@x",
    ] {
        assert!(
            refused(Settings::new(url)).starts_with("schema registry: "),
            "{url}"
        );
    }
    let scratch = Scratch::new();
    let empty = scratch.path().join("empty.pem");
    std::fs::write(&empty, "nothing").expect("a file");
    for path in [&empty, &scratch.path().join("missing.pem")] {
        let mut settings = Settings::new("https://x");
        settings.authorities = Some(path.clone());
        assert!(refused(settings).contains(".pem: "));
        let mut settings = Settings::new("https://x");
        settings.identity = Some((path.clone(), path.clone()));
        assert!(refused(settings).contains(".pem: "));
    }
}

/// What the one line says that stops the job.
pub(super) fn refusal(settings: &Settings) -> String {
    let (schemas, known) = fetched(settings, 1);
    assert!(known.is_none());
    match schemas.state() {
        State::Refused(error) => error.message,
        other => panic!("{other:?}"),
    }
}
