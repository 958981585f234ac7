//! The body of what hyper refuses by itself: a head that is no HTTP/1.1, or longer than is taken, which reaches no handler.
//!
//! hyper writes the head of an answer and no body, behind whatever it has written before, and then nothing more. That head
//! is told from ours by having no id of a request; it is looked for only where no request is under way. What else the caller
//! sends is then read and forgotten for a moment: a connection that is closed while bytes wait unread is reset, and the
//! answer lost.

use super::problem::{PROBLEM_JSON, Problem};
use super::router::new_request_id;
use crate::domain::limits::HEAD_BYTES_MAX;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use bytes::Buf;
use hyper::body::{Frame, SizeHint};
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// More than hyper's own head takes.
const OWN_HEAD_BYTES_MAX: usize = 256;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
/// How much of what is sent on is read behind a refusal, and for how long.
const READ_ON_BYTES_MAX: usize = 1024 * 1024;
const READ_ON_PATIENCE: Duration = Duration::from_secs(1);

/// How many requests of one connection are under way, and how many have begun.
#[derive(Clone, Debug, Default)]
pub(super) struct UnderWay(Arc<Requests>);

#[derive(Debug, Default)]
struct Requests {
    open: AtomicUsize,
    begun: AtomicUsize,
    /// Whether an answer of HTTP/1.1 may wait in hyper for its client.
    is_unsent: AtomicBool,
}

impl UnderWay {
    /// Counts a request until its answer's body is dropped.
    pub(super) fn begin(&self) -> Counted {
        self.0.open.fetch_add(1, Ordering::AcqRel);
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        Counted(self.clone())
    }

    fn is_idle(&self) -> bool {
        self.0.open.load(Ordering::Acquire) == 0
    }

    /// Whether nothing is under way, and nothing of an answer waits to be sent.
    pub(super) fn is_settled(&self) -> bool {
        self.is_idle() && !self.0.is_unsent.load(Ordering::Acquire)
    }

    fn begun(&self) -> usize {
        self.0.begun.load(Ordering::Acquire)
    }
}

/// A request that is counted as under way.
#[derive(Debug)]
pub(super) struct Counted(UnderWay);

