//! What a backup operator does, in single steps, over NDMP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use bytes::Bytes;
use dma::{Client, DmaError, Login, MoverNews, TO_THE_END, TapeObject, Wrote};
use model::ElementType;
use ndmp::wire::{
    Addr, AddrType, ErrorCode, HaltReason, MessageCode, MoverMode, MtioOp, ReplyBody, TapeOpenMode,
    Version,
};

use crate::wait::{self, PATIENCE};
use crate::{Object, Pair};

/// The longest record in any test.
pub const RECORD_MAX: u32 = 1 << 20;

/// Something to put on a tape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A record of these bytes.
    Record(Vec<u8>),
    /// A filemark.
    Filemark,
}

impl Item {
    /// What must be found on tape for it.
    pub fn object(&self) -> Object {
        match self {
            Self::Record(bytes) => Object::record(bytes),
            Self::Filemark => Object::Filemark,
        }
    }
}

/// Somebody at the backup application's console. Every step has a session of its own.
#[derive(Clone)]
pub struct Operator {
    address: SocketAddr,
    password: String,
    version: Version,
}

impl Operator {
    /// One who works with this pair, in NDMP version 4.
    pub fn of(pair: &Pair) -> Self {
        Self { address: pair.ndmp(), password: pair.password(), version: Version::V4 }
    }

    /// One who works with another server, as the user `ndmp`, in NDMP version 4.
    pub fn at(address: SocketAddr, password: &str) -> Self {
        Self { address, password: password.to_owned(), version: Version::V4 }
    }

