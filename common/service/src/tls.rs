//! Mutual TLS 1.3 between the engines: both sides show a certificate of the pair's own authority,
//! and the name in it is the site that speaks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::SiteName;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::config::TlsFiles;

/// How long a handshake may take; a stranger who says nothing is shown out.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// Certificates in one file; more is no chain.
const CHAIN_MAX: usize = 16;

/// Why there is no secured connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file can not be read or holds something else; the operator looks at it.
    #[error("{file:?}: {cause}")]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The private key can be read by others; the text says what to run.
    #[error("{0}")]
    Exposed(String),
    /// Key and certificate do not belong together.
    #[error("the key {key:?} does not belong to the certificate {certificate:?}")]
    KeyMismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
    },
    /// Our own certificate would be refused by the peer.
    #[error("{certificate:?} would be refused: {cause}")]
    Own {
        /// The certificate file.
        certificate: PathBuf,
        /// Why.
        cause: String,
    },
    /// The text is neither a host name nor an address.
    #[error("{0:?} is neither a host name nor an address")]
    Name(String),
    /// The handshake was cut short by the network or by a peer that ended. A retry may help.
    #[error("{0}")]
    Handshake(String),
    /// One side does not accept the other; the text says whose fault it is and what helps.
    #[error("{0}")]
    Refused(String),
    /// The peer did not finish the handshake in time. A retry may help.
    #[error("the peer did not finish the TLS handshake within {} seconds", HANDSHAKE.as_secs())]
    TimedOut,
}

/// Everything read from the three files, checked.
struct Identity {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn unusable(file: &Path, cause: impl ToString) -> TlsError {
    TlsError::File { file: file.to_owned(), cause: cause.to_string() }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |cause: String| unusable(file, cause);
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .map_err(|error| fail(error.to_string()))?
        .take(CHAIN_MAX + 1)
        .collect();
    let all = all.map_err(|error| fail(error.to_string()))?;
    match all.len() {
        0 => Err(fail("holds no certificate (-----BEGIN CERTIFICATE-----)".to_owned())),
        n if n > CHAIN_MAX => Err(fail(format!("holds more than {CHAIN_MAX} certificates"))),
        _ => Ok(all),
    }
}

fn identity(files: TlsFiles<'_>) -> Result<Identity, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in certificates(files.ca)? {
        roots.add(ca).map_err(|error| unusable(files.ca, explain(&error)))?;
    }
    let chain = certificates(files.certificate)?;
    Ok(Identity { roots: Arc::new(roots), chain, key: private_key(files.key)? })
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    crate::config::private(file).map_err(TlsError::Exposed)?;
    PrivateKeyDer::from_pem_file(file)
        .map_err(|_| unusable(file, "holds no private key (-----BEGIN PRIVATE KEY-----)"))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn own(files: TlsFiles<'_>, error: &rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch {
            key: files.key.to_owned(),
            certificate: files.certificate.to_owned(),
        },
        other => TlsError::Own { certificate: files.certificate.to_owned(), cause: explain(other) },
    }
}

fn client_verifier(roots: &Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(|error| error.to_string())
}

/// What the connecting engine speaks with.
///
/// # Errors
/// Every [`TlsError`] that names a file.
pub fn client_config(files: TlsFiles<'_>) -> Result<Arc<ClientConfig>, TlsError> {
    let Identity { roots, chain, key } = identity(files)?;
    let verifier = client_verifier(&roots).map_err(|cause| unusable(files.ca, cause))?;
    // Our own certificate is looked at as the peer will, so that the operator hears it here.
    let (own_cert, intermediates) = chain.split_first().ok_or_else(|| no_chain(files))?;
    verifier
        .verify_client_cert(own_cert, intermediates, UnixTime::now())
        .map_err(|error| own(files, &error))?;
    let server = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| unusable(files.ca, error))?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| own(files, &error))?
        .with_webpki_verifier(server)
        .with_client_auth_cert(chain, key)
        .map_err(|error| own(files, &error))?;
    Ok(Arc::new(config))
}

/// What the listening engine speaks with.
///
/// # Errors
/// Every [`TlsError`] that names a file.
pub fn server_config(files: TlsFiles<'_>) -> Result<Arc<ServerConfig>, TlsError> {
    let Identity { roots, chain, key } = identity(files)?;
    let verifier = client_verifier(&roots).map_err(|cause| unusable(files.ca, cause))?;
    let (own_cert, intermediates) = chain.split_first().ok_or_else(|| no_chain(files))?;
    let check = || {
        let parsed = rustls::server::ParsedCertificate::try_from(own_cert)?;
        let algorithms = provider().signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &roots,
            intermediates,
            UnixTime::now(),
            algorithms,
        )
    };
    check().map_err(|error| own(files, &error))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| own(files, &error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| own(files, &error))?;
    Ok(Arc::new(config))
}

/// What a server for anybody's programs speaks with: TLS 1.2 and 1.3, no certificate asked for.
///
/// # Errors
/// Every [`TlsError`] that names a file.
pub fn https_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let files = TlsFiles { ca: certificate, certificate, key };
    let chain = certificates(certificate)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| own(files, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, private_key(key)?)
        .map_err(|error| own(files, &error))?;
    Ok(Arc::new(config))
}

