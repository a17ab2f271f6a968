//! What a session has to know before a client comes.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::wire::{AuthType, Version};

/// Everything that sessions of one server share.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Versions that may be opened. The highest is announced.
    pub versions: Vec<Version>,
    /// Who may log in, and how.
    pub users: Users,
    /// What the server says about itself.
    pub identity: Identity,
}

/// What the server says about itself (`NDMP_CONFIG_GET_HOST_INFO`, `_SERVER_INFO`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Host name.
    pub hostname: String,
    /// Operating system, `Linux`.
    pub os_type: String,
    /// Its version.
    pub os_version: String,
    /// A name of the host that never changes.
    pub host_id: String,
    /// Vendor of the server.
    pub vendor: String,
    /// Product.
    pub product: String,
    /// Revision.
    pub revision: String,
}

/// A user's password: never shown, wiped when dropped.
#[derive(Clone)]
pub struct Secret(pub(crate) Zeroizing<Vec<u8>>);

impl Secret {
    /// Keeps a password.
    pub fn new(password: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(password.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// One user.
#[derive(Debug, Clone)]
pub struct User {
    /// The password, for MD5 at most 32 bytes (the digest has room for no more).
    pub secret: Secret,
    /// Which of [`AuthType::Text`] and [`AuthType::Md5`] this user may use.
    pub methods: Vec<AuthType>,
}

/// Who may log in.
#[derive(Debug, Clone, Default)]
pub struct Users {
    pub(crate) by_name: BTreeMap<String, User>,
    pub(crate) allow_none: bool,
}

impl Users {
    /// Nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a user, in place of one of the same name.
    pub fn insert(&mut self, name: impl Into<String>, user: User) {
        self.by_name.insert(name.into(), user);
    }

    /// Lets anybody in without a name (`NDMP_AUTH_NONE`).
    pub fn allow_none(&mut self) {
        self.allow_none = true;
    }

    /// The methods that somebody may use, in the order of their numbers.
    pub fn methods(&self) -> Vec<AuthType> {
        let offered = |method: &AuthType| match method {
            AuthType::None => self.allow_none,
            method => self.by_name.values().any(|user| user.methods.contains(method)),
        };
        AuthType::ALL.iter().copied().filter(offered).collect()
    }
}
