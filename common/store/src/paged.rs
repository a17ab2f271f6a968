//! Long lists of fixed-width entries in checksummed pages: read in place from a file through a
//! small page cache ([`Section`]), or growing at the end in memory and, beyond a bound, in an
//! unlinked scratch file ([`Growing`]).
//!
//! Page: entries from the front, zeros, then the page's number in its section (u64), the number
//! of entries (u16), the section's kind (u8), 0 (u8) and the crc32c of all that (u32), salted
//! with the file's own salt.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vfs::{Vfs, VfsFile};

use crate::bytesio::{Fields, Put, open_with_crc, seal_with_crc};
use crate::{Result, StoreError};

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
const TRAILER: usize = 16;
/// Pages held by the cache of one section.
const CACHED_PAGES: usize = 32;
/// Entries of a growing list are kept in memory up to twice this many pages.
const PAGES_IN_MEMORY: usize = 256;

/// One entry of a list.
pub(crate) trait Entry: Copy {
    /// Bytes of an entry.
    const SIZE: usize;
    /// The section's kind in each page.
    const KIND: u8;
    /// Entries that fit a page.
    const PER_PAGE: usize = (PAGE - TRAILER) / Self::SIZE;

    fn encode(&self, out: &mut Vec<u8>);
    fn decode(fields: &mut Fields<'_>) -> Option<Self>;
}

/// Makes one page of at most [`Entry::PER_PAGE`] entries.
pub(crate) fn encode_page<E: Entry>(salt: u32, number: u64, entries: &[E]) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE);
    entries.iter().for_each(|entry| entry.encode(&mut page));
    page.resize(PAGE - TRAILER, 0);
    page.put_u64(number);
    page.put_u16(entries.len() as u16);
    page.put_u8(E::KIND);
    page.put_u8(0);
    seal_with_crc(salt, &mut page);
    page
}

/// The entries of a page, `None` if it is not the page it should be.
fn decode_page<E: Entry>(salt: u32, number: u64, page: &[u8]) -> Option<Vec<E>> {
    let content = open_with_crc(salt, page)?;
    let (body, trailer) = content.split_at_checked(PAGE - TRAILER)?;
    let mut trailer = Fields(trailer);
    let found = (trailer.u64()?, trailer.u16()? as usize, trailer.u8()?);
    if found.0 != number || found.1 > E::PER_PAGE || found.2 != E::KIND {
        return None;
    }
    let mut fields = Fields(body);
    (0..found.1).map(|_| E::decode(&mut fields)).collect()
}

/// Reads exactly; a file that ends too early is damage, not a failing device.
pub(crate) fn read_exact(file: &dyn VfsFile, bytes: &mut [u8], at: u64) -> Result<()> {
    file.read_exact_at(bytes, at).map_err(|error| match error.source.kind() {
        ErrorKind::UnexpectedEof => {
            StoreError::Damaged { path: error.path, what: "the file is too short" }
        }
        _ => error.into(),
    })
}

/// Decoded pages by number, the oldest replaced first.
struct Cache<E> {
    pages: Vec<(u64, Arc<[E]>)>,
    next: usize,
}

/// Pages of one kind of entry in a file, full but for the last one.
pub(crate) struct Section<E> {
    file: Arc<dyn VfsFile>,
    base: u64,
    salt: u32,
    count: u64,
    cache: Mutex<Cache<E>>,
}

impl<E: Entry> Section<E> {
    /// `count` entries in the pages from byte `base` of `file` on.
    pub(crate) fn new(file: Arc<dyn VfsFile>, base: u64, salt: u32, count: u64) -> Self {
        let cache = Mutex::new(Cache { pages: Vec::new(), next: 0 });
        Self { file, base, salt, count, cache }
    }

    /// Pages that `count` entries take.
    pub(crate) fn pages_for(count: u64) -> u64 {
        count.div_ceil(E::PER_PAGE as u64)
    }

    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// The entry at `index`, which must be less than the count.
    pub(crate) fn get(&self, index: u64) -> Result<E> {
        let page = self.page(index / E::PER_PAGE as u64)?;
        let entry = page.get((index % E::PER_PAGE as u64) as usize);
        entry.copied().ok_or_else(|| self.damaged("a page has too few entries"))
    }