impl Counted {
    /// Ends behind this body.
    pub(super) fn with(self, body: Body) -> Answering {
        self.0.0.is_unsent.store(true, Ordering::Release);
        Answering { body, _counted: self }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An answer's body, whose request is under way until it is dropped.
#[derive(Debug)]
pub(super) struct Answering {
    body: Body,
    _counted: Counted,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that says why its requests are refused.
#[derive(Debug)]
pub(super) struct Refusals<S> {
    stream: S,
    under_way: UnderWay,
    /// The line that names the target, as far as it came since the last request.
    line: Line,
    /// What is written in place of hyper's own head.
    instead: Bytes,
    /// What is read behind a refusal.
    reading_on: Option<ReadingOn>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// How many requests had begun before it.
    behind: usize,
    bytes: usize,
    has_ended: bool,
}

impl Line {
    fn read(&mut self, bytes: &[u8]) {
        if self.has_ended {
            return;
        }
        // Empty lines before a request are passed over (RFC 9112, section 2.2).
        let bytes = if self.bytes == 0 { bytes.trim_ascii_start() } else { bytes };
        let end = memchr::memchr(b'\n', bytes);
        self.bytes += end.unwrap_or(bytes.len());
        self.has_ended = end.is_some();
    }

    /// Whether it alone is more than a head may be.
    const fn is_too_long(self) -> bool {
        !self.has_ended || self.bytes > HEAD_BYTES_MAX
    }
}

#[derive(Debug)]
struct ReadingOn {
    until: Pin<Box<Sleep>>,
    bytes: usize,
}

impl<S> Refusals<S> {
    pub(super) fn new(stream: S, under_way: UnderWay) -> Self {
        Self { stream, under_way, line: Line::default(), instead: Bytes::new(), reading_on: None }
    }

    fn refuse(&mut self, instead: Bytes) {
        self.instead = instead;
        self.reading_on = Some(ReadingOn { until: Box::pin(tokio::time::sleep(READ_ON_PATIENCE)), bytes: 0 });
    }

    /// What to write instead of this, where its end is a head of hyper's own.
    fn instead_of(&self, written: &[u8]) -> Option<Bytes> {
        if !self.under_way.is_idle() {
            return None;
        }
        let (before, head) = own_head(written)?;
        let status = match status_of(head)? {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE if self.line.is_too_long() => StatusCode::URI_TOO_LONG,
            status => status,
        };
        Some([before, &refusal(status, head)].concat().into())
    }
}

impl<S: AsyncWrite + Unpin> Refusals<S> {
    fn poll_instead(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.instead.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, &self.instead))?;
            if count == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.instead.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> Refusals<S> {
    fn poll_read_on(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(reading) = &mut self.reading_on else { return Poll::Ready(()) };
        let mut space = [0; 8 * 1024];
        while reading.bytes < READ_ON_BYTES_MAX && reading.until.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => reading.bytes += buffer.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Refusals<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let behind = self.under_way.begun();
        if self.line.behind != behind {
            self.line = Line { behind, ..Line::default() };
        }
        // What comes while a request is under way is its body, or sent in advance.
        if self.under_way.is_idle() {
            self.line.read(buffer.filled().get(before..).unwrap_or_default());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Refusals<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        ready!(self.poll_instead(context))?;
        if let Some(instead) = self.instead_of(bytes) {
            self.refuse(instead);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_instead(context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        // hyper flushes where it has written all that it was given.
        if self.under_way.is_idle() {
            self.under_way.0.is_unsent.store(false, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_instead(context))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        self.poll_read_on(context).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        ready!(self.poll_instead(context))?;
        // hyper gathers its heads in one slice.
        if let [only] = slices
            && let Some(instead) = self.instead_of(only)
        {
            self.refuse(instead);
            return Poll::Ready(Ok(only.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Parts what ends in a head of hyper's own into what stands before it and the head.
fn own_head(written: &[u8]) -> Option<(&[u8], &[u8])> {
    let near_end = written.len().saturating_sub(OWN_HEAD_BYTES_MAX);
    let begin = near_end + memchr::memmem::rfind(written.get(near_end..)?, b"HTTP/1.")?;
    let (before, head) = written.split_at(begin);
    let is_whole = memchr::memmem::find(head, END_OF_HEAD)? + END_OF_HEAD.len() == head.len();
    let has = |text: &[u8]| memchr::memmem::find(head, text).is_some();
    (is_whole && has(b"\r\ncontent-length: 0\r\n") && !has(b"\r\nx-request-id:")).then_some((before, head))
}

fn status_of(head: &[u8]) -> Option<StatusCode> {
    let status = StatusCode::from_bytes(head.get("HTTP/1.1 ".len()..)?.get(..3)?).ok()?;
    let is_own = [StatusCode::BAD_REQUEST, StatusCode::URI_TOO_LONG, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE];
    is_own.contains(&status).then_some(status)
}

/// The whole answer to a head that cannot be taken.
fn refusal(status: StatusCode, head: &[u8]) -> Vec<u8> {
    let problem = match status {
        StatusCode::BAD_REQUEST => Problem::bad_request("malformed_request", "the request is no HTTP/1.1 (RFC 9112)"),
        status => Problem::of_status(status),
    };
    let id = new_request_id();
    let body = problem.json(&id, "/").to_string();
    let date = head.split(|byte| *byte == b'\n').find_map(|line| line.trim_ascii().strip_prefix(b"date: "));
    let date = date.map(|date| format!("date: {}\r\n", String::from_utf8_lossy(date))).unwrap_or_default();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {length}\r\nx-request-id: {id}\r\n\
         x-content-type-options: nosniff\r\ncache-control: no-store\r\nconnection: close\r\n{date}\r\n{body}",
        length = body.len()
    )
    .into_bytes()
}