    /// The same in another version.
    #[must_use]
    pub fn speaking(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// The same by way of another address.
    #[must_use]
    pub fn by_way_of(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// The version it speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The password of the user `ndmp`.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// How the password is given.
    pub fn login(&self) -> Login {
        Login::md5("ndmp", self.password.clone())
    }

    /// A session.
    pub fn dial(&self) -> Client {
        let mut client =
            Client::connect(self.address, Some(self.version), &self.login()).expect("a session");
        client.set_timeout(PATIENCE);
        client
    }

    /// Waits until a library is there and its drives answer: a ghost library needs its link.
    pub fn wait_for(&self, library: &str) {
        let drive = format!("{library}/drive0");
        let what = format!("library {library}");
        let mut client = self.dial();
        wait::until(&what, || {
            devices(&mut client, MessageCode::ConfigGetTapeInfo).contains(&drive).then_some(())
        });
        // Not ready for lack of a cartridge (02/3a/00) is an answer of the drive itself.
        wait::until(&what, || {
            client.open_scsi(&drive).ok()?;
            let ready = client.scsi_command(&scsi::Cdb::TestUnitReady, 0);
            client.close_scsi().ok()?;
            ready.map_or_else(|e| e.to_string().contains("02/3a"), |_| true).then_some(())
        });
    }

    /// The names of all changers, in order.
    pub fn changers(&self) -> Vec<String> {
        let mut names = devices(&mut self.dial(), MessageCode::ConfigGetScsiInfo);
        names.sort();
        names
    }

    /// The element address and the barcode of every cartridge in a library.
    pub fn inventory(&self, library: &str) -> Vec<(u16, String)> {
        let mut robot = self.robot(library);
        let elements = once_free("an inventory", || robot.inventory());
        robot.close_scsi().expect("the changer closes");
        elements.into_iter().filter_map(|e| Some((e.address, e.tag?))).collect()
    }

    /// Moves the cartridge with this barcode into a drive, which must be empty.
    pub fn load(&self, library: &str, barcode: &str, drive: u16) {
        let mut robot = self.robot(library);
        let found = once_free("the cartridge is there", || robot.find_cartridge(barcode));
        let from = found.address;
        robot.move_medium(from, 128 + drive).expect("the cartridge goes into the drive");
        robot.close_scsi().expect("the changer closes");
    }

    /// Moves what is in a drive back to where it came from, or to the first free slot.
    pub fn unload(&self, library: &str, drive: u16) {
        let mut tape = self.tape(&format!("{library}/drive{drive}"));
        tape.mtio(MtioOp::Off, 1).expect("the drive lets go");
        tape.close_tape().expect("the drive closes");
        let mut robot = self.robot(library);
        let elements = once_free("an inventory", || robot.inventory());
        let held = elements.iter().find(|e| e.address == 128 + drive).expect("the drive");
        let free = |e: &&scsi::ElementDescriptor| e.kind == ElementType::Storage && !e.full;
        let home = held.source.filter(|s| elements.iter().any(|e| e.address == *s && !e.full));
        let home = home.or_else(|| elements.iter().find(free).map(|e| e.address));
        robot.move_medium(held.address, home.expect("a free slot")).expect("it goes home");
        robot.close_scsi().expect("the changer closes");
    }

    /// A session with this drive open for writing.
    pub fn tape(&self, drive: &str) -> Client {
        let mut client = self.dial();
        // A copy of the engine itself may have it for a moment.
        once_free("the drive opens", || client.open_tape(drive, TapeOpenMode::Raw));
        client
    }

    /// Writes a tape from its beginning, object by object, and closes it.
    pub fn write(&self, drive: &str, items: &[Item]) {
        let mut tape = self.tape(drive);
        tape.rewind().expect("the tape rewinds");
        for item in items {
            match item {
                Item::Record(bytes) => {
                    let wrote = tape.write_block(Bytes::copy_from_slice(bytes));
                    assert_eq!(wrote.expect("the record is written"), Wrote::Done);
                }
                Item::Filemark => tape.write_filemarks(1).expect("the filemark is written"),
            }
        }
        tape.close_tape().expect("the drive closes");
    }

    /// Everything on a tape, from its beginning.
    pub fn read(&self, drive: &str) -> Vec<Object> {
        let mut tape = self.tape(drive);
        tape.rewind().expect("the tape rewinds");
        let mut objects = Vec::new();
        loop {
            match tape.read_object(RECORD_MAX).expect("the tape is read") {
                TapeObject::Block(bytes) => objects.push(Object::record(&bytes)),
                TapeObject::Filemark => objects.push(Object::Filemark),
                TapeObject::EndOfData => break,
            }
        }
        tape.close_tape().expect("the drive closes");
        objects
    }

    /// A backup as a data server does it: the stream goes to the mover over TCP, which puts it on
    /// the tape from its beginning in records of this size; then a filemark.
    pub fn backup(&self, drive: &str, record_size: u32, mut stream: impl Read) -> u64 {
        let mut tape = self.tape(drive);
        tape.rewind().expect("the tape rewinds");
        tape.mover_set_record_size(record_size).expect("the record size");
        tape.mover_set_window(0, TO_THE_END).expect("the window");
        let addr = tape.mover_listen(MoverMode::Read, AddrType::Tcp).expect("the mover listens");
        let Addr::Tcp(list) = addr else { panic!("not a TCP address: {addr:?}") };
        let mut data = TcpStream::connect(list[0]).expect("the mover accepts");
        let sent = copy(&mut stream, &mut data);
        drop(data);
        match tape.wait_mover(PATIENCE).expect("a notification") {
            Some(MoverNews::Halted { reason: HaltReason::ConnectClosed, .. }) => {}
            other => panic!("the mover says {other:?}"),
        }
        assert_eq!(tape.mover_state().expect("a state").bytes_moved, sent);
        tape.write_filemarks(1).expect("the filemark is written");
        tape.mover_stop().expect("the mover stops");
        tape.close_tape().expect("the drive closes");
        sent
    }

    fn robot(&self, library: &str) -> Client {
        let mut client = self.dial();
        let changer = format!("{library}/changer");
        once_free("the changer opens", || client.open_scsi(&changer));
        client
    }
}

/// What a request gives once its device is not busy any more, as applications do it.
fn once_free<T>(what: &str, mut request: impl FnMut() -> Result<T, DmaError>) -> T {
    wait::until(what, || match request() {
        Err(
            DmaError::Refused { error: ErrorCode::DeviceBusy, .. }
            | DmaError::NotOpened { error: ErrorCode::DeviceBusy, .. },
        ) => None,
        other => Some(other.unwrap_or_else(|error| panic!("{what}: {error:?}"))),
    })
}

/// The names in a server's list of tape or SCSI devices.
fn devices(client: &mut Client, list: MessageCode) -> Vec<String> {
    match client.ask_bare(list).expect("a list of devices") {
        ReplyBody::Devices(models) => {
            models.into_iter().flat_map(|m| m.devices).map(|d| d.device).collect()
        }
        other => panic!("a list of devices: {other:?}"),
    }
}

/// `io::copy` with a buffer that does not make a GiB slow.
fn copy(from: &mut impl Read, to: &mut impl Write) -> u64 {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match from.read(&mut buffer).expect("the generator does not fail") {
            0 => return total,
            n => {
                to.write_all(&buffer[..n]).expect("the mover takes it");
                total += n as u64;
            }
        }
    }
}

impl Pair {
    /// Starts both, and waits until the far library can be worked with.
    pub fn operated(&mut self) -> Operator {
        // A drive tells every new session of its power on, and the far library is asked for before
        // the link is there.
        self.local.allow("sense 06/29/00");
        self.local.allow("no device");
        self.run();
        let operator = Operator::of(self);
        operator.wait_for("dr-ptl0");
        operator
    }

    /// Where the embedded library of the remote engine keeps its files.
    pub fn ghost_files(&self) -> PathBuf {
        self.directory().join("ptl0")
    }

    /// Gives the ghost library faults to inject; counting begins anew.
    pub fn ghost_faults(&self, rules: &str) {
        let file = self.ghost_files().join("faults");
        // Replaced in one step: it is looked at with every command.
        let new = file.with_extension("new");
        std::fs::write(&new, rules).expect("the faults are written");
        std::fs::rename(new, file).expect("the faults are in place");
    }
}
