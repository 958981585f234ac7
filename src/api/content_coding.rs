//! Content codings of request bodies (`Content-Encoding`, RFC 9110 8.4): what a body is packed with, and how it is decoded
//! within the byte limit.
//!
//! A packed body is collected whole before it is decoded, so no answer depends on how it was cut into segments on its way.
//! It is decoded when its handler reads it, which is after the key was checked.

use super::problem::{Advice, Problem};
use crate::domain::limits::{CONTENT_CODINGS_MAX, GZIP_MEMBERS_MAX, NDJSON_BODY_BYTES_MAX, ZSTD_WINDOW_LOG_MAX};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flate2::{Decompress, FlushDecompress, Status, bufread::GzDecoder};
use http_body_util::LengthLimitError;
use std::error::Error;
use std::io::Read;
use std::sync::{Arc, OnceLock};

/// The codings that are decoded, as `Accept-Encoding` lists them (RFC 7694).
const ACCEPTED: &str = "gzip, deflate, zstd";
/// How many bytes room is made for at once.
const STEP_BYTES: usize = 64 * 1024;

/// A coding that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentCoding {
    /// Any number of members one behind the other (RFC 1952 2.2).
    Gzip,
    /// The zlib format (RFC 1950), as RFC 9110 8.4.1.2 defines the name.
    Deflate,
    /// Any number of frames (RFC 8878) with a window of at most 8 MiB (RFC 9659).
    Zstd,
}

/// Why a packed body is not decoded.
#[derive(Debug, thiserror::Error)]
enum DecodeError {
    /// The bytes are damaged, end too early, or go on behind the end.
    #[error("the body is not valid {coding}: {cause}")]
    Malformed { coding: &'static str, cause: String },
    /// It decodes to too many bytes.
    #[error("the body has more than {NDJSON_BODY_BYTES_MAX} bytes when decoded from {coding}")]
    TooLarge { coding: &'static str },
    /// It is cut into too many members.
    #[error("the body has more than {GZIP_MEMBERS_MAX} gzip members; send fewer, larger ones")]
    TooManyMembers,
}

/// Decodes the body of a request that says it is packed.
pub(super) async fn decode(request: Request, next: Next) -> Response {
    if !request.headers().contains_key(CONTENT_ENCODING) {
        return next.run(request).await;
    }
    let codings = match codings(request.headers()) {
        Ok(codings) => codings,
        Err(problem) => return problem.into_response(),
    };
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(CONTENT_ENCODING);
    if codings.is_empty() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    parts.headers.remove(CONTENT_LENGTH);
    // The handler sees an error of the body and no more, so what was wrong goes past it.
    let failure = Arc::new(OnceLock::new());
    let noted = Arc::clone(&failure);
    let decoded = async move {
        let read = read(body, &codings).await;
        read.map_err(|problem| noted.set(problem).map_or("the body failed before", |()| "the body is not decoded"))
    };
    let body = Body::from_stream(futures::stream::once(decoded));
    let response = next.run(Request::from_parts(parts, body)).await;
    failure.get().map_or(response, |problem: &Problem| problem.clone().into_response())
}

/// Reads which codings were applied, in the order in which they were.
///
/// # Errors
/// 415 where one is not decoded here, or there are too many.
fn codings(headers: &HeaderMap) -> Result<Vec<ContentCoding>, Problem> {
    let mut found = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = String::from_utf8_lossy(value.as_bytes());
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name.to_ascii_lowercase().as_str() {
                "identity" => {}
                "gzip" | "x-gzip" => found.push(ContentCoding::Gzip),
                "deflate" => found.push(ContentCoding::Deflate),
                "zstd" => found.push(ContentCoding::Zstd),
                _ => {
                    let shown: String = name.chars().take(40).collect();
                    return Err(unsupported(format!("the content coding {shown:?} is not supported")));
                }
            }
        }
    }
    if found.len() > CONTENT_CODINGS_MAX {
        return Err(unsupported(format!("{} content codings, expected at most {CONTENT_CODINGS_MAX}", found.len())));
    }
    Ok(found)
}

fn unsupported(what: String) -> Problem {
    let detail = format!("{what}; send the body plain, or with one of {ACCEPTED}");
    Problem {
        advice: Some(Advice::AcceptEncoding(ACCEPTED)),
        ..Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail)
    }
}

