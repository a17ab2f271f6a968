//! Writing a seed.

use std::collections::BTreeSet;

use model::{Barcode, GenerationId, JobId, LibraryName, SiteName};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{BringError, GenerationInfo, Store};
use svs::{Cartridge, JobKind, ReplicationState, SvsError};

use super::list::{ENTRIES, Entry, Found, LIST, List};
use super::tree::Contents;
use super::{Disk, MARK, full, real};
use crate::messages;
use crate::upkeep::Upkeep;

/// What is to be written.
#[derive(Clone, Debug, Deserialize)]
pub struct Order {
    /// Where to.
    #[serde(flatten)]
    pub disk: Disk,
    /// The site that it is for.
    pub site: SiteName,
    /// Only these cartridges; all if there is none.
    #[serde(default)]
    pub cartridges: Vec<(LibraryName, Barcode)>,
    /// The seed of an encrypted store may be in clear.
    #[serde(default)]
    pub in_clear: bool,
}

/// A generation to be written.
struct Wanted {
    info: GenerationInfo,
    cartridge: Cartridge,
    number: u64,
}

/// What one run did.
#[derive(Default)]
struct Written {
    generations: u64,
    known: u64,
    bytes: u64,
    stored: u64,
    damaged: Vec<Value>,
}

impl Upkeep {
    /// Blocks.
    pub(super) fn write_seed(&self, order: &Order, me: &SiteName) -> Result<Value, String> {
        if order.site == *me {
            return Err(format!("{me} is this site; --site names the one that it is for"));
        }
        if self.is_encrypted() && order.disk.key_file.is_none() && !order.in_clear {
            return Err("this store is encrypted, and a disk that is shipped can get lost: give \
                        the seed a key with --key-file (see `twinreel store key new`), or say \
                        --in-clear"
                .to_owned());
        }
        let wanted = self.lacking(order, me).map_err(|error| error.to_string())?;
        // From here on nothing of it is deleted.
        let wanted: Vec<_> = wanted
            .into_iter()
            .filter_map(|it| self.store().pin(it.info.id).ok().map(|pin| (it, pin)))
            .collect();
        let seed = prepare(order, me)?;
        let ends = ("store".to_owned(), format!("seed {}", order.disk.dir.display()));
        self.as_job(JobKind::Replication, (ends, Some(MARK)), "admin", |job| {
            let generations = wanted.iter().map(|(wanted, _)| wanted);
            let written = self.write_all(order, me, &seed, generations, job)?;
            let bytes = written.bytes;
            let words: [(&str, &dyn std::fmt::Display); 4] = [
                ("count", &written.generations),
                ("site", &order.site),
                ("dir", &order.disk.dir.display()),
                ("bytes", &written.stored),
            ];
            self.say(messages::SEED_WRITTEN, &words, job);
            let value = json!({
                "job": job.to_string(),
                "site": order.site,
                "dir": order.disk.dir,
                "encrypted": order.disk.key_file.is_some(),
                "generations": written.generations,
                "generations_before": written.known,
                "bytes": written.bytes,
                "stored_bytes": written.stored,
                "incomplete_generations": written.damaged,
            });
            Ok((value, bytes))
        })
    }

