//! One encrypted file: blocks in their places, and the end of it in one of two slots.
//!
//! What is appended would change the last block, which may hold bytes that are durable already; a
//! crash in the middle would take them along. So a block is written in its place when it is full,
//! and a begun one goes into a slot, with the length, when the file is synced: into the slot that
//! is *not* the last durable one. Writing over whole blocks harms no others; of a block that is
//! written over in part, a crash may take the rest. No file of the store is.

use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use vfs::{VfsError, VfsFile, VfsOp};

use super::FILL;
use super::block::{AREA, BLOCK, FileCipher, HEAD, HEADS, SLOT, SLOTS, STRIDE, Slot};
use super::key::Secret;

/// Blocks read or written at once.
const BATCH: usize = 64;

/// What is known of a file that is open.
struct State {
    /// `None` while the file is empty, or has no good head.
    cipher: Option<FileCipher>,
    len: u64,
    /// What is behind the last whole block.
    tail: Vec<u8>,
    sequence: u64,
    /// The slot that must not be written now.
    durable: usize,
    /// The slots do not say what is so.
    dirty: bool,
    /// Blocks that a crash tore while they were filled, as they were in a slot.
    rescued: Vec<(u64, Vec<u8>)>,
    /// What was found on disk may be not durable, and what was rescued is nowhere else.
    unsettled: bool,
}

/// A file, shared by all who have it open.
pub(super) struct Node {
    file: Box<dyn VfsFile>,
    secret: Arc<Secret>,
    state: RwLock<State>,
    /// Held by whoever makes the state durable.
    syncing: Mutex<()>,
    /// Handles, changed under the lock of the list of open files.
    pub(super) handles: AtomicUsize,
}

/// The place of a block on disk.
fn place(block: u64) -> u64 {
    AREA as u64 + block * STRIDE as u64
}

/// Reads as far as there is something; the rest stays as it is.
fn read_some(file: &dyn VfsFile, buffer: &mut [u8], offset: u64) -> Result<usize, VfsError> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// The beginning of a block, and then what nobody wrote.
fn filled(mut begun: Vec<u8>) -> Vec<u8> {
    begun.resize(BLOCK, FILL);
    begun
}

impl State {
    fn empty() -> Self {
        Self {
            cipher: None,
            len: 0,
            tail: Vec::new(),
            sequence: 0,
            durable: 1,
            dirty: false,
            rescued: Vec::new(),
            unsettled: false,
        }
    }

    /// Finds out what a file holds.
    fn load(file: &dyn VfsFile, secret: &Secret) -> Result<Self, VfsError> {
        let on_disk = file.len()?;
        let mut area = vec![0; AREA];
        read_some(file, &mut area, 0)?;
        let whole = on_disk.saturating_sub(AREA as u64) / STRIDE as u64;
        let cipher = HEADS.iter().find_map(|at| FileCipher::of(secret, &area[*at..at + HEAD]));
        let Some(cipher) = cipher else {
            // Nothing in it can be read, but that there is something must not be hidden.
            let blank = whole == 0 && area.iter().all(|byte| *byte == 0);
            let len = if blank { 0 } else { (whole + 1) * BLOCK as u64 };
            return Ok(Self { len, ..Self::empty() });
        };
        let mut state = Self { unsettled: true, ..Self::empty() };
        let (mut slots, mut torn) = (Vec::new(), false);
        for (which, at) in SLOTS.iter().enumerate() {
            let bytes = &area[*at..at + SLOT];
            match cipher.open_slot(which, bytes) {
                Some(slot) => slots.push((which, slot)),
                None => torn |= bytes.iter().any(|byte| *byte != 0),
            }
        }
        slots.sort_by_key(|(_, slot)| std::cmp::Reverse(slot.sequence));
        state.len = whole * BLOCK as u64;
        if let Some((which, newest)) = slots.first() {
            (state.durable, state.sequence) = (*which, newest.sequence);
            if newest.block() >= whole {
                (state.len, state.tail) = (newest.len, newest.tail.clone());
            }
        }
        if torn {
            // Either a crash did that while it was written, or it is damaged: the file has an end
            // that can not be read, which its format takes for the one or the other.
            let last = state.len / BLOCK as u64;
            state.rescued.push((last, filled(std::mem::take(&mut state.tail))));
            state.len = (last + 1) * BLOCK as u64;
        }
        for (_, slot) in slots {
            let block = slot.block();
            let within = block < state.len / BLOCK as u64 && !slot.tail.is_empty();
            if within && !state.has(block) && !is_good(file, &cipher, block)? {
                state.rescued.push((block, filled(slot.tail)));
            }
        }
        state.cipher = Some(cipher);
        Ok(state)
    }

    fn has(&self, block: u64) -> bool {
        self.rescued.iter().any(|(rescued, _)| *rescued == block)
    }

