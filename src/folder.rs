//! The data directory of a node: its files, who may read them, and the locks that keep a second process from writing.
//!
//! A writer locks each file that it writes, not only the directory, so that no other path to the same file, and no `lock`
//! that somebody deleted, lets two of them write. Who only reads takes none of these locks.

use std::fs::{File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a file of ours is called, or begins with: `journal.db-wal` is one, too.
const OWN_FILES: [&str; 7] = ["journal.db", "store.db", "verify.db", "master.key", "node.id", "lock", "snapshots"];
/// What other users may do with a file, in its mode.
const OTHERS: u32 = 0o077;
const STICKY: u32 = 0o1000;
/// How often a file that another process puts in its place meanwhile is opened again.
const LOCK_TRIES: usize = 10;

/// An open data directory. Its locks are held until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    locks: Vec<File>,
}

/// The lock on a file, until it is dropped.
#[derive(Debug)]
pub struct HeldFile(#[expect(dead_code, reason = "the open file is the lock")] File);

impl HeldFile {
    /// Locks a file that nobody writes at this moment; nothing where somebody does. See [`DataFolder::hold`].
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn take_free(file: &Path) -> Result<Option<Self>, FolderError> {
        match lock(file, &lock_file_of(file)) {
            Ok(held) => Ok(Some(Self(held))),
            Err(FolderError::InUse { .. }) => Ok(None),
            Err(error @ (FolderError::Io { .. } | FolderError::MasterKey { .. })) => Err(error),
        }
    }
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it open.
    #[error("{} is in use by {holder}; stop that one, or name another place", path.display())]
    InUse {
        /// The directory, or the file.
        path: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// The operating system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The master key's file is not a key.
    #[error("{} is no master key: expected 64 hexadecimal digits", path.display())]
    MasterKey {
        /// The file.
        path: PathBuf,
    },
}

impl DataFolder {
    /// Opens a directory to write in it, made (mode 0700) where there is none, and locks it. What other users may do with
    /// it and with its files is taken from them.
    ///
    /// # Errors
    /// Where another process holds it, or the operating system refuses.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let mut folder = Self::beside(path)?;
        folder.locks.push(lock(path, &path.join("lock"))?);
        folder.repair_modes();
        Ok(folder)
    }

    /// As [`Self::open`], beside whoever writes: nothing is locked, and no mode is changed.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn beside(path: &Path) -> Result<Self, FolderError> {
        let io = |source| FolderError::Io { path: path.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        Ok(Self { path: path.to_owned(), locks: Vec::new() })
    }

    /// Locks a file that this process is about to write, wherever it is; made (mode 0600) where there is none.
    ///
    /// It must be called before SQLite opens the file, and the directory be dropped when SQLite has closed it: the operating
    /// system takes SQLite's own locks from a process that closes any other descriptor of the file.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn hold(&mut self, file: &Path) -> Result<(), FolderError> {
        if self.holds(file) {
            return Ok(());
        }
        self.locks.push(lock(file, &lock_file_of(file))?);
        let repaired = ["", "-wal", "-shm"].iter().filter(|ending| repair_mode(&with_ending(file, ending))).count();
        if repaired > 0 {
            tracing::warn!(file = %file.display(), "other users could read it; its mode is 0600 from here on");
        }
        Ok(())
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The journal's file.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal.db")
    }

    /// The store's file.
    pub fn store(&self) -> PathBuf {
        self.path.join("store.db")
    }

    /// As [`Self::hold`], where the file exists: it is not made.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn hold_existing(&mut self, file: &Path) -> Result<(), FolderError> {
        if file.is_file() { self.hold(file) } else { Ok(()) }
    }

    fn holds(&self, file: &Path) -> bool {
        let Ok(named) = std::fs::metadata(lock_file_of(file)) else { return false };
        self.locks.iter().any(|held| held.metadata().is_ok_and(|held| is_same(&held, &named)))
    }

    /// Makes an empty file for a store that is made for comparing, and locks it. It is removed by who asked for it.
    ///
    /// # Errors
    /// Where another process compares in this directory, or the operating system refuses.
    pub fn hold_scratch(&mut self) -> Result<PathBuf, FolderError> {
        let path = self.path.join("verify.db");
        self.hold(&path)?;
        let io = |source| FolderError::Io { path: path.clone(), source };
        // What one that was killed left behind. The file itself stays, for it is what is locked.
        for ending in ["-wal", "-shm"] {
            match std::fs::remove_file(with_ending(&path, ending)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
                Ok(()) | Err(_) => {}
            }
        }
        let emptied = OpenOptions::new().write(true).truncate(true).open(&path);
        emptied.map_err(io)?;
        Ok(path)
    }

    /// What is left of the disk, for who is no superuser; nothing where the system does not tell.
    pub fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.path).ok()?;
        disk.f_bavail.checked_mul(disk.f_frsize)
    }

    /// The folder of snapshots.
    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// What tells this folder from others; made of `random` where there is none yet.
    ///
    /// # Errors
    /// Where the file cannot be read or written.
    pub fn id(&self, random: u128) -> Result<String, FolderError> {
        let path = self.path.join("node.id");
        let io = |source| FolderError::Io { path: path.clone(), source };
        let make = || {
            let id = format!("node_{}", ulid::Ulid(random));
            self.write_whole(&path, &id).map(|()| id).map_err(io)
        };
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            Ok(_) => make(),
            Err(error) if error.kind() == ErrorKind::NotFound => make(),
            Err(error) => Err(io(error)),
        }
    }

    /// The master key's file.
    pub fn master_key_file(&self) -> PathBuf {
        self.path.join("master.key")
    }

    /// Reads the master key; nothing where there is none.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds no key.
    pub fn known_master_key(&self) -> Result<Option<[u8; 32]>, FolderError> {
        let path = self.master_key_file();
        match std::fs::read_to_string(&path) {
            Ok(text) => key_of(text.trim()).map(Some).ok_or(FolderError::MasterKey { path }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FolderError::Io { path, source }),
        }
    }

    /// Reads the master key, made of `random` (mode 0600) where there is none.
    ///
    /// # Errors
    /// Where the file cannot be read or written, or holds no key.
    pub fn master_key(&self, random: [u8; 32]) -> Result<[u8; 32], FolderError> {
        if let Some(key) = self.known_master_key()? {
            return Ok(key);
        }
        let path = self.master_key_file();
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        self.write_whole(&path, &text).map_err(|source| FolderError::Io { path, source })?;
        Ok(random)
    }

    /// Writes a line beside a file and moves it into its place: half an id or half a key would be another one.
    fn write_whole(&self, path: &Path, line: &str) -> std::io::Result<()> {
        let fresh = with_ending(path, ".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        writeln!(file, "{line}")?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        File::open(&self.path)?.sync_all()
    }

    /// Takes from other users what they may do with the directory and with what is ours in it.
    fn repair_modes(&self) {
        let mut repaired = usize::from(repair_mode(&self.path));
        let own = |path: &PathBuf| {
            let name = path.file_name().map(std::ffi::OsStr::to_string_lossy).unwrap_or_default();
            OWN_FILES.iter().any(|own| name.starts_with(own))
        };
        let mut found: Vec<PathBuf> = entries(&self.path).into_iter().filter(own).collect();
        while let Some(path) = found.pop() {
            repaired += usize::from(repair_mode(&path));
            if std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                found.extend(entries(&path));
            }
        }
        if repaired > 0 {
            tracing::warn!(
                directory = %self.path.display(),
                repaired,
                "other users could read the data; directories have the mode 0700 and files 0600 from here on"
            );
        }
    }
}

