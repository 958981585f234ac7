//! The data folder of an embedded node: its files, and the lock that keeps a second process out.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An open data folder. Its locks are held until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    locks: Vec<File>,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it open.
    #[error("{} is in use by process {holder}; stop that one, or name another place", path.display())]
    InUse {
        /// The folder, or the file.
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
    /// Opens a folder, made (mode 0700) where there is none, and locks it.
    ///
    /// # Errors
    /// Where another process holds it, or the operating system refuses.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let io = |source| FolderError::Io { path: path.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        let locks = vec![lock(path, &path.join("lock"))?];
        Ok(Self { path: path.to_owned(), locks })
    }

    /// Locks a file that stands elsewhere, too: two data folders may name the same one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn hold(&mut self, file: &Path) -> Result<(), FolderError> {
        let mut name = file.as_os_str().to_owned();
        name.push(".lock");
        self.locks.push(lock(file, Path::new(&name))?);
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

    /// A store that is made for comparing, or before it takes the other's place.
    pub fn scratch(&self) -> PathBuf {
        self.path.join("store.new.db")
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
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            Ok(_) => self.make_id(&path, random).map_err(io),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.make_id(&path, random).map_err(io),
            Err(error) => Err(io(error)),
        }
    }

    /// Writes it beside and moves it into its place: half an id would be another one.
    fn make_id(&self, path: &Path, random: u128) -> std::io::Result<String> {
        let (id, fresh) = (format!("node_{}", ulid::Ulid(random)), self.path.join("node.id.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        File::open(&self.path)?.sync_all()?;
        Ok(id)
    }

    /// Reads the master key, made of `random` (mode 0600) where there is none.
    ///
    /// # Errors
    /// Where the file cannot be read or written, or holds no key.
    pub fn master_key(&self, random: [u8; 32]) -> Result<[u8; 32], FolderError> {
        let path = self.path.join("master.key");
        let io = |source| FolderError::Io { path: path.clone(), source };
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(file, "{text}").map_err(io)?;
                file.sync_all().map_err(io)?;
                Ok(random)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let text = std::fs::read_to_string(&path).map_err(io)?;
                key_of(text.trim()).ok_or(FolderError::MasterKey { path })
            }
            Err(error) => Err(io(error)),
        }
    }
}

/// Locks `path` by a file that names who holds it.
fn lock(path: &Path, lock_path: &Path) -> Result<File, FolderError> {
    let io = |source| FolderError::Io { path: lock_path.to_owned(), source };
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock_path)
        .map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who holds it is only told, so an unreadable name is no reason to fail in another way.
            if lock.read_to_string(&mut holder).is_err() || holder.trim().is_empty() {
                holder = "unknown".to_owned();
            }
            return Err(FolderError::InUse { path: path.to_owned(), holder: holder.trim().to_owned() });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    lock.set_len(0).map_err(io)?;
    writeln!(lock, "{}", std::process::id()).map_err(io)?;
    Ok(lock)
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
}