    /// The first byte of the tail.
    fn whole(&self) -> u64 {
        self.len - self.tail.len() as u64
    }
}

fn is_good(file: &dyn VfsFile, cipher: &FileCipher, block: u64) -> Result<bool, VfsError> {
    let mut sealed = vec![0; STRIDE];
    read_some(file, &mut sealed, place(block))?;
    Ok(cipher.open_block(block, &mut sealed).is_some())
}

impl Node {
    /// Looks at a file that was opened.
    pub(super) fn load(file: Box<dyn VfsFile>, secret: &Arc<Secret>) -> Result<Self, VfsError> {
        let state = State::load(file.as_ref(), secret)?;
        let (state, syncing, handles) = (RwLock::new(state), Mutex::default(), AtomicUsize::new(0));
        Ok(Self { file, secret: Arc::clone(secret), state, syncing, handles })
    }

    fn state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: std::io::Error) -> VfsError {
        VfsError::new(VfsOp::Write, self.file.path(), source)
    }

    pub(super) fn len(&self) -> u64 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).len
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, VfsError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let len = state.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (mut rest, mut at) = (&mut buffer[..len], offset);
        while !rest.is_empty() && at < state.whole() {
            let count = (state.whole() - at).min(rest.len() as u64) as usize;
            let count = count.min(BATCH * BLOCK - (at % BLOCK as u64) as usize);
            let (now, later) = rest.split_at_mut(count);
            self.read_blocks(&state, now, at)?;
            (rest, at) = (later, at + count as u64);
        }
        if !rest.is_empty() {
            let from = (at - state.whole()) as usize;
            rest.copy_from_slice(&state.tail[from..from + rest.len()]);
        }
        Ok(len)
    }

    /// Reads what is in whole blocks, a batch of them at most.
    fn read_blocks(&self, state: &State, out: &mut [u8], offset: u64) -> Result<(), VfsError> {
        let Some(cipher) = &state.cipher else {
            out.fill(FILL);
            return Ok(());
        };
        let first = offset / BLOCK as u64;
        let mut skip = (offset % BLOCK as u64) as usize;
        let count = (skip + out.len()).div_ceil(BLOCK);
        let mut sealed = vec![0; count * STRIDE];
        read_some(self.file.as_ref(), &mut sealed, place(first))?;
        let mut rest = out;
        for (number, sealed) in (first..).zip(sealed.chunks_exact_mut(STRIDE)) {
            let len = rest.len().min(BLOCK - skip);
            let (now, later) = rest.split_at_mut(len);
            let rescued = state.rescued.iter().find(|(rescued, _)| *rescued == number);
            let found = match rescued {
                Some((_, block)) => Some(&block[..]),
                None => cipher.open_block(number, sealed),
            };
            match found {
                Some(block) => now.copy_from_slice(&block[skip..skip + len]),
                None => now.fill(FILL),
            }
            (rest, skip) = (later, 0);
        }
        Ok(())
    }

    /// Writes all of it, or fails and says nothing about what is there.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), VfsError> {
        let mut state = self.state();
        self.settle(&mut state)?;
        self.extend(&mut state, offset)?;
        let (mut rest, mut at) = (bytes, offset);
        while !rest.is_empty() {
            let count = rest.len().min(BATCH * BLOCK - (at % BLOCK as u64) as usize);
            let (now, later) = rest.split_at(count);
            self.put(&mut state, now, at)?;
            (rest, at) = (later, at + count as u64);
        }
        Ok(())
    }

    /// Fills the file with zeros up to `len`, if it is shorter.
    fn extend(&self, state: &mut State, len: u64) -> Result<(), VfsError> {
        let zeros = [0; 16 * BLOCK];
        while state.len < len {
            let count = (len - state.len).min(zeros.len() as u64) as usize;
            let at = state.len;
            self.put(state, &zeros[..count], at)?;
        }
        Ok(())
    }

    /// Writes bytes that begin in the file or at its end.
    fn put(&self, state: &mut State, bytes: &[u8], offset: u64) -> Result<(), VfsError> {
        let end = offset + bytes.len() as u64;
        let block = BLOCK as u64;
        let start = offset / block * block;
        // What is before and behind the bytes in their first and last block.
        let mut plain = vec![0; (offset - start) as usize];
        self.read_within(state, &mut plain, start)?;
        plain.extend_from_slice(bytes);
        let behind = end.next_multiple_of(block).min(state.len).saturating_sub(end) as usize;
        let from = plain.len();
        plain.resize(from + behind, 0);
        self.read_within(state, &mut plain[from..], end)?;
        let whole = plain.len() / BLOCK * BLOCK;
        if state.cipher.is_none() {
            self.begin(state)?;
        }
        if let (Some(cipher), true) = (&state.cipher, whole > 0) {
            let sealed = cipher.seal_blocks(start / block, &plain[..whole]);
            self.file.write_all_at(&sealed.map_err(|e| self.failed(e))?, place(start / block))?;
        }
        if end.max(start + plain.len() as u64) >= state.len {
            state.len = start + plain.len() as u64;
            state.tail.clear();
            state.tail.extend_from_slice(&plain[whole..]);
        }
        state.dirty = true;
        Ok(())
    }

    fn read_within(&self, state: &State, out: &mut [u8], offset: u64) -> Result<(), VfsError> {
        match offset.checked_sub(state.whole()) {
            _ if out.is_empty() => {}
            Some(from) => out.copy_from_slice(&state.tail[from as usize..][..out.len()]),
            None => self.read_blocks(state, out, offset)?,
        }
        Ok(())
    }

    /// Gives an empty file its head.
    fn begin(&self, state: &mut State) -> Result<(), VfsError> {
        if state.len > 0 {
            let cause = "it is not a file of this store, or damaged";
            return Err(self.failed(std::io::Error::other(cause)));
        }
        let (cipher, head) = FileCipher::generate(&self.secret).map_err(|e| self.failed(e))?;
        // With the slots, so that there is room for them when the disk is full.
        let mut area = vec![0; AREA];
        HEADS.iter().for_each(|at| area[*at..at + HEAD].copy_from_slice(&head));
        self.file.write_all_at(&area, 0)?;
        state.cipher = Some(cipher);
        Ok(())
    }

    /// Before the first change: what is found is made durable, and what was rescued has its place.
    fn settle(&self, state: &mut State) -> Result<(), VfsError> {
        if !state.unsettled {
            return Ok(());
        }
        if let Some(cipher) = &state.cipher {
            for (number, block) in &state.rescued {
                let sealed = cipher.seal_blocks(*number, block).map_err(|e| self.failed(e))?;
                self.file.write_all_at(&sealed, place(*number))?;
            }
        }
        self.file.sync_data()?;
        state.rescued.clear();
        state.unsettled = false;
        Ok(())
    }

    /// Writes length and tail into the slot that may be written.
    fn write_slot(&self, state: &mut State, len: u64, tail: &[u8]) -> Result<usize, VfsError> {
        if state.cipher.is_none() {
            self.begin(state)?;
        }
        let which = 1 - state.durable;
        let slot = Slot { sequence: state.sequence + 1, len, tail: tail.to_vec() };
        if let Some(cipher) = &state.cipher {
            let sealed = cipher.seal_slot(which, &slot).map_err(|e| self.failed(e))?;
            self.file.write_all_at(&sealed, SLOTS[which] as u64)?;
        }
        state.sequence = slot.sequence;
        Ok(which)
    }

    pub(super) fn sync(&self) -> Result<(), VfsError> {
        let _turn = self.turn();
        let wrote = {
            let mut state = self.state();
            match state.dirty {
                true => {
                    self.settle(&mut state)?;
                    let (len, tail) = (state.len, std::mem::take(&mut state.tail));
                    let wrote = self.write_slot(&mut state, len, &tail);
                    state.tail = tail;
                    state.dirty = wrote.is_err();
                    Some(wrote?)
                }
                false => None,
            }
        };
        // Others read and write meanwhile; they leave the slots alone.
        match (self.file.sync_data(), wrote) {
            (Ok(()), Some(which)) => self.state().durable = which,
            (Ok(()), None) => {}
            (Err(error), _) => {
                self.state().dirty = true;
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn write_back(&self, bytes: Range<u64>) {
        // The block of the end is not in its place yet.
        let block = BLOCK as u64;
        self.file.write_back(place(bytes.start / block)..place(bytes.end / block));
    }

    pub(super) fn set_len(&self, len: u64) -> Result<(), VfsError> {
        let _turn = self.turn();
        let mut state = self.state();
        if len == 0 {
            self.file.set_len(0)?;
            *state = State::empty();
            return Ok(());
        }
        if len == state.len {
            return Ok(());
        }
        self.settle(&mut state)?;
        if len > state.len {
            return self.extend(&mut state, len);
        }
        let block = len / BLOCK as u64;
        let mut tail = vec![0; (len % BLOCK as u64) as usize];
        self.read_within(&state, &mut tail, block * BLOCK as u64)?;
        // The new end is durable before the bytes of the old one go.
        let which = self.write_slot(&mut state, len, &tail)?;
        self.file.sync_data()?;
        (state.durable, state.len, state.tail) = (which, len, tail);
        // The other slot must not bring the old end back.
        state.dirty = true;
        self.file.set_len(place(block))
    }

    /// The last one who had it open lets go: what was not synced is left as it would be in a file
    /// without a key.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if state.dirty && self.settle(&mut state).is_ok() {
            let (len, tail) = (state.len, std::mem::take(&mut state.tail));
            // Nobody was promised that this is there.
            let _ = self.write_slot(&mut state, len, &tail);
        }
    }
}
