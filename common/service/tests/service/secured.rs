//! Mutual TLS between the engines of a pair, and who is turned away.

use std::path::Path;
use std::sync::Arc;

use model::SiteName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use service::config::{EngineConfig, LocalConfig, RemoteConfig, TlsFiles};
use service::framing;
use service::pki::{self, SiteFiles};
use service::tls::{self, TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pair;

struct Made {
    _dir: tempfile::TempDir,
    ca: std::path::PathBuf,
    sites: Vec<SiteFiles>,
}

impl Made {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (hq, dr) = (SiteName::new("hq").unwrap(), SiteName::new("dr").unwrap());
        let (ca, sites) =
            pki::init(&dir.path().join("pki"), &[(&hq, &["localhost"]), (&dr, &["127.0.0.1"])])
                .unwrap();
        Self { _dir: dir, ca, sites }
    }

    fn files(&self, site: usize) -> TlsFiles<'_> {
        let SiteFiles { certificate, key } = &self.sites[site];
        TlsFiles { ca: &self.ca, certificate, key }
    }
}

async fn handshake(
    client: &Arc<rustls::ClientConfig>,
    server: &Arc<rustls::ServerConfig>,
    name: &str,
) -> (Result<Vec<String>, String>, Result<Vec<String>, String>) {
    let (a, b) = tokio::io::duplex(1 << 16);
    let name = tls::server_name(name).unwrap();
    let (client, server) = (client.clone(), server.clone());
    let server = tokio::spawn(async move {
        let mut secured = tls::accept(b, &server).await.map_err(|e| e.to_string())?;
        assert!(secured.site().is_some());
        secured.stream.write_all(b"!").await.map_err(|e| e.to_string())?;
        secured.stream.shutdown().await.map_err(|e| e.to_string())?;
        Ok(secured.peer_names)
    });
    let client = async {
        let mut secured = tls::connect(a, &client, name).await.map_err(|e| e.to_string())?;
        // TLS 1.3: a server that refuses us says so here.
        secured.stream.read_u8().await.map_err(|e| tls::explain_io(&e))?;
        Ok(secured.peer_names)
    };
    (client.await, server.await.unwrap())
}

#[tokio::test]
async fn both_sides_know_who_the_other_is() {
    let (_dir, made) = pair();
    let local = LocalConfig::load(&made.local).unwrap();
    let remote = RemoteConfig::load(&made.remote).unwrap();
    let client = tls::client_config(local.links[0].tls()).unwrap();
    let server = tls::server_config(remote.link.tls()).unwrap();
    for name in ["127.0.0.1", "localhost", "dr"] {
        let (seen_by_client, seen_by_server) = handshake(&client, &server, name).await;
        assert_eq!(seen_by_client.unwrap()[0], "dr");
        let names = seen_by_server.unwrap();
        assert_eq!(remote.peer(&names).unwrap().name.as_str(), "hq");
    }
}

#[tokio::test]
async fn another_authority_and_another_name_are_turned_away() {
    let (one, two) = (Made::new(), Made::new());
    let client = tls::client_config(one.files(0)).unwrap();
    let server = tls::server_config(one.files(1)).unwrap();
    let stranger = tls::client_config(two.files(0)).unwrap();
    let (refused, _) = handshake(&stranger, &server, "dr").await;
    assert!(refused.unwrap_err().contains("not made by the configured CA"));
    let (refused, _) = handshake(&client, &server, "elsewhere").await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("not for elsewhere") && refused.contains("server_name"), "{refused}");

    // Trusts the server, but shows a certificate of another authority.
    let mixed = TlsFiles { ca: &one.ca, ..two.files(0) };
    assert!(matches!(tls::client_config(mixed), Err(TlsError::Own { .. })));
    let client = by_hand(&one.ca, Some(two.files(0)), &rustls::version::TLS13);
    let (here, there) = handshake(&client, &server, "dr").await;
    assert!(there.unwrap_err().contains("not made by the configured CA"));
    let here = here.unwrap_err();
    assert!(here.contains("does not know the authority of our certificate"), "{here}");
}

