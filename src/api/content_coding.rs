//! Content codings of request bodies (`Content-Encoding`, RFC 9110 8.4): what a body is packed with, and how it is decoded
//! within the byte limit.
//!
//! A packed body is collected whole before it is decoded (`body.rs`), so no answer depends on how it was cut into segments
//! on its way.

use super::body_memory::Reserved;
use super::problem::{Advice, Problem};
use crate::domain::limits::{
    CODING_RATIO_FROM, CODING_RATIO_MAX, CONTENT_CODINGS_MAX, GZIP_MEMBERS_MAX, ZSTD_WINDOW_LOG_MAX,
};
use axum::body::Bytes;
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, StatusCode};
use flate2::{Decompress, FlushDecompress, Status, bufread::GzDecoder};
use std::io::Read;

/// The codings that are decoded, as `Accept-Encoding` lists them (RFC 7694).
const ACCEPTED: &str = "gzip, deflate, zstd";
/// How many bytes are decoded, and reserved, at once.
const STEP_BYTES: usize = 64 * 1024;

/// A coding that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentCoding {
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
    #[error("the body has more than {limit} bytes when decoded from {coding}")]
    TooLarge { coding: &'static str, limit: usize },
    /// It decodes to far more than was sent.
    #[error(
        "the body decodes from {coding} to more than {CODING_RATIO_MAX} times what was sent, and to more than {CODING_RATIO_FROM} bytes; send it plain, or in parts"
    )]
    TooDense { coding: &'static str },
    /// It is cut into too many members.
    #[error("the body has more than {GZIP_MEMBERS_MAX} gzip members; send fewer, larger ones")]
    TooManyMembers,
}

/// Reads which codings were applied, in the order in which they were.
///
/// # Errors
/// 415 where one is not decoded here, or there are too many.
pub(super) fn codings(headers: &HeaderMap) -> Result<Vec<ContentCoding>, Problem> {
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

/// Decodes a body that was packed with these codings, the one that was applied last first. What it becomes is reserved step
/// by step.
///
/// # Errors
/// 400 where it is damaged; 413 where it becomes more than `limit` bytes, or past [`CODING_RATIO_FROM`] more than
/// [`CODING_RATIO_MAX`] times what was sent; 503 where there is no room for it.
pub(super) async fn decode(
    packed: Bytes,
    codings: &[ContentCoding],
    limit: usize,
    reserved: &mut Reserved,
) -> Result<Bytes, Problem> {
    if packed.is_empty() {
        return Ok(packed);
    }
    let bound = Bound { limit, sent: packed.len() };
    let mut bytes = packed;
    for coding in codings.iter().rev() {
        bytes = Bytes::from(decode_one(&bytes, *coding, bound, reserved).await?);
    }
    Ok(bytes)
}

async fn decode_one(
    packed: &[u8],
    coding: ContentCoding,
    bound: Bound,
    reserved: &mut Reserved,
) -> Result<Vec<u8>, Problem> {
    let mut decoded = Vec::new();
    let mut decoding = Decoding::new(coding, packed)?;
    let mut room = 0;
    loop {
        if room < decoded.len() + STEP_BYTES {
            reserved.add(STEP_BYTES).await?;
            room += STEP_BYTES;
        }
        let is_done = decoding.step(&mut decoded)?;
        bound.check(decoded.len(), coding)?;
        if is_done {
            return Ok(decoded);
        }
    }
}

/// How much a body may become.
#[derive(Clone, Copy, Debug)]
struct Bound {
    limit: usize,
    /// The bytes that were sent.
    sent: usize,
}

impl Bound {
    fn check(self, decoded: usize, coding: ContentCoding) -> Result<(), DecodeError> {
        let coding = coding.name();
        if decoded > self.limit {
            return Err(DecodeError::TooLarge { coding, limit: self.limit });
        }
        if decoded > CODING_RATIO_FROM && decoded > self.sent.saturating_mul(CODING_RATIO_MAX) {
            return Err(DecodeError::TooDense { coding });
        }
        Ok(())
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        let detail = error.to_string();
        let too_large = |limit: usize| {
            Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail.clone()).with("limit", limit)
        };
        match error {
            DecodeError::Malformed { .. } => Self::bad_request("malformed_encoding", detail),
            DecodeError::TooLarge { limit, .. } => too_large(limit),
            DecodeError::TooDense { .. } => too_large(CODING_RATIO_FROM),
            DecodeError::TooManyMembers => too_large(GZIP_MEMBERS_MAX),
        }
    }
}

