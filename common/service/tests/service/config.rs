//! What loads, and what is refused with which words.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use model::{LibraryName, SiteName};
use service::config::{
    Auth, Backend, EngineConfig, LocalConfig, RemoteConfig, ScsiBackend, ScsiDevices,
};
use service::init::{InitOptions, init};

use crate::pair;

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_init_writes_loads_as_it_is() {
    let (dir, made) = pair();
    let local = LocalConfig::load(&made.local).unwrap();
    let remote = RemoteConfig::load(&made.remote).unwrap();
    assert_eq!(local.ndmp.listen.to_string(), "127.0.0.1:10000");
    assert_eq!(local.links[0].connect, remote.link.listen.to_string());
    assert_eq!(local.site.catalogue(), dir.path().join("hq/svs.db"));
    assert_eq!(remote.physical_libraries[0].file().unwrap().path, dir.path().join("ptl0"));
    assert_eq!(remote.peers[0].name, local.site.name);
    let names = local.virtual_libraries[0].device_names();
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["vtl0/changer", "vtl0/drive0", "vtl0/drive1"]);
    assert_eq!(local.virtual_libraries[0].barcodes()[0].as_str(), "VTA001L8");
    assert_eq!(local.virtual_libraries[0].early_warning_bytes(), 1 << 30);
    assert_eq!(local.ndmp.users[0].auth, [Auth::Md5, Auth::Text]);
    for secret in ["ndmp.password", "pki/ca.key", "pki/hq.key", "pki/dr.key", "local.toml"] {
        assert_eq!(mode(&dir.path().join(secret)), 0o600, "{secret}");
    }
}

#[test]
fn the_password_is_read_and_never_shown() {
    let (_dir, made) = pair();
    let local = LocalConfig::load(&made.local).unwrap();
    let password = std::fs::read_to_string(&made.password_file).unwrap();
    assert_eq!(local.ndmp.users[0].secret(), password.trim());
    assert_eq!(password.trim().len(), 24);
    assert!(!format!("{local:?}").contains(password.trim()));
}

#[test]
fn init_overwrites_nothing() {
    let (dir, made) = pair();
    let before = std::fs::read(&made.local).unwrap();
    assert!(init(dir.path(), &InitOptions::with_ports(1, 2).unwrap()).is_err());
    assert_eq!(std::fs::read(&made.local).unwrap(), before);
}

#[test]
fn the_examples_load_beside_the_certificates_of_init() {
    let (_dir, made) = pair();
    std::fs::write(&made.local, LocalConfig::example()).unwrap();
    std::fs::write(&made.remote, RemoteConfig::example()).unwrap();
    let local = LocalConfig::load(&made.local).unwrap();
    let remote = RemoteConfig::load(&made.remote).unwrap();
    assert_eq!(local.virtual_libraries[0].barcodes().len(), 32);
    assert_eq!(local.links[0].expected_name(), "dr");
    assert_eq!(remote.link.lease_seconds, 120);
}

#[test]
fn a_site_alone_needs_neither_link_nor_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let text = "[site]\nname = 'x'\nstate_dir = '/s'\n[[ndmp.user]]\nname = 'a'\npassword = 'b'\n";
    std::fs::write(&path, text).unwrap();
    let local = LocalConfig::load(&path).unwrap();
    assert_eq!(
        (local.ndmp.listen.to_string().as_str(), local.ndmp.max_sessions),
        ("127.0.0.1:10000", 64)
    );
    assert!(local.links.is_empty() && local.replication.bandwidth.is_none());
}

