//! Where snapshots are kept: a folder, or a bucket of S3 or its like. Credentials come from the environment alone.

use super::{SnapshotError, Snapshots};
use std::path::PathBuf;

const FORM: &str = "a folder, or s3://BUCKET/PREFIX";

/// Where snapshots are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotPlace {
    /// In a folder.
    Folder(PathBuf),
    /// In a bucket, below a prefix that may be empty.
    #[cfg(feature = "s3")]
    S3 {
        /// The bucket.
        bucket: String,
        /// What every object's name begins with.
        prefix: String,
    },
}

impl SnapshotPlace {
    /// Reads a place.
    ///
    /// # Errors
    /// Where it is none that is known, with what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() { Err(format!("expected {FORM}")) } else { Ok(Self::Folder(text.into())) };
        };
        if scheme != "s3" {
            return Err(format!("{scheme}:// is not known; expected {FORM}"));
        }
        Self::bucket(rest)
    }

    #[cfg(feature = "s3")]
    fn bucket(rest: &str) -> Result<Self, String> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(fits) {
            return Err(format!("{bucket:?} is no bucket's name; expected {FORM}"));
        }
        if prefix.contains(['?', '#']) {
            return Err(format!("nothing may stand behind the prefix; expected {FORM}"));
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }

    #[cfg(not(feature = "s3"))]
    fn bucket(_rest: &str) -> Result<Self, String> {
        Err("this build keeps snapshots in folders alone: build it with the feature s3".to_owned())
    }
}

impl Snapshots {
    /// Opens a place.
    ///
    /// # Errors
    /// Where a folder cannot be used, or the environment names no credentials that can be read. Whether a bucket answers
    /// shows at the first question.
    pub fn open(place: &SnapshotPlace) -> Result<Self, SnapshotError> {
        match place {
            SnapshotPlace::Folder(path) => Self::local(path),
            #[cfg(feature = "s3")]
            SnapshotPlace::S3 { bucket, prefix } => s3::open(bucket, prefix),
        }
    }

    /// As [`Self::open`], for who only reads: a folder that does not exist is not made, and holds nothing.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_to_read(place: &SnapshotPlace) -> Result<Self, SnapshotError> {
        match place {
            SnapshotPlace::Folder(path) if !path.is_dir() => Ok(Self::memory()),
            SnapshotPlace::Folder(path) => Self::local(path),
            #[cfg(feature = "s3")]
            SnapshotPlace::S3 { bucket, prefix } => s3::open(bucket, prefix),
        }
    }
}

#[cfg(feature = "s3")]
mod s3 {
    use super::{SnapshotError, Snapshots};
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    use object_store::path::Path as ObjectPath;
    use object_store::prefix::PrefixStore;
    use object_store::{ClientConfigKey, RetryConfig};
    use std::sync::Arc;
    use std::time::Duration;

    /// How long a failing request is tried again. A snapshot that fails is taken anew a minute later.
    const RETRY: Duration = Duration::from_secs(20);
    const CONNECT: &str = "5s";
    /// How long one object may take.
    const REQUEST: &str = "600s";

    pub(super) fn open(bucket: &str, prefix: &str) -> Result<Snapshots, SnapshotError> {
        // It is installed already where something else talked TLS before.
        drop(rustls::crypto::ring::default_provider().install_default());
        let retry = RetryConfig { max_retries: 5, retry_timeout: RETRY, ..RetryConfig::default() };
        // AWS_ACCESS_KEY_ID and its like, AWS_REGION, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP; roles of containers and instances.
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), CONNECT)
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST)
            .with_retry(retry)
            .build()?;
        Ok(Snapshots { objects: Arc::new(PrefixStore::new(store, ObjectPath::from(prefix))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_folder_or_a_bucket() {
        assert_eq!(SnapshotPlace::parse("/srv/hw"), Ok(SnapshotPlace::Folder("/srv/hw".into())));
        assert_eq!(SnapshotPlace::parse("snapshots"), Ok(SnapshotPlace::Folder("snapshots".into())));
        let refused = |text: &str, says: &str| {
            let error = SnapshotPlace::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        };
        refused("", "a folder");
        refused("gs://bucket/x", "gs:// is not known");
        refused("file:///srv", "file:// is not known");
        #[cfg(not(feature = "s3"))]
        refused("s3://bucket/x", "the feature s3");
        #[cfg(feature = "s3")]
        {
            let check = |text: &str, bucket: &str, prefix: &str| {
                let place = SnapshotPlace::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
                assert_eq!(SnapshotPlace::parse(text), Ok(place), "{text}");
            };
            check("s3://bucket/a/b/", "bucket", "a/b");
            check("s3://bucket", "bucket", "");
            refused("s3://", "no bucket's name");
            refused("s3://Bucket/x", "no bucket's name");
            refused("s3://bucket/x?region=y", "behind the prefix");
        }
    }
}
