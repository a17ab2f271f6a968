//! Data encryption (SSC-4 4.2.21): who has given the drive which key, and blocks that it encrypts.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use scsi::crypt::{
    self, Algorithm, BlockEncryption, Decryption, Encryption, EncryptionStatus, Kads, NextBlock,
    Scope, SetEncryption, page,
};
use scsi::{Cdb, Sense};

use super::TargetDrive;
use crate::target::answer::{Reply, Transfer};
use crate::target::{AUTHENTICATED_MAX, MAC, Medium, Seal, UNAUTHENTICATED_MAX, common};
use crate::{ReadEnd, TapeError};

/// ALGORITHM INDEX of AES-256-GCM, the only one.
const ALGORITHM: u8 = 1;
/// Most initiators that have parameters of their own.
const LOCAL_MAX: usize = 64;

/// What one initiator, or all, have set. The key inside is wiped when it is dropped.
struct Parameters {
    encryption: Encryption,
    decryption: Decryption,
    clear_on_demount: bool,
    key: Option<LessSafeKey>,
    kads: Kads,
    instance: u32,
}

/// Everything that the drive knows of encryption.
#[derive(Default)]
pub(super) struct Crypt {
    all: Option<Parameters>,
    local: BTreeMap<u64, Parameters>,
    /// KEY INSTANCE COUNTER.
    instance: u32,
}

impl Crypt {
    /// What holds for an initiator.
    fn of(&self, nexus: u64) -> Option<(Scope, &Parameters)> {
        let local = self.local.get(&nexus).map(|own| (Scope::Local, own));
        local.or_else(|| self.all.as_ref().map(|all| (Scope::All, all)))
    }

    fn decryption(&self, nexus: u64) -> Decryption {
        self.of(nexus).map_or(Decryption::Disable, |(_, it)| it.decryption)
    }

    /// The tape goes: keys that were to go with it do.
    pub(super) fn demounted(&mut self) {
        self.all = self.all.take().filter(|it| !it.clear_on_demount);
        self.local.retain(|_, it| !it.clear_on_demount);
    }

    /// Power-on and reset.
    pub(super) fn reset(&mut self) {
        *self = Self { instance: self.instance, ..Self::default() };
    }

    /// An initiator is gone for good.
    pub(super) fn forget(&mut self, nexus: u64) {
        self.local.remove(&nexus);
    }

    fn set(&mut self, nexus: u64, set: &SetEncryption<'_>) -> Result<(), Sense> {
        let is_on = (set.encryption, set.decryption) != (Encryption::Disable, Decryption::Disable);
        if is_on && set.algorithm != ALGORITHM {
            return Err(Sense::bad_parameter(8, None));
        }
        if set.encryption == Encryption::External {
            return Err(Sense::bad_parameter(6, None));
        }
        if set.decryption == Decryption::Raw {
            return Err(Sense::bad_parameter(7, None));
        }
        let unbound = UnboundKey::new(&AES_256_GCM, set.key).map(LessSafeKey::new);
        if is_on && unbound.is_err() {
            return Err(Sense::bad_parameter(18, None));
        }
        let too_long = set.kads.unauthenticated.len() > UNAUTHENTICATED_MAX
            || set.kads.authenticated.len() > AUTHENTICATED_MAX;
        if too_long {
            return Err(Sense::bad_parameter(20 + set.key.len() as u16, None));
        }
        self.instance = self.instance.wrapping_add(1);
        let parameters = Parameters {
            encryption: set.encryption,
            decryption: set.decryption,
            clear_on_demount: set.clear_on_demount,
            key: unbound.ok().filter(|_| is_on),
            kads: set.kads.clone(),
            instance: self.instance,
        };
        match set.scope {
            Scope::Public => self.forget(nexus),
            Scope::All => {
                self.forget(nexus);
                self.all = Some(parameters);
            }
            Scope::Local => {
                if !self.local.contains_key(&nexus) && self.local.len() >= LOCAL_MAX {
                    return Err(Sense::INSUFFICIENT_REGISTRATION_RESOURCES);
                }
                self.local.insert(nexus, parameters);
            }
        }
        Ok(())
    }

    fn status(&self, nexus: u64) -> EncryptionStatus {
        let (scope, own) = self.of(nexus).unzip();
        EncryptionStatus {
            scope: scope.unwrap_or(Scope::Public),
            encryption: own.map_or(Encryption::Disable, |it| it.encryption),
            decryption: own.map_or(Decryption::Disable, |it| it.decryption),
            algorithm: own.map_or(0, |it| if it.key.is_some() { ALGORITHM } else { 0 }),
            instance: own.map_or(0, |it| it.instance),
            kads: own.map(|it| it.kads.clone()).unwrap_or_default(),
        }
    }

