//! Files that are there, missing, half, or no certificates at all.

use std::io::Write;

use super::*;

fn file(contents: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(contents.as_bytes()).unwrap();
    file
}

fn path(file: &tempfile::NamedTempFile) -> Option<String> {
    Some(file.path().to_str().unwrap().to_owned())
}

#[test]
fn a_missing_file_and_half_a_pair_are_named() {
    let files = Files {
        ca: Some("/nowhere/ca.pem".to_owned()),
        ..Files::default()
    };
    assert!(read(&files).unwrap_err().to_string().starts_with("/nowhere/ca.pem: "));
    let cert = file("x");
    let files = Files {
        client_cert: path(&cert),
        ..Files::default()
    };
    assert!(matches!(read(&files), Err(TrustError::Half)));
    let long = tempfile::NamedTempFile::new().unwrap();
    long.as_file().set_len(FILE_MAX + 1).unwrap();
    let files = Files {
        ca: path(&long),
        ..Files::default()
    };
    assert!(matches!(read(&files), Err(TrustError::TooLong(_))));
}

#[cfg(feature = "tls")]
mod handshake;
