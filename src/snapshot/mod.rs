//! Snapshots: a partition's state at a position, so that a restart folds the rest only.
//!
//! They are objects in an object store: a folder, or a bucket (see [`SnapshotPlace`]). Each carries its format, position, lengths and a SHA-256, and is
//! written whole under its final name. One that cannot be read is passed over for an older one, and the caller is told.

mod place;

pub use place::SnapshotPlace;

use crate::domain::id::{PartitionId, Position};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// The object that tells whose snapshots they are.
const MARK: &str = "mark";
const MAGIC: &[u8; 4] = b"HWS1";
const DIGEST_BYTES: usize = 32;
/// A snapshot says how large it is before it is unpacked; past this it is not believed.
const UNPACKED_BYTES_MAX: u64 = 64 << 30;

/// How often the snapshots are listed for one that is not removed before it is read.
const LIST_TRIES: usize = 3;

/// A partition's state at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last record that it has taken in.
    pub position: Position,
    /// The format of its parts.
    pub format: u32,
    /// Named parts.
    pub parts: Vec<(Cow<'static, str>, Vec<u8>)>,
}

impl Snapshot {
    /// The bytes of a part; none where there is no such part.
    pub fn part(&self, name: &str) -> &[u8] {
        self.parts.iter().find(|(known, _)| known == name).map_or(&[], |(_, bytes)| bytes)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The newest readable snapshot.
    pub snapshot: Option<Snapshot>,
    /// Newer ones that cannot be read, each with why.
    pub skipped: Vec<(String, String)>,
}

/// Where snapshots are kept.
#[derive(Clone, Debug)]
pub struct Snapshots {
    objects: Arc<dyn ObjectStore>,
}

/// Why snapshots cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The folder cannot be used.
    #[error("cannot use the folder of snapshots {path}")]
    Folder {
        /// Which one.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The object store failed.
    #[error("the snapshots' object store failed")]
    Objects(#[from] object_store::Error),
    /// The bytes could not be packed.
    #[error("pack a snapshot")]
    Pack(#[from] std::io::Error),
}

impl Snapshots {
    /// Keeps snapshots in a folder, made where there is none.
    ///
    /// # Errors
    /// Where the folder cannot be used.
    pub fn local(path: &Path) -> Result<Self, SnapshotError> {
        let folder = |source| SnapshotError::Folder { path: path.display().to_string(), source };
        std::fs::create_dir_all(path).map_err(folder)?;
        let store = object_store::local::LocalFileSystem::new_with_prefix(path)?;
        Ok(Self { objects: Arc::new(store) })
    }

    /// Keeps snapshots in memory, for tests.
    pub fn memory() -> Self {
        Self { objects: Arc::new(object_store::memory::InMemory::new()) }
    }

    /// Reads the mark that tells these snapshots from others.
    ///
    /// # Errors
    /// Where the object store fails.
    pub async fn mark(&self) -> Result<Option<String>, SnapshotError> {
        match self.objects.get(&ObjectPath::from(MARK)).await {
            Ok(found) => Ok(Some(String::from_utf8_lossy(&found.bytes().await?).into_owned())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets the mark where there is none, and returns the one that there is then: of nodes that do so at once, one sets it.
    ///
    /// # Errors
    /// Where the object store fails.
    pub async fn set_mark(&self, mark: &str) -> Result<String, SnapshotError> {
        let options = PutOptions::from(PutMode::Create);
        match self.objects.put_opts(&ObjectPath::from(MARK), mark.to_owned().into_bytes().into(), options).await {
            Ok(_) => Ok(mark.to_owned()),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(self.mark().await?.unwrap_or_default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores a snapshot under its partition and position.
    ///
    /// # Errors
    /// Where the object store fails.
    pub async fn publish(&self, partition: PartitionId, snapshot: Snapshot) -> Result<(), SnapshotError> {
        let path = object_path(partition, snapshot.position);
        let packed = tokio::task::spawn_blocking(move || pack(&snapshot)).await.map_err(std::io::Error::other)??;
        self.objects.put(&path, packed.into()).await?;
        Ok(())
    }

    /// Finds the newest readable snapshot at or before a position.
    ///
    /// # Errors
    /// Where the object store fails; a snapshot that cannot be read is no error.
    pub async fn newest_at_or_below(
        &self,
        partition: PartitionId,
        position: Position,
    ) -> Result<Loaded, SnapshotError> {
        for _ in 1..LIST_TRIES {
            match self.look_below(partition, position).await {
                // Whoever owns the partition removed it meanwhile, for a newer one.
                Err(SnapshotError::Objects(object_store::Error::NotFound { .. })) => {}
                found => return found,
            }
        }
        self.look_below(partition, position).await
    }

    async fn look_below(&self, partition: PartitionId, position: Position) -> Result<Loaded, SnapshotError> {
        let mut loaded = Loaded::default();
        for (path, at) in self.positions(partition).await?.into_iter().rev() {
            if at > position {
                continue;
            }
            let bytes = self.objects.get(&path).await?.bytes().await?;
            match unpack(&bytes) {
                Ok(snapshot) if snapshot.position == at => {
                    loaded.snapshot = Some(snapshot);
                    break;
                }
                Ok(snapshot) => {
                    loaded
                        .skipped
                        .push((path.to_string(), format!("it says that it is of position {}", snapshot.position)));
                }
                Err(why) => loaded.skipped.push((path.to_string(), why.to_owned())),
            }
        }
        Ok(loaded)
    }

    /// The position of the newest snapshot of a partition, readable or not.
    ///
    /// # Errors
    /// Where the object store fails.
    pub async fn newest_position(&self, partition: PartitionId) -> Result<Option<Position>, SnapshotError> {
        Ok(self.positions(partition).await?.last().map(|(_, at)| *at))
    }

    /// Removes all but the newest `keep` snapshots of a partition.
    ///
    /// # Errors
    /// Where the object store fails.
    pub async fn prune(&self, partition: PartitionId, keep: usize) -> Result<(), SnapshotError> {
        let positions = self.positions(partition).await?;
        let old = positions.len().saturating_sub(keep);
        for (path, _) in positions.into_iter().take(old) {
            self.objects.delete(&path).await?;
        }
        Ok(())
    }

    async fn positions(&self, partition: PartitionId) -> Result<Vec<(ObjectPath, Position)>, SnapshotError> {
        let prefix = ObjectPath::from(format!("p{}", partition.0));
        let listed = self.objects.list_with_delimiter(Some(&prefix)).await?;
        let position = |path: &ObjectPath| path.filename()?.strip_suffix(".snapshot")?.parse().ok().map(Position);
        let mut positions: Vec<_> = listed
            .objects
            .into_iter()
            .filter_map(|object| position(&object.location).map(|at| (object.location, at)))
            .collect();
        positions.sort_by_key(|(_, at)| *at);
        Ok(positions)
    }
}

fn object_path(partition: PartitionId, position: Position) -> ObjectPath {
    ObjectPath::from(format!("p{}/{:020}.snapshot", partition.0, position.0))
}

/// `HWS1`, SHA-256 of the rest, then position, format, the unpacked size and the parts packed by zstd.
fn pack(snapshot: &Snapshot) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    plain.extend_from_slice(&(snapshot.parts.len() as u32).to_le_bytes());
    for (name, bytes) in &snapshot.parts {
        plain.extend_from_slice(&(name.len() as u32).to_le_bytes());
        plain.extend_from_slice(name.as_bytes());
        plain.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        plain.extend_from_slice(bytes);
    }
    let mut rest = Vec::new();
    rest.extend_from_slice(&snapshot.position.0.to_le_bytes());
    rest.extend_from_slice(&snapshot.format.to_le_bytes());
    rest.extend_from_slice(&(plain.len() as u64).to_le_bytes());
    rest.extend_from_slice(&zstd::bulk::compress(&plain, 1)?);
    let mut whole = MAGIC.to_vec();
    whole.extend_from_slice(&Sha256::digest(&rest));
    whole.extend_from_slice(&rest);
    Ok(whole)
}

fn unpack(whole: &[u8]) -> Result<Snapshot, &'static str> {
    let cut = "it ends too early";
    let rest = whole.strip_prefix(MAGIC).ok_or("it does not begin like a snapshot")?;
    let (digest, rest) = rest.split_at_checked(DIGEST_BYTES).ok_or(cut)?;
    if Sha256::digest(rest).as_slice() != digest {
        return Err("its bytes are not those that were written");
    }
    let mut head = rest;
    let position = Position(u64::from_le_bytes(take(&mut head).ok_or(cut)?));
    let format = u32::from_le_bytes(take(&mut head).ok_or(cut)?);
    let size = u64::from_le_bytes(take(&mut head).ok_or(cut)?);
    if size > UNPACKED_BYTES_MAX {
        return Err("it claims to be larger than any snapshot");
    }
    let plain =
        zstd::bulk::decompress(head, usize::try_from(size).unwrap_or(usize::MAX)).map_err(|_| "it does not unpack")?;
    let mut plain = plain.as_slice();
    let count = u32::from_le_bytes(take(&mut plain).ok_or(cut)?);
    let mut parts = Vec::new();
    for _ in 0..count {
        let length = u32::from_le_bytes(take(&mut plain).ok_or(cut)?) as usize;
        let (name, after) = plain.split_at_checked(length).ok_or(cut)?;
        plain = after;
        let length = usize::try_from(u64::from_le_bytes(take(&mut plain).ok_or(cut)?)).unwrap_or(usize::MAX);
        let (bytes, after) = plain.split_at_checked(length).ok_or(cut)?;
        plain = after;
        let name = String::from_utf8(name.to_vec()).map_err(|_| "a part's name is no text")?;
        parts.push((Cow::Owned(name), bytes.to_vec()));
    }
    Ok(Snapshot { position, format, parts })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(position: u64) -> Snapshot {
        Snapshot {
            position: Position(position),
            format: 1,
            parts: vec![("engine".into(), vec![position as u8; 1_000]), ("dedup".into(), vec![])],
        }
    }

    #[tokio::test]
    async fn the_newest_that_the_store_holds_is_found() {
        let folder = tempfile::tempdir().unwrap();
        for snapshots in [Snapshots::memory(), Snapshots::local(&folder.path().join("snapshots")).unwrap()] {
            contract(&snapshots).await;
        }
    }

    #[cfg(feature = "s3")]
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "where services are is told by the environment")]
    async fn a_bucket_is_as_good_as_a_folder() {
        let named = std::env::var("HIGHWATER_TEST_S3").is_ok();
        let required = std::env::var("HIGHWATER_TEST_SERVICES").is_ok_and(|value| value == "required");
        assert!(named || !required, "HIGHWATER_TEST_S3 is not set; scripts/services up starts a server");
        if !named {
            return;
        }
        let prefix = format!("contract-{}", std::process::id());
        let place = SnapshotPlace::parse(&format!("s3://highwater-test/{prefix}")).unwrap();
        contract(&Snapshots::open(&place).unwrap()).await;
        let other = SnapshotPlace::parse(&format!("s3://highwater-test/{prefix}-other")).unwrap();
        assert_eq!(Snapshots::open(&other).unwrap().mark().await.unwrap(), None);
    }

    async fn contract(snapshots: &Snapshots) {
        let partition = PartitionId(3);
        {
            for position in [5, 900, 10_000] {
                snapshots.publish(partition, snapshot(position)).await.unwrap();
            }
            let newest = async |at: u64| snapshots.newest_at_or_below(partition, Position(at)).await.unwrap().snapshot;
            assert_eq!(newest(u64::MAX).await, Some(snapshot(10_000)));
            assert_eq!(newest(9_999).await, Some(snapshot(900)));
            assert_eq!(newest(4).await, None);
            assert_eq!(snapshots.newest_position(partition).await.unwrap(), Some(Position(10_000)));
            assert_eq!(snapshots.newest_position(PartitionId(1)).await.unwrap(), None);
            assert_eq!(snapshots.newest_at_or_below(PartitionId(1), Position(9)).await.unwrap().snapshot, None);
            assert_eq!(snapshots.mark().await.unwrap(), None);
            let (one, other) = futures::join!(snapshots.set_mark("a"), snapshots.set_mark("b"));
            let mark = snapshots.mark().await.unwrap();
            assert_eq!((one.ok(), other.ok()), (mark.clone(), mark));
            snapshots.prune(partition, 2).await.unwrap();
            assert_eq!(newest(899).await, None);
            assert_eq!(newest(900).await, Some(snapshot(900)));
        }
    }

    #[tokio::test]
    async fn a_damaged_one_is_passed_over() {
        let whole = pack(&snapshot(7)).unwrap();
        assert_eq!(unpack(&whole).unwrap(), snapshot(7));
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(unpack(&damaged).is_err(), "byte {at}");
            assert!(unpack(&whole[..at]).is_err(), "cut at {at}");
        }
        let snapshots = Snapshots::memory();
        snapshots.publish(PartitionId(0), snapshot(7)).await.unwrap();
        snapshots.objects.put(&object_path(PartitionId(0), Position(8)), whole[..20].to_vec().into()).await.unwrap();
        let loaded = snapshots.newest_at_or_below(PartitionId(0), Position(9)).await.unwrap();
        assert_eq!(loaded.snapshot, Some(snapshot(7)));
        assert_eq!(loaded.skipped.len(), 1);
    }
}
