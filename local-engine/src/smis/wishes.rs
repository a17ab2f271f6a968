//! What clients made: indication filters, destinations and subscriptions. Kept over a restart.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cim::query::{Query, is_known};
use cim::wire::{Encoder, Shape, read_instance};
use cim::xml::Writer;
use cim::{Caller, CimError, Instance, KeyValue, Path, Scalar, Schema, Status, Value, same_name};
use model::Network;
use svs::Catalogue;

use super::INTEROP;

/// Where they are kept in the catalogue.
const KEY: &str = "smis/indications";
/// Filters, destinations and subscriptions in all.
const WISHES_MAX: usize = 256;
/// Bytes of one of them as it is kept.
const WISH_BYTES: usize = 16 << 10;

const FILTER: &str = "CIM_IndicationFilter";
const DESTINATION: &str = "CIM_ListenerDestinationCIMXML";
const SUBSCRIPTION: &str = "CIM_IndicationSubscription";

/// A subscription with everything that delivery needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subscription {
    pub(super) query: Query,
    /// `http://host:port/path`
    pub(super) destination: String,
}

/// The wishes, and where they are kept.
pub(super) struct Wishes {
    schema: Arc<Schema>,
    catalogue: Arc<Catalogue>,
    hosts: Option<Vec<Network>>,
    /// Whether listeners can be reached by TLS.
    https: bool,
    all: Mutex<Vec<Instance>>,
}

/// Whether a class is one of those that clients make instances of.
pub(super) fn is_wish(class: &str) -> bool {
    [FILTER, DESTINATION, SUBSCRIPTION].iter().any(|known| same_name(known, class))
}

fn refuse(status: Status, text: impl Into<String>) -> CimError {
    CimError::new(status, text)
}

