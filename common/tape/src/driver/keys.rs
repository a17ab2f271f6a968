//! The drive is told which key to use: before it writes, and when it meets a block that it can not
//! decrypt. Always in this order: ask the drive whether it can, tell it, ask whether it did.

use std::fmt;
use std::sync::Arc;

use model::{Barcode, ObjectNumber};
use scsi::crypt::{
    AES_256_GCM, Algorithm, BlockEncryption, Decryption, Encryption, EncryptionStatus, KEY_LENGTH,
    Kads, NextBlock, PAGE_MAX, PROTOCOL, Scope, SetEncryption, page,
};
use scsi::{Cdb, Sense};

use super::channel::malformed;
use super::drive::{Redo, ScsiDrive, optional};
use super::transport::{Data, ScsiTransport};
use crate::keys::{KeyError, KeyId, KeyRing, TapeKey, describe};
use crate::{CdbRequest, Completion, Control, TapeDrive, TapeError};

const READ: u8 = 0x08;
const WRITE: u8 = 0x0a;
const WRITE_FILEMARKS: u8 = 0x10;
const LOAD_UNLOAD: u8 = 0x1b;
const WRITE_FILEMARKS_16: u8 = 0x80;
const SECURITY_PROTOCOL_OUT: u8 = 0xb5;

/// Tells which tape lies in the drive, without asking the drive.
pub type TapeInDrive = Box<dyn Fn() -> Option<Barcode> + Send>;

/// What the drive was told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    /// How often its state was in doubt when it was told, and cartridges had been moved.
    at: (u64, u64),
    /// For writing. Otherwise the key is one to read with, and writing needs another look.
    is_to_write: bool,
    /// Which key it has.
    key: Option<(KeyId, String)>,
    /// KEY INSTANCE COUNTER.
    instance: u32,
}

/// The keys of a drive.
#[derive(Default)]
pub(super) struct Keys {
    ring: Arc<KeyRing>,
    tape: Option<TapeInDrive>,
    told: Option<Told>,
    /// Something was written since the drive was last asked whether it has its key.
    is_unproven: bool,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("ring", &self.ring).finish_non_exhaustive()
    }
}

impl<T: ScsiTransport> ScsiDrive<T> {
    /// Writes with the keys that a ring says, and reads with all that it has. `tape` says what lies
    /// in the drive.
    pub fn with_keys(mut self, ring: Arc<KeyRing>, tape: TapeInDrive) -> Self {
        self.keys = Keys { ring, tape: Some(tape), ..Keys::default() };
        self
    }

    /// The way to the device.
    pub fn transport(&self) -> &T {
        self.channel.transport()
    }

    /// How often what the drive knows was in doubt.
    fn doubts(&self) -> (u64, u64) {
        (self.channel.doubts(), self.moves())
    }

    fn security_page(&mut self, page: u16, control: &Control) -> Result<Vec<u8>, TapeError> {
        let allocation = PAGE_MAX as u32;
        let cdb = Cdb::SecurityProtocolIn { protocol: PROTOCOL, page, allocation };
        self.channel.fetch(cdb, PAGE_MAX, control)
    }

    /// How the drive calls AES-256-GCM; `None` where it does not have it.
    fn algorithm(&mut self, control: &Control) -> Result<Option<Algorithm>, TapeError> {
        let page = optional(self.security_page(page::CAPABILITIES, control))?;
        let Some(page) = page else { return Ok(None) };
        let list = Algorithm::parse_page(&page).map_err(malformed)?;
        Ok(list.into_iter().find(|it| {
            let fits = usize::from(it.key_length) == KEY_LENGTH;
            it.code == AES_256_GCM && it.is_capable && fits
        }))
    }

