//! What is done when a store is opened: its header, then recipes and journals are looked at.

use std::path::Path;

use cut::Rules;
use model::GenerationId;
use vfs::{Vfs, VfsError, VfsOp, read_all, write_atomic};

use crate::bytesio::{Fields, Put, open_with_crc, seal_with_crc};
use crate::journal::{self, Found, Inspected};
use crate::recipe::Recipe;
use crate::vault::{Key, KeyError, Secret, WRAPPED, wrapped_for};
use crate::{ChunkParams, Damage, OpenReport, Options, RecoveredGeneration, Result, StoreError};

pub(crate) const CONTAINERS: &str = "containers";
pub(crate) const INDEX: &str = "index";
pub(crate) const RECIPES: &str = "recipes";
pub(crate) const JOURNALS: &str = "journals";
pub(crate) const SCRATCH: &str = "scratch";
const HEADER: &str = "store.header";

const MAGIC: &[u8; 8] = b"TRREELS1";
const VERSION: u32 = 1;
/// The version of a store that is encrypted.
const ENCRYPTED: u32 = 2;
/// The header twice, this far apart: in sectors of their own.
const COPY: usize = 4096;
const LENGTH: usize = 64;

pub(crate) fn journal_name(id: GenerationId) -> String {
    format!("{id}.journal")
}

/// A store's header. What stands in it holds for its whole life, but for the key that wraps.
struct Header {
    version: u32,
    chunk: ChunkParams,
    container_bytes: u32,
    /// The data key of an encrypted store.
    wrapped: Option<[u8; WRAPPED]>,
}

/// Reads the store's header, or writes that of a new store, encrypted if there is a key. Returns
/// the options in force, and the data key.
pub(crate) fn store_header(
    vfs: &dyn Vfs,
    dir: &Path,
    options: &Options,
    key: Option<&Key>,
) -> Result<(Options, Option<Secret>)> {
    let path = dir.join(HEADER);
    if !vfs.exists(&path)? {
        if vfs.exists(&dir.join(RECIPES))? || vfs.exists(&dir.join(CONTAINERS))? {
            let what = "the header is missing, but there is data";
            return Err(StoreError::Unrecognised { path, what });
        }
        let secret = key.map(|_| Secret::generate()).transpose().map_err(no_random(&path))?;
        write_header(vfs, &path, options, key.zip(secret.as_ref()))?;
        return Ok((options.clone(), secret));
    }
    let header = read_header(vfs, &path)?;
    let Header { chunk, container_bytes, .. } = header;
    let found = Options { chunk, container_bytes, ..options.clone() };
    found.check()?;
    let secret = open_header(dir, &header, key)?;
    Ok((found, secret))
}

/// Writes the header of an encrypted store anew, so that another key opens it.
pub(crate) fn change_key(vfs: &dyn Vfs, dir: &Path, old: &Key, new: &Key) -> Result<()> {
    let path = dir.join(HEADER);
    let header = read_header(vfs, &path)?;
    let Header { chunk, container_bytes, .. } = header;
    let options = Options { chunk, container_bytes, ..Options::default() };
    match open_header(dir, &header, Some(old))? {
        Some(secret) => write_header(vfs, &path, &options, Some((new, &secret))),
        None => Err(KeyError::NotEncrypted(dir.to_owned()).into()),
    }
}

fn no_random(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError + '_ {
    |source| VfsError::new(VfsOp::Write, path, source).into()
}

fn read_header(vfs: &dyn Vfs, path: &Path) -> Result<Header> {
    let unrecognised = |what| StoreError::Unrecognised { path: path.to_owned(), what };
    let bytes = read_all(vfs, path, 2 * COPY)?;
    let copy = |at: usize| decode_header(bytes.get(at..(at + COPY).min(bytes.len()))?);
    let header = copy(0).or(copy(COPY));
    let header = header.ok_or_else(|| unrecognised("it is damaged or something else"))?;
    match header.version {
        VERSION | ENCRYPTED => Ok(header),
        _ => Err(unrecognised("it was made by another version")),
    }
}

/// The data key, or why there is none. Nothing of the store was touched before.
fn open_header(dir: &Path, header: &Header, key: Option<&Key>) -> Result<Option<Secret>> {
    match (&header.wrapped, key) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(KeyError::NotEncrypted(dir.to_owned()).into()),
        (Some(wrapped), None) => {
            Err(KeyError::Missing { dir: dir.to_owned(), id: wrapped_for(wrapped) }.into())
        }
        (Some(wrapped), Some(key)) => {
            let plain = encode_header(header.version, &header.chunk, header.container_bytes);
            Ok(Some(key.unwrap(dir, wrapped, &plain)?))
        }
    }
}

fn write_header(
    vfs: &dyn Vfs,
    path: &Path,
    options: &Options,
    key: Option<(&Key, &Secret)>,
) -> Result<()> {
    let version = if key.is_some() { ENCRYPTED } else { VERSION };
    let mut copy = encode_header(version, &options.chunk, options.container_bytes);
    if let Some((key, secret)) = key {
        let mut wrapped = key.wrap(secret, &copy).map_err(no_random(path))?.to_vec();
        seal_with_crc(0, &mut wrapped);
        copy.extend(wrapped);
    }
    let mut bytes = copy.clone();
    bytes.resize(COPY, 0);
    bytes.extend(copy);
    Ok(write_atomic(vfs, path, &bytes)?)
}

