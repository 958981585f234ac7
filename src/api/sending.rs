//! An answer's body on its way over HTTP/2: in pieces, of which is known whether they have left.
//!
//! What is handed to HTTP/2 waits there for the client, unseen and for as long as the client likes. So each piece tells when
//! it is gone, and a body ends behind its last one: a request that has ended holds nothing any more.

use crate::domain::limits::ANSWER_PIECE_BYTES;
use axum::body::{Body, Bytes, HttpBody};
use bytes::Buf;
use futures::task::AtomicWaker;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How many pieces of an answer were handed over, and how many have left.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    handed: AtomicU64,
    left: AtomicU64,
    ending: AtomicWaker,
}

impl Outgoing {
    /// The piece that waits for the longest.
    fn waiting(&self) -> Option<u64> {
        let left = self.left.load(Ordering::Acquire);
        (left < self.handed.load(Ordering::Acquire)).then_some(left)
    }

    /// Returns once a piece has waited for as long as this; after twice as long at the latest.
    pub(super) async fn stalled(&self, patience: Duration) {
        let mut before = None;
        loop {
            tokio::time::sleep(patience).await;
            let waiting = self.waiting();
            if waiting.is_some() && waiting == before {
                return;
            }
            before = waiting;
        }
    }
}

/// A piece of an answer.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    outgoing: Arc<Outgoing>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.outgoing.left.fetch_add(1, Ordering::AcqRel);
        self.outgoing.ending.wake();
    }
}

/// A body that is sent.
#[derive(Debug)]
pub(super) struct Sending {
    body: Body,
    /// What was taken of the body and not handed over yet.
    rest: Bytes,
    has_ended: bool,
    outgoing: Arc<Outgoing>,
}

impl Sending {
    /// A body whose pieces are counted.
    pub(super) const fn new(body: Body, outgoing: Arc<Outgoing>) -> Self {
        Self { body, rest: Bytes::new(), has_ended: false, outgoing }
    }

    fn next_piece(&mut self) -> Piece {
        let bytes = self.rest.split_to(self.rest.len().min(ANSWER_PIECE_BYTES));
        self.outgoing.handed.fetch_add(1, Ordering::AcqRel);
        Piece { bytes, outgoing: Arc::clone(&self.outgoing) }
    }
}

impl HttpBody for Sending {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Self::Error>>> {
        while !self.has_ended {
            if !self.rest.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(self.next_piece()))));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)).transpose()? {
                // No answer has trailers.
                Some(frame) => self.rest = frame.into_data().unwrap_or_default(),
                None => self.has_ended = true,
            }
        }
        self.outgoing.ending.register(context.waker());
        if self.outgoing.waiting().is_some() { Poll::Pending } else { Poll::Ready(None) }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream() && self.outgoing.waiting().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked for before the first piece, for the length that the answer's head tells.
        self.body.size_hint()
    }
}
