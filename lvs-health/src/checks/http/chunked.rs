//! The chunked transfer coding (RFC 9112 section 7.1) as a stream: nothing is kept but the place.

/// Where in the coding the stream is.
#[derive(Debug)]
pub(super) enum Chunked {
    /// In a chunk's size; whether a digit has come.
    Size(u64, bool),
    /// In what may follow the size on its line.
    Extension(u64),
    Data(u64),
    /// Behind a chunk's data, before its line end.
    DataEnd,
    /// In the trailer; how many bytes its line has.
    Trailer(u64),
    Done,
    /// Not the coding; what follows is no body.
    Broken,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self::Size(0, false)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Goes through the next bytes of the stream and hands on what belongs to the body.
    pub(super) fn decode<'a>(&mut self, mut data: &'a [u8], mut body: impl FnMut(&'a [u8])) {
        while let Some((byte, rest)) = data.split_first() {
            match *self {
                Self::Data(left) => {
                    let length = usize::try_from(left).map_or(data.len(), |n| n.min(data.len()));
                    body(&data[..length]);
                    data = &data[length..];
                    *self = match left - length as u64 {
                        0 => Self::DataEnd,
                        left => Self::Data(left),
                    };
                    continue;
                }
                Self::Size(size, begun) => {
                    let digit = char::from(*byte).to_digit(16).map(u64::from);
                    *self = match (digit, byte) {
                        (Some(_), _) if size > u64::MAX >> 4 => Self::Broken,
                        (Some(digit), _) => Self::Size(size << 4 | digit, true),
                        (None, _) if !begun => Self::Broken,
                        (None, b'\n') => Self::after_size(size),
                        (None, b';' | b' ' | b'\t' | b'\r') => Self::Extension(size),
                        _ => Self::Broken,
                    };
                }
                Self::Extension(size) => {
                    if *byte == b'\n' {
                        *self = Self::after_size(size);
                    }
                }
                Self::DataEnd => match byte {
                    b'\r' => {}
                    b'\n' => *self = Self::new(),
                    _ => *self = Self::Broken,
                },
                Self::Trailer(length) => {
                    *self = match byte {
                        b'\n' if length == 0 => Self::Done,
                        b'\n' => Self::Trailer(0),
                        b'\r' => Self::Trailer(length),
                        _ => Self::Trailer(length.saturating_add(1)),
                    };
                }
                Self::Done | Self::Broken => return,
            }
            data = rest;
        }
    }

    fn after_size(size: u64) -> Self {
        match size {
            0 => Self::Trailer(0),
            size => Self::Data(size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(pieces: &[&[u8]]) -> (Vec<u8>, Chunked) {
        let mut chunked = Chunked::new();
        let mut body = Vec::new();
        for piece in pieces {
            chunked.decode(piece, |part| body.extend_from_slice(part));
        }
        (body, chunked)
    }

    #[test]
    fn chunks_extensions_and_trailers() {
        let (body, end) = decode(&[b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\nrest"]);
        assert_eq!(body, b"hello!");
        assert!(end.is_done());
        let (body, end) = decode(&[b"5\r\nhel"]);
        assert_eq!(body, b"hel");
        assert!(!end.is_done());
    }

    #[test]
    fn what_is_no_chunk_is_no_body() {
        for text in [
            &b"hello"[..],
            b"\r\n",
            b"-1\r\nx",
            b"11111111111111111\r\nx",
            b"1\r\nxy\r\n",
        ] {
            let (body, end) = decode(&[text]);
            assert!(matches!(end, Chunked::Broken), "{text:?}");
            assert!(body.len() <= 1);
        }
    }

    proptest! {
        #[test]
        fn segments_make_no_difference(body in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(1usize..40, 0..20)) {
            let mut text = Vec::new();
            for chunk in body.chunks(17) {
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let mut pieces = Vec::new();
            let mut rest = &text[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let (decoded, end) = decode(&pieces);
            prop_assert_eq!(decoded, body);
            prop_assert!(end.is_done());
        }

        #[test]
        fn no_bytes_break_it(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let (body, _) = decode(&[&data]);
            prop_assert!(body.len() <= data.len());
        }
    }
}
