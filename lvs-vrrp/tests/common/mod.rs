//! The recordings: where they are, how they are read.

use std::path::PathBuf;

/// Folder of the recordings; `None`, said aloud, where there are none.
///
/// # Panics
/// Without recordings in continuous integration.
pub(crate) fn corpus() -> Option<PathBuf> {
    let shared = std::env::var_os("LVS_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let folder = shared.join("corpus/vrrp");
    if folder.join("frames.tsv").exists() {
        return Some(folder);
    }
    let message = format!("no recordings in {}; set LVS_SHARED", folder.display());
    assert!(std::env::var_os("CI").is_none(), "{message}");
    println!("skipped: {message}");
    None
}

/// Rows of a table with a header line, as lists of columns.
pub(crate) fn table(file: &std::path::Path) -> Vec<Vec<String>> {
    std::fs::read_to_string(file)
        .unwrap()
        .lines()
        .skip(1)
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

/// Frames of a capture file with microsecond time stamps, written on a little-endian machine.
pub(crate) fn pcap(file: &std::path::Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1], "{}", file.display());
    let mut frames = Vec::new();
    let mut rest = &bytes[24..];
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        frames.push(rest[16..16 + length].to_vec());
        rest = &rest[16 + length..];
    }
    frames
}