/// (what is replaced in the file, by what, what is said)
const LOCAL: &[(&str, &str, &str)] = &[
    ("slots = 8", "slot = 8", "local.toml:23:1: unknown field `slot`"),
    ("slots = 8", "slot = 8", "did you mean `slots`?"),
    ("[ndmp]", "[ndpm]", "did you mean `ndmp`?"),
    ("slots = 8", "slots = \"8\"", "invalid type"),
    ("slots = 8", "slots = 0", "virtual_library vtl0: slots is 1 to 10000"),
    ("slots = 8", "slots = 1", "6 cartridges do not fit in 5 slots"),
    ("drives = 2", "drives = 65", "drives is 1 to 64"),
    ("import_export = 4", "import_export = 17", "import_export is 0 to 16"),
    ("\"100GiB\"", "\"100 gb\"", "is not a size"),
    ("\"100GiB\"", "1000", "capacity is at least 1MiB"),
    ("\"100GiB\"", "\"1GiB\"\nearly_warning = \"1GiB\"", "early_warning is less than capacity"),
    ("\"VTA\"", "\"VTAVTA\"", "leaves no room for 6 numbers"),
    ("\"VTA\"", "\"V/A\"", "may not contain '/'"),
    ("name = \"vtl0\"", "name = \"vtl 0\"", "is not a name"),
    ("127.0.0.1:10000", "127.0.0.1", "invalid socket address"),
    ("127.0.0.1:10001", "127.0.0.1", "connect is HOST:PORT"),
    ("pki/hq.pem", "pki/nothing.pem", "pki/nothing.pem"),
    ("pki/hq.key", "pki/dr.key", "does not belong to the certificate"),
    ("pki/ca.pem", "pki/hq.pem", "would be refused: the certificate is not made by"),
    ("pki/hq.key", "pki/hq.pem", "may be read by others"),
    (
        "\"ndmp.password\"",
        "\"local.toml\"\npassword = \"x\"",
        "password or password_file, not both",
    ),
    ("password_file = \"ndmp.password\"", "", "the password has 1 to 32 bytes, this one 0"),
    ("password_file = \"ndmp.password\"", "auth = [\"md4\"]", "unknown variant `md4`"),
    ("password_file = \"ndmp.password\"", "auth = [\"md4\"]", "did you mean `md5`?"),
    ("[[ndmp.user]]", "[[ndmp.user]]\nname = \"ndmp\"\npassword = \"x\"\n[[ndmp.user]]", "twice"),
    ("state_dir = \"hq\"", "state_dir = 5", "local.toml:5:13: invalid type"),
    ("[[virtual_library]]", "[log]\nlevel = \"a=b=c\"\n[[virtual_library]]", "is no log filter"),
    ("[[virtual_library]]", "[replication]\nbandwidth = 1\n[[virtual_library]]", "at least 1024"),
];