/// Reads a packed body to its end and decodes it, the coding that was applied last first.
async fn read(body: Body, codings: &[ContentCoding]) -> Result<Bytes, Problem> {
    // Another layer bounds the bytes that are sent.
    let packed = to_bytes(body, usize::MAX).await.map_err(|error| {
        let mut causes = std::iter::successors(Some(&error as &(dyn Error + 'static)), |cause| (*cause).source());
        let is_too_long = causes.any(|cause| cause.is::<LengthLimitError>());
        Problem::of_status(if is_too_long { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST })
    })?;
    if packed.is_empty() {
        return Ok(packed);
    }
    let steps = codings.iter().rev();
    steps.copied().try_fold(packed, |bytes, coding| coding.decode(&bytes).map(Bytes::from)).map_err(|error| {
        let detail = error.to_string();
        match error {
            DecodeError::Malformed { .. } => Problem::bad_request("malformed_encoding", detail),
            DecodeError::TooLarge { .. } | DecodeError::TooManyMembers => {
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
            }
        }
    })
}

impl ContentCoding {
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    fn decode(self, packed: &[u8]) -> Result<Vec<u8>, DecodeError> {
        match self {
            Self::Gzip => self.decode_gzip(packed),
            Self::Deflate => self.decode_deflate(packed),
            Self::Zstd => self.decode_zstd(packed),
        }
    }

    fn decode_gzip(self, packed: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut decoded = Vec::new();
        let mut rest = packed;
        for _ in 0..GZIP_MEMBERS_MAX {
            let mut member = GzDecoder::new(rest);
            self.read_within(&mut member, &mut decoded)?;
            rest = member.into_inner();
            if rest.is_empty() {
                return Ok(decoded);
            }
        }
        Err(DecodeError::TooManyMembers)
    }

    fn decode_zstd(self, packed: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut decoded = Vec::new();
        let mut frames = zstd::Decoder::with_buffer(packed).map_err(|error| self.malformed(&error))?;
        frames.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|error| self.malformed(&error))?;
        self.read_within(&mut frames, &mut decoded)?;
        Ok(decoded)
    }

    /// `flate2`'s readers take the end of the bytes for the end of the stream, so this asks the decoder itself.
    fn decode_deflate(self, packed: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut decoded = Vec::new();
        let mut decoder = Decompress::new(true);
        let mut rest = packed;
        loop {
            decoded.reserve(STEP_BYTES);
            let (read, written) = (decoder.total_in(), decoder.total_out());
            let status = decoder.decompress_vec(rest, &mut decoded, FlushDecompress::None);
            let status = status.map_err(|error| self.malformed(&error))?;
            let passed = usize::try_from(decoder.total_in() - read).unwrap_or(usize::MAX);
            rest = rest.get(passed..).unwrap_or_default();
            if decoded.len() > NDJSON_BODY_BYTES_MAX {
                return Err(DecodeError::TooLarge { coding: self.name() });
            }
            match status {
                Status::StreamEnd if rest.is_empty() => return Ok(decoded),
                Status::StreamEnd => return Err(self.malformed(&"bytes follow the end of the stream")),
                Status::Ok | Status::BufError if passed == 0 && decoder.total_out() == written => {
                    return Err(self.malformed(&"the stream ends too early"));
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }

    /// Reads a decoder to its end, one byte past the limit at most.
    fn read_within(self, decoder: &mut impl Read, decoded: &mut Vec<u8>) -> Result<(), DecodeError> {
        let room = NDJSON_BODY_BYTES_MAX.saturating_sub(decoded.len()).saturating_add(1);
        let read = decoder.by_ref().take(u64::try_from(room).unwrap_or(u64::MAX)).read_to_end(decoded);
        read.map_err(|error| self.malformed(&error))?;
        if decoded.len() > NDJSON_BODY_BYTES_MAX {
            return Err(DecodeError::TooLarge { coding: self.name() });
        }
        Ok(())
    }

    fn malformed(self, cause: &dyn std::fmt::Display) -> DecodeError {
        DecodeError::Malformed { coding: self.name(), cause: cause.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::DefaultBodyLimit;
    use axum::http::HeaderValue;
    use axum::{Router, middleware, routing};
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use futures::executor::block_on;
    use proptest::prelude::*;
    use std::io::Write;
    use tower::ServiceExt;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 3).unwrap()
    }

    /// Sends a body in pieces; returns what the handler read, or the code of the problem.
    fn send(encoding: &[&str], pieces: Vec<Vec<u8>>) -> Result<Vec<u8>, &'static str> {
        async fn echo(body: Bytes) -> Bytes {
            body
        }
        let router = Router::new().route("/", routing::post(echo)).layer(DefaultBodyLimit::max(NDJSON_BODY_BYTES_MAX));
        let router = router.layer(middleware::from_fn(decode));
        let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
        let mut request = Request::post("/").body(Body::from_stream(futures::stream::iter(pieces))).unwrap();
        for value in encoding {
            request.headers_mut().append(CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        block_on(async {
            let response = router.oneshot(request).await.unwrap();
            match response.extensions().get::<Problem>() {
                Some(problem) => Err(problem.code),
                None => Ok(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()),
            }
        })
    }

    /// Cuts bytes behind every so many.
    fn cut(bytes: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
        let mut rest = bytes;
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        for length in lengths {
            let (piece, behind) = rest.split_at((*length).min(rest.len()));
            pieces.push(piece.to_vec());
            rest = behind;
        }
        pieces.push(rest.to_vec());
        pieces
    }

    proptest! {
        #[test]
        fn neither_members_nor_segments_change_what_is_read(
            members in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6),
            lengths in prop::collection::vec(0_usize..120, 0..12),
            garbage in prop::collection::vec(any::<u8>(), 1..12),
            lost in 1_usize..9,
        ) {
            let text = members.concat();
            for (name, packed) in [
                ("gzip", members.iter().flat_map(|member| gzip(member)).collect::<Vec<u8>>()),
                ("zstd", members.iter().flat_map(|member| zstd(member)).collect()),
                ("deflate", deflate(&text)),
                ("zstd, gzip", gzip(&zstd(&text))),
            ] {
                prop_assert_eq!(send(&[name], cut(&packed, &lengths)), Ok(text.clone()), "{}", name);
                let torn = &packed[..packed.len() - lost.min(packed.len() - 1)];
                prop_assert_eq!(send(&[name], cut(torn, &lengths)), Err("malformed_encoding"), "{} torn", name);
                let more = [packed.as_slice(), &garbage].concat();
                prop_assert_eq!(send(&[name], cut(&more, &lengths)), Err("malformed_encoding"), "{} more", name);
            }
        }
    }

    #[test]
    fn names_of_codings_are_read_as_the_standard_has_them() {
        let text = b"text".to_vec();
        let twice = gzip(&gzip(&text));
        for encoding in ["gzip", "GZip", "x-gzip", " gzip ", "identity, gzip", "gzip,,", "X-GZIP,identity"] {
            assert_eq!(send(&[encoding], vec![gzip(&text)]), Ok(text.clone()), "{encoding}");
        }
        for encoding in ["", "identity", " , ", "Identity,identity"] {
            assert_eq!(send(&[encoding], vec![text.clone()]), Ok(text.clone()), "{encoding}");
        }
        assert_eq!(send(&["gzip, gzip"], vec![twice.clone()]), Ok(text.clone()));
        assert_eq!(send(&["gzip", "x-gzip"], vec![twice]), Ok(text.clone()));
        assert_eq!(send(&["deflate, zstd"], vec![zstd(&deflate(&text))]), Ok(text.clone()));
        assert_eq!(send(&["zstd, deflate"], vec![zstd(&deflate(&text))]), Err("malformed_encoding"), "in that order");
        for encoding in ["br", "compress", "gzip, br", "*", "gzip;q=1", "gzip, gzip, gzip, gzip, gzip"] {
            assert_eq!(send(&[encoding], vec![text.clone()]), Err("unsupported_encoding"), "{encoding}");
        }
        // Many clients send the header with a body that is not there.
        for encoding in ["gzip", "deflate", "zstd", "gzip, zstd"] {
            assert_eq!(send(&[encoding], vec![Vec::new()]), Ok(Vec::new()), "{encoding}");
        }
        assert_eq!(send(&["gzip, gzip"], vec![gzip(b"")]), Err("malformed_encoding"), "nothing is no member");
    }

    #[test]
    fn the_limit_counts_every_member_and_every_layer() {
        let full = vec![b' '; NDJSON_BODY_BYTES_MAX];
        let half = vec![b' '; NDJSON_BODY_BYTES_MAX / 2];
        assert_eq!(send(&["gzip"], vec![gzip(&half), gzip(&half)]).map(|text| text.len()), Ok(NDJSON_BODY_BYTES_MAX));
        assert_eq!(send(&["gzip"], vec![gzip(&full), gzip(b"")]).map(|text| text.len()), Ok(NDJSON_BODY_BYTES_MAX));
        let more = [full.as_slice(), b" "].concat();
        for (encoding, pieces) in [
            ("gzip", vec![gzip(&half), gzip(&half), gzip(b" ")]),
            ("gzip", vec![gzip(&more)]),
            ("deflate", vec![deflate(&more)]),
            ("zstd", vec![zstd(&half), zstd(&half), zstd(b" ")]),
            ("gzip, gzip", vec![gzip(&gzip(&more))]),
            // The outer layer alone is over the limit, of which nothing would be left behind the inner one.
            ("gzip, gzip", vec![gzip(&gzip(b"").repeat(NDJSON_BODY_BYTES_MAX / 20 + 1))]),
            ("gzip", vec![gzip(b"").repeat(GZIP_MEMBERS_MAX + 1)]),
        ] {
            assert_eq!(send(&[encoding], pieces), Err("payload_too_large"), "{encoding}");
        }
        assert_eq!(send(&["gzip"], vec![gzip(b"").repeat(GZIP_MEMBERS_MAX)]), Ok(Vec::new()));
    }

    #[test]
    fn a_zstd_window_past_what_http_has_is_refused_before_room_is_made_for_it() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(b"text").unwrap();
        assert_eq!(send(&["zstd"], vec![encoder.finish().unwrap()]), Err("malformed_encoding"));
    }
}