    pub(crate) fn page(&self, number: u64) -> Result<Arc<[E]>> {
        let locked = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, page)) = locked().pages.iter().find(|(n, _)| *n == number) {
            return Ok(page.clone());
        }
        let mut bytes = [0; PAGE];
        read_exact(self.file.as_ref(), &mut bytes, self.base + number * PAGE as u64)?;
        let page: Arc<[E]> = decode_page(self.salt, number, &bytes)
            .ok_or_else(|| self.damaged("the checksum of a page does not match"))?
            .into();
        let mut cache = locked();
        if cache.pages.len() < CACHED_PAGES {
            cache.pages.push((number, page.clone()));
        } else {
            let slot = cache.next;
            cache.pages[slot] = (number, page.clone());
            cache.next = (slot + 1) % CACHED_PAGES;
        }
        Ok(page)
    }

    fn damaged(&self, what: &'static str) -> StoreError {
        StoreError::Damaged { path: self.file.path().to_owned(), what }
    }
}

/// Where growing lists put what is too much for memory. Nothing in it outlives the process.
#[derive(Clone)]
pub(crate) struct Scratch {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    next: Arc<AtomicU64>,
}

impl Scratch {
    /// In `dir`, which is made and emptied.
    pub(crate) fn new(vfs: Arc<dyn Vfs>, dir: PathBuf) -> Result<Self> {
        vfs.create_dir_all(&dir)?;
        for name in vfs.list(&dir)? {
            vfs.remove(&dir.join(name))?;
        }
        Ok(Self { vfs, dir, next: Arc::new(AtomicU64::new(0)) })
    }

    /// A new file without a name: it ends with its handle.
    fn file(&self) -> Result<Arc<dyn VfsFile>> {
        let path = self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = self.vfs.create(&path)?;
        self.vfs.remove(&path)?;
        Ok(file.into())
    }
}

/// A list that grows and shrinks at its end.
pub(crate) struct Growing<E> {
    scratch: Scratch,
    /// Full pages only.
    spilled: Option<Section<E>>,
    tail: Vec<E>,
}

impl<E: Entry> Growing<E> {
    pub(crate) fn new(scratch: Scratch) -> Self {
        Self { scratch, spilled: None, tail: Vec::new() }
    }

    fn spilled_len(&self) -> u64 {
        self.spilled.as_ref().map_or(0, Section::len)
    }

    pub(crate) fn len(&self) -> u64 {
        self.spilled_len() + self.tail.len() as u64
    }

    pub(crate) fn get(&self, index: u64) -> Result<E> {
        match (index.checked_sub(self.spilled_len()), &self.spilled) {
            (None, Some(spilled)) => spilled.get(index),
            (offset, _) => Ok(self.tail[offset.unwrap_or(0) as usize]),
        }
    }

