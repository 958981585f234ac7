//! The data directory of a node: its files, who may read them, and the locks that keep a second process from writing.
//!
//! A writer locks each file that it writes, not only the directory, so that no other path to the same file, and no `lock`
//! that somebody deleted, lets two of them write. Who only reads takes none of these locks.

mod modes;

pub(crate) use modes::remark_readable;

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
    #[error("{} is damaged: it holds no master key; expected 64 hexadecimal digits; put the right one back", path.display())]
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
        modes::repair_folder(path);
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
        modes::repair_database(file);
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
        // Bytes: what is no text is no key either, and not a file that cannot be read.
        match std::fs::read(&path) {
            Ok(bytes) => key_of(&bytes).map(Some).ok_or(FolderError::MasterKey { path }),
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

/// Reads a key of 64 hexadecimal digits, with whitespace around.
pub(crate) fn key_of(text: &[u8]) -> Option<[u8; 32]> {
    let (pairs, rest) = text.trim_ascii().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut key = [0; 32];
    for (byte, &[high, low]) in key.iter_mut().zip(pairs) {
        *byte = digit(high)? << 4 | digit(low)?;
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
    fn a_key_is_64_hexadecimal_digits() {
        let key = "0aF1".repeat(16);
        for whole in [key.clone(), format!("{key}\n"), format!(" {key}\r\n")] {
            assert_eq!(key_of(whole.as_bytes()).map(|key| (key[0], key[31])), Some((0x0a, 0xf1)), "{whole:?}");
        }
        for wrong in ["", "\n", &key[1..], &format!("{key}0"), &"+a".repeat(32), &"0g".repeat(32), &"ä".repeat(32)] {
            assert_eq!(key_of(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(key_of(&[0xff; 64]), None);
    }
}