    /// Encrypts a record, if the initiator's are to be.
    pub(super) fn encrypt(
        &self,
        nexus: u64,
        record: &[u8],
    ) -> Result<Option<(Seal, Vec<u8>)>, Sense> {
        let Some((_, own)) = self.of(nexus) else { return Ok(None) };
        let (Encryption::Encrypt, Some(key)) = (own.encryption, &own.key) else { return Ok(None) };
        let failed = |_| Sense::INTERNAL_TARGET_FAILURE;
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).map_err(|_| Sense::INTERNAL_TARGET_FAILURE)?;
        let seal = Seal { nonce, kads: own.kads.clone() };
        let mut sealed = Vec::with_capacity(record.len() + MAC);
        sealed.extend_from_slice(record);
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(seal.encode()));
        key.seal_in_place_append_tag(nonce, aad, &mut sealed).map_err(failed)?;
        Ok(Some((seal, sealed)))
    }

    /// Decrypts a block in place; how long it is.
    fn decrypt(&self, nexus: u64, seal: &Seal, sealed: &mut [u8]) -> Result<usize, Sense> {
        let own = self.of(nexus).map(|(_, own)| own);
        let reads = own.filter(|it| it.decryption != Decryption::Disable);
        let Some((own, key)) = reads.and_then(|it| it.key.as_ref().map(|key| (it, key))) else {
            return Err(Sense::UNABLE_TO_DECRYPT);
        };
        let (nonce, aad) = (Nonce::assume_unique_for_key(seal.nonce), Aad::from(seal.encode()));
        let is_same = !seal.kads.authenticated.is_empty()
            && own.kads.authenticated == seal.kads.authenticated;
        match key.open_in_place(nonce, aad, sealed) {
            Ok(record) => Ok(record.len()),
            Err(_) if is_same => Err(Sense::CRYPTOGRAPHIC_INTEGRITY),
            Err(_) => Err(Sense::INCORRECT_ENCRYPTION_KEY),
        }
    }
}

/// Pages of SECURITY PROTOCOL IN.
const PAGES: [u16; 7] = [
    page::IN_SUPPORT,
    page::OUT_SUPPORT,
    page::CAPABILITIES,
    page::KEY_FORMATS,
    page::MANAGEMENT,
    page::STATUS,
    page::NEXT_BLOCK,
];

impl<M: Medium> TargetDrive<M> {
    /// SECURITY PROTOCOL IN and OUT.
    pub(super) fn security_command(
        &mut self,
        nexus: u64,
        cdb: &Cdb,
        transfer: &Transfer<'_>,
    ) -> Result<Reply, TapeError> {
        let encrypts = self.shelf.seals();
        match *cdb {
            Cdb::SecurityProtocolIn { protocol: 0x00, page: 0, allocation } => {
                let list: &[u8] = if encrypts { &[0x00, crypt::PROTOCOL] } else { &[0x00] };
                Ok(Reply::data(crypt::protocols(list), allocation))
            }
            Cdb::SecurityProtocolIn { protocol: crypt::PROTOCOL, page, allocation } if encrypts => {
                Ok(Reply::data(self.encryption_page(nexus, page)?, allocation))
            }
            Cdb::SecurityProtocolOut { protocol: crypt::PROTOCOL, page: page::SET, length }
                if encrypts =>
            {
                let list = common::parameters(transfer, length as usize)?;
                self.set_encryption(nexus, list)
            }
            Cdb::SecurityProtocolIn { protocol: 0x00, .. } => {
                Err(Sense::bad_cdb_field(2, None).into())
            }
            Cdb::SecurityProtocolOut { protocol: crypt::PROTOCOL, .. } if encrypts => {
                Err(Sense::bad_cdb_field(2, None).into())
            }
            _ => Err(Sense::bad_cdb_field(1, None).into()),
        }
    }

    fn set_encryption(&mut self, nexus: u64, list: &[u8]) -> Result<Reply, TapeError> {
        if list.is_empty() {
            return Ok(Reply::Done);
        }
        let set = SetEncryption::parse(list);
        let set = set.map_err(|(byte, bit)| Sense::bad_parameter(byte, bit))?;
        // SSC-4 8.5.3.2: there is no tape that could go.
        if set.clear_on_demount && self.medium.is_none() {
            return Err(Sense::bad_parameter(5, Some(2)).into());
        }
        // What was accepted under the old parameters is on the tape under them.
        self.flush()?;
        self.crypt.set(nexus, &set)?;
        if set.scope == Scope::All {
            self.nexuses.raise(Sense::ENCRYPTION_PARAMETERS_CHANGED, Some(nexus));
        }
        Ok(Reply::Done)
    }