#[tokio::test]
async fn nobody_comes_in_without_a_certificate_or_with_old_tls() {
    let made = Made::new();
    let server = tls::server_config(made.files(1)).unwrap();
    let nameless = by_hand(&made.ca, None, &rustls::version::TLS13);
    let (_, there) = handshake(&nameless, &server, "dr").await;
    assert_eq!(there.unwrap_err(), "the peer shows no certificate");
    let old = by_hand(&made.ca, Some(made.files(0)), &rustls::version::TLS12);
    let (here, there) = handshake(&old, &server, "dr").await;
    assert_eq!(there.unwrap_err(), "the peer does not speak TLS 1.3");
    assert!(here.is_err());
}

/// A client that our own code would not make.
fn by_hand(
    ca: &Path,
    own: Option<TlsFiles<'_>>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = vec![CertificateDer::from_pem_file(files.certificate).unwrap()];
            let key = PrivateKeyDer::from_pem_file(files.key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

#[tokio::test]
async fn noise_is_no_handshake() {
    let made = Made::new();
    let server = tls::server_config(made.files(1)).unwrap();
    let (mut a, b) = tokio::io::duplex(1 << 16);
    a.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let refused = tls::accept(b, &server).await.map(drop).unwrap_err();
    assert_eq!(refused.to_string(), "the peer does not speak TLS");
}

#[tokio::test(start_paused = true)]
async fn a_silent_stranger_is_shown_out() {
    let made = Made::new();
    let server = tls::server_config(made.files(1)).unwrap();
    let (_silent, b) = tokio::io::duplex(1 << 16);
    assert_eq!(tls::accept(b, &server).await.map(drop).unwrap_err(), TlsError::TimedOut);
}

#[test]
fn an_expired_certificate_and_a_wrong_file_are_found_at_the_start() {
    let made = Made::new();
    let ca_key = std::fs::read_to_string(made.ca.with_file_name("ca.key")).unwrap();
    let mut ca = rcgen::CertificateParams::default();
    ca.distinguished_name = rcgen::DistinguishedName::new();
    let der = CertificateDer::from_pem_file(&made.ca).unwrap();
    ca.distinguished_name.push(rcgen::DnType::CommonName, tls::peer_names(&[der])[0].as_str());
    let issuer = rcgen::Issuer::new(ca, rcgen::KeyPair::from_pem(&ca_key).unwrap());
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["hq".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2001, 2, 3);
    let expired = params.signed_by(&key, &issuer).unwrap();
    let site = &made.sites[0];
    std::fs::write(&site.certificate, expired.pem()).unwrap();
    std::fs::write(&site.key, key.serialize_pem()).unwrap();
    let error = tls::client_config(made.files(0)).unwrap_err().to_string();
    assert!(error.contains("expired at 2001-02-03"), "{error}");

    let empty = TlsFiles { ca: &site.key, ..made.files(1) };
    let error = tls::server_config(empty).unwrap_err().to_string();
    assert!(error.contains("holds no certificate"), "{error}");
    assert!(matches!(tls::server_name("a b"), Err(TlsError::Name(_))));
}

#[tokio::test]
async fn frames_go_through_tls_and_a_torn_stream_is_no_clean_end() {
    let made = Made::new();
    let client = tls::client_config(made.files(0)).unwrap();
    let server = tls::server_config(made.files(1)).unwrap();
    let (a, b) = tokio::io::duplex(1 << 16);
    let server = tokio::spawn(async move {
        let stream = tls::accept(b, &server).await.unwrap().stream;
        let mut reader = framing::FrameReader::new(stream, framing::FRAME_MAX);
        let first = reader.next().await.unwrap().unwrap();
        (first.len(), reader.next().await.map(drop).map_err(|error| error.to_string()))
    });
    let name = tls::server_name("dr").unwrap();
    let stream = tls::connect(a, &client, name).await.unwrap().stream;
    let mut writer = framing::FrameWriter::new(stream, framing::FRAME_MAX);
    writer.write(&[&[1; 1000], &[2; 100_000]]).await.unwrap();
    writer.flush().await.unwrap();
    // Without close_notify: as if the process were killed.
    drop(writer);
    let (length, end) = server.await.unwrap();
    assert_eq!(length, 101_000);
    assert_eq!(end, Err("the peer closed the connection".to_owned()));
}
