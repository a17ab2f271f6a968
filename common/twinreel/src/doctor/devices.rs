//! Looking at devices and the mover from inside a session. Nothing is moved and nothing is written.

use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use dma::{Client, DmaError, TO_THE_END, TapeOpenMode, Version};
use ndmp::wire::{
    Addr, AddrType, DeviceCapability, ErrorCode, MessageCode, MoverMode, MoverState, ReplyBody,
};
use scsi::{Cdb, Sense};

use super::seen::{Changer, Dialled, Drive, Expected, Inside, Library, MoverTrial, State};

/// UNIT ATTENTIONs that a device may tell before it answers.
const ATTENTIONS: usize = 4;
/// `NDMP_TAPE_ATTR_REWIND` and `NDMP_TAPE_ATTR_UNLOAD` (version 4).
const MOVES_AT_CLOSE: u32 = 1 | 2;
/// Addresses of one mover that are dialled at most.
const ADDRESSES: usize = 16;
/// How long a dial may take, and the mover to notice it.
const DIAL: Duration = Duration::from_secs(5);
/// How often the mover's state is asked for, if it says nothing.
const ASK: Duration = Duration::from_millis(50);
/// Bytes of a record, for movers that will not listen without.
const RECORD: u32 = 65_536;

/// A session whose answers are timed.
struct Timed {
    client: Client,
    slowest: Option<(String, Duration)>,
}

impl Timed {
    fn ask<T>(
        &mut self,
        what: impl std::fmt::Display,
        ask: impl FnOnce(&mut Client) -> Result<T, DmaError>,
    ) -> Result<T, DmaError> {
        let begun = Instant::now();
        let result = ask(&mut self.client);
        let took = begun.elapsed();
        if self.slowest.as_ref().is_none_or(|(_, slowest)| took > *slowest) {
            self.slowest = Some((what.to_string(), took));
        }
        result
    }

    fn bare(&mut self, message: MessageCode) -> Result<ReplyBody, DmaError> {
        self.ask(message, |client| client.ask_bare(message))
    }

    /// What a device is that could not be opened.
    fn unopened(&mut self, error: &DmaError) -> State {
        let mut told = None;
        while let Some(line) = self.client.next_log() {
            told = Some(line);
        }
        match error.code() {
            Some(ErrorCode::DeviceBusy) => State::Busy(told),
            _ => State::Failed(told.unwrap_or_else(|| error.to_string())),
        }
    }
}