    fn encryption_page(&mut self, nexus: u64, code: u16) -> Result<Vec<u8>, TapeError> {
        Ok(match code {
            page::IN_SUPPORT => crypt::support(code, &PAGES),
            page::OUT_SUPPORT => crypt::support(code, &[page::SET]),
            page::CAPABILITIES => Algorithm::encode_page(&[Algorithm {
                index: ALGORITHM,
                code: crypt::AES_256_GCM,
                is_capable: true,
                is_valid_here: self.medium.is_some(),
                unauthenticated: (UNAUTHENTICATED_MAX as u16, false),
                authenticated: (AUTHENTICATED_MAX as u16, false),
                key_length: crypt::KEY_LENGTH as u16,
            }]),
            page::KEY_FORMATS => crypt::key_formats(),
            page::MANAGEMENT => crypt::management(),
            page::STATUS => self.crypt.status(nexus).encode(),
            page::NEXT_BLOCK => self.next_block(nexus)?.encode(),
            _ => return Err(Sense::bad_cdb_field(2, None).into()),
        })
    }

    /// What the next object is, found out by decrypting it.
    fn next_block(&mut self, nexus: u64) -> Result<NextBlock, TapeError> {
        self.flush()?;
        let object = self.ready()?.object();
        let seal = self.ready()?.seal().map_err(|error| self.read_failed(&error))?;
        let (encryption, kads) = match seal {
            Some(seal) => {
                let opened = self.open_sealed(nexus, &seal);
                self.back_to(object)?;
                let encryption = match opened {
                    Ok(_) => BlockEncryption::Readable,
                    Err(_) => BlockEncryption::Locked,
                };
                (encryption, seal.kads)
            }
            None => {
                let read = self.ready()?.read(&mut [0]);
                let end = read.map_err(|error| self.read_failed(&error))?;
                self.back_to(object)?;
                let is_block = matches!(end, ReadEnd::Record { .. });
                let plain = (BlockEncryption::Plain, Kads::default());
                let none = (BlockEncryption::NotABlock, Kads::default());
                if is_block { plain } else { none }
            }
        };
        let is_sealed = matches!(encryption, BlockEncryption::Readable | BlockEncryption::Locked);
        Ok(NextBlock { object, encryption, algorithm: if is_sealed { ALGORITHM } else { 0 }, kads })
    }

    fn back_to(&mut self, object: u64) -> Result<(), TapeError> {
        let located = self.ready()?.locate(object);
        located.map(drop).map_err(|error| self.read_failed(&error).into())
    }

    /// Passes an encrypted block and decrypts it.
    fn open_sealed(&mut self, nexus: u64, seal: &Seal) -> Result<Vec<u8>, TapeError> {
        let read = self.ready()?.read_sealed();
        let mut block = read.map_err(|error| self.read_failed(&error))?;
        let length = self.crypt.decrypt(nexus, seal, &mut block)?;
        block.truncate(length);
        Ok(block)
    }

    /// Reads the object here. What can not be decrypted leaves the tape in front of it (SSC-4
    /// 4.2.21.8).
    pub(super) fn read_object(&mut self, buffer: &mut [u8]) -> Result<ReadEnd, TapeError> {
        let nexus = self.nexus;
        let seal = self.ready()?.seal().map_err(|error| self.read_failed(&error))?;
        let object = self.ready()?.object();
        if let Some(seal) = seal {
            let block = match self.open_sealed(nexus, &seal) {
                Ok(block) => block,
                Err(error) => {
                    self.back_to(object)?;
                    return Err(error);
                }
            };
            let copied = block.len().min(buffer.len());
            buffer[..copied].copy_from_slice(&block[..copied]);
            return Ok(ReadEnd::Record { length: block.len() });
        }
        let end = self.ready()?.read(buffer).map_err(|error| self.read_failed(&error))?;
        let is_block = matches!(end, ReadEnd::Record { .. });
        if is_block && self.crypt.decryption(nexus) == Decryption::Decrypt {
            self.back_to(object)?;
            buffer.fill(0);
            return Err(Sense::UNENCRYPTED_WHILE_DECRYPTING.into());
        }
        Ok(end)
    }
}