    /// Tells the drive what to encrypt with, or to write in the clear, and which key to read with.
    fn tell(
        &mut self,
        key: Option<Arc<TapeKey>>,
        is_to_write: bool,
        control: &Control,
    ) -> Result<(), TapeError> {
        self.keys.told = None;
        let at = self.doubts();
        let named = key.as_ref().map(|key| (key.id(), key.to_string()));
        let Some(algorithm) = self.algorithm(control)? else {
            return match &named {
                // A drive that can not encrypt writes in the clear.
                None => {
                    self.keys.told = Some(Told { at, is_to_write, key: None, instance: 0 });
                    Ok(())
                }
                Some((_, key)) => {
                    let text = format!("the drive has no AES-256-GCM for key {key}");
                    Err(KeyError::Unsupported(text).into())
                }
            };
        };
        let encryption = match is_to_write && key.is_some() {
            true => Encryption::Encrypt,
            false => Encryption::Disable,
        };
        let decryption = if key.is_some() { Decryption::Mixed } else { Decryption::Disable };
        let kads = key.as_ref().filter(|_| is_to_write).map(|key| fitting(key.kads(), algorithm));
        let set = SetEncryption {
            scope: Scope::Local,
            clear_on_demount: key.is_some(),
            encryption,
            decryption,
            algorithm: algorithm.index,
            key: key.as_ref().map_or(&[], |key| key.secret()),
            kads: kads.unwrap_or_default(),
        };
        let list = set.encode();
        let (page, length) = (page::SET, list.len() as u32);
        let cdb = Cdb::SecurityProtocolOut { protocol: PROTOCOL, page, length };
        let done = self.channel.ask(cdb, Data::Out(&list), control).and_then(|it| it.done());
        match (done, &named) {
            (Ok(()), _) => {}
            (Err(TapeError::Check(sense)), Some((_, key))) if sense.key == 0x05 => {
                // A drive without a tape says so, and nothing of keys.
                self.channel.ask(Cdb::TestUnitReady, Data::None, control)?.done()?;
                let text = format!("the drive refuses key {key} with {sense}");
                return Err(KeyError::Unsupported(text).into());
            }
            (Err(error), _) => return Err(error),
        }
        let status = self.encryption_status(control)?;
        if (status.encryption, status.decryption) != (encryption, decryption) {
            let text = format!("the drive was told {encryption:?} and says {status:?}");
            return Err(KeyError::Unsupported(text).into());
        }
        if let Some((_, key)) = &named {
            let what = if is_to_write { "writes" } else { "reads" };
            tracing::info!(serial = self.serial(), key, "a drive {what} with a key");
        }
        self.keys.told = Some(Told { at, is_to_write, key: named, instance: status.instance });
        Ok(())
    }

    fn encryption_status(&mut self, control: &Control) -> Result<EncryptionStatus, TapeError> {
        let page = self.security_page(page::STATUS, control)?;
        EncryptionStatus::parse(&page).map_err(malformed)
    }

    /// Before a command that writes the drive gets its key; before one that flushes and goes away
    /// it is asked whether it still has it.
    pub(super) fn key_for(&mut self, redo: Redo, control: &Control) -> Result<(), TapeError> {
        match redo {
            Redo::Wrote(1..) => self.key_to_write(control),
            Redo::Repeat => self.key_was_kept(control),
            Redo::Wrote(0) | Redo::Return => Ok(()),
        }
    }

    /// Before anything is written: the drive has the key of this tape, and says that it has.
    fn key_to_write(&mut self, control: &Control) -> Result<(), TapeError> {
        if self.keys.ring.is_empty() {
            return Ok(());
        }
        let doubts = self.doubts();
        let is_told = |told: &Told| told.is_to_write && told.at == doubts;
        if !self.keys.told.as_ref().is_some_and(is_told) {
            self.key_was_kept(control)?;
            let tape = self.keys.tape.as_ref().and_then(|tape| tape());
            let key = self.keys.ring.for_tape(tape.as_ref())?;
            self.tell(key, true, control)?;
        }
        self.keys.is_unproven = true;
        Ok(())
    }

    /// Whether what was written since this was last asked was encrypted, if it was to be.
    pub(super) fn key_was_kept(&mut self, control: &Control) -> Result<(), TapeError> {
        if !std::mem::take(&mut self.keys.is_unproven) {
            return Ok(());
        }
        let doubts = self.doubts();
        // Where the drive told of something that may have cost it the key, what came before that
        // was encrypted, and who was told sees to the rest. This is for drives that do not tell.
        let told = self.keys.told.clone().filter(|told| told.at == doubts);
        let Some(Told { key: Some((_, key)), instance, .. }) = told else { return Ok(()) };
        // Whoever asks again after a unit attention still has to know.
        self.keys.is_unproven = true;
        let status = self.encryption_status(control)?;
        self.keys.is_unproven = false;
        if status.encryption == Encryption::Encrypt && status.instance == instance {
            return Ok(());
        }
        self.keys.told = None;
        let error = KeyError::Lost(key);
        tracing::error!(serial = self.serial(), %error, "a tape is not as it was to be");
        Err(error.into())
    }