/// Everything that one session can see; ends it.
pub(super) fn look_inside(client: Client, expected: Option<Expected>) -> Inside {
    let version = client.version();
    let mut timed = Timed { client, slowest: None };
    let host = match timed.bare(MessageCode::ConfigGetHostInfo) {
        Ok(ReplyBody::HostInfo(info)) => Some(info),
        _ => None,
    };
    let server = match timed.bare(MessageCode::ConfigGetServerInfo) {
        Ok(ReplyBody::ServerInfo(info)) => Some(info),
        _ => None,
    };
    let (mut libraries, unlisted) = match listed(&mut timed) {
        Ok(libraries) => (libraries, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    for library in &mut libraries {
        if let Some(changer) = &mut library.changer {
            look_at_changer(&mut timed, changer);
        }
        for drive in &mut library.drives {
            drive.state = look_at_drive(&mut timed, &drive.device);
        }
    }
    let own = expected.as_ref().map_or(&[][..], |expected| &expected.own);
    let mover = try_mover(&mut timed, &candidates(&libraries, own, version));
    timed.client.close();
    let slowest = timed.slowest;
    Inside { version, host, server, unlisted, libraries, expected, mover, slowest }
}

/// The devices by library, none of them looked at yet.
fn listed(timed: &mut Timed) -> Result<Vec<Library>, DmaError> {
    let mut libraries = Vec::new();
    let unseen = || State::Failed("not asked".to_owned());
    for device in devices(timed, MessageCode::ConfigGetScsiInfo)? {
        let (state, device, library) = (unseen(), device.device.clone(), library_of(&device));
        let changer = Changer { device, state, elements: None };
        entry(&mut libraries, library).changer = Some(changer);
    }
    for device in devices(timed, MessageCode::ConfigGetTapeInfo)? {
        let library = library_of(&device);
        let moves_at_close = device.attributes & MOVES_AT_CLOSE != 0;
        let drive = Drive { device: device.device, moves_at_close, state: unseen() };
        entry(&mut libraries, library).drives.push(drive);
    }
    Ok(libraries)
}

fn devices(timed: &mut Timed, list: MessageCode) -> Result<Vec<DeviceCapability>, DmaError> {
    match timed.bare(list)? {
        ReplyBody::Devices(models) => Ok(models.into_iter().flat_map(|it| it.devices).collect()),
        _ => Err(DmaError::Protocol(format!("{list}: no list"))),
    }
}

/// The library that a device says it belongs to, or what its name has before the last slash.
fn library_of(device: &DeviceCapability) -> String {
    let told = device.capability.iter().find(|pair| pair.name == "library");
    let named = || device.device.rsplit_once('/').map_or("", |(library, _)| library);
    told.map_or_else(|| named().to_owned(), |pair| pair.value.clone())
}

fn entry(libraries: &mut Vec<Library>, name: String) -> &mut Library {
    let at = libraries.iter().position(|library| library.name == name).unwrap_or_else(|| {
        libraries.push(Library { name, ..Library::default() });
        libraries.len() - 1
    });
    &mut libraries[at]
}

fn look_at_changer(timed: &mut Timed, changer: &mut Changer) {
    let device = &changer.device;
    let opened = timed.ask(format!("opening {device}"), |client| client.open_scsi(device));
    if let Err(error) = opened {
        changer.state = timed.unopened(&error);
        return;
    }
    changer.state = readiness(timed, device);
    let told = timed.ask(format!("the inventory of {device}"), Client::inventory);
    match told {
        Ok(elements) => changer.elements = Some(elements),
        Err(error) if changer.state == State::Ready => {
            changer.state = State::Failed(error.to_string());
        }
        // That it is not ready says more.
        Err(_) => {}
    }
    close(timed, device);
}

fn look_at_drive(timed: &mut Timed, device: &str) -> State {
    let opened = timed.ask(format!("opening {device}"), |client| client.open_scsi(device));
    if let Err(error) = opened {
        return timed.unopened(&error);
    }
    let state = readiness(timed, device);
    close(timed, device);
    state
}

fn close(timed: &mut Timed, device: &str) {
    // A session that is gone is told by whatever is asked next.
    let _ = timed.ask(format!("closing {device}"), Client::close_scsi);
}

/// TEST UNIT READY, unit attentions passed over.
fn readiness(timed: &mut Timed, device: &str) -> State {
    let cdb = Cdb::TestUnitReady.encode();
    let mut attentions = 0;
    loop {
        let answer = timed.ask(format!("TEST UNIT READY of {device}"), |client| {
            client.execute_cdb(&cdb, bytes::Bytes::new(), 0)
        });
        let answer = match answer {
            Ok(answer) if answer.status == 0 => return State::Ready,
            Ok(answer) => answer,
            Err(error) => return State::Failed(error.to_string()),
        };
        match Sense::parse(&answer.sense) {
            Some(sense) if sense.key == 0x06 && attentions < ATTENTIONS => attentions += 1,
            Some(sense) if sense.key == 0x02 && sense.asc == 0x3a => return State::Empty,
            Some(sense) => return State::NotReady(sense),
            None => return State::Failed(format!("SCSI status {:02x}h", answer.status)),
        }
    }
}

/// Drives that can be opened without moving a tape, and how; those of the own site first, since
/// they need nobody else.
fn candidates<'a>(
    libraries: &'a [Library],
    own: &[String],
    version: Version,
) -> Vec<(&'a str, TapeOpenMode)> {
    let mut found: Vec<_> = libraries
        .iter()
        .flat_map(|library| library.drives.iter().map(move |drive| (library, drive)))
        .filter_map(|(library, drive)| {
            let mode = match drive.state {
                State::Empty if version == Version::V4 => TapeOpenMode::Raw,
                State::Ready if !drive.moves_at_close => TapeOpenMode::Read,
                _ => return None,
            };
            let foreign = !own.contains(&library.name);
            Some((foreign, mode == TapeOpenMode::Read, drive.device.as_str(), mode))
        })
        .collect();
    found.sort_by_key(|(foreign, loaded, ..)| (*foreign, *loaded));
    found.into_iter().map(|(_, _, device, mode)| (device, mode)).collect()
}

fn try_mover(timed: &mut Timed, candidates: &[(&str, TapeOpenMode)]) -> MoverTrial {
    let mut trial = MoverTrial::default();
    let drive = candidates.iter().find(|(device, mode)| {
        let what = format!("opening {device} for the mover");
        timed.ask(what, |client| client.open_tape(device, *mode)).is_ok()
    });
    let Some((drive, _)) = drive else { return trial };
    trial.drive = Some((*drive).to_owned());
    if let Err(error) = dial_all(timed, &mut trial.addresses) {
        trial.deaf = Some(error.to_string());
    }
    let local = listen(timed, AddrType::Local).and_then(|addr| match addr {
        Addr::Local => Ok(()),
        other => Err(DmaError::Protocol(format!("it listens at {other} instead"))),
    });
    trial.local = Some(local.map_err(|error| error.to_string()));
    // Whatever became of it, the drive is given back.
    let _ = reset(timed);
    let _ = timed.ask(format!("closing {drive}"), Client::close_tape);
    trial
}

/// From tape to connection: what listens so moves no tape until it is told to read, and writes
/// none.
fn listen(timed: &mut Timed, addr_type: AddrType) -> Result<Addr, DmaError> {
    reset(timed)?;
    timed.ask(MessageCode::MoverListen, |client| {
        client.mover_set_record_size(RECORD)?;
        client.mover_set_window(0, TO_THE_END)?;
        client.mover_listen(MoverMode::Write, addr_type)
    })
}

fn reset(timed: &mut Timed) -> Result<(), DmaError> {
    timed.ask("stopping the mover", Client::mover_reset)
}

/// Dials each address that the mover gives. It takes one connection, so it listens anew for each.
fn dial_all(timed: &mut Timed, dialled: &mut Vec<(SocketAddrV4, Dialled)>) -> Result<(), DmaError> {
    while dialled.len() < ADDRESSES {
        let list = match listen(timed, AddrType::Tcp)? {
            Addr::Tcp(list) if !list.is_empty() => list,
            other => return Err(DmaError::Protocol(format!("no TCP address but {other:?}"))),
        };
        let Some(address) = list.get(dialled.len()) else { break };
        let outcome = dial(timed, *address)?;
        dialled.push((*address, outcome));
    }
    Ok(())
}

fn dial(timed: &mut Timed, address: SocketAddrV4) -> Result<Dialled, DmaError> {
    // A dial to no address at all would reach this host, whatever the server's is.
    if address.ip().is_unspecified() || address.port() == 0 {
        return Ok(Dialled::Nowhere);
    }
    let _stream = match TcpStream::connect_timeout(&address.into(), DIAL) {
        Ok(stream) => stream,
        Err(error) => return Ok(Dialled::Failed(error.to_string())),
    };
    let deadline = Instant::now() + DIAL;
    loop {
        match timed.ask(MessageCode::MoverGetState, Client::mover_state)?.state {
            MoverState::Active => return Ok(Dialled::Taken),
            MoverState::Listen if Instant::now() < deadline => {}
            _ => return Ok(Dialled::NotNoticed),
        }
        timed.client.wait_notification(ASK)?;
    }
}