fn refused<C: EngineConfig>(path: &Path, text: &str, expected: &str) {
    std::fs::write(path, text).unwrap();
    let error = match C::load(path) {
        Ok(_) => panic!("loads, but should say: {expected}\n{text}"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains(expected), "{error}\n    does not say: {expected}");
    assert!(error.starts_with(&path.display().to_string()), "{error}");
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_a_way_out() {
    let (_dir, made) = pair();
    let good = std::fs::read_to_string(&made.local).unwrap();
    for (from, to, expected) in LOCAL {
        assert!(good.contains(from), "{from}");
        refused::<LocalConfig>(&made.local, &good.replacen(from, to, 1), expected);
    }
}

#[test]
fn a_library_clashes_by_name_by_barcode_and_by_path() {
    let (_dir, made) = pair();
    let good = std::fs::read_to_string(&made.local).unwrap();
    let with = |text: &str| format!("{good}\n{text}");
    let library = |name: &str, prefix: &str| {
        format!(
            "[[physical_library]]\nname = \"{name}\"\nbackend = \"file\"\npath = \"p\"\n\
             capacity = \"1GB\"\ncartridges = {{ prefix = \"{prefix}\", count = 2 }}\n"
        )
    };
    let check = |text: String, expected| refused::<LocalConfig>(&made.local, &text, expected);
    check(with(&library("vtl0", "AAA")), "library \"vtl0\": is there twice");
    check(with(&library("x", "VTA")), "another library has the barcode VTA001L8");
    let two = library("x", "AAA") + &library("y", "BBB");
    check(with(&two), "physical_library y: another library has the path");
    check(with(&library("x", "AAA")).replace("\"file\"", "\"tape\""), "unknown variant `tape`");
}

/// A configuration with a library behind SCSI in place of the one made of files.
fn with_scsi(good: &str, keys: &str) -> String {
    let start = good.find("[[physical_library]]").unwrap();
    let end = good[start + 1..].find("\n[").map_or(good.len(), |at| start + 1 + at);
    let library = format!("[[physical_library]]\nname = \"ptl0\"\nbackend = \"scsi\"\n{keys}\n");
    format!("{}{library}{}", &good[..start], &good[end..])
}

fn loaded(path: &Path, text: &str) -> ScsiBackend {
    std::fs::write(path, text).unwrap();
    let config = RemoteConfig::load(path).unwrap();
    match &config.physical_libraries[0].backend {
        Backend::Scsi(scsi) => scsi.clone(),
        Backend::File(_) => panic!("made of files"),
    }
}

const NAMED: &str = "changer = \"/dev/sg3\"\ndrives = [\"iscsi://h/iqn.a/2\", \"/dev/sg4\"]";

#[test]
fn a_library_behind_scsi_is_named_or_found() {
    let (dir, made) = pair();
    let good = std::fs::read_to_string(&made.remote).unwrap();
    let load = |keys: &str| loaded(&made.remote, &with_scsi(&good, keys));
    let named = load(NAMED);
    let ScsiDevices::Named { changer, drives } = named.devices else { panic!("not named") };
    assert_eq!((changer.to_string().as_str(), drives.len()), ("/dev/sg3", 2));
    assert_eq!(drives[0].to_string(), "iscsi://h:3260/iqn.a/2");
    assert!(named.digests && named.chap.is_none() && named.initiator.is_none());
    let nodes = load("discover = true\ndigests = false");
    assert!(matches!(nodes.devices, ScsiDevices::Discovered(None)) && !nodes.digests);
    let secret = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        set_mode(&dir.path().join(name), 0o600);
    };
    secret("ours", "reel-reel-reel\n");
    secret("theirs", "tape-tape-tape\n");
    let found = load(
        "discover = true\nportal = \"10.0.0.7\"\nchap = { user = \"twin\", secret_file = \"ours\", \
         target_user = \"lib\", target_secret_file = \"theirs\" }",
    );
    let ScsiDevices::Discovered(Some(portal)) = found.devices else { panic!("no portal") };
    assert_eq!((portal.host.as_str(), portal.port), ("10.0.0.7", 3260));
    let chap = found.chap.unwrap();
    assert_eq!(chap.secret.unwrap().expose(), "reel-reel-reel");
    assert_eq!(chap.target_secret.unwrap().expose(), "tape-tape-tape");
    // Secrets that are the same, short, or for everybody to read.
    let chap = "discover = true\nchap = { user = \"twin\", secret_file = \"ours\"";
    let mutual = |file: &str| {
        with_scsi(
            &good,
            &format!("{chap}, target_user = \"l\", target_secret_file = \"{file}\" }}"),
        )
    };
    let refuse = |text: &str, expected| refused::<RemoteConfig>(&made.remote, text, expected);
    refuse(&mutual("ours"), "both directions need secrets of their own");
    secret("theirs", "short");
    refuse(&mutual("theirs"), "a secret has 12 to 255 bytes, this one 5");
    refuse(&mutual("none"), "can not be read");
    set_mode(&dir.path().join("ours"), 0o644);
    refuse(&with_scsi(&good, &format!("{chap} }}")), "may be read by others");
}

#[test]
fn a_library_behind_scsi_says_what_is_missing() {
    let (_dir, made) = pair();
    let good = std::fs::read_to_string(&made.remote).unwrap();
    for (keys, expected) in [
        ("", "changer = \"...\" and drives"),
        ("changer = \"/dev/sg3\"", "or discover = true"),
        ("discover = true\nchanger = \"/dev/sg3\"", "or discover = true"),
        ("changer = \"/dev/sg3\"\ndrives = 2", "or discover = true"),
        ("changer = \"sg3\"\ndrives = []", "\"sg3\" is no device"),
        ("changer = \"iscsi://h/x/1\"\ndrives = []", "is not iscsi://HOST:PORT/TARGET/LUN"),
        ("changer = \"/dev/sg3\"\ndrives = []", "drives lists 1 to 64 devices"),
        ("changer = \"/dev/sg3\"\ndrives = [\"/dev/sg3\"]", "/dev/sg3 is used twice"),
        ("discover = true\nportal = \":1\"", "is not HOST:PORT"),
        ("discover = true\nslots = 4", "`slots` belongs to backend \"file\""),
        ("discovery = true", "did you mean `discover`?"),
    ] {
        refused::<RemoteConfig>(&made.remote, &with_scsi(&good, keys), expected);
    }
    let file = good.replace("backend = \"file\"", "backend = \"file\"\nchanger = \"/dev/sg3\"");
    refused::<RemoteConfig>(&made.remote, &file, "`changer` belongs to backend \"scsi\"");
}

#[test]
fn all_problems_are_told_at_once() {
    let (_dir, made) = pair();
    let good = std::fs::read_to_string(&made.local).unwrap();
    let bad = good.replace("slots = 8", "slots = 0").replace("drives = 2", "drives = 0");
    std::fs::write(&made.local, bad).unwrap();
    let error = LocalConfig::load(&made.local).unwrap_err();
    assert!(error.problems.len() >= 2, "{error}");
}

#[test]
fn nobody_comes_in_without_a_password_off_loopback() {
    let (_dir, made) = pair();
    let good = std::fs::read_to_string(&made.local).unwrap();
    let none = good.replace("password_file = \"ndmp.password\"", "auth = [\"none\"]");
    std::fs::write(&made.local, &none).unwrap();
    assert!(LocalConfig::load(&made.local).unwrap().ndmp.allows_none());
    let open = none.replace("127.0.0.1:10000", "0.0.0.0:10000");
    refused::<LocalConfig>(&made.local, &open, "\"none\" is refused");
    let open = good.replace("127.0.0.1:10000", "0.0.0.0:10000");
    std::fs::write(&made.local, open).unwrap();
    assert!(!LocalConfig::load(&made.local).unwrap().ndmp.allows_none());
}

#[test]
fn secrets_that_others_may_read_are_refused() {
    let (dir, made) = pair();
    set_mode(&made.password_file, 0o640);
    let error = LocalConfig::load(&made.local).unwrap_err().to_string();
    assert!(error.contains("mode 0640") && error.contains("chmod 600"), "{error}");
    set_mode(&made.password_file, 0o600);
    set_mode(&dir.path().join("pki/dr.key"), 0o604);
    let error = RemoteConfig::load(&made.remote).unwrap_err().to_string();
    assert!(error.contains("dr.key may be read by others"), "{error}");
}

#[test]
fn the_remote_has_one_owner_for_each_library() {
    let (_dir, made) = pair();
    let good = std::fs::read_to_string(&made.remote).unwrap();
    let check = |text: &str, expected| refused::<RemoteConfig>(&made.remote, text, expected);
    let second = format!("{good}\n[[peer]]\nname = \"b\"\nlibraries = [\"ptl0\"]\n");
    check(&second, "peer b: library ptl0 belongs to peer hq already");
    check(
        &good.replace("[\"ptl0\"]", "[\"ptl9\"]"),
        "there is no [[physical_library]] called ptl9",
    );
    check(&good.replace("name = \"hq\"", "name = \"dr\""), "is the name of this site");
    let long = "l".repeat(30);
    let long = good.replace("name = \"ptl0\"", &format!("name = \"{long}\""));
    check(&long.replace("libraries = [\"ptl0\"]", "libraries = []"), "longer than 32 characters");
    check(&format!("lease_seconds = 3\n{good}"), "unknown field `lease_seconds`");
    let short = good.replace("[[peer]]", "lease_seconds = 3\n[[peer]]");
    check(&short, "link: lease_seconds is 5 to 86400, not 3");
    let config = {
        std::fs::write(&made.remote, &good).unwrap();
        RemoteConfig::load(&made.remote).unwrap()
    };
    assert_eq!(config.peer(&["x".into(), "hq".into()]).unwrap().libraries.len(), 1);
    assert!(config.peer(&["localhost".into()]).is_none());
}

#[test]
fn a_ghost_may_not_have_the_name_of_a_library_here() {
    let (_dir, made) = pair();
    let text = std::fs::read_to_string(&made.local).unwrap();
    std::fs::write(&made.local, text.replace("\"vtl0\"", "\"dr-ptl0\"")).unwrap();
    let local = LocalConfig::load(&made.local).unwrap();
    let (site, library) = (SiteName::new("dr").unwrap(), |n| LibraryName::new(n).unwrap());
    let clash = local.ghost_name(&site, &library("ptl0")).unwrap_err();
    assert!(clash.contains("would be called dr-ptl0"), "{clash}");
    assert_eq!(local.ghost_name(&site, &library("ptl1")).unwrap(), library("dr-ptl1"));
    assert!(local.ghost_name(&site, &library(&"x".repeat(30))).is_err());
}

#[test]
fn what_is_no_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let missing = LocalConfig::load(&dir.path().join("x.toml")).unwrap_err().to_string();
    assert!(missing.contains("can not be read"), "{missing}");
    let long = dir.path().join("y".repeat(100));
    let text = format!(
        "[site]\nname='a'\nstate_dir='{}'\n[[ndmp.user]]\nname='a'\npassword='b'\n",
        long.display()
    );
    refused::<LocalConfig>(&dir.path().join("c.toml"), &text, "is too long: a socket in it");
}

