//! A drive is taken by a persistent reservation (SPC-5 5.14), so that no other host writes on the
//! tape in it.
//!
//! The type is *exclusive access, registrants only*: the second way to the drive by which a changer
//! unloads it registers with the same key and is let in. An engine has one key, so after a crash it
//! knows its own reservation and takes it over; one of anybody else is left alone.

use aws_lc_rs::digest::{SHA256, digest};
use scsi::Cdb;

use super::channel::{Channel, anew};
use super::drive::ScsiDrive;
use super::transport::{Data, ScsiTransport};
use crate::{Control, TapeDrive, TapeError};

/// Exclusive access, registrants only.
const TYPE: u8 = 6;

/// Service actions of PERSISTENT RESERVE OUT.
mod action {
    pub(super) const REGISTER: u8 = 0;
    pub(super) const RESERVE: u8 = 1;
    pub(super) const PREEMPT: u8 = 4;
    pub(super) const REGISTER_AND_IGNORE: u8 = 6;
}

/// By what an engine is known to the drives that it reserves. No secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationKey(u64);

impl ReservationKey {
    /// The key of an initiator of this name, the same at every start.
    pub fn of(name: &str) -> Self {
        let digest = digest(&SHA256, name.as_bytes());
        let key = digest.as_ref().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte));
        // 0 is no key.
        Self(key.max(1))
    }
}

/// The reservation of a drive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reservation {
    key: ReservationKey,
    /// The count of doubts for which it is known to be held.
    held_at: Option<u64>,
}

fn out<T: ScsiTransport>(
    channel: &mut Channel<T>,
    action: u8,
    (key, service_key): (u64, u64),
    control: &Control,
) -> Result<(), TapeError> {
    let kind = if matches!(action, action::RESERVE | action::PREEMPT) { TYPE } else { 0 };
    let cdb = Cdb::PersistentReserveOut { action, scope: 0, kind, length: 24 };
    let mut list = [0; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&service_key.to_be_bytes());
    channel.ask(cdb, Data::Out(&list), control)?.done()
}

/// Registers a way to a drive with the key of the engine, so that a reservation lets it in.
pub(super) fn register<T: ScsiTransport>(
    channel: &mut Channel<T>,
    key: ReservationKey,
    control: &Control,
) -> Result<(), TapeError> {
    out(channel, action::REGISTER_AND_IGNORE, (0, key.0), control)
}

/// Takes the registration back; with it goes a reservation that this way holds.
pub(super) fn unregister<T: ScsiTransport>(
    channel: &mut Channel<T>,
    key: ReservationKey,
    control: &Control,
) -> Result<(), TapeError> {
    out(channel, action::REGISTER, (key.0, 0), control)
}

/// The key of who holds the drive.
fn holder<T: ScsiTransport>(
    channel: &mut Channel<T>,
    control: &Control,
) -> Result<Option<u64>, TapeError> {
    let cdb = Cdb::PersistentReserveIn { action: 1, allocation: 24 };
    let bytes = channel.fetch(cdb, 24, control)?;
    // Eight bytes of header, of which the last four say whether there is one.
    let key = bytes.get(8..16).and_then(|key| key.first_chunk::<8>());
    Ok(key.map(|key| u64::from_be_bytes(*key)))
}

impl<T: ScsiTransport> ScsiDrive<T> {
    /// Reserves the drive before it is used, and again after everything that may have ended that.
    pub fn reserving(mut self, key: ReservationKey) -> Self {
        self.reservation = Some(Reservation { key, held_at: None });
        self
    }

    /// Sees to it that the drive is ours, if it is to be.
    pub(super) fn hold(&mut self, control: &Control) -> Result<(), TapeError> {
        let Some(Reservation { key, held_at }) = self.reservation else { return Ok(()) };
        if held_at == Some(self.channel.doubts()) {
            return Ok(());
        }
        match self.take(key, control) {
            Err(TapeError::Check(sense)) if sense.key == 0x05 => {
                return Err(TapeError::Unreachable(format!(
                    "the drive is to be reserved and answers {sense}: \
                     it may know no persistent reservations"
                )));
            }
            result => result?,
        }
        let held_at = Some(self.channel.doubts());
        self.reservation = Some(Reservation { key, held_at });
        Ok(())
    }

    fn take(&mut self, key: ReservationKey, control: &Control) -> Result<(), TapeError> {
        register(&mut self.channel, key, control)?;
        match out(&mut self.channel, action::RESERVE, (key.0, 0), control) {
            Err(TapeError::ReservationConflict) => {}
            result => return result,
        }
        let serial = self.identity().serial;
        match holder(&mut self.channel, control)? {
            Some(other) if other == key.0 => {
                tracing::info!(serial, "a reservation of an earlier run is taken over");
                out(&mut self.channel, action::PREEMPT, (key.0, key.0), control)?;
                // Our own registration has the same key and may have gone with the old ones.
                register(&mut self.channel, key, control)
            }
            other => {
                let holder = other.map(|key| format!("{key:016x}"));
                tracing::warn!(serial, holder, "another host has reserved a drive");
                // The registration would keep others from RESERVE(6).
                unregister(&mut self.channel, key, control)?;
                Err(TapeError::ReservationConflict)
            }
        }
    }

    /// Lets the drive go. What comes of that is of no consequence: the key is ours next time too.
    pub(super) fn let_go(&mut self, control: &Control) {
        let Some(Reservation { key, held_at: Some(_) }) = self.reservation else { return };
        if let Err(error) = anew(|| unregister(&mut self.channel, key, control)) {
            let serial = self.identity().serial;
            tracing::debug!(serial, %error, "a reservation could not be taken back");
        }
    }
}
