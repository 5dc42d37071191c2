//! Files that lie beside the repository.

use std::path::{Path, PathBuf};

/// A folder of the shared material, `None` (said aloud) where there is none; in CI that is a failure.
pub(crate) fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LVS_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        |given| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(given),
    );
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{} is absent, set LVS_SHARED",
        path.display()
    );
    eprintln!("skipped: {} is absent, set LVS_SHARED", path.display());
    None
}

/// Every `.conf` file of a folder, sorted: name and bytes.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder can be listed")
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "conf"))
        .map(|path| {
            let name = path
                .file_name()
                .expect("listed files have names")
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read(&path).expect("the file can be read"))
        })
        .collect();
    files.sort();
    files
}
