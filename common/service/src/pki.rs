//! A certificate authority and certificates for a pair, for those who have no authority of their
//! own.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use model::SiteName;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// How long certificates are valid.
const YEARS: i16 = 10;

/// Why nothing (or not everything) was made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be written, or is there already; the operator takes another directory.
    #[error("{file:?}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key or certificate could not be made: a name that no certificate can carry.
    #[error("no certificate can be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Where the files of one site are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteFiles {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM, mode 0600.
    pub key: PathBuf,
}

/// Writes `ca.pem` and `ca.key`, and for each site `SITE.pem` and `SITE.key`, into a directory,
/// which is made (mode 0700). A certificate carries the site's name and the hosts given, and
/// serves for connecting and for listening. Nothing that exists is overwritten.
///
/// Returns the path of `ca.pem` and the files in the order of the sites.
///
/// # Errors
/// [`PkiError`]; files made before it stay.
pub fn init(
    dir: &Path,
    sites: &[(&SiteName, &[&str])],
) -> Result<(PathBuf, Vec<SiteFiles>), PkiError> {
    make_dir(dir)?;
    let ca_key = KeyPair::generate()?;
    let mut ca = validity(CertificateParams::new(Vec::new())?);
    // Two authorities with one name would be taken for each other until a signature fails.
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    let name = format!("Twinreel CA {}", model::Ulid::generate(now));
    ca.distinguished_name.push(DnType::CommonName, name);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_file = dir.join("ca.pem");
    write_new(&ca_file, ca.self_signed(&ca_key)?.pem().as_bytes(), 0o644)?;
    write_new(&dir.join("ca.key"), ca_key.serialize_pem().as_bytes(), 0o600)?;
    let issuer = Issuer::new(ca, ca_key);
    let made = sites.iter().map(|(site, hosts)| {
        let key = KeyPair::generate()?;
        let mut names = vec![site.to_string()];
        names.extend(hosts.iter().map(|host| (*host).to_owned()));
        let mut params = validity(CertificateParams::new(names)?);
        params.distinguished_name.push(DnType::CommonName, site.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let files = SiteFiles {
            certificate: dir.join(format!("{site}.pem")),
            key: dir.join(format!("{site}.key")),
        };
        let certificate = params.signed_by(&key, &issuer)?;
        write_new(&files.certificate, certificate.pem().as_bytes(), 0o644)?;
        write_new(&files.key, key.serialize_pem().as_bytes(), 0o600)?;
        Ok(files)
    });
    let made: Result<Vec<_>, PkiError> = made.collect();
    Ok((ca_file, made?))
}

/// From yesterday (clocks differ) for ten years.
fn validity(mut params: CertificateParams) -> CertificateParams {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let from = today.yesterday().unwrap_or(today);
    let date = |year: i16| {
        // The 29th of February is not there every year.
        let day = from.day().min(28).unsigned_abs();
        rcgen::date_time_ymd(i32::from(year), from.month().unsigned_abs(), day)
    };
    params.not_before = date(from.year());
    params.not_after = date(from.year().saturating_add(YEARS));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

/// Makes a directory (and those above it) that only its owner may enter.
pub(crate) fn make_dir(dir: &Path) -> Result<(), PkiError> {
    use std::os::unix::fs::DirBuilderExt;
    let result = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    result.map_err(|source| PkiError::File { file: dir.to_owned(), source })
}

/// Writes a file that must not be there yet.
pub(crate) fn write_new(file: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)
        .and_then(|mut open| open.write_all(bytes).and_then(|()| open.sync_all()))
        .map_err(|source| PkiError::File { file: file.to_owned(), source })
}
