//! A mounted cartridge file.

use std::path::Path;

use model::{Barcode, ObjectNumber};
use scsi::Sense;
use vfs::{Vfs, VfsError, VfsFile};

use super::format::{DATA, HEAD, Head, Header, Kind, Place, SLOT, TAIL, le32};
use super::index::Index;
use super::shelf::Mount;
use super::window::{READ_AHEAD, STEP_AHEAD, Window};
use crate::target::{Medium, MediumError, Seal};
use crate::{ReadEnd, SpaceKind, SpaceStop, Spaced};

/// Bytes that are gathered before they are handed to the file.
const BUFFER: usize = 1 << 20;
/// After so many bytes without a flush one is made, so that what has to be verified after a crash
/// is bounded.
const UNSYNCED_MAX: u64 = 256 << 20;

/// A cartridge file as a [`Medium`].
///
/// Written objects gather in a buffer and are durable after [`Medium::flush`]. Opening verifies
/// what was written since the last flush and cuts off what is torn; what was flushed once and is
/// damaged is never passed over: reading it, or spacing beyond it, is [`MediumError::Corrupt`].
#[derive(Debug)]
pub struct FileMedium {
    file: Box<dyn VfsFile>,
    header: Header,
    sequence: u64,
    place: Place,
    end: Place,
    index: Index,
    window: Window,
    /// The last bytes of the tape, not yet in the file; they end at `end`.
    pending: Vec<u8>,
    /// Something changed since the last sync.
    dirty: bool,
    unsynced: u64,
    /// What lies at `end` is not the end of data but damage.
    damaged: bool,
    /// A sync failed: what was written after the one before may be lost.
    broken: Option<String>,
    _mount: Mount,
}

pub(super) fn io(error: VfsError) -> MediumError {
    if error.is_full() { MediumError::Full } else { MediumError::Io(error.to_string()) }
}

impl FileMedium {
    /// Makes a new empty cartridge, durably but for its name (which the caller syncs).
    pub(super) fn create(
        vfs: &dyn Vfs,
        path: &Path,
        barcode: Barcode,
        capacity: u64,
    ) -> Result<(), MediumError> {
        let slot = Header::new(barcode, capacity).encode(1).map_err(MediumError::Io)?;
        let temporary = path.with_extension("tmp");
        let file = vfs.open_or_create(&temporary).map_err(io)?;
        file.set_len(0).map_err(io)?;
        file.set_len(DATA).map_err(io)?;
        file.write_all_at(&slot, SLOT).map_err(io)?;
        file.sync_data().map_err(io)?;
        vfs.rename(&temporary, path).map_err(io)
    }

    /// Opens a cartridge, standing at BOT.
    pub(super) fn open(
        vfs: &dyn Vfs,
        path: &Path,
        barcode: &Barcode,
        mount: Mount,
    ) -> Result<Self, MediumError> {
        let file = vfs.open(path).map_err(|error| match error.is_not_found() {
            true => MediumError::Missing(barcode.clone()),
            false => io(error),
        })?;
        let (sequence, header) = read_header(&*file)?;
        if header.barcode != *barcode {
            let text = format!("{} holds cartridge {}", path.display(), header.barcode);
            return Err(MediumError::Corrupt(text));
        }
        let mut medium = Self {
            file,
            header,
            sequence,
            place: Place::BOT,
            end: Place::BOT,
            index: Index::new(),
            window: Window::default(),
            pending: Vec::new(),
            dirty: false,
            unsynced: 0,
            damaged: false,
            broken: None,
            _mount: mount,
        };
        medium.find_end()?;
        Ok(medium)
    }

