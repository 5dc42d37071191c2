//! The one error of making a view.

/// Fewer bytes than the fixed part of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{have} bytes, at least {need} are needed")]
pub struct Truncated {
    /// Bytes needed.
    pub need: usize,
    /// Bytes there.
    pub have: usize,
}

impl Truncated {
    /// `bytes` has at least `need`.
    pub(crate) fn check(bytes: &[u8], need: usize) -> Result<(), Self> {
        if bytes.len() < need {
            Err(Self {
                need,
                have: bytes.len(),
            })
        } else {
            Ok(())
        }
    }
}
