//! Who else may use what is in a data directory: modes that are too wide are repaired, and what cannot be is remarked.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a file of ours is called, or begins with: `journal.db-wal` is one, too.
const OWN_FILES: [&str; 7] = ["journal.db", "store.db", "verify.db", KEY, "node.id", "lock", SNAPSHOTS];
const KEY: &str = "master.key";
const SNAPSHOTS: &str = "snapshots";
/// What other users may do with a file, in its mode.
const OTHERS: u32 = 0o077;
const STICKY: u32 = 0o1000;

/// Takes from other users what they may do with a directory and with what is ours in it. What a link of a name that we open
/// leads to is the file or directory that we use, so it is repaired like one that is there itself; any other link is left
/// alone, since what it leads to is nobody's to judge from here.
pub(super) fn repair_folder(folder: &Path) {
    let mut repaired = usize::from(repair(folder));
    let mut found = Vec::new();
    for path in entries(folder) {
        let name = name_of(&path);
        if !OWN_FILES.iter().any(|own| name.starts_with(own)) {
            continue;
        }
        if !path.is_symlink() {
            found.push(path);
        } else if name == KEY && !leads_into(folder, &path) {
            // Such as a mounted secret: it is used elsewhere, too.
            remark_readable(&path);
        } else if OWN_FILES.contains(&name.trim_end_matches("-wal").trim_end_matches("-shm")) {
            repaired += usize::from(repair(&path));
            // There may be anything else in a directory elsewhere.
            found.extend(entries(&path).into_iter().filter(|path| name == SNAPSHOTS && is_of_snapshots(path)));
        }
    }
    while let Some(path) = found.pop() {
        if path.is_symlink() {
            continue;
        }
        repaired += usize::from(repair(&path));
        found.extend(entries(&path));
    }
    if repaired > 0 {
        tracing::warn!(
            directory = %folder.display(),
            repaired,
            "other users could read the data; their rights to these directories and files were taken away"
        );
    }
}

/// As [`repair_folder`], for a file of SQLite's and what it puts beside it: beside what a link leads to, not beside the link.
pub(super) fn repair_database(file: &Path) {
    let real = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let repaired = ["", "-wal", "-shm"].iter().filter(|ending| repair(&super::with_ending(&real, ending))).count();
    if repaired > 0 {
        tracing::warn!(file = %file.display(), "other users could read it; their rights to it were taken away");
    }
}

/// Says that others can read a file which is not ours to change, such as a mounted secret.
pub(crate) fn remark_readable(path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    if metadata.mode() & OTHERS != 0 {
        let mode = format!("{:04o}", metadata.mode() & 0o7777);
        tracing::warn!(file = %path.display(), mode, "the master key's file may be read by other users of this machine");
    }
}

/// Takes from other users what they may do with a file or directory of this user; returns whether that was needed and done.
fn repair(path: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else { return false };
    if metadata.mode() & OTHERS == 0 {
        return false;
    }
    let own = rustix::process::geteuid();
    let is_ours = metadata.uid() == own.as_raw() && metadata.mode() & STICKY == 0;
    let mode = metadata.mode() & 0o7777 & !OTHERS;
    let repaired = is_ours.then(|| std::fs::set_permissions(path, Permissions::from_mode(mode)));
    if matches!(repaired, Some(Ok(()))) {
        return true;
    }
    let mode = format!("{:04o}", metadata.mode() & 0o7777);
    tracing::warn!(path = %path.display(), mode, "other users may use it, and its mode cannot be changed from here");
    false
}

/// What is in a directory, as far as it can be read.
fn entries(path: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(path).into_iter().flatten();
    read.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Reports whether a link leads to something in the directory that it is in.
fn leads_into(folder: &Path, link: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    real(folder).zip(real(link)).is_some_and(|(folder, target)| target.starts_with(folder))
}

/// Tells what is called as the snapshots call theirs: `mark`, `p0`.
fn is_of_snapshots(path: &Path) -> bool {
    let name = name_of(path);
    let digits = name.strip_prefix('p').unwrap_or_default();
    name == "mark" || (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use crate::folder::DataFolder;
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn put(path: &Path, mode: u32) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn nobody_else_may_read_what_is_there() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let all = ["journal.db", "journal.db-wal", "store.db", "master.key", "snapshots/p0/1.snapshot"];
        all.into_iter().chain(["notes.txt"]).for_each(|name| put(&path.join(name), 0o644));
        let folders = ["", "snapshots", "snapshots/p0"];
        for name in folders {
            std::fs::set_permissions(path.join(name), Permissions::from_mode(0o755)).unwrap();
        }
        drop(DataFolder::beside(&path).unwrap());
        assert_eq!(mode(&path.join("journal.db")), 0o644, "who only reads changes nothing");
        drop(DataFolder::open(&path).unwrap());
        all.into_iter().for_each(|name| assert_eq!(mode(&path.join(name)), 0o600, "{name}"));
        folders.into_iter().for_each(|name| assert_eq!(mode(&path.join(name)), 0o700, "{name:?}"));
        assert_eq!(mode(&path.join("notes.txt")), 0o644, "what is not ours stays as it is");
        assert_eq!(mode(&path.join("lock")), 0o600);
    }

    #[test]
    fn what_a_name_of_ours_leads_to_is_repaired_too() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        put(&at("real/lock"), 0o644);
        std::fs::set_permissions(at("real"), Permissions::from_mode(0o755)).unwrap();
        symlink(at("real"), at("link")).unwrap();
        // What the names lead to, where SQLite has its WAL, and what is none of them.
        let ours = ["disk/j.db", "disk/j.db-wal", "real/k", "fast/p0/1.snapshot", "fast/mark"];
        let others = ["secret/key", "fast/notes.txt", "fast/p0x/1.snapshot", "disk/old.db", "disk/mark"];
        ours.into_iter().chain(others).for_each(|name| put(&at(name), 0o644));
        std::fs::set_permissions(at("fast/p0"), Permissions::from_mode(0o755)).unwrap();
        let links = [
            ("journal.db", "disk/j.db"),
            ("journal.db.old", "disk/old.db"),
            ("master.key", "real/k"),
            ("snapshots", "fast"),
        ];
        links.into_iter().for_each(|(name, to)| symlink(at(to), at("real").join(name)).unwrap());
        // A circle ends.
        symlink(at("fast"), at("fast/p0/up")).unwrap();
        symlink(at("disk/mark"), at("fast/p1")).unwrap();
        let open = || {
            let mut folder = DataFolder::open(&at("link")).unwrap();
            folder.hold(&folder.journal()).unwrap();
        };
        open();
        for name in ours {
            assert_eq!(mode(&at(name)), 0o600, "{name}");
        }
        for name in ["real", "fast", "fast/p0"] {
            assert_eq!(mode(&at(name)), 0o700, "{name}");
        }
        // A key elsewhere is not ours to change.
        std::fs::remove_file(at("real/master.key")).unwrap();
        symlink(at("secret/key"), at("real/master.key")).unwrap();
        open();
        for name in others {
            assert_eq!(mode(&at(name)), 0o644, "{name}");
        }
    }
}