/// What is in a directory, as far as it can be read.
fn entries(path: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(path).into_iter().flatten();
    read.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Takes from other users what they may do with a file or directory of this user; returns whether that was needed and done.
fn repair_mode(path: &Path) -> bool {
    // Links are left alone: what they lead to is nobody's to judge from here.
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return false };
    if metadata.is_symlink() || metadata.mode() & OTHERS == 0 {
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

/// Says that others can read a file which is not ours to change, such as a mounted secret.
pub(crate) fn remark_readable(path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    if metadata.mode() & OTHERS != 0 {
        let mode = format!("{:04o}", metadata.mode() & 0o7777);
        tracing::warn!(file = %path.display(), mode, "the master key's file may be read by other users of this machine");
    }
}

/// What is locked for a file. On Linux it is the file itself, which has one lock however it is named. Elsewhere such a lock
/// and SQLite's own ones are of one kind and exclude each other, so it is a file beside it.
fn lock_file_of(file: &Path) -> PathBuf {
    if cfg!(target_os = "linux") {
        return file.to_owned();
    }
    with_ending(&std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned()), ".lock")
}

/// Adds to the last name of a path.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Locks `path` by `lock_path`, which may be the same.
fn lock(path: &Path, lock_path: &Path) -> Result<File, FolderError> {
    let io = |source| FolderError::Io { path: lock_path.to_owned(), source };
    for _ in 0..LOCK_TRIES {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(lock_path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder_of(&mut file, path != lock_path);
                return Err(FolderError::InUse { path: path.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // Somebody may have put another file in its place before it was locked.
        let held = file.metadata().map_err(io)?;
        if std::fs::metadata(lock_path).is_ok_and(|named| is_same(&named, &held)) {
            if path != lock_path {
                file.set_len(0).map_err(io)?;
                writeln!(file, "{}", std::process::id()).map_err(io)?;
            }
            return Ok(file);
        }
    }
    Err(FolderError::InUse { path: path.to_owned(), holder: "a process that replaces it".to_owned() })
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Names who has locked a file: by what is written in a file that is only a lock, else by what the kernel tells.
fn holder_of(file: &mut File, is_only_a_lock: bool) -> String {
    let mut text = String::new();
    let written = is_only_a_lock && file.read_to_string(&mut text).is_ok();
    let process = if written { text.trim().parse::<u32>().ok() } else { None };
    process.or_else(|| locking_process(file)).map_or_else(|| "another process".to_owned(), |id| format!("process {id}"))
}

/// Looks a lock up in `/proc/locks`, whose lines are such as `1: FLOCK ADVISORY WRITE 4711 fe:00:6414340 0 EOF`.
fn locking_process(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [_, "FLOCK", _, "WRITE", process, place, ..] if place.rsplit(':').next() == Some(&inode) => {
                process.parse().ok().filter(|id| *id != 0)
            }
            _ => None,
        }
    })
}

/// Reads a key of 64 hexadecimal digits.
pub(crate) fn key_of(text: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_used_once_at_a_time_and_keeps_its_key() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let folder = DataFolder::open(&path).unwrap();
        let refused = DataFolder::open(&path).unwrap_err().to_string();
        assert!(
            refused.contains("in use by process") && refused.contains(&std::process::id().to_string()),
            "{refused}"
        );
        assert_eq!(folder.master_key([1; 32]).unwrap(), [1; 32]);
        assert_eq!(folder.id(1).unwrap(), folder.id(2).unwrap());
        let elsewhere = parent.path().join("elsewhere.db");
        let mut folder = folder;
        folder.hold(&elsewhere).unwrap();
        let mut other = DataFolder::open(&parent.path().join("other")).unwrap();
        assert_ne!(other.id(3).unwrap(), folder.id(4).unwrap());
        assert!(matches!(other.hold(&elsewhere), Err(FolderError::InUse { .. })));
        assert_eq!(folder.master_key([2; 32]).unwrap(), [1; 32]);
        drop(folder);
        let folder = DataFolder::open(&path).unwrap();
        std::fs::write(path.join("master.key"), "short").unwrap();
        assert!(matches!(folder.master_key([2; 32]), Err(FolderError::MasterKey { .. })));
    }

    #[test]
    fn a_file_has_one_lock_however_it_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let mut first = DataFolder::open(&path("first")).unwrap();
        let file = first.journal();
        first.hold(&file).unwrap();
        std::os::unix::fs::symlink(&file, path("link.db")).unwrap();
        std::fs::hard_link(&file, path("other-name.db")).unwrap();
        let mut second = DataFolder::open(&path("second")).unwrap();
        std::fs::remove_file(path("first").join("lock")).unwrap();
        for name in ["first/journal.db", "first/../first/journal.db", "link.db", "other-name.db"] {
            let refused = second.hold(&path(name));
            assert!(matches!(refused, Err(FolderError::InUse { .. })), "{name}: {refused:?}");
            assert!(HeldFile::take_free(&path(name)).unwrap().is_none());
        }
        assert!(DataFolder::open(&path("first")).is_ok(), "the lock that was deleted keeps nobody out");
        // A file that took the place of the locked one is another one.
        std::fs::write(path("fresh.db"), "").unwrap();
        std::fs::rename(path("fresh.db"), &file).unwrap();
        second.hold(&file).unwrap();
        second.hold(&path("link.db")).unwrap();
        drop(first);
        assert!(HeldFile::take_free(&path("link.db")).unwrap().is_none());
    }

    #[test]
    fn nobody_else_may_read_what_is_there() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        std::fs::create_dir_all(path.join("snapshots/p0")).unwrap();
        let chmod = |name: &str, mode| {
            std::fs::set_permissions(path.join(name), Permissions::from_mode(mode)).unwrap();
        };
        let all = ["journal.db", "journal.db-wal", "store.db", "master.key", "snapshots/p0/1.snapshot"];
        for name in all.into_iter().chain(["notes.txt"]) {
            std::fs::write(path.join(name), "").unwrap();
            chmod(name, 0o644);
        }
        let folders = ["", "snapshots", "snapshots/p0"];
        folders.into_iter().for_each(|name| chmod(name, 0o755));
        drop(DataFolder::beside(&path).unwrap());
        let mode = |name: &str| std::fs::metadata(path.join(name)).unwrap().mode() & 0o7777;
        assert_eq!(mode("journal.db"), 0o644, "who only reads changes nothing");
        drop(DataFolder::open(&path).unwrap());
        all.into_iter().for_each(|name| assert_eq!(mode(name), 0o600, "{name}"));
        folders.into_iter().for_each(|name| assert_eq!(mode(name), 0o700, "{name:?}"));
        assert_eq!(mode("notes.txt"), 0o644, "what is not ours stays as it is");
        assert_eq!(mode("lock"), 0o600);
    }
}