    /// Makes room for one entry more, which can fail; the `push` after it can not.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        let batch = PAGES_IN_MEMORY * E::PER_PAGE;
        if self.tail.len() < 2 * batch {
            return Ok(());
        }
        let file = match &self.spilled {
            Some(section) => section.file.clone(),
            None => self.scratch.file()?,
        };
        let first = self.spilled_len() / E::PER_PAGE as u64;
        let mut bytes = Vec::with_capacity(PAGES_IN_MEMORY * PAGE);
        for (i, entries) in self.tail[..batch].chunks(E::PER_PAGE).enumerate() {
            bytes.extend_from_slice(&encode_page(0, first + i as u64, entries));
        }
        file.write_all_at(&bytes, first * PAGE as u64)?;
        let count = self.spilled_len() + batch as u64;
        // A fresh section has a fresh cache: an older page of the same number may be in the old.
        self.spilled = Some(Section::new(file, 0, 0, count));
        self.tail.drain(..batch);
        Ok(())
    }

    pub(crate) fn push(&mut self, entry: E) {
        self.tail.push(entry);
    }

    /// Changes the last entry, which must be in memory: `reserve` leaves at least one there.
    pub(crate) fn last_mut(&mut self) -> Option<&mut E> {
        self.tail.last_mut()
    }

    /// Prepares to keep only the first `len` entries: the part that can fail.
    fn cut(&self, len: u64) -> Result<Cut<E>> {
        let spilled = self.spilled_len();
        if spilled == 0 || len > spilled {
            return Ok(Cut { len, reloaded: None });
        }
        // The page that holds the last entry kept comes back into memory.
        let first = len.saturating_sub(1) / E::PER_PAGE as u64 * E::PER_PAGE as u64;
        let reloaded = (first..len).map(|i| self.get(i)).collect::<Result<_>>()?;
        Ok(Cut { len, reloaded: Some(reloaded) })
    }

    fn apply(&mut self, cut: Cut<E>) {
        match (cut.reloaded, self.spilled.take()) {
            (Some(tail), Some(spilled)) => {
                let first = cut.len - tail.len() as u64;
                self.spilled = Some(Section::new(spilled.file.clone(), 0, 0, first));
                self.tail = tail;
            }
            (_, spilled) => {
                self.spilled = spilled;
                let keep = cut.len.saturating_sub(self.spilled_len());
                self.tail.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
            }
        }
    }
}

/// A shortening that was prepared and can no longer fail.
pub(crate) struct Cut<E> {
    len: u64,
    reloaded: Option<Vec<E>>,
}

/// The first entries of a list that does not change, and then entries of its own.
pub(crate) struct Chain<E> {
    base: Option<(Arc<Section<E>>, u64)>,
    own: Growing<E>,
}

impl<E: Entry> Chain<E> {
    /// All of `base`, nothing of its own yet.
    pub(crate) fn new(base: Option<Arc<Section<E>>>, scratch: Scratch) -> Self {
        let base = base.map(|section| {
            let len = section.len();
            (section, len)
        });
        Self { base, own: Growing::new(scratch) }
    }

    fn base_len(&self) -> u64 {
        self.base.as_ref().map_or(0, |(_, len)| *len)
    }

    pub(crate) fn len(&self) -> u64 {
        self.base_len() + self.own.len()
    }

    /// The index of the first entry that is not the base's.
    pub(crate) fn own_from(&self) -> u64 {
        self.base_len()
    }

    /// The file of the base, empty if there is none.
    pub(crate) fn path(&self) -> PathBuf {
        self.base.as_ref().map_or_else(PathBuf::new, |(base, _)| base.file.path().to_owned())
    }

    /// The entry at `index`, which must be less than the length.
    pub(crate) fn get(&self, index: u64) -> Result<E> {
        match &self.base {
            Some((section, len)) if index < *len => section.get(index),
            _ => self.own.get(index - self.base_len()),
        }
    }

    pub(crate) fn reserve(&mut self) -> Result<()> {
        self.own.reserve()
    }

    pub(crate) fn push(&mut self, entry: E) {
        self.own.push(entry);
    }

    /// The last entry if it is its own and may be changed.
    pub(crate) fn last_own(&mut self) -> Option<&mut E> {
        self.own.last_mut()
    }

    /// Prepares to keep only the first `len` entries; changes nothing.
    pub(crate) fn cut(&self, len: u64) -> Result<(u64, Cut<E>)> {
        Ok((len, self.own.cut(len.saturating_sub(self.base_len()))?))
    }

    /// Keeps what `cut` was prepared for, the list not having changed since.
    pub(crate) fn apply(&mut self, (len, cut): (u64, Cut<E>)) {
        self.own.apply(cut);
        if let Some((_, base)) = &mut self.base {
            *base = (*base).min(len);
        }
    }

    /// The number of entries at the front for which `holds` is true; it must be true for a first
    /// part of them and false for the rest.
    pub(crate) fn partition_point(&self, holds: impl Fn(&E) -> bool) -> Result<u64> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match holds(&self.get(middle)?) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    }
}

/// Writes entries as the pages of one section, collecting them into large writes.
pub(crate) struct SectionWriter<E> {
    file: Arc<dyn VfsFile>,
    at: u64,
    salt: u32,
    pages: u64,
    count: u64,
    page: Vec<E>,
    bytes: Vec<u8>,
}

