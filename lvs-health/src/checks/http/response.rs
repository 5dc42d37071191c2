//! A response as it comes in: the header is kept, the body only counted and digested.

use super::BodyDigest;
use md5::{Digest, Md5};
use std::fmt;

pub(super) struct Response {
    header_limit: usize,
    stage: Stage,
}

enum Stage {
    Head(Vec<u8>),
    Body { head: Head, received: u64, md5: Md5 },
}

/// What the header says.
#[derive(Debug)]
pub(super) struct Head {
    status_line: Vec<u8>,
    pub(super) content_length: Option<u64>,
}

/// The header is larger than its limit.
#[derive(Debug)]
pub(super) struct HeaderTooLarge;

impl Response {
    pub(super) fn new(header_limit: usize) -> Self {
        Self {
            header_limit,
            stage: Stage::Head(Vec::new()),
        }
    }

    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), HeaderTooLarge> {
        match &mut self.stage {
            Stage::Body {
                head,
                received,
                md5,
            } => count(head, received, md5, data),
            Stage::Head(buffer) => {
                // The empty line may have begun in the last three bytes of what came before.
                let from = buffer.len().saturating_sub(3);
                let room = self.header_limit.saturating_sub(buffer.len());
                let (fits, rest) = data.split_at(data.len().min(room));
                buffer.extend_from_slice(fits);
                if let Some(at) = find(&buffer[from..], b"\r\n\r\n") {
                    let body = buffer.split_off(from + at + 4);
                    let head = Head::parse(buffer);
                    let (mut received, mut md5) = (0, Md5::new());
                    count(&head, &mut received, &mut md5, &body);
                    count(&head, &mut received, &mut md5, rest);
                    self.stage = Stage::Body {
                        head,
                        received,
                        md5,
                    };
                } else if !rest.is_empty() || buffer.len() >= self.header_limit {
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
            Stage::Body { head, .. } => Some(head),
        }
    }

    /// Bytes of the body so far.
    pub(super) fn received(&self) -> u64 {
        match &self.stage {
            Stage::Head(_) => 0,
            Stage::Body { received, .. } => *received,
        }
    }

    /// Digest of the body as received, of at most Content-Length bytes.
    pub(super) fn digest(&self) -> BodyDigest {
        BodyDigest(match &self.stage {
            Stage::Head(_) => Md5::new().finalize().into(),
            Stage::Body { md5, .. } => md5.clone().finalize().into(),
        })
    }
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let mut lines = bytes
            .split(|byte| *byte == b'\n')
            .map(|line| line.trim_ascii_end());
        // Only the CR LF is cut from the status line: a space before it counts.
        let end = find(bytes, b"\r\n").unwrap_or(bytes.len());
        let status_line = bytes[..end].to_vec();
        lines.next();
        let content_length = lines.find_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            let digits = value.trim_ascii();
            if !name.eq_ignore_ascii_case(b"content-length")
                || !digits.iter().all(u8::is_ascii_digit)
            {
                return None;
            }
            std::str::from_utf8(digits).ok()?.parse().ok()
        });
        Self {
            status_line,
            content_length,
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

fn count(head: &Head, received: &mut u64, md5: &mut Md5, data: &[u8]) {
    let left = head
        .content_length
        .map_or(u64::MAX, |length| length.saturating_sub(*received));
    let digested = usize::try_from(left).map_or(data.len(), |left| left.min(data.len()));
    md5.update(&data[..digested]);
    *received += data.len() as u64;
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
