//! What was seen of an NDMP server, without a judgement.

use std::net::{IpAddr, SocketAddrV4};
use std::time::Duration;

use dma::Version;
use ndmp::wire::{AuthType, HostInfo, ServerInfo};
use scsi::{ElementDescriptor, Sense};

/// Everything.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// As it was asked for.
    pub(super) server: String,
    pub(super) contact: Result<Contact, NoContact>,
}

/// Why there is no session.
#[derive(Clone, Debug)]
pub(super) enum NoContact {
    /// Nobody answers at the address.
    Unreachable(String),
    /// The server turns this host away, or has no session left.
    Refused(String),
    /// It does not speak NDMP, or no version that is spoken here.
    Strange(String),
}

/// A server that greets.
#[derive(Clone, Debug)]
pub(super) struct Contact {
    /// The server's address, as dialled.
    pub(super) address: IpAddr,
    /// From the dial to the settled version.
    pub(super) greeting: Duration,
    /// The highest version that it announced.
    pub(super) offered: u32,
    /// Each version: opened, or why not.
    pub(super) versions: Vec<(Version, Result<(), String>)>,
    /// By how many seconds the server's clock is ahead of ours; `None` if it does not tell.
    pub(super) ahead: Option<i64>,
    /// The ways to log in that it offers; `None` if they can not be asked for in this version.
    pub(super) methods: Option<Vec<AuthType>>,
    /// The password that was given.
    pub(super) right: Vec<(AuthType, Attempt)>,
    /// Another one, if that worked.
    pub(super) wrong: Vec<(AuthType, Attempt)>,
    /// What a session showed; `None` if nobody is let in.
    pub(super) session: Option<Inside>,
}

/// An attempt to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Accepted,
    Refused,
    /// It would tell the password to everybody on the way.
    NotInClear,
    /// Something else went wrong.
    Failed(String),
}

/// What a session showed.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    pub(super) version: Version,
    pub(super) host: Option<HostInfo>,
    pub(super) server: Option<ServerInfo>,
    /// Why the devices could not be listed.
    pub(super) unlisted: Option<String>,
    pub(super) libraries: Vec<Library>,
    /// What the server's own configuration has, if that was at hand.
    pub(super) expected: Option<Expected>,
    pub(super) mover: MoverTrial,
    /// The request that took longest.
    pub(super) slowest: Option<(String, Duration)>,
}

/// What a configuration says.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    /// Libraries of the server's own site.
    pub(super) own: Vec<String>,
    /// Remote sites.
    pub(super) links: usize,
    /// Failed logins after which a host is locked out, 0 for never.
    pub(super) login_attempts: u32,
}

/// A library of the device lists.
#[derive(Clone, Debug, Default)]
pub(super) struct Library {
    pub(super) name: String,
    pub(super) changer: Option<Changer>,
    pub(super) drives: Vec<Drive>,
}

/// Its changer.
#[derive(Clone, Debug)]
pub(super) struct Changer {
    pub(super) device: String,
    pub(super) state: State,
    /// Every element; `None` if the changer could not be opened or did not tell.
    pub(super) elements: Option<Vec<ElementDescriptor>>,
}

/// One of its drives.
#[derive(Clone, Debug)]
pub(super) struct Drive {
    pub(super) device: String,
    /// Closing it rewinds or unloads the tape.
    pub(super) moves_at_close: bool,
    pub(super) state: State,
}

/// What a device says when it is asked whether it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// A drive without a cartridge.
    Empty,
    NotReady(Sense),
    /// Another session has it, which one if the server said so.
    Busy(Option<String>),
    /// It can not be asked.
    Failed(String),
}

/// A mover that was told to listen, and dialled.
#[derive(Clone, Debug, Default)]
pub(super) struct MoverTrial {
    /// The drive that was opened for it; `None` if none was free.
    pub(super) drive: Option<String>,
    /// Each address that it gave.
    pub(super) addresses: Vec<(SocketAddrV4, Dialled)>,
    /// Why it did not listen over TCP.
    pub(super) deaf: Option<String>,
    /// Whether it listens for another mover of its own server.
    pub(super) local: Option<Result<(), String>>,
}

/// What came of dialling a mover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dialled {
    /// It took the connection.
    Taken,
    /// Nobody can dial this.
    Nowhere,
    /// Somebody answered, and the mover knows nothing of it.
    NotNoticed,
    Failed(String),
}