    fn write_all<'a>(
        &self,
        order: &Order,
        me: &SiteName,
        seed: &Store,
        wanted: impl Iterator<Item = &'a Wanted> + Clone,
        job: JobId,
    ) -> Result<Written, String> {
        let say = |error: store::StoreError| match error.is_full() {
            true => full(&order.disk.dir),
            false => error.to_string(),
        };
        // What is there may be needed by what is being looked up in it.
        let _hold = seed.hold();
        let list = wanted_list(seed, me, &order.site, wanted.clone())?;
        list.map_or(Ok(()), |list| list.write(seed)).map_err(say)?;
        let (mut written, mut done) = (Written::default(), 0);
        for Wanted { info, cartridge, .. } in wanted {
            if seed.generation(info.id).is_some() {
                written.known += 1;
                continue;
            }
            let mut pace = |bytes| self.pace(job, &mut done, bytes);
            let brought = match seed.bring(self.store(), info.id, &mut pace) {
                Ok((mut import, brought)) if brought.lacking == 0 => {
                    import.commit().map_err(say)?;
                    brought
                }
                Err(BringError::Here(error)) => return Err(say(error)),
                Err(error @ BringError::Stopped) => return Err(error.to_string()),
                // This store is damaged: the other generations are none the worse for it.
                other => {
                    let cause = match other {
                        Ok((_, brought)) => brought.damage.into_iter().next().unwrap_or_default(),
                        Err(error) => error.to_string(),
                    };
                    written.damaged.push(json!({
                        "cartridge": format!("{}:{}", cartridge.library, cartridge.barcode),
                        "generation": info.id,
                        "cause": cause,
                    }));
                    continue;
                }
            };
            written.generations += 1;
            written.bytes += info.bytes;
            written.stored += brought.bytes;
        }
        Ok(written)
    }

    /// The newest generation of each cartridge, and what is under way to the site, as far as it
    /// is not there.
    fn lacking(&self, order: &Order, me: &SiteName) -> Result<Vec<Wanted>, SvsError> {
        let (store, catalogue) = (self.store(), self.catalogue());
        let mut ids: BTreeSet<GenerationId> = BTreeSet::new();
        let under_way = [ReplicationState::Pending, ReplicationState::InProgress];
        let rows = catalogue.replications(&under_way)?;
        ids.extend(rows.iter().filter(|row| row.site == order.site).map(|row| row.generation));
        let cartridges: BTreeSet<_> =
            catalogue.cartridge_status()?.into_iter().map(|row| row.cartridge).collect();
        ids.extend(cartridges.into_iter().filter_map(|id| Some(store.latest(id)?.id)));
        let mut wanted = Vec::new();
        for info in ids.into_iter().filter_map(|id| store.generation(id)) {
            let Some(cartridge) = catalogue.cartridge(info.cartridge)? else { continue };
            let named = (cartridge.library.clone(), cartridge.barcode.clone());
            let asked = order.cartridges.is_empty() || order.cartridges.contains(&named);
            let row = catalogue.replication(info.id, &order.site)?;
            let there = row.is_some_and(|row| row.state == ReplicationState::Done);
            if cartridge.site != *me || !asked || there {
                continue;
            }
            let number = catalogue.generation(info.id)?.map_or(1, |row| row.number);
            wanted.push(Wanted { info, cartridge, number });
        }
        Ok(wanted)
    }
}

/// Opens the seed, or begins one in a directory that is empty.
fn prepare(order: &Order, me: &SiteName) -> Result<Store, String> {
    let Order { disk, site, .. } = order;
    let contents = disk.contents()?;
    let key = disk.key()?;
    if contents == Contents::Other {
        let dir = disk.dir.display();
        return Err(format!(
            "there is something else in {dir}; a seed needs a directory of its own"
        ));
    }
    let (seed, _) = disk.open(real(), key.as_ref())?;
    let dir = disk.dir.display();
    match List::read(&seed) {
        Found::List(List { title, .. }) if title.from != *me || title.to != *site => {
            let (from, to) = (title.from, title.to);
            Err(format!("there is a seed from {from} for {to} in {dir}"))
        }
        Found::List(_) => Ok(seed),
        Found::Nothing if seed.all_generations().is_empty() => Ok(seed),
        Found::Nothing => Err(format!("the store in {dir} is no seed")),
        Found::Unreadable(cause) => {
            Err(format!("the list of the seed in {dir} is damaged ({cause}); begin another one"))
        }
    }
}

/// The list with what will be written, if it is another one than there is.
fn wanted_list<'a>(
    seed: &Store,
    me: &SiteName,
    site: &SiteName,
    wanted: impl Iterator<Item = &'a Wanted>,
) -> Result<Option<List>, String> {
    let mut list = match List::read(seed) {
        Found::List(list) => list,
        _ => List::new(me, site),
    };
    let known: BTreeSet<_> = list.entries.iter().map(|entry| entry.generation).collect();
    let before = list.entries.len();
    list.entries.extend(wanted.filter(|it| !known.contains(&it.info.id)).map(|it| Entry {
        generation: it.info.id,
        cartridge: it.info.cartridge,
        library: it.cartridge.library.clone(),
        barcode: it.cartridge.barcode.clone(),
        capacity: it.cartridge.capacity,
        number: it.number,
    }));
    if list.entries.len() > ENTRIES {
        return Err(format!("a seed holds {ENTRIES} generations at most"));
    }
    let is_there = list.entries.len() == before && seed.latest(LIST).is_some();
    Ok((!is_there).then_some(list))
}
