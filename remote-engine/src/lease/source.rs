//! The bytes of extents, out of the store.

use std::collections::VecDeque;

use copy::run::{RangeSource, SourceError};
use link::Extent;
use store::{GenerationReader, Store, StoreError};

/// Reads extents one behind the other.
pub(super) struct StoreBytes {
    store: Store,
    left: VecDeque<Extent>,
    reader: Option<GenerationReader>,
}

impl StoreBytes {
    /// The bytes of `extents` behind the first `skip`. `reader` is one that may fit still.
    pub(super) fn new(
        store: Store,
        extents: &[Extent],
        mut skip: u64,
        reader: Option<GenerationReader>,
    ) -> Self {
        let mut left = VecDeque::with_capacity(extents.len());
        for extent in extents {
            let gone = skip.min(extent.length);
            skip -= gone;
            let offset_in_object = extent.offset_in_object + gone;
            let rest = Extent { offset_in_object, length: extent.length - gone, ..*extent };
            if rest.length > 0 {
                left.push_back(rest);
            }
        }
        Self { store, left, reader }
    }

    /// The reader, for the next range.
    pub(super) fn into_reader(self) -> Option<GenerationReader> {
        self.reader
    }

    fn read(&mut self, mut buffer: &mut [u8]) -> Result<usize, StoreError> {
        let mut done = 0;
        while let Some(extent) = self.left.front_mut().filter(|_| !buffer.is_empty()) {
            let fits = |reader: &GenerationReader| reader.info().id == extent.generation;
            let reader = match self.reader.take().filter(fits) {
                Some(reader) => self.reader.insert(reader),
                None => self.reader.insert(self.store.reader(extent.generation)?),
            };
            // The extent counts from the beginning of a record, over whatever follows it.
            let byte = reader.place_of(extent.first_object)?.byte + extent.offset_in_object;
            let most = usize::try_from(extent.length).unwrap_or(usize::MAX).min(buffer.len());
            let (now, later) = buffer.split_at_mut(most);
            let count = reader.read_stream(byte, now)?;
            if count == 0 {
                break;
            }
            extent.offset_in_object += count as u64;
            extent.length -= count as u64;
            if extent.length == 0 {
                self.left.pop_front();
            }
            done += count;
            buffer = later;
        }
        Ok(done)
    }
}

impl RangeSource for StoreBytes {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        self.read(buffer).map_err(|error| SourceError(error.to_string()))
    }
}