/// A body on its way out of one coding.
enum Decoding<'a> {
    Gzip { member: GzDecoder<&'a [u8]>, members: usize },
    Deflate { decoder: Box<Decompress>, rest: &'a [u8] },
    Zstd(Box<zstd::Decoder<'static, &'a [u8]>>),
}

impl<'a> Decoding<'a> {
    fn new(coding: ContentCoding, packed: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(match coding {
            ContentCoding::Gzip => Self::Gzip { member: GzDecoder::new(packed), members: 1 },
            ContentCoding::Deflate => Self::Deflate { decoder: Box::new(Decompress::new(true)), rest: packed },
            ContentCoding::Zstd => {
                let mut frames = zstd::Decoder::with_buffer(packed).map_err(|error| coding.malformed(&error))?;
                frames.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|error| coding.malformed(&error))?;
                Self::Zstd(Box::new(frames))
            }
        })
    }

    /// Decodes at most [`STEP_BYTES`] more; tells whether that was the end.
    fn step(&mut self, decoded: &mut Vec<u8>) -> Result<bool, DecodeError> {
        match self {
            Self::Gzip { member, members } => {
                if !has_ended(member, decoded).map_err(|error| ContentCoding::Gzip.malformed(&error))? {
                    return Ok(false);
                }
                let rest: &'a [u8] = member.get_ref();
                if rest.is_empty() {
                    return Ok(true);
                }
                if *members >= GZIP_MEMBERS_MAX {
                    return Err(DecodeError::TooManyMembers);
                }
                *members += 1;
                *member = GzDecoder::new(rest);
                Ok(false)
            }
            Self::Zstd(frames) => has_ended(frames, decoded).map_err(|error| ContentCoding::Zstd.malformed(&error)),
            Self::Deflate { decoder, rest } => inflate(decoder, rest, decoded),
        }
    }
}

/// Reads one step of a decoder; tells whether it has ended.
fn has_ended(decoder: &mut impl Read, decoded: &mut Vec<u8>) -> std::io::Result<bool> {
    let step = u64::try_from(STEP_BYTES).unwrap_or(u64::MAX);
    let read = decoder.take(step).read_to_end(decoded)?;
    Ok(read < STEP_BYTES)
}

/// One step of `deflate`. The readers of `flate2` take the end of the bytes for the end of the stream, so this asks the decoder
/// itself.
fn inflate(decoder: &mut Decompress, rest: &mut &[u8], decoded: &mut Vec<u8>) -> Result<bool, DecodeError> {
    let coding = ContentCoding::Deflate;
    let (read, written) = (decoder.total_in(), decoder.total_out());
    let mut piece = vec![0; STEP_BYTES];
    let status = decoder.decompress(rest, &mut piece, FlushDecompress::None);
    let status = status.map_err(|error| coding.malformed(&error))?;
    let made = usize::try_from(decoder.total_out() - written).unwrap_or(usize::MAX);
    decoded.extend_from_slice(piece.get(..made).unwrap_or_default());
    let passed = usize::try_from(decoder.total_in() - read).unwrap_or(usize::MAX);
    *rest = rest.get(passed..).unwrap_or_default();
    match status {
        Status::StreamEnd if rest.is_empty() => Ok(true),
        Status::StreamEnd => Err(coding.malformed(&"bytes follow the end of the stream")),
        Status::Ok | Status::BufError if passed == 0 && made == 0 => {
            Err(coding.malformed(&"the stream ends too early"))
        }
        Status::Ok | Status::BufError => Ok(false),
    }
}

impl ContentCoding {
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    fn malformed(self, cause: &dyn std::fmt::Display) -> DecodeError {
        DecodeError::Malformed { coding: self.name(), cause: cause.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::body_memory::BodyMemory;
    use crate::domain::id::WorkspaceId;
    use crate::domain::limits::NDJSON_BODY_BYTES_MAX;
    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use proptest::prelude::*;
    use std::io::Write;

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

    /// Reads a body that is sent in pieces; returns what it becomes, or the code of the problem.
    fn send(encoding: &[&str], pieces: Vec<Vec<u8>>) -> Result<Vec<u8>, &'static str> {
        let mut headers = HeaderMap::new();
        for value in encoding {
            headers.append(CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        let memory = BodyMemory::new(64 << 20);
        let mut reserved = memory.begin(Some(WorkspaceId(1)));
        let packed = Bytes::from(pieces.concat());
        let decoded = codings(&headers).and_then(|codings| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(decode(packed, &codings, NDJSON_BODY_BYTES_MAX, &mut reserved))
        });
        drop(reserved);
        assert_eq!(memory.held(), 0);
        decoded.map(|decoded| decoded.to_vec()).map_err(|problem| problem.code)
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
        // What repeats itself after a while only, so that it is not too dense.
        let mut state = 1_u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        let noise: Vec<u8> = (0..1 << 16).map(|_| byte()).collect();
        let full: Vec<u8> = noise.iter().copied().cycle().take(NDJSON_BODY_BYTES_MAX).collect();
        let half = full[..NDJSON_BODY_BYTES_MAX / 2].to_vec();
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
    fn what_becomes_far_more_than_was_sent_is_refused() {
        let spaces = vec![b' '; CODING_RATIO_FROM];
        for (name, pack) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("deflate", deflate), ("zstd", zstd)] {
            assert_eq!(send(&[name], vec![pack(&spaces)]).map(|text| text.len()), Ok(spaces.len()), "{name}");
            let more = [spaces.as_slice(), b" "].concat();
            assert_eq!(send(&[name], vec![pack(&more)]), Err("payload_too_large"), "{name}");
        }
        assert_eq!(send(&["gzip, gzip"], vec![gzip(&gzip(&[b' '; 2 << 20]))]), Err("payload_too_large"));
    }

    #[test]
    fn a_zstd_window_past_what_http_has_is_refused_before_room_is_made_for_it() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(b"text").unwrap();
        assert_eq!(send(&["zstd"], vec![encoder.finish().unwrap()]), Err("malformed_encoding"));
    }
}
