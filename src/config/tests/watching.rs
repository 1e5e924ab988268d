//! The watcher with real files. Waits are for events, with a deadline that only a failure reaches.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Watches a file; each change sends what it then holds.
fn watched(path: &Path, known: &str, pace: Pace) -> (Watch, Receiver<Option<String>>) {
    let (send, seen) = channel();
    let read: PathBuf = path.to_owned();
    let watch = watch(path, digest(known), pace, move || {
        // The test may have ended.
        let _ = send.send(fs::read_to_string(&read).ok());
    });
    (watch.unwrap(), seen)
}

/// Events only: the poll comes too late to help.
const TOLD: Pace = Pace {
    settle: Duration::from_millis(100),
    poll: Duration::from_secs(3600),
};

fn next(seen: &Receiver<Option<String>>) -> String {
    seen.recv_timeout(DEADLINE)
        .expect("a change is noticed")
        .expect("the file is there")
}

#[test]
fn writing_in_place_renaming_over_and_replacing_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("obleth.yaml");
    fs::write(&path, "one").unwrap();
    let (_watch, seen) = watched(&path, "one", TOLD);
    fs::write(&path, "two").unwrap();
    assert_eq!(next(&seen), "two");
    let other = directory.path().join(".obleth.yaml.swp");
    fs::write(&other, "three").unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(next(&seen), "three");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "four").unwrap();
    // The gap may have been seen as a change of its own, or not.
    assert_eq!(
        std::iter::repeat_with(|| seen.recv_timeout(DEADLINE).unwrap())
            .flatten()
            .next()
            .unwrap(),
        "four"
    );
}

#[test]
fn a_config_maps_swapped_link_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (version, text) in [("..1", "one"), ("..2", "two"), ("..3", "three")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("obleth.yaml"), text).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/obleth.yaml", at("obleth.yaml")).unwrap();
    let (_watch, seen) = watched(&at("obleth.yaml"), "one", TOLD);
    for (version, text) in [("..2", "two"), ("..3", "three")] {
        symlink(version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_eq!(next(&seen), text);
    }
}

#[test]
fn a_half_written_file_is_not_seen_while_it_is_being_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("obleth.yaml");
    fs::write(&path, "whole: 1\n").unwrap();
    let pace = Pace {
        settle: Duration::from_millis(500),
        ..TOLD
    };
    let (_watch, seen) = watched(&path, "whole: 1\n", pace);
    for round in 2..5 {
        fs::write(&path, "").unwrap();
        fs::write(&path, "whole: ").unwrap();
        fs::write(&path, format!("whole: {round}\n")).unwrap();
        assert_eq!(next(&seen), format!("whole: {round}\n"));
    }
    assert!(seen.try_recv().is_err(), "each text is told once");
}

#[test]
fn touching_and_reading_and_other_files_are_no_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("obleth.yaml");
    fs::write(&path, "same").unwrap();
    let (watch, seen) = watched(&path, "same", TOLD);
    fs::write(&path, "same").unwrap();
    fs::write(directory.path().join("other"), "x").unwrap();
    fs::read(&path).unwrap();
    fs::write(&path, "different").unwrap();
    assert_eq!(next(&seen), "different");
    drop(watch);
    assert!(seen.try_recv().is_err(), "nothing else was told, and nothing will be");
}

#[test]
fn a_change_between_loading_and_watching_is_not_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("obleth.yaml");
    fs::write(&path, "after").unwrap();
    let (_watch, seen) = watched(&path, "before", TOLD);
    assert_eq!(next(&seen), "after");
}

#[test]
fn polling_finds_what_no_event_tells() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, target) = (directory.path().join("obleth.yaml"), elsewhere.path().join("real.yaml"));
    fs::write(&target, "one").unwrap();
    symlink(&target, &path).unwrap();
    let pace = Pace {
        settle: Duration::from_millis(20),
        poll: Duration::from_millis(20),
    };
    let (_watch, seen) = watched(&path, "one", pace);
    fs::write(&target, "two").unwrap();
    assert_eq!(next(&seen), "two");
    fs::remove_file(&target).unwrap();
    assert_eq!(seen.recv_timeout(DEADLINE).unwrap(), None, "a file that is gone is told once");
    fs::write(&target, "two").unwrap();
    assert_eq!(next(&seen), "two");
}

#[test]
fn a_busy_directory_does_not_hide_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("obleth.yaml");
    fs::write(&path, "one").unwrap();
    let pace = Pace {
        settle: Duration::from_millis(20),
        ..TOLD
    };
    let (_watch, seen) = watched(&path, "one", pace);
    fs::write(&path, "two").unwrap();
    let noise = directory.path().join("log");
    let start = Instant::now();
    let told = std::iter::repeat_with(|| {
        fs::write(&noise, "x").unwrap();
        seen.try_recv()
    });
    let told = told.take_while(|_| start.elapsed() < DEADLINE);
    assert_eq!(told.flatten().next().unwrap().unwrap(), "two");
}
