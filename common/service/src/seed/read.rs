//! Taking in a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use model::JobId;
use serde_json::{Value, json};
use store::{BringError, Damage, GenerationInfo, OpenReport, Store};
use svs::{Cartridge, Generation, GenerationState, JobKind, SvsError};

use super::list::{Entry, Found, LIST, List};
use super::tree::{Contents, forget_index};
use super::{Disk, MARK, Neighbours, real};
use crate::healing::{AT_ONCE, put_found};
use crate::messages;
use crate::upkeep::Upkeep;

/// So many things that are damaged are told.
const TOLD: usize = 100;

/// What one run did.
#[derive(Default)]
struct Taken {
    generations: u64,
    known: u64,
    chunks: u64,
    stored: u64,
    bytes: u64,
    healed: u64,
    damage: BTreeSet<String>,
    incomplete: Vec<Value>,
}

impl Taken {
    fn damaged(&mut self, what: String) {
        if self.damage.len() < TOLD {
            self.damage.insert(what);
        }
    }
}

impl Upkeep {
    /// Blocks.
    pub(super) fn read_seed(&self, disk: &Disk, neighbours: &Neighbours) -> Result<Value, String> {
        let key = disk.key()?;
        if disk.contents()? != Contents::Store {
            return Err(format!("there is no seed in {}", disk.dir.display()));
        }
        if key.is_none() {
            forget_index(&disk.dir).map_err(|error| error.to_string())?;
        }
        let (seed, report) = disk.open(real(), key.as_ref())?;
        let ends = (format!("seed {}", disk.dir.display()), "store".to_owned());
        self.as_job(JobKind::Replication, (ends, Some(MARK)), "admin", |job| {
            let taken = self.take_in(&seed, &report, neighbours, &disk.dir, job)?;
            let lacking = taken.incomplete.len();
            let words: [(&str, &dyn std::fmt::Display); 4] = [
                ("count", &taken.generations),
                ("dir", &disk.dir.display()),
                ("bytes", &taken.stored),
                ("incomplete", &lacking),
            ];
            let message = match lacking {
                0 => messages::SEED_READ,
                _ => messages::SEED_INCOMPLETE,
            };
            self.say(message, &words, job);
            let value = json!({
                "job": job.to_string(),
                "dir": disk.dir,
                "generations": taken.generations,
                "generations_before": taken.known,
                "chunks": taken.chunks,
                "bytes": taken.bytes,
                "stored_bytes": taken.stored,
                "healed_chunks": taken.healed,
                "damage": taken.damage,
                "incomplete_generations": taken.incomplete,
            });
            Ok((value, taken.bytes))
        })
    }

    fn take_in(
        &self,
        seed: &Store,
        report: &OpenReport,
        neighbours: &Neighbours,
        dir: &Path,
        job: JobId,
    ) -> Result<Taken, String> {
        let mut taken = Taken::default();
        let list = match List::read(seed) {
            Found::List(list) => Some(list),
            Found::Nothing => return Err(format!("the store in {} is no seed", dir.display())),
            Found::Unreadable(cause) => {
                taken.damaged(format!("the list of the seed: {cause}"));
                None
            }
        };
        list.as_ref().map_or(Ok(()), |list| is_ours(list, neighbours))?;
        report.damage.iter().filter_map(told).for_each(|what| taken.damaged(what));
        // What is put stays until its generation names it.
        let _hold = self.store().hold();
        let mut done = 0;
        let listed: Option<BTreeSet<_>> =
            list.as_ref().map(|list| list.entries.iter().map(|entry| entry.generation).collect());
        for info in seed.all_generations().iter().filter(|info| info.cartridge != LIST) {
            if listed.as_ref().is_some_and(|listed| !listed.contains(&info.id)) {
                taken.damaged(format!("generation {} is not in the list of the seed", info.id));
                continue;
            }
            self.take_one(seed, info, (job, &mut done), &mut taken)?;
        }
        for (list, entry) in
            list.iter().flat_map(|list| list.entries.iter().map(move |e| (list, e)))
        {
            if self.store().generation(entry.generation).is_none() {
                taken.incomplete.push(json!({
                    "cartridge": format!("{}:{}", entry.library, entry.barcode),
                    "generation": entry.generation,
                }));
            } else if let Err(error) = self.write_rows(list, entry) {
                // They come with the replication.
                taken.damaged(format!("the rows of {}: {error}", entry.generation));
            }
        }
        Ok(taken)
    }

