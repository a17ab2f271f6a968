//! What a seed says of itself: a tape in its store, one JSON record for the seed and one for each
//! generation.
//!
//! So it is checked, encrypted and replaced in one step like everything else there.

use model::{Barcode, CartridgeId, GenerationId, LibraryName, SiteName, Ulid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::{Store, StoreError};

/// The tape with the list; no cartridge of an engine has this id.
pub(super) const LIST: CartridgeId = CartridgeId(Ulid(1));
const FORMAT: u32 = 1;
/// The most generations of a seed.
pub(super) const ENTRIES: usize = 100_000;
/// No list is longer, in bytes.
const LONGEST: usize = 64 << 20;

/// Which way a seed goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Title {
    twinreel_seed: u32,
    /// The site that wrote it.
    pub(super) from: SiteName,
    /// The site that it is for.
    pub(super) to: SiteName,
}

/// A generation that is in a seed, or will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) generation: GenerationId,
    pub(super) cartridge: CartridgeId,
    pub(super) library: LibraryName,
    pub(super) barcode: Barcode,
    pub(super) capacity: u64,
    pub(super) number: u64,
}

/// The list of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    pub(super) title: Title,
    pub(super) entries: Vec<Entry>,
}

/// What is found where a list may be.
pub(super) enum Found {
    /// There is none.
    Nothing,
    /// There is one, but it can not be read: why.
    Unreadable(String),
    List(List),
}

impl List {
    pub(super) fn new(from: &SiteName, to: &SiteName) -> Self {
        let title = Title { twinreel_seed: FORMAT, from: from.clone(), to: to.clone() };
        Self { title, entries: Vec::new() }
    }

    /// The list of the seed that `store` is.
    pub(super) fn read(store: &Store) -> Found {
        let Some(newest) = store.latest(LIST) else { return Found::Nothing };
        records(store, newest.id).and_then(Self::parse).map_or_else(Found::Unreadable, Found::List)
    }

    fn parse(records: Vec<Vec<u8>>) -> Result<Self, String> {
        let (title, entries) = records.split_first().ok_or("it is empty")?;
        let title: Title = parse(title)?;
        if title.twinreel_seed != FORMAT {
            return Err(format!("it is of format {}", title.twinreel_seed));
        }
        if entries.len() > ENTRIES {
            return Err("it is too long".to_owned());
        }
        let entries = entries.iter().map(|record| parse(record)).collect::<Result<_, _>>()?;
        Ok(Self { title, entries })
    }

    /// Puts the list in place of the one that is there, durably.
    pub(super) fn write(&self, store: &Store) -> Result<(), StoreError> {
        let before = store.generations(LIST);
        // What a run that was ended had begun.
        store.discard_open(LIST)?;
        let mut image = store.image(LIST)?;
        image.erase()?;
        image.write(&line(&self.title))?;
        self.entries.iter().try_for_each(|entry| image.write(&line(entry)))?;
        image.seal()?;
        for info in before {
            match store.delete_generation(info.id) {
                // One that was not changed is still the list.
                Ok(()) | Err(StoreError::Pinned(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The records of the list. Its places are not looked up as on a tape: what lies about them could
/// have been made by anybody.
fn records(store: &Store, id: GenerationId) -> Result<Vec<Vec<u8>>, String> {
    let text = |error: StoreError| error.to_string();
    let lists = store.recipe(id).map_err(text)?;
    let mut bytes = Vec::new();
    for chunk in lists.chunks(0) {
        bytes.extend(store.chunk(&chunk.map_err(text)?.digest).map_err(text)?);
        if bytes.len() > LONGEST {
            return Err("it is too long".to_owned());
        }
    }
    let (mut records, mut rest) = (Vec::new(), &bytes[..]);
    for run in lists.runs(0) {
        let (size, count) = run.map(|run| (run.size() as usize, run.count())).map_err(text)?;
        for _ in 0..count {
            let (record, behind) = rest.split_at_checked(size).ok_or("a record is cut off")?;
            if record.is_empty() {
                return Err("there is a filemark in it".to_owned());
            }
            records.push(record.to_vec());
            rest = behind;
        }
    }
    Ok(records)
}

fn parse<T: DeserializeOwned>(record: &[u8]) -> Result<T, String> {
    serde_json::from_slice(record).map_err(|error| error.to_string())
}

fn line(value: &impl Serialize) -> Vec<u8> {
    // Names and numbers always are JSON.
    serde_json::to_vec(value).unwrap_or_default()
}
