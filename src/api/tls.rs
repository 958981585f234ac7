//! HTTPS: a certificate and its key from files, exchanged while connections go on.
//!
//! HTTP/2 is offered before HTTP/1.1, and here alone: without encryption nobody needs it, and a proxy that does not know it
//! could be led to pass on what it never looked at.

use rustls::ServerConfig;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

/// How HTTP/2 is called in a handshake.
pub(super) const HTTP_2: &[u8] = b"h2";

/// Where the certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate's chain, PEM, the server's own first.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// Why connections cannot be encrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("read {}: {detail}", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The files do not go together.
    #[error("{} and its key cannot be used: {detail}", path.display())]
    Unusable {
        /// The certificate's.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// What encrypts new connections; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {
    files: Arc<TlsFiles>,
    present: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let present = Arc::new(RwLock::new(read(&files)?));
        Ok(Self { files: Arc::new(files), present })
    }

    /// Reads the files anew; connections that are open go on as they are.
    ///
    /// # Errors
    /// Where they cannot be used: what was read before stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = read(&self.files)?;
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// What greets the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| unreadable(&files.certificate, &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable(&files.key, &error))?;
    let unusable = |detail: String| TlsError::Unusable { path: files.certificate.clone(), detail };
    if chain.is_empty() {
        return Err(unusable("the file holds no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| unusable(error.to_string()))?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).map_err(|error| unusable(error.to_string()))?;
    config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Says what is wrong with a file, and nothing of what it holds.
fn unreadable(path: &Path, error: &Error) -> TlsError {
    let detail = if let Error::Io(error) = error {
        error.to_string()
    } else if matches!(error, Error::NoItemsFound) {
        "there is nothing of the kind in it".to_owned()
    } else {
        "it is no PEM".to_owned()
    };
    TlsError::Unreadable { path: path.to_owned(), detail }
}
