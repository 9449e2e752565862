//! An HTTP server on this machine that answers as a test tells it, well or badly.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Without the leading slash.
    pub path: String,
    /// First byte of the range asked for.
    pub from: Option<usize>,
}

/// A response, byte for byte; the connection is closed after it.
pub struct Reply(Vec<u8>);

impl Reply {
    fn new(status: &str, headers: &[String], body: &[u8]) -> Reply {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{}\r\n", headers.concat());
        Reply([head.as_bytes(), body].concat())
    }

    pub fn status(status: &str) -> Reply {
        Reply::new(status, &["Content-Length: 0\r\n".into()], &[])
    }

    /// The whole file.
    pub fn whole(file: &[u8]) -> Reply {
        Reply::new("200 OK", &[format!("Content-Length: {}\r\n", file.len())], file)
    }

    /// Everything from byte `from`.
    pub fn rest(file: &[u8], from: usize) -> Reply {
        let range = format!("Content-Range: bytes {from}-{}/{}\r\n", file.len() - 1, file.len());
        let length = format!("Content-Length: {}\r\n", file.len() - from);
        Reply::new("206 Partial Content", &[range, length], &file[from..])
    }

    /// There is nothing after what the client has.
    pub fn no_rest(file: &[u8]) -> Reply {
        let range = format!("Content-Range: bytes */{}\r\n", file.len());
        Reply::new("416 Range Not Satisfiable", &[range, "Content-Length: 0\r\n".into()], &[])
    }

    /// A body that ends with the connection, of a length nobody was told.
    pub fn unannounced(body: &[u8]) -> Reply {
        Reply::new("200 OK", &[], body)
    }

    /// The connection breaks so many bytes before the end.
    pub fn short_by(mut self, bytes: usize) -> Reply {
        self.0.truncate(self.0.len() - bytes);
        self
    }

    /// What a good server answers.
    pub fn proper(file: &[u8], request: &Request) -> Reply {
        match request.from {
            Some(from) if from >= file.len() => Reply::no_rest(file),
            Some(from) => Reply::rest(file, from),
            None => Reply::whole(file),
        }
    }
}

/// A running server; it lives until the test binary ends.
pub struct Server {
    /// Ends in a slash.
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers the requests one after the other; `answer` also gets the number of requests before.
    pub fn start(mut answer: impl FnMut(&Request, usize) -> Reply + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read_request(&stream);
                let before = log.lock().unwrap().len();
                log.lock().unwrap().push(request.clone());
                // A client that has seen enough hangs up: its right.
                let _ = stream.write_all(&answer(&request, before).0);
            }
        });
        Server { url, requests }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// First bytes of the ranges asked for, request by request.
    pub fn ranges(&self) -> Vec<Option<usize>> {
        self.requests().iter().map(|request| request.from).collect()
    }
}

fn read_request(stream: &TcpStream) -> Request {
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let path = head[0].split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
    let range = head.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    Request { path, from: range.map(|range| range.trim_end_matches('-').parse().unwrap()) }
}