fn encode_header(version: u32, chunk: &ChunkParams, container_bytes: u32) -> Vec<u8> {
    let ChunkParams { min, average, max, rules } = *chunk;
    let mut out = Vec::with_capacity(LENGTH);
    out.put(MAGIC);
    let words = [version, min, average, max, container_bytes];
    words.into_iter().for_each(|value| out.put_u32(value));
    out.put_u32(match rules {
        Rules::Plain => 0,
        Rules::Tar => 1,
        Rules::Archives => 2,
    });
    out.resize(LENGTH - 4, 0);
    seal_with_crc(0, &mut out);
    out
}

fn decode_header(bytes: &[u8]) -> Option<Header> {
    let (plain, rest) = bytes.split_at_checked(LENGTH)?;
    let mut fields = Fields(open_with_crc(0, plain)?);
    let (magic, version) = (fields.array::<8>()?, fields.u32()?);
    let (min, average, max) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let container_bytes = fields.u32()?;
    let rules = match fields.u32()? {
        0 => Rules::Plain,
        1 => Rules::Tar,
        2 => Rules::Archives,
        _ => return None,
    };
    let chunk = ChunkParams { min, average, max, rules };
    let wrapped = match version {
        ENCRYPTED => Some(open_with_crc(0, rest.get(..WRAPPED + 4)?)?.try_into().ok()?),
        _ => None,
    };
    (magic == *MAGIC).then_some(Header { version, chunk, container_bytes, wrapped })
}

fn id_of(name: &str, suffix: &str) -> Option<GenerationId> {
    let id: GenerationId = name.strip_suffix(suffix)?.parse().ok()?;
    (id.to_string() + suffix == name).then_some(id)
}

/// Lists the recipes; removes those whose writing did not end.
pub(crate) fn recipes(vfs: &dyn Vfs, dir: &Path, report: &mut OpenReport) -> Result<()> {
    let dir = dir.join(RECIPES);
    vfs.create_dir_all(&dir)?;
    for name in vfs.list(&dir)? {
        let path = dir.join(&name);
        let Some(id) = id_of(&name, ".recipe") else {
            match name.ends_with(".tmp") {
                true => vfs.remove(&path)?,
                false => report.damage.push(Damage::Stranger { path }),
            }
            continue;
        };
        match Recipe::open(vfs, &dir, id) {
            Ok(recipe) => {
                report.generations.push(recipe.info);
                if recipe.half_header {
                    report.damage.push(Damage::RecipeHeader { path, generation: id });
                }
            }
            Err(StoreError::Damaged { what, .. }) => {
                report.damage.push(Damage::Recipe { path, generation: id, what });
            }
            Err(error) => return Err(error),
        }
    }
    // A recipe that was renamed but not yet synced when the process died is durable from here on.
    Ok(vfs.sync_dir(&dir)?)
}

/// Lists the open generations; removes journals that are no longer or were never needed.
pub(crate) fn journals(vfs: &dyn Vfs, dir: &Path, report: &mut OpenReport) -> Result<()> {
    let dir = dir.join(JOURNALS);
    vfs.create_dir_all(&dir)?;
    for name in vfs.list(&dir)? {
        let path = dir.join(&name);
        let Some(id) = id_of(&name, ".journal") else {
            report.damage.push(Damage::Stranger { path });
            continue;
        };
        // Where the recipe is there the journal's work is done.
        if report.generations.iter().any(|info| info.id == id) {
            vfs.remove(&path)?;
            continue;
        }
        let file = vfs.open(&path)?;
        // What is reported as recovered must not vanish in the next crash.
        file.sync_data()?;
        match journal::inspect(id, file.as_ref())? {
            Found::Nothing => vfs.remove(&path)?,
            Found::Unusable(what) => {
                report.damage.push(Damage::Journal { path, generation: id, what, usable: false });
            }
            Found::Open(inspected) => match fault(&inspected, report) {
                Some(what) => {
                    let damage = Damage::Journal { path, generation: id, what, usable: false };
                    report.damage.push(damage);
                }
                None => list(&inspected, path, report),
            },
        }
    }
    Ok(vfs.sync_dir(&dir)?)
}

/// Why an open generation that is good in itself can not be gone on with.
fn fault(inspected: &Inspected, report: &OpenReport) -> Option<&'static str> {
    let header = inspected.header;
    let parent = |id| report.generations.iter().any(|info| info.id == id);
    if header.parent.is_some_and(|id| !parent(id)) {
        return Some("the generation that it was written on is not there");
    }
    let taken = report.recovered.iter().any(|open| open.cartridge == header.cartridge);
    taken.then_some("the cartridge has another open generation")
}

fn list(inspected: &Inspected, path: std::path::PathBuf, report: &mut OpenReport) {
    let header = inspected.header;
    if inspected.damaged {
        let what = "acknowledged writes at its end are damaged";
        let generation = header.generation;
        report.damage.push(Damage::Journal { path, generation, what, usable: true });
    }
    report.recovered.push(RecoveredGeneration {
        id: header.generation,
        cartridge: header.cartridge,
        parent: header.parent,
        objects: inspected.totals.objects,
        bytes: inspected.totals.bytes,
        torn_bytes: inspected.torn_bytes,
    });
}