impl<E: Entry> SectionWriter<E> {
    /// A section that begins at byte `at` of `file`.
    pub(crate) fn new(file: Arc<dyn VfsFile>, at: u64, salt: u32) -> Self {
        let (page, bytes) = (Vec::new(), Vec::new());
        Self { file, at, salt, pages: 0, count: 0, page, bytes }
    }

    /// Entries so far.
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    pub(crate) fn push(&mut self, entry: E) -> Result<()> {
        if self.page.len() == E::PER_PAGE {
            self.end_page()?;
        }
        self.page.push(entry);
        self.count += 1;
        Ok(())
    }

    fn end_page(&mut self) -> Result<()> {
        self.bytes.extend_from_slice(&encode_page(self.salt, self.pages, &self.page));
        self.pages += 1;
        self.page.clear();
        if self.bytes.len() >= 1 << 20 {
            self.write_out()?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<()> {
        self.file.write_all_at(&self.bytes, self.at)?;
        self.at += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }

    /// Writes the rest. Returns the number of entries and the first byte behind the section.
    pub(crate) fn finish(mut self) -> Result<(u64, u64)> {
        if !self.page.is_empty() {
            self.end_page()?;
        }
        self.write_out()?;
        Ok((self.count, self.at))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vfs::CrashVfs;

    use super::*;
    use crate::testing::Random;

    impl Entry for u64 {
        const SIZE: usize = 8;
        const KIND: u8 = 99;
        fn encode(&self, out: &mut Vec<u8>) {
            out.put_u64(*self);
        }
        fn decode(fields: &mut Fields<'_>) -> Option<Self> {
            fields.u64()
        }
    }

    #[test]
    fn a_chain_behaves_like_a_vec_also_where_it_spills() {
        let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
        let scratch = Scratch::new(vfs.clone(), PathBuf::from("/scratch")).unwrap();
        let file: Arc<dyn VfsFile> = vfs.create(Path::new("/base")).unwrap().into();
        let mut writer = SectionWriter::new(file.clone(), PAGE as u64, 5);
        let mut model: Vec<u64> = (0..1300).map(|i| i * 2).collect();
        model.iter().for_each(|n| writer.push(*n).unwrap());
        assert_eq!(writer.finish().unwrap(), (1300, 4 * PAGE as u64));
        let base = Arc::new(Section::new(file, PAGE as u64, 5, 1300));
        let mut chain = Chain::new(Some(base), scratch);
        let mut random = Random::new(11);
        for round in 0..40u64 {
            for _ in 0..random.below(200_000) {
                let entry = model.last().unwrap_or(&0) + 1 + random.below(3);
                chain.reserve().unwrap();
                chain.push(entry);
                model.push(entry);
            }
            let len = match round % 8 {
                0 => random.below(1300),
                _ => random.below(model.len() as u64 + 1),
            };
            let cut = chain.cut(len).unwrap();
            chain.apply(cut);
            model.truncate(len as usize);
            assert_eq!(chain.len(), len);
            for _ in 0..200.min(len) {
                let i = random.below(len);
                assert_eq!(chain.get(i).unwrap(), model[i as usize]);
                let wanted = random.below(model[len as usize - 1] + 2);
                let point = chain.partition_point(|n| *n < wanted).unwrap();
                assert_eq!(point as usize, model.partition_point(|n| *n < wanted));
            }
        }
    }

    #[test]
    fn every_flipped_byte_of_a_page_is_found() {
        let page = encode_page(9, 3, &[1u64, 2, 3]);
        assert_eq!(decode_page::<u64>(9, 3, &page).unwrap(), [1, 2, 3]);
        assert!(decode_page::<u64>(8, 3, &page).is_none());
        assert!(decode_page::<u64>(9, 4, &page).is_none());
        for i in 0..PAGE {
            let mut bad = page.clone();
            bad[i] ^= 0x10;
            assert!(decode_page::<u64>(9, 3, &bad).is_none(), "byte {i}");
        }
    }
}