    /// A read met a block that the drive can not decrypt with what it has: gives it the key that
    /// the block names, and sees to it that the tape stands in front of the block.
    pub(super) fn unlock(
        &mut self,
        sense: Sense,
        before: Option<ObjectNumber>,
        control: &Control,
    ) -> Result<(), TapeError> {
        match (before, self.before(control)?) {
            (Some(at), Some(now)) if at != now => self.locate(at, control)?,
            // By the standard it stands there; this one does not say so.
            (at, None) => self.expected = at,
            _ => {}
        }
        self.key_was_kept(control)?;
        let Some(page) = optional(self.security_page(page::NEXT_BLOCK, control))? else {
            return Err(TapeError::Check(sense));
        };
        let next = NextBlock::parse(&page).map_err(malformed)?;
        if matches!(next.encryption, BlockEncryption::Plain | BlockEncryption::NotABlock) {
            return Err(TapeError::Check(sense));
        }
        let Some(key) = self.keys.ring.find(&next.kads) else {
            return Err(KeyError::Unknown(describe(&next.kads)).into());
        };
        let (doubts, id) = (self.doubts(), key.id());
        let told = self.keys.told.as_ref().filter(|told| told.at == doubts);
        if told.is_some_and(|told| told.key.as_ref().is_some_and(|(has, _)| *has == id)) {
            return Err(KeyError::Wrong(key.to_string()).into());
        }
        let name = key.to_string();
        self.tell(Some(key), false, control)?;
        // Told, the drive says whether it fits.
        let page = self.security_page(page::NEXT_BLOCK, control)?;
        match NextBlock::parse(&page).map_err(malformed)?.encryption {
            BlockEncryption::Locked => Err(KeyError::Wrong(name).into()),
            _ => Ok(()),
        }
    }

    /// Passes a CDB through. Where there are keys they are this engine's business: what writes gets
    /// the key of the tape, and nobody else may set one.
    pub(super) fn pass_with_keys(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        let code = request.cdb.first().copied().unwrap_or_default();
        if self.keys.ring.is_empty() {
            return self.channel.pass(request, control);
        }
        match code {
            SECURITY_PROTOCOL_OUT => {
                let sense = Sense::INVALID_OPERATION_CODE.to_fixed().to_vec();
                return Ok(Completion { status: 0x02, sense, ..Completion::default() });
            }
            WRITE | WRITE_FILEMARKS | WRITE_FILEMARKS_16 => {
                self.key_for(Redo::Wrote(1), control)?
            }
            LOAD_UNLOAD => {
                self.key_was_kept(control)?;
                self.forget_key(control);
            }
            _ => {}
        }
        let completion = self.channel.pass(request, control)?;
        let sense = Sense::parse(&completion.sense).filter(|sense| is_locked(*sense));
        match sense {
            Some(sense) if code == READ => {
                self.unlock(sense, None, control)?;
                self.channel.pass(request, control)
            }
            _ => Ok(completion),
        }
    }

    /// Takes the key out of the drive. What comes of that is of no consequence: it also goes with
    /// the tape, and with us.
    pub(super) fn forget_key(&mut self, control: &Control) {
        let has_key = self.keys.told.take().is_some_and(|told| told.key.is_some());
        if has_key && let Err(error) = self.tell(None, false, control) {
            let serial = self.serial();
            tracing::debug!(serial, %error, "a key could not be taken out of a drive");
        }
        self.keys.told = None;
    }

    fn serial(&self) -> String {
        self.identity().serial
    }
}

/// Whether a block could not be read for want of a key.
pub(super) fn is_locked(sense: Sense) -> bool {
    (sense.key, sense.asc) == (0x07, 0x74)
}

/// Key-associated data as a drive takes them: what is too long is left out, what has to be of one
/// length is filled up with zeroes.
fn fitting(kads: Kads, algorithm: Algorithm) -> Kads {
    let fit = |mut kad: Vec<u8>, (most, is_fixed): (u16, bool)| {
        if kad.len() > usize::from(most) {
            kad.clear();
        } else if is_fixed {
            kad.resize(most.into(), 0);
        }
        kad
    };
    Kads {
        unauthenticated: fit(kads.unauthenticated, algorithm.unauthenticated),
        authenticated: fit(kads.authenticated, algorithm.authenticated),
    }
}
