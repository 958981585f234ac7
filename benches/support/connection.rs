//! An HTTP/1.1 client that costs next to nothing, so that what is measured is the server.

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that asks, and reads no more of an answer than its status and its end.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens one.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        Self { stream, buffer: vec![0; 256 * 1_024] }
    }

    /// Asks, and insists on a status.
    pub(crate) async fn ask(&mut self, request: &[u8], status: u16) {
        self.stream.write_all(request).await.expect("a request");
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.expect("an answer");
            assert!(read > 0, "the connection was closed");
            filled += read;
            let answer = &self.buffer[..filled];
            let Some(head) = memchr::memmem::find(answer, b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&answer[..head]).expect("a head");
            assert_eq!(&text[9..12], status.to_string(), "{text}");
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length: usize = length.expect("a length").parse().expect("a number");
            if filled >= head + 4 + length {
                return;
            }
        }
    }
}

/// A request to append a batch.
pub(crate) fn post_batch(key: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /v1/events/batch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