impl Wishes {
    /// Reads what was kept. What can not be read any more is left out, and told in the log.
    pub(super) fn open(
        schema: &Arc<Schema>,
        catalogue: &Arc<Catalogue>,
        (hosts, https): (Option<Vec<Network>>, bool),
    ) -> Result<Self, svs::SvsError> {
        let kept = catalogue.meta(KEY)?.unwrap_or_else(|| "[]".into());
        let kept: Vec<String> = serde_json::from_str(&kept).unwrap_or_default();
        let mut all = Vec::new();
        for text in kept {
            match read_instance(&text) {
                Ok(instance) => all.push(keyed(schema, instance)),
                Err(error) => tracing::warn!(error, "SMI-S: a kept indication wish is left out"),
            }
        }
        let (schema, catalogue) = (Arc::clone(schema), Arc::clone(catalogue));
        Ok(Self { schema, catalogue, hosts, https, all: Mutex::new(all) })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of a class.
    pub(super) fn of(&self, class: &str) -> Vec<Instance> {
        let all = self.lock();
        all.iter().filter(|wish| same_name(wish.class(), class)).cloned().collect()
    }

    fn keep(&self, all: &[Instance]) -> Result<(), CimError> {
        let encoder = Encoder { schema: &self.schema, host: "" };
        let texts: Vec<_> = all
            .iter()
            .map(|wish| {
                let mut writer = Writer::new();
                encoder.instance(&mut writer, wish, &Shape::default());
                writer.finish()
            })
            .collect();
        if texts.iter().any(|text| text.len() > WISH_BYTES) {
            return Err(CimError::parameter("it is longer than what is kept here"));
        }
        let text = serde_json::to_string(&texts).map_err(CimError::failed)?;
        self.catalogue.set_meta(KEY, &text).map_err(CimError::failed)
    }

    /// Makes one.
    pub(super) fn create(
        &self,
        mut wish: Instance,
        host_name: &str,
        caller: &Caller,
    ) -> Result<Path, CimError> {
        self.complete(&mut wish, host_name)?;
        let wish = keyed(&self.schema, wish);
        self.check(&wish, caller)?;
        let mut all = self.lock();
        if all.iter().any(|known| known.path.same(&wish.path)) {
            return Err(refuse(Status::AlreadyExists, format!("{} is there already", wish.path)));
        }
        if all.len() >= WISHES_MAX {
            return Err(refuse(
                Status::ServerLimitsExceeded,
                "too many indication wishes are kept",
            ));
        }
        let mut more = all.clone();
        let path = wish.path.clone();
        more.push(wish);
        self.keep(&more)?;
        *all = more;
        Ok(path)
    }

    /// What a client may leave out.
    fn complete(&self, wish: &mut Instance, host_name: &str) -> Result<(), CimError> {
        if same_name(wish.class(), SUBSCRIPTION) {
            let now = super::model::datetime(jiff::Timestamp::now());
            for (name, value) in [
                ("OnFatalErrorPolicy", 2u16.into()),
                ("SubscriptionState", 2u16.into()),
                ("RepeatNotificationPolicy", 2u16.into()),
                ("TimeOfLastStateChange", Value::from(now)),
            ] {
                if wish.get(name).is_null() {
                    wish.set(name, value);
                }
            }
            return Ok(());
        }
        let class = wish.class().to_owned();
        wish.set("CreationClassName", class.into());
        for (name, value) in
            [("SystemCreationClassName", "CIM_ComputerSystem"), ("SystemName", host_name)]
        {
            if wish.get(name).is_null() {
                wish.set(name, value.to_owned().into());
            }
        }
        if wish.get("Name").text().is_none_or(str::is_empty) {
            let name = model::Ulid::generate(crate::engine::now_ms()).to_string();
            wish.set("Name", name.into());
        }
        if same_name(wish.class(), DESTINATION) {
            // Permanent, CIM-XML.
            for (name, value) in [("PersistenceType", 2u16), ("Protocol", 2)] {
                if wish.get(name).is_null() {
                    wish.set(name, value.into());
                }
            }
        }
        Ok(())
    }

    fn check(&self, wish: &Instance, caller: &Caller) -> Result<(), CimError> {
        match wish.class() {
            FILTER => {
                let language = wish.get("QueryLanguage").text().unwrap_or("WQL");
                if !is_known(language) {
                    let text = format!("no query language {language}; WQL and DMTF:CQL are known");
                    return Err(refuse(Status::QueryLanguageNotSupported, text));
                }
                let query = wish.get("Query").text();
                let query = query.ok_or_else(|| CimError::parameter("Query is missing"))?;
                let parsed = Query::parse(query);
                let parsed = parsed.map_err(|error| refuse(Status::InvalidQuery, error.0))?;
                match self.schema.class(&parsed.from).is_some_and(|class| class.indication) {
                    true => Ok(()),
                    false => {
                        let text = format!("{} is no class of indications", parsed.from);
                        Err(refuse(Status::InvalidQuery, text))
                    }
                }
            }
            DESTINATION => {
                let url = wish.get("Destination").text();
                let url = url.ok_or_else(|| CimError::parameter("Destination is missing"))?;
                let address = Address::parse(url).ok_or_else(|| {
                    CimError::parameter("a destination is http://ADDRESS:PORT/PATH, or https")
                })?;
                let host = address.host;
                if address.secure && !self.https {
                    let text = "https wants indication_ca in [smis], to know whom to believe";
                    return Err(refuse(Status::NotSupported, text));
                }
                match self.may_send_to(host, caller) {
                    true => Ok(()),
                    false => {
                        let text = format!("indications are not sent to {host}");
                        Err(refuse(Status::AccessDenied, text))
                    }
                }
            }
            _ => {
                let all = self.lock();
                for (name, class) in [("Filter", FILTER), ("Handler", DESTINATION)] {
                    let end = wish.get(name).reference();
                    let end =
                        end.ok_or_else(|| CimError::parameter(format!("{name} is missing")))?;
                    let there = |known: &Instance| known.path.same(end) && known.class() == class;
                    if !all.iter().any(there) {
                        return Err(refuse(Status::NotFound, format!("there is no {end}")));
                    }
                }
                Ok(())
            }
        }
    }

    /// Who may log in must not make the engine talk to any host.
    fn may_send_to(&self, host: IpAddr, caller: &Caller) -> bool {
        match &self.hosts {
            Some(hosts) => hosts.iter().any(|network| network.contains(host)),
            None => host.is_loopback() || host.to_canonical() == caller.host.to_canonical(),
        }
    }

    /// Changes one; its keys, and what a subscription is about, stay.
    pub(super) fn modify(
        &self,
        path: &Path,
        changes: Vec<(String, Value)>,
    ) -> Result<(), CimError> {
        const CHANGEABLE: [&str; 6] = [
            "ElementName",
            "Description",
            "Caption",
            "OnFatalErrorPolicy",
            "FailureTriggerTimeInterval",
            "RepeatNotificationPolicy",
        ];
        let mut all = self.lock();
        let mut more = all.clone();
        let wish = more.iter_mut().find(|wish| wish.path.same(path));
        let wish = wish.ok_or_else(|| CimError::not_found(path))?;
        for (name, value) in changes {
            let same = *wish.get(&name) == value;
            if !same && !CHANGEABLE.iter().any(|known| same_name(known, &name)) {
                return Err(refuse(Status::NotSupported, format!("{name} can not be changed")));
            }
            wish.set(&name, value);
        }
        self.keep(&more)?;
        *all = more;
        Ok(())
    }

    /// Removes one that no subscription needs.
    pub(super) fn delete(&self, path: &Path) -> Result<(), CimError> {
        let mut all = self.lock();
        let needs = |wish: &Instance| {
            ["Filter", "Handler"]
                .iter()
                .any(|name| wish.get(name).reference().is_some_and(|end| end.same(path)))
        };
        if all.iter().any(|wish| wish.class() == SUBSCRIPTION && needs(wish)) {
            let text = format!("{path} is referenced by a subscription and cannot be deleted");
            return Err(refuse(Status::Failed, text));
        }
        let more: Vec<_> = all.iter().filter(|wish| !wish.path.same(path)).cloned().collect();
        self.keep(&more)?;
        *all = more;
        Ok(())
    }

    /// The subscriptions that are to be served.
    pub(super) fn subscriptions(&self) -> Vec<Subscription> {
        let all = self.lock();
        let find = |wish: &Instance, name| {
            let path = wish.get(name).reference()?;
            all.iter().find(|known| known.path.same(path))
        };
        let one = |wish: &Instance| {
            let query = find(wish, "Filter")?.get("Query").text()?;
            let destination = find(wish, "Handler")?.get("Destination").text()?.to_owned();
            Some(Subscription { query: Query::parse(query).ok()?, destination })
        };
        all.iter().filter(|wish| wish.class() == SUBSCRIPTION).filter_map(one).collect()
    }
}

/// Where indications go: an address, since a name can be made to mean another host later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address<'a> {
    /// With TLS.
    pub(super) secure: bool,
    pub(super) host: IpAddr,
    pub(super) port: u16,
    pub(super) path: &'a str,
}

