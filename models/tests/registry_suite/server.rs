//! A small HTTP server that answers as told, well or badly, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it arrived; header names in lowercase.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First byte of `Range: bytes=N-`.
    pub(crate) fn range_start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// An answer. `Content-Length` is that of the body unless a header says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Send only so many bytes of the body, then close.
    pub(crate) cut: Option<usize>,
    /// Pause after every so many bytes.
    pub(crate) pace: Option<(usize, Duration)>,
    /// Send no length.
    pub(crate) lengthless: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: &[u8]) -> Self {
        Reply { status, headers: Vec::new(), body: body.to_vec(), cut: None, pace: None, lengthless: false }
    }

    /// What a well-behaved server answers to a request for this file.
    pub(crate) fn file(request: &Request, body: &[u8], etag: &str) -> Self {
        let matching = request.header("if-range").is_none_or(|wanted| wanted == etag);
        match request.range_start().filter(|_| matching) {
            Some(start) if start >= body.len() => Reply::new(416, b"").header("ETag", etag),
            Some(start) => Reply::new(206, &body[start..])
                .header("Content-Range", &format!("bytes {start}-{}/{}", body.len() - 1, body.len()))
                .header("ETag", etag),
            None => Reply::new(200, body).header("ETag", etag),
        }
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Reply::new(302, b"").header("Location", to)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    pub(crate) fn pace(mut self, bytes: usize, pause: Duration) -> Self {
        self.pace = Some((bytes, pause));
        self
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Because\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        if !self.lengthless && !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            head.extend(["Content-Length: ", &self.body.len().to_string(), "\r\n"]);
        }
        stream.write_all(head.as_bytes())?;
        stream.write_all(b"\r\n")?;
        let body = &self.body[..self.cut.unwrap_or(self.body.len()).min(self.body.len())];
        let (step, pause) = self.pace.unwrap_or((body.len().max(1), Duration::ZERO));
        for piece in body.chunks(step) {
            stream.write_all(piece)?;
            stream.flush()?;
            std::thread::sleep(pause);
        }
        Ok(())
    }
}

/// Runs until the process ends, one thread per connection.
pub(crate) struct Server {
    pub(crate) address: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (answer, shared) = (Arc::new(answer), log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (answer.clone(), shared.clone());
                std::thread::spawn(move || serve(stream, &*answer, &log));
            }
        });
        Server { address, log }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&Request) -> Reply, log: &Mutex<Vec<Request>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())))
        .collect();
    let request = Request { path, headers };
    log.lock().unwrap().push(request.clone());
    // The client may hang up first: that is what some tests are about.
    let _ = answer(&request).send(&mut stream);
}