    /// Walks over all entries. Those that were synced are trusted by their heads, those behind are
    /// verified whole; the first that does not hold is the end of data, or damage.
    fn find_end(&mut self) -> Result<(), MediumError> {
        let length = self.file.len().map_err(io)?;
        while let Some(head) = self.head_in_file(self.end, STEP_AHEAD)? {
            let next = self.end.after(&head);
            let synced = next.offset <= self.header.durable;
            let holds = next.offset <= length && (synced || self.entry_holds(self.end, &head)?);
            if !holds {
                break;
            }
            self.end = next;
            self.index.note(next);
        }
        let torn = length.saturating_sub(self.end.offset);
        if self.end.offset < self.header.durable {
            let (barcode, object) = (&self.header.barcode, self.end.object);
            tracing::error!(%barcode, object, "a cartridge file is damaged at this object");
            self.damaged = true;
        } else if torn > 0 {
            let barcode = &self.header.barcode;
            tracing::warn!(%barcode, bytes = torn, "an interrupted write is cut off");
            self.file.set_len(self.end.offset).map_err(io)?;
            self.sync()?;
        }
        self.window.clear();
        Ok(())
    }

    /// Whether payload and trailing length of an entry in the file are right.
    fn entry_holds(&mut self, place: Place, head: &Head) -> Result<bool, MediumError> {
        match self.payload(place, head, &mut []) {
            Ok(()) => Ok(true),
            Err(MediumError::Corrupt(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The head at a place as the file has it; `None` where there is no valid one.
    fn head_in_file(&mut self, at: Place, ahead: usize) -> Result<Option<Head>, MediumError> {
        let bytes = self.window.fetch(&*self.file, at.offset, HEAD, ahead).map_err(io)?;
        Ok(Head::decode(bytes).filter(|head| head.previous == at.chain))
    }

    /// The head of the object at the position, `None` at the end of data.
    fn head_here(&mut self, ahead: usize) -> Result<Option<Head>, MediumError> {
        if self.place.offset == self.end.offset {
            return if self.damaged { Err(self.corrupt(self.place)) } else { Ok(None) };
        }
        self.drain()?;
        let head = self.head_in_file(self.place, ahead)?;
        head.map(Some).ok_or_else(|| self.corrupt(self.place))
    }

    /// The head of the object before the position, `None` at BOT.
    fn head_before(&mut self) -> Result<Option<Head>, MediumError> {
        let place = self.place;
        if place.object == 0 {
            return Ok(None);
        }
        self.drain()?;
        let bytes = self.window.fetch_before(&*self.file, place.offset, TAIL).map_err(io)?;
        let size = u64::from(le32(bytes)) + (HEAD + TAIL) as u64;
        let start = place.offset.checked_sub(size).filter(|start| *start >= DATA);
        let start = start.ok_or_else(|| self.corrupt(place))?;
        let bytes = self.window.fetch_before(&*self.file, start + HEAD as u64, HEAD).map_err(io)?;
        let head = Head::decode(bytes).filter(|h| h.chain() == place.chain && h.size() == size);
        head.map(Some).ok_or_else(|| self.corrupt(place))
    }

    fn corrupt(&self, place: Place) -> MediumError {
        let (barcode, object, offset) = (&self.header.barcode, place.object, place.offset);
        MediumError::Corrupt(format!("cartridge {barcode}, object {object} (byte {offset})"))
    }

    /// Copies the first bytes of a record into `buffer` and verifies all of it.
    fn payload(&mut self, at: Place, head: &Head, buffer: &mut [u8]) -> Result<(), MediumError> {
        let length = head.length as usize;
        let start = at.offset + HEAD as u64;
        let copied = length.min(buffer.len());
        let held = self.window.from(start);
        let from_window = copied.min(held.len());
        buffer[..from_window].copy_from_slice(&held[..from_window]);
        if from_window < copied {
            let rest = &mut buffer[from_window..copied];
            match self.file.read_exact_at(rest, start + from_window as u64) {
                Err(error) if error.source.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(self.corrupt(at));
                }
                result => result.map_err(io)?,
            }
        }
        let mut crc = crc32c::crc32c(&buffer[..copied]);
        let mut done = copied;
        while done < length {
            let want = (length - done).min(READ_AHEAD);
            let offset = start + done as u64;
            let bytes = self.window.fetch(&*self.file, offset, want, want + TAIL + HEAD);
            let bytes = bytes.map_err(io)?;
            if bytes.len() < want {
                return Err(self.corrupt(at));
            }
            crc = crc32c::crc32c_append(crc, &bytes[..want]);
            done += want;
        }
        let tail = start + length as u64;
        let bytes = self.window.fetch(&*self.file, tail, TAIL, TAIL + READ_AHEAD).map_err(io)?;
        let whole = bytes.len() >= TAIL && le32(bytes) == head.length && crc == head.crc;
        if whole { Ok(()) } else { Err(self.corrupt(at)) }
    }

    /// Bytes of memory in buffers.
    #[cfg(test)]
    pub(super) fn buffers(&self) -> usize {
        self.window.capacity() + self.pending.capacity()
    }

    /// Hands gathered bytes to the file.
    fn drain(&mut self) -> Result<(), MediumError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let offset = self.end.offset - self.pending.len() as u64;
        self.window.clear();
        self.file.write_all_at(&self.pending, offset).map_err(io)?;
        self.pending.clear();
        Ok(())
    }

    /// Makes the file durable as it is.
    fn sync(&mut self) -> Result<(), MediumError> {
        if let Err(error) = self.file.sync_data() {
            let text = format!("what was written since the last flush may be lost: {error}");
            self.broken = Some(text.clone());
            return Err(MediumError::Io(text));
        }
        Ok(())
    }

    fn sound(&self) -> Result<(), MediumError> {
        self.broken.as_ref().map_or(Ok(()), |text| Err(MediumError::Io(text.clone())))
    }

    /// Writes the header into the older of the two slots.
    fn write_header(&mut self) -> Result<(), MediumError> {
        let slot = self.header.encode(self.sequence + 1).map_err(MediumError::Io)?;
        let offset = (self.sequence + 1) % 2 * SLOT;
        self.file.write_all_at(&slot, offset).map_err(io)?;
        self.sequence += 1;
        Ok(())
    }

    /// Changes the header durably, or not at all.
    fn change_header(&mut self, header: Header) -> Result<(), MediumError> {
        self.sound()?;
        let before = std::mem::replace(&mut self.header, header);
        let result = self.write_header().and_then(|()| self.sync());
        if result.is_err() {
            self.header = before;
        }
        result
    }

    /// Makes the position the end of data.
    fn cut(&mut self) -> Result<(), MediumError> {
        if self.place.offset == self.end.offset && !self.damaged {
            return Ok(());
        }
        self.drain()?;
        if self.place.offset < self.header.durable {
            // Before the first byte below it changes, or a crash would look like damage.
            self.change_header(Header { durable: self.place.offset, ..self.header.clone() })?;
        }
        self.file.set_len(self.place.offset).map_err(io)?;
        self.end = self.place;
        self.index.cut(self.place.object);
        self.window.clear();
        self.damaged = false;
        self.dirty = true;
        Ok(())
    }

    /// What comes before every write: nothing follows, and there is room in the buffer.
    fn prepare(&mut self, size: usize) -> Result<(), MediumError> {
        self.sound()?;
        self.cut()?;
        if self.unsynced + size as u64 > UNSYNCED_MAX {
            self.flush()?;
        }
        if !self.pending.is_empty() && self.pending.len() + size > BUFFER {
            self.drain()?;
        }
        Ok(())
    }

    /// Takes an object in, its payload in parts.
    fn append(&mut self, head: &Head, payload: &[&[u8]]) {
        self.pending.extend_from_slice(&head.encode());
        payload.iter().for_each(|part| self.pending.extend_from_slice(part));
        self.pending.extend_from_slice(&head.length.to_le_bytes());
        self.end = self.end.after(head);
        self.place = self.end;
        self.index.note(self.end);
        self.unsynced += head.size();
        self.dirty = true;
    }

    /// One object towards the end or BOT; `None` there.
    fn next(&mut self, forwards: bool) -> Result<Option<(Kind, Place)>, MediumError> {
        if forwards {
            let head = self.head_here(STEP_AHEAD)?;
            Ok(head.map(|head| (head.kind, self.place.after(&head))))
        } else {
            let head = self.head_before()?;
            Ok(head.map(|head| (head.kind, self.place.before(&head))))
        }
    }

    /// Takes the filemarks since a place back after one could not be written.
    fn take_back(&mut self, place: Place) {
        let start = self.end.offset - self.pending.len() as u64;
        if let Some(keep) = place.offset.checked_sub(start) {
            self.pending.truncate(keep as usize);
        } else {
            self.pending.clear();
            let cut = self.file.set_len(place.offset);
            if place.offset < self.header.durable || cut.is_err() {
                self.broken = Some("filemarks could not be taken back".to_owned());
            }
        }
        self.window.clear();
        self.index.cut(place.object);
        (self.place, self.end) = (place, place);
    }
}

/// The newer of the two valid header slots.
fn read_header(file: &dyn VfsFile) -> Result<(u64, Header), MediumError> {
    let mut slots = Vec::new();
    for slot in 0..2 {
        let mut bytes = vec![0; SLOT as usize];
        let mut done = 0;
        while done < bytes.len() {
            match file.read_at(&mut bytes[done..], slot * SLOT + done as u64).map_err(io)? {
                0 => break,
                n => done += n,
            }
        }
        bytes.truncate(done);
        slots.push(Header::decode(&bytes));
    }
    let newest = slots.iter().flatten().max_by_key(|(sequence, _)| *sequence).cloned();
    newest.ok_or_else(|| {
        let reasons = slots.into_iter().filter_map(Result::err).collect::<Vec<_>>();
        MediumError::Corrupt(format!("{}: {}", file.path().display(), reasons.join("; ")))
    })
}

impl Medium for FileMedium {
    fn barcode(&self) -> Barcode {
        self.header.barcode.clone()
    }

    fn capacity(&self) -> u64 {
        self.header.capacity
    }

    fn write_protected(&self) -> bool {
        self.header.write_protected
    }

    fn set_write_protected(&mut self, protect: bool) -> Result<(), MediumError> {
        self.change_header(Header { write_protected: protect, ..self.header.clone() })
    }

    fn object(&self) -> ObjectNumber {
        self.place.object
    }

    fn file(&self) -> u64 {
        self.place.file
    }

    fn used(&self) -> u64 {
        self.place.used
    }

    fn recorded(&self) -> u64 {
        self.end.used
    }

    fn locate(&mut self, object: ObjectNumber) -> Result<ObjectNumber, MediumError> {
        let start = self.place;
        let floor = self.index.floor(object);
        if !(floor.object..=object).contains(&start.object) {
            self.place = floor;
        }
        while self.place.object < object {
            match self.next(true) {
                Ok(Some((_, next))) => self.place = next,
                Ok(None) => break,
                Err(error) => {
                    self.place = start;
                    return Err(error);
                }
            }
        }
        Ok(self.place.object)
    }

    fn space(&mut self, kind: SpaceKind, count: i64) -> Result<Spaced, MediumError> {
        if kind == SpaceKind::EndOfData {
            if self.damaged {
                return Err(self.corrupt(self.end));
            }
            self.place = self.end;
            return Ok(Spaced { residual: 0, stop: SpaceStop::Done });
        }
        let forwards = count > 0;
        let mut residual = count.unsigned_abs();
        while residual > 0 {
            let Some((met, place)) = self.next(forwards)? else {
                let stop = if forwards { SpaceStop::EndOfData } else { SpaceStop::BeginningOfTape };
                return Ok(Spaced { residual, stop });
            };
            self.place = place;
            match (kind, met) {
                (SpaceKind::Records, Kind::Filemark) => {
                    return Ok(Spaced { residual, stop: SpaceStop::Filemark });
                }
                (SpaceKind::Filemarks, Kind::Record | Kind::Sealed) => {}
                _ => residual -= 1,
            }
        }
        Ok(Spaced { residual: 0, stop: SpaceStop::Done })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<ReadEnd, MediumError> {
        let Some(head) = self.head_here(READ_AHEAD)? else {
            return Ok(ReadEnd::EndOfData);
        };
        let end = match head.kind {
            Kind::Filemark => ReadEnd::Filemark,
            Kind::Record => {
                self.payload(self.place, &head, buffer)?;
                ReadEnd::Record { length: head.length as usize }
            }
            Kind::Sealed => return Err(MediumError::Device(Sense::UNABLE_TO_DECRYPT)),
        };
        self.place = self.place.after(&head);
        Ok(end)
    }

    fn write(&mut self, record: &[u8]) -> Result<(), MediumError> {
        self.prepare(HEAD + record.len() + TAIL)?;
        self.append(&Head::record(record, self.end.chain), &[record]);
        Ok(())
    }

    fn seal(&mut self) -> Result<Option<Seal>, MediumError> {
        let Some(Head { kind: Kind::Sealed, .. }) = self.head_here(READ_AHEAD)? else {
            return Ok(None);
        };
        let at = self.place.offset + HEAD as u64;
        let bytes = self.window.fetch(&*self.file, at, Seal::LENGTH, READ_AHEAD).map_err(io)?;
        let seal = Seal::decode(bytes);
        seal.map(Some).ok_or_else(|| self.corrupt(self.place))
    }

    fn write_sealed(&mut self, seal: &Seal, sealed: &[u8]) -> Result<(), MediumError> {
        if !self.header.sealed {
            self.change_header(Header { sealed: true, ..self.header.clone() })?;
        }
        let seal = seal.encode();
        self.prepare(HEAD + seal.len() + sealed.len() + TAIL)?;
        self.append(&Head::sealed(&seal, sealed, self.end.chain), &[&seal, sealed]);
        Ok(())
    }

    fn read_sealed(&mut self) -> Result<Vec<u8>, MediumError> {
        let head = self.head_here(READ_AHEAD)?.filter(|head| head.kind == Kind::Sealed);
        let head = head.ok_or_else(|| self.corrupt(self.place))?;
        let mut payload = vec![0; head.length as usize];
        self.payload(self.place, &head, &mut payload)?;
        self.place = self.place.after(&head);
        payload.drain(..Seal::LENGTH);
        Ok(payload)
    }

    fn write_filemarks(&mut self, count: u32) -> Result<(), MediumError> {
        let start = self.place;
        for written in 0..count {
            if let Err(error) = self.prepare(HEAD + TAIL) {
                if written > 0 {
                    self.take_back(start);
                }
                return Err(error);
            }
            self.append(&Head::filemark(self.end.chain), &[]);
        }
        Ok(())
    }

    fn erase(&mut self) -> Result<(), MediumError> {
        self.sound()?;
        self.cut()
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        self.sound()?;
        self.drain().map_err(|error| match error {
            // Full says that nothing was written; these records were accepted long ago.
            MediumError::Full => MediumError::Io("no space for records already accepted".into()),
            other => other,
        })?;
        if !self.dirty {
            return Ok(());
        }
        self.sync()?;
        self.dirty = false;
        self.unsynced = 0;
        self.header.durable = self.end.offset;
        // Becomes durable with the next sync. Without it more is verified at the next opening.
        if let Err(error) = self.write_header() {
            tracing::warn!(barcode = %self.header.barcode, %error, "a header was not written");
        }
        Ok(())
    }

    fn rest(&mut self) {
        self.window = Window::default();
        self.pending.shrink_to_fit();
    }

    fn attribute(&self, id: u16) -> Option<Vec<u8>> {
        self.header.attribute(id)
    }

    fn set_attribute(&mut self, id: u16, value: &[u8]) -> Result<(), MediumError> {
        let mut header = self.header.clone();
        if !header.set_attribute(id, value) {
            return Err(MediumError::Full);
        }
        self.change_header(header)
    }

    fn close(&mut self) -> Result<(), MediumError> {
        if let Some(text) = &self.broken {
            // The failed flush was reported; holding on to the cartridge would not help.
            tracing::error!(barcode = %self.header.barcode, text, "unloaded after a failed flush");
            return Ok(());
        }
        self.flush()?;
        self.sync()
    }
}