    /// One generation, if it is whole or what lacks is elsewhere.
    fn take_one(
        &self,
        seed: &Store,
        info: &GenerationInfo,
        (job, done): (JobId, &mut u64),
        taken: &mut Taken,
    ) -> Result<(), String> {
        if self.store().generation(info.id).is_some() {
            taken.known += 1;
            return Ok(());
        }
        let mut pace = |bytes| self.pace(job, done, bytes);
        let (mut import, brought) = match self.store().bring(seed, info.id, &mut pace) {
            Ok(brought) => brought,
            Err(BringError::There(error)) => {
                taken.damaged(error.to_string());
                return Ok(());
            }
            // What its lists say can not be: the disk is at fault and not this store.
            Err(BringError::Here(error @ store::StoreError::WrongImport { .. })) => {
                taken.damaged(error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        taken.chunks += brought.chunks;
        taken.stored += brought.bytes;
        brought.damage.into_iter().for_each(|what| taken.damaged(what));
        if brought.lacking > 0 {
            taken.healed += self.fetch_missing(&mut import)?;
        }
        match import.commit() {
            Ok(_) => {
                taken.generations += 1;
                taken.bytes += info.bytes;
                Ok(())
            }
            Err(error @ store::StoreError::WrongImport { .. }) => {
                taken.damaged(error.to_string());
                Ok(())
            }
            // It is told with the list.
            Err(store::StoreError::MissingChunk(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What the disk lacks may be had from the sites that are connected, as damaged chunks are.
    fn fetch_missing(&self, import: &mut store::Import) -> Result<u64, String> {
        let mut healed = 0;
        loop {
            let missing = match import.missing(AT_ONCE) {
                Ok(missing) => missing,
                // The commit says so.
                Err(store::StoreError::WrongImport { .. }) => return Ok(healed),
                Err(error) => return Err(error.to_string()),
            };
            let wanted: Vec<_> = missing.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
            if wanted.is_empty() || self.shutdown().is_requested() {
                return Ok(healed);
            }
            let found = self.elsewhere().fetch(&wanted, self.shutdown()).unwrap_or_default();
            let mut from = BTreeMap::new();
            put_found(self.store(), found, &mut from).map_err(|error| error.to_string())?;
            let new: u64 = from.values().sum();
            if new == 0 {
                return Ok(healed);
            }
            healed += new;
        }
    }

    /// The rows of a generation that is here, as far as there are none.
    fn write_rows(&self, list: &List, entry: &Entry) -> Result<(), SvsError> {
        let catalogue = self.catalogue();
        let Some(info) = self.store().generation(entry.generation) else { return Ok(()) };
        match catalogue.cartridge(info.cartridge)? {
            Some(_) => {}
            None => catalogue.put_cartridge(&Cartridge {
                id: info.cartridge,
                site: list.title.from.clone(),
                library: entry.library.clone(),
                barcode: entry.barcode.clone(),
                capacity: entry.capacity,
                write_protected: false,
                element: None,
                home: None,
            })?,
        }
        if catalogue.generation(info.id)?.is_some_and(|row| row.state == GenerationState::Sealed) {
            return Ok(());
        }
        let known = catalogue.generations(info.cartridge)?;
        let taken = known.iter().any(|row| row.number == entry.number && row.id != info.id);
        let newest = known.iter().map(|row| row.number).max().unwrap_or(0);
        catalogue.put_generation(&Generation {
            id: info.id,
            cartridge: info.cartridge,
            number: if taken { newest + 1 } else { entry.number },
            state: GenerationState::Sealed,
            records: info.objects - info.filemarks,
            filemarks: info.filemarks,
            logical_bytes: info.bytes,
            unique_bytes: info.unique_bytes,
        })
    }
}

/// Whether a seed belongs here.
fn is_ours(list: &List, neighbours: &Neighbours) -> Result<(), String> {
    let (title, Neighbours { me, peers }) = (&list.title, neighbours);
    if title.to != *me {
        return Err(format!("this seed is for site {}, and this is {me}", title.to));
    }
    match peers.contains(&title.from) {
        true => Ok(()),
        false => Err(format!("this seed is from site {}, which no [[peer]] names", title.from)),
    }
}

/// What was found when the disk was opened, in words; `None` for what is no harm.
fn told(damage: &Damage) -> Option<String> {
    let text = |path: &Path, what: &str| Some(format!("{}: {what}", path.display()));
    match damage {
        Damage::Recipe { path, what, .. } => text(path, what),
        Damage::Container { path, bytes, torn: false } => {
            text(path, &format!("{bytes} bytes are damaged"))
        }
        Damage::Stranger { path } => text(path, "does not belong into a seed"),
        // The index was taken away; a torn end is what a kill leaves; the rest is not needed.
        _ => None,
    }
}