impl<'a> Address<'a> {
    /// Reads `http://ADDRESS:PORT/PATH`, or the same with `https`.
    pub(super) fn parse(url: &'a str) -> Option<Self> {
        let (secure, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://")?),
        };
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let host = match host.to_ascii_lowercase().strip_prefix("localhost") {
            Some(port) => format!("127.0.0.1{port}"),
            None => host.to_owned(),
        };
        let usual = if secure { 5989 } else { 5988 };
        let inner = host.strip_prefix('[').map(|rest| rest.strip_suffix(']').unwrap_or_default());
        let bare = || inner.unwrap_or(&host).parse().ok().map(|ip| (ip, usual));
        let socket = host.parse::<std::net::SocketAddr>().ok().map(|at| (at.ip(), at.port()));
        let (host, port): (IpAddr, u16) = socket.or_else(bare)?;
        let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
        plain.then_some(Self { secure, host, port, path })
    }
}

/// The instance with the path that its class's keys make.
fn keyed(schema: &Schema, mut wish: Instance) -> Instance {
    let class = schema.class(wish.class());
    let name = class.map_or_else(|| wish.path.class.clone(), |class| class.name.clone());
    let mut path = Path::new(INTEROP, name);
    for key in class.into_iter().flat_map(|class| class.keys()) {
        let value = match wish.get(&key.name) {
            Value::One(Scalar::Text(text)) => KeyValue::Text(text.clone()),
            Value::One(Scalar::Reference(end)) => {
                let mut end = end.clone();
                end.settle(INTEROP);
                KeyValue::Reference(end)
            }
            _ => KeyValue::Text("".into()),
        };
        path.keys.push((key.name.clone(), value));
    }
    wish.path = path;
    wish
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        Caller { user: "a".into(), host: "192.0.2.1".parse().unwrap() }
    }

    fn open(dir: &std::path::Path) -> Wishes {
        let schema = Arc::new(Schema::served().unwrap());
        let catalogue = Arc::new(Catalogue::open(&dir.join("svs.db")).unwrap());
        Wishes::open(&schema, &catalogue, (None, false)).unwrap()
    }

    fn filter(query: &str) -> Instance {
        Instance::at(Path::new(INTEROP, FILTER)).with("Name", "f").with("Query", query.to_owned())
    }

    fn destination(url: &str) -> Instance {
        let wish = Instance::at(Path::new(INTEROP, DESTINATION));
        wish.with("Name", "d").with("Destination", url.to_owned())
    }

    fn subscription(filter: Path, handler: Path) -> Instance {
        let wish = Instance::at(Path::new(INTEROP, SUBSCRIPTION));
        wish.with("Filter", filter).with("Handler", handler)
    }

    #[test]
    fn a_subscription_is_kept_over_a_restart_and_holds_its_ends() {
        let dir = tempfile::tempdir().unwrap();
        let wishes = open(dir.path());
        let query = "SELECT * FROM CIM_InstCreation WHERE SourceInstance ISA CIM_Job";
        let f = wishes.create(filter(query), "host", &caller()).unwrap();
        let d = wishes.create(destination("http://127.0.0.1:5000/"), "host", &caller()).unwrap();
        let s = wishes.create(subscription(f.clone(), d.clone()), "host", &caller()).unwrap();
        let again = wishes.create(subscription(f.clone(), d.clone()), "host", &caller());
        assert_eq!(again.unwrap_err().status, Status::AlreadyExists);
        assert_eq!(wishes.delete(&f).unwrap_err().status, Status::Failed);
        drop(wishes);
        let wishes = open(dir.path());
        let found = wishes.subscriptions();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].destination, "http://127.0.0.1:5000/");
        assert_eq!(found[0].query.classes(), ["CIM_Job"]);
        for path in [&s, &f, &d] {
            wishes.delete(path).unwrap();
        }
        assert!(wishes.subscriptions().is_empty());
    }

    #[test]
    fn addresses_are_read() {
        let read = |url| {
            let it = Address::parse(url)?;
            Some((it.secure, it.host.to_string(), it.port, it.path))
        };
        let row = |secure, host: &str, port, path| Some((secure, host.to_owned(), port, path));
        assert_eq!(read("http://127.0.0.1:5000/a"), row(false, "127.0.0.1", 5000, "/a"));
        assert_eq!(read("https://[::1]:5000"), row(true, "::1", 5000, "/"));
        assert_eq!(read("http://localhost"), row(false, "127.0.0.1", 5988, "/"));
        assert_eq!(read("https://LocalHost:1/"), row(true, "127.0.0.1", 1, "/"));
        for wrong in ["http://localhostile/", "https://", "http://a b/", "http://[::1", "http:/1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_can_not_be_served_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let wishes = open(dir.path());
        let status = |wish| wishes.create(wish, "host", &caller()).unwrap_err().status;
        assert_eq!(status(filter("SELECT")), Status::InvalidQuery);
        assert_eq!(status(filter("SELECT * FROM CIM_Job")), Status::InvalidQuery);
        let sql = filter("SELECT * FROM CIM_InstCreation").with("QueryLanguage", "SQL");
        assert_eq!(status(sql), Status::QueryLanguageNotSupported);
        for url in ["ftp://127.0.0.1/", "http://example.com:80/", "http://127.0.0.1:99999/", "x"] {
            assert_eq!(status(destination(url)), Status::InvalidParameter, "{url}");
        }
        assert_eq!(status(destination("http://198.51.100.1:80/")), Status::AccessDenied);
        assert_eq!(status(destination("https://127.0.0.1:80/")), Status::NotSupported);
        assert!(wishes.create(destination("http://192.0.2.1:80/"), "host", &caller()).is_ok());
        let none = || Path::new(INTEROP, FILTER).with("Name", "none");
        assert_eq!(status(subscription(none(), none())), Status::NotFound);
    }
}
