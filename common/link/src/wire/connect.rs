//! Greetings, goodbyes and reports.

use bytes::Bytes;
use model::{Barcode, EngineId, JobId, LibraryName, SiteName};

use super::{DecodeError, id_bytes, narrow, read_text, tape, text, within};
use crate::connect::{Capabilities, Channel, Goodbye, GoodbyeReason, Hello, Token};
use crate::proto;
use crate::report::{
    DRIVES_MAX, DriveReport, FROZEN_MAX, JobReport, LIBRARIES_MAX, LibraryReport, SiteReport,
};

pub(super) fn hello(hello: &Hello) -> proto::Hello {
    let channel = match hello.channel {
        Channel::Control => proto::Channel::Control,
        Channel::Bulk => proto::Channel::Bulk,
    };
    proto::Hello {
        version: hello.version,
        oldest: hello.oldest,
        site: hello.site.to_string(),
        engine: id_bytes(hello.engine.to_bytes()),
        channel: channel.into(),
        token: Bytes::copy_from_slice(&hello.token.0),
        capabilities: hello.capabilities.0,
    }
}

pub(super) fn read_hello(hello: proto::Hello) -> Result<Hello, DecodeError> {
    let channel = match hello.channel() {
        proto::Channel::Control => Channel::Control,
        proto::Channel::Bulk => Channel::Bulk,
        proto::Channel::Unspecified => return Err(DecodeError::Invalid("channel")),
    };
    let token = hello.token.as_ref().try_into().map_err(|_| DecodeError::Invalid("token"))?;
    Ok(Hello {
        version: hello.version,
        oldest: hello.oldest,
        site: SiteName::new(&hello.site).map_err(|_| DecodeError::Invalid("site name"))?,
        engine: EngineId::from_slice(&hello.engine).ok_or(DecodeError::Invalid("engine"))?,
        channel,
        token: Token(token),
        capabilities: Capabilities(hello.capabilities),
    })
}

pub(super) fn goodbye(goodbye: &Goodbye) -> proto::Goodbye {
    use proto::goodbye::Reason;
    let reason = match goodbye.reason {
        GoodbyeReason::Shutdown => Reason::Shutdown,
        GoodbyeReason::Protocol => Reason::Protocol,
        GoodbyeReason::Version => Reason::Version,
        GoodbyeReason::NotAllowed => Reason::NotAllowed,
        GoodbyeReason::Replaced => Reason::Replaced,
    };
    proto::Goodbye { reason: reason.into(), text: text(&goodbye.text) }
}

pub(super) fn read_goodbye(goodbye: proto::Goodbye) -> Result<Goodbye, DecodeError> {
    use proto::goodbye::Reason;
    let reason = match goodbye.reason() {
        Reason::Shutdown => GoodbyeReason::Shutdown,
        Reason::Protocol => GoodbyeReason::Protocol,
        Reason::Version => GoodbyeReason::Version,
        Reason::NotAllowed => GoodbyeReason::NotAllowed,
        Reason::Replaced => GoodbyeReason::Replaced,
        Reason::Unspecified => return Err(DecodeError::Invalid("reason of a goodbye")),
    };
    Ok(Goodbye { reason, text: read_text(goodbye.text)? })
}

pub(super) fn job(report: &JobReport) -> proto::JobReport {
    proto::JobReport {
        job: id_bytes(report.job.to_bytes()),
        complete: report.complete,
        flushed_bytes: report.flushed_bytes,
        flushed_object: report.flushed_object,
        text: text(&report.text),
    }
}

pub(super) fn read_job(report: proto::JobReport) -> Result<JobReport, DecodeError> {
    Ok(JobReport {
        job: JobId::from_slice(&report.job).ok_or(DecodeError::Invalid("job"))?,
        complete: report.complete,
        flushed_bytes: report.flushed_bytes,
        flushed_object: report.flushed_object,
        text: read_text(report.text)?,
    })
}

pub(super) fn report(report: &SiteReport) -> proto::SiteReport {
    let libraries = report.libraries.iter().map(library).collect();
    proto::SiteReport { sequence: report.sequence, libraries, more: report.more }
}

fn library(library: &LibraryReport) -> proto::Library {
    let drive = |drive: &DriveReport| proto::Drive {
        element: drive.element.into(),
        identity: Some(tape::identity(&drive.identity)),
        state: drive.state.as_ref().map(tape::drive_state),
        in_use: drive.in_use,
        down: drive.down.as_deref().map(text),
        readying: drive.readying.map(u32::from),
    };
    proto::Library {
        name: library.name.to_string(),
        identity: Some(tape::identity(&library.identity)),
        inventory: Some(tape::inventory(&library.inventory)),
        drives: library.drives.iter().map(drive).collect(),
        capacity: library.capacity,
        online: library.online,
        frozen: library.frozen.iter().take(FROZEN_MAX).map(frozen).collect(),
    }
}

fn frozen((barcode, why): &(Barcode, String)) -> proto::Frozen {
    proto::Frozen { barcode: barcode.to_string(), why: text(why) }
}

fn read_frozen(frozen: proto::Frozen) -> Result<(Barcode, String), DecodeError> {
    let barcode = Barcode::new(&frozen.barcode).map_err(|_| DecodeError::Invalid("barcode"))?;
    Ok((barcode, read_text(frozen.why)?))
}

pub(super) fn read_report(report: proto::SiteReport) -> Result<SiteReport, DecodeError> {
    within("libraries", report.libraries.len(), LIBRARIES_MAX)?;
    let libraries = report.libraries.into_iter().map(read_library).collect::<Result<_, _>>()?;
    Ok(SiteReport { sequence: report.sequence, libraries, more: report.more })
}

fn read_library(library: proto::Library) -> Result<LibraryReport, DecodeError> {
    within("drives", library.drives.len(), DRIVES_MAX)?;
    within("frozen cartridges", library.frozen.len(), FROZEN_MAX)?;
    let name = LibraryName::new(&library.name).map_err(|_| DecodeError::Invalid("library name"))?;
    let identity = library.identity.ok_or(DecodeError::Missing("a library's identity"))?;
    let inventory = library.inventory.ok_or(DecodeError::Missing("an inventory"))?;
    Ok(LibraryReport {
        name,
        identity: tape::read_identity(identity)?,
        inventory: tape::read_inventory(inventory)?,
        drives: library.drives.into_iter().map(read_drive).collect::<Result<_, _>>()?,
        capacity: library.capacity,
        online: library.online,
        frozen: library.frozen.into_iter().map(read_frozen).collect::<Result<_, _>>()?,
    })
}

fn read_drive(drive: proto::Drive) -> Result<DriveReport, DecodeError> {
    let identity = drive.identity.ok_or(DecodeError::Missing("a drive's identity"))?;
    Ok(DriveReport {
        element: narrow(drive.element, "element address")?,
        identity: tape::read_identity(identity)?,
        state: drive.state.map(tape::read_drive_state).transpose()?,
        in_use: drive.in_use,
        down: drive.down.map(read_text).transpose()?,
        readying: drive.readying.map(|part| narrow(part, "part")).transpose()?,
    })
}