/// What a client of anybody's server speaks with: TLS 1.2 and 1.3, servers that these authorities
/// vouch for, no certificate of its own.
///
/// # Errors
/// Every [`TlsError`] that names a file.
pub fn https_client_config(ca: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| unusable(ca, explain(&error)))?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| unusable(ca, explain(&error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn no_chain(files: TlsFiles<'_>) -> TlsError {
    unusable(files.certificate, "holds no certificate")
}

/// The server name that a certificate must carry: a host name, a site name or an address.
///
/// # Errors
/// [`TlsError::Name`].
pub fn server_name(text: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(text.to_owned()).map_err(|_| TlsError::Name(text.to_owned()))
}

/// A secured connection with the names of the peer's certificate.
#[derive(Debug)]
pub struct Secured<S> {
    /// The stream to read and write.
    pub stream: S,
    /// Common name first, then the DNS names: a site is looked for among them
    /// ([`crate::config::RemoteConfig::peer`]).
    pub peer_names: Vec<String>,
}

impl<S> Secured<S> {
    /// The site that speaks: the first of the names that can be one. `None` for a certificate
    /// that was made for something else.
    pub fn site(&self) -> Option<SiteName> {
        self.peer_names.iter().find_map(|name| SiteName::new(name).ok())
    }
}

/// Secures a stream from the connecting side; the peer must carry `name`.
///
/// # Errors
/// [`TlsError::Handshake`], [`TlsError::Refused`], [`TlsError::TimedOut`]. With TLS 1.3 a server
/// that refuses *our* certificate says so in the first read; [`explain_io`] reads that.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: &Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Secured<client::TlsStream<S>>, TlsError> {
    let handshake = TlsConnector::from(config.clone()).connect(name, stream);
    let stream = timed(handshake).await?;
    let peer_names = peer_names(stream.get_ref().1.peer_certificates().unwrap_or_default());
    Ok(Secured { stream, peer_names })
}

/// Secures a stream from the listening side.
///
/// # Errors
/// [`TlsError::Handshake`], [`TlsError::Refused`], [`TlsError::TimedOut`].
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: &Arc<ServerConfig>,
) -> Result<Secured<server::TlsStream<S>>, TlsError> {
    let stream = timed(TlsAcceptor::from(config.clone()).accept(stream)).await?;
    let peer_names = peer_names(stream.get_ref().1.peer_certificates().unwrap_or_default());
    Ok(Secured { stream, peer_names })
}

async fn timed<T>(handshake: impl Future<Output = std::io::Result<T>>) -> Result<T, TlsError> {
    match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if tls_error(&error).is_some() => Err(TlsError::Refused(explain_io(&error))),
        Ok(Err(error)) => Err(TlsError::Handshake(explain_io(&error))),
        Err(_) => Err(TlsError::TimedOut),
    }
}

/// The names in a peer's verified certificate (the first of the chain): common name, then the DNS
/// names. Empty for a certificate without names.
pub fn peer_names(chain: &[CertificateDer<'_>]) -> Vec<String> {
    let Some(first) = chain.first() else { return Vec::new() };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(first) else {
        return Vec::new();
    };
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let mut names: Vec<String> = common.map(str::to_owned).collect();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            if let x509_parser::extensions::GeneralName::DNSName(name) = name {
                names.push((*name).to_owned());
            }
        }
    }
    names.dedup();
    names
}

/// What a failed read, write or handshake of a secured stream means, for the operator.
pub fn explain_io(error: &std::io::Error) -> String {
    match tls_error(error) {
        Some(tls) => explain(tls),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the peer closed the connection".to_owned()
        }
        None => error.to_string(),
    }
}

/// What the protocol itself found wrong, if it was that and not the network.
fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
}

fn explain(error: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, Error};
    match error {
        Error::InvalidCertificate(cause) => explain_certificate(cause),
        Error::NoCertificatesPresented => "the peer shows no certificate".to_owned(),
        Error::AlertReceived(Alert::UnknownCA) => {
            "the peer does not know the authority of our certificate: both must be made by the \
             same CA"
                .to_owned()
        }
        Error::AlertReceived(Alert::CertificateExpired) => {
            "the peer finds our certificate expired: look at both clocks, or renew it".to_owned()
        }
        Error::AlertReceived(Alert::CertificateRequired) => {
            "the peer wants a certificate of us".to_owned()
        }
        Error::AlertReceived(alert) => format!("the peer refuses: {alert:?}"),
        Error::InvalidMessage(_) => "the peer does not speak TLS".to_owned(),
        Error::PeerIncompatible(_) => "the peer does not speak TLS 1.3".to_owned(),
        other => other.to_string(),
    }
}

fn explain_certificate(cause: &CertificateError) -> String {
    let day = |time: &UnixTime| {
        let second = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_second(second).map_or_else(|_| "ever".to_owned(), |t| t.to_string())
    };
    match cause {
        CertificateError::Expired => "the certificate has expired: renew it".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate expired at {}: renew it", day(not_after))
        }
        CertificateError::NotValidYet => "the certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the certificate is valid from {} only: look at the clock", day(not_before))
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate is not made by the configured CA".to_owned()
        }
        CertificateError::NotValidForName => {
            "the certificate does not carry the expected name: set server_name".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the certificate is for {}, not for {}: set server_name to one of its names",
            presented.join(", "),
            expected.to_str()
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not made for this use (extended key usage)".to_owned()
        }
        other => format!("the certificate is not valid: {other:?}"),
    }
}
