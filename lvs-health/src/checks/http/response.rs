//! A response as it comes in: the header is kept, the body only counted, digested, and kept as far as it is matched.

use super::BodyDigest;
use super::chunked::Chunked;
use md5::{Digest, Md5};
use std::fmt;

pub(super) struct Response {
    reading: Reading,
    stage: Stage,
}

/// What of a response is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    pub(super) header_limit: usize,
    /// How much of the body is kept.
    pub(super) keep: usize,
    pub(super) digest: bool,
    /// Whether it is the digest of the body without its chunks' frames.
    pub(super) decode_digest: bool,
}

enum Stage {
    Head(Vec<u8>),
    Body(Box<Body>),
}

struct Body {
    head: Head,
    received: u64,
    chunks: Option<Chunked>,
    md5: Option<Md5>,
    kept: Vec<u8>,
}

/// What the header says.
#[derive(Debug)]
pub(super) struct Head {
    status_line: Vec<u8>,
    is_chunked: bool,
    /// Not looked at where chunks say how long the body is.
    pub(super) content_length: Option<u64>,
}

/// The header is larger than its limit.
#[derive(Debug)]
pub(super) struct HeaderTooLarge;

impl Response {
    pub(super) fn new(reading: Reading) -> Self {
        Self {
            reading,
            stage: Stage::Head(Vec::new()),
        }
    }

    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), HeaderTooLarge> {
        let reading = self.reading;
        match &mut self.stage {
            Stage::Body(body) => body.push(reading, data),
            Stage::Head(buffer) => {
                // The empty line may have begun in the last three bytes of what came before.
                let from = buffer.len().saturating_sub(3);
                let room = reading.header_limit.saturating_sub(buffer.len());
                let (fits, rest) = data.split_at(data.len().min(room));
                buffer.extend_from_slice(fits);
                if let Some(at) = find(&buffer[from..], b"\r\n\r\n") {
                    let begun = buffer.split_off(from + at + 4);
                    let mut body = Body::new(reading, Head::parse(buffer));
                    body.push(reading, &begun);
                    body.push(reading, rest);
                    self.stage = Stage::Body(Box::new(body));
                } else if !rest.is_empty() || buffer.len() >= reading.header_limit {
                    return Err(HeaderTooLarge);
                }
            }
        }
        Ok(())
    }

    /// The header, once it is complete.
    pub(super) fn head(&self) -> Option<&Head> {
        match &self.stage {
            Stage::Head(_) => None,
            Stage::Body(body) => Some(&body.head),
        }
    }

    /// Bytes of the body so far.
    pub(super) fn received(&self) -> u64 {
        match &self.stage {
            Stage::Head(_) => 0,
            Stage::Body(body) => body.received,
        }
    }

    /// Digest of the body, of at most Content-Length bytes; `None` if it is not taken or nothing came.
    pub(super) fn digest(&self) -> Option<BodyDigest> {
        match &self.stage {
            Stage::Head(_) => None,
            Stage::Body(body) => {
                let md5 = body.md5.clone()?;
                Some(BodyDigest(md5.finalize().into()))
            }
        }
    }

    /// Whether the body ended with its last chunk.
    pub(super) fn has_last_chunk(&self) -> bool {
        match &self.stage {
            Stage::Head(_) => false,
            Stage::Body(body) => body.chunks.as_ref().is_some_and(Chunked::is_done),
        }
    }

    /// The start of the body, as far as it is kept.
    #[cfg(feature = "regex")]
    pub(super) fn kept(&self) -> &[u8] {
        match &self.stage {
            Stage::Head(_) => &[],
            Stage::Body(body) => &body.kept,
        }
    }
}

impl Body {
    fn new(reading: Reading, head: Head) -> Self {
        Self {
            received: 0,
            chunks: head.is_chunked.then(Chunked::new),
            md5: reading.digest.then(Md5::new),
            kept: Vec::new(),
            head,
        }
    }

    fn push(&mut self, reading: Reading, data: &[u8]) {
        let length = self.head.content_length.unwrap_or(u64::MAX);
        let left = length.saturating_sub(self.received);
        self.received += data.len() as u64;
        let within = usize::try_from(left).map_or(data.len(), |left| left.min(data.len()));
        let within = &data[..within];
        let Self {
            chunks, md5, kept, ..
        } = self;
        let Some(chunks) = chunks else {
            digest(md5, within);
            keep(kept, reading.keep, within);
            return;
        };
        if !reading.decode_digest {
            digest(md5, within);
        }
        chunks.decode(data, |part| {
            if reading.decode_digest {
                digest(md5, part);
            }
            keep(kept, reading.keep, part);
        });
    }
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        // Only the CR LF is cut from the status line: a space before it counts.
        let end = find(bytes, b"\r\n").unwrap_or(bytes.len());
        let status_line = bytes[..end].to_vec();
        let fields = || {
            let lines = bytes.split(|byte| *byte == b'\n').skip(1);
            lines.filter_map(|line| {
                let colon = line.iter().position(|byte| *byte == b':')?;
                Some((&line[..colon], line[colon + 1..].trim_ascii()))
            })
        };
        // Of several codings the last one frames the body (RFC 9112 section 6.1).
        let coding = fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"transfer-encoding"));
        let is_chunked = coding.last().is_some_and(|(_, value)| {
            let last = value.rsplit(|byte| *byte == b',').next();
            last.is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
        });
        let content_length = fields().find_map(|(name, digits)| {
            if !name.eq_ignore_ascii_case(b"content-length")
                || !digits.iter().all(u8::is_ascii_digit)
            {
                return None;
            }
            std::str::from_utf8(digits).ok()?.parse().ok()
        });
        Self {
            status_line,
            is_chunked,
            content_length: content_length.filter(|_| !is_chunked),
        }
    }

    /// Three digits behind the first space, then a space or, unless `strict`, the end of the line. The word before is
    /// not looked at.
    pub(super) fn status(&self, strict: bool) -> Option<u16> {
        let space = self.status_line.iter().position(|byte| *byte == b' ')?;
        let rest = &self.status_line[space + 1..];
        let digits = rest.get(..3)?;
        let ends_well = match rest.get(3) {
            Some(byte) => *byte == b' ',
            None => !strict,
        };
        if !ends_well || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let status = digits
            .iter()
            .fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
        (100..=599).contains(&status).then_some(status)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("head", &self.head())
            .field("received", &self.received())
            .finish_non_exhaustive()
    }
}

fn digest(md5: &mut Option<Md5>, data: &[u8]) {
    if let Some(md5) = md5 {
        md5.update(data);
    }
}

fn keep(kept: &mut Vec<u8>, limit: usize, data: &[u8]) {
    let room = limit.saturating_sub(kept.len());
    kept.extend_from_slice(&data[..data.len().min(room)]);
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
