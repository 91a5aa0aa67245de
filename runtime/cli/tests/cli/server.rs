//! An HTTP server on this machine that answers as told and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// `POST /v1/traces HTTP/1.1`
    pub(crate) line: String,
    /// Header lines, in lower case.
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

/// A server that lives as long as the test's process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request with the status and body that `answer` gives, the body in two pieces some milliseconds apart.
    pub(crate) fn start(answer: impl Fn(&Request) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut line, mut headers, mut header) = (String::new(), String::new(), String::new());
                reader.read_line(&mut line).unwrap();
                while reader.read_line(&mut header).unwrap() > 2 {
                    headers += &header.to_lowercase();
                    header.clear();
                }
                let length = headers
                    .lines()
                    .find_map(|l| l.strip_prefix("content-length:"))
                    .map_or(0, |n| n.trim().parse().unwrap());
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let request = Request { line: line.trim_end().to_owned(), headers, body };
                let (status, text) = answer(&request);
                seen.lock().unwrap().push(request);
                let head =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
                let (first, second) = text.as_bytes().split_at(text.len() / 2);
                // Whoever has heard enough may have hung up.
                let _ = stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(first))
                    .and_then(|()| stream.flush());
                std::thread::sleep(Duration::from_millis(5));
                let _ = stream.write_all(second);
            }
        });
        Self { address, asked }
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}