#[test]
fn the_server_for_management_applications_is_off_until_it_is_told() {
    let (dir, made) = pair();
    let good = std::fs::read_to_string(&made.local).unwrap();
    assert!(!LocalConfig::load(&made.local).unwrap().smis.is_on());
    let user = "[[smis.user]]\nname = \"a\"\npassword = \"secret\"\n";
    let with = |keys: &str, user: &str| format!("{good}\n[smis]\n{keys}\n{user}");
    let http = "http = \"127.0.0.1:5988\"";
    std::fs::write(&made.local, with(http, user)).unwrap();
    let local = LocalConfig::load(&made.local).unwrap();
    assert!(local.smis.is_on() && !format!("{local:?}").contains("secret\""));
    let https = "https = \"0.0.0.0:5989\"\ncertificate = \"pki/hq.pem\"\nkey = \"pki/hq.key\"";
    std::fs::write(&made.local, with(https, user)).unwrap();
    let local = LocalConfig::load(&made.local).unwrap();
    assert_eq!(local.smis.key, Some(dir.path().join("pki/hq.key")));
    let named = |name: &str, rest: &str| format!("[[smis.user]]\nname = \"{name}\"\n{rest}\n");
    for (keys, user, expected) in [
        (http, String::new(), "nobody may come in"),
        ("http = \"192.0.2.1:5988\"", user.to_owned(), "is not loopback"),
        ("https = \"127.0.0.1:5989\"", user.to_owned(), "needs certificate and key"),
        (http, named("a", ""), "write one of password"),
        (http, named("a", "password = \"\""), "1 to 128 bytes"),
        (http, named("a:b", "password = \"x\""), "no colon"),
        (http, named("a", "password_hash = \"x\""), "is no argon2 hash"),
        (http, named("a", "password = \"x\"\npassword_hash = \"y\""), "write one of password"),
        (http, format!("{user}{user}"), "is there twice"),
        ("max_connections = 0", user.to_owned(), "1 to 1024"),
        ("port = 1", user.to_owned(), "port"),
    ] {
        refused::<LocalConfig>(&made.local, &with(keys, &user), expected);
    }
}
