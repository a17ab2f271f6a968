//! Retention locks: what a cartridge holds is kept until a date, whatever is asked.
//!
//! A lock is a file of its own, which is only ever written with a later date. The date is absolute,
//! so a clock that is set back makes it longer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use model::CartridgeId;
use vfs::{Vfs, read_all, write_atomic};

use crate::bytesio::{Fields, Put, open_with_crc, seal_with_crc};
use crate::{Damage, Result, Store, StoreError};

const LOCKS: &str = "locks";
const MAGIC: &[u8; 8] = b"TRREELL1";
const VERSION: u32 = 1;
const LENGTH: usize = 48;
/// What is looked at where something was added to a lock.
const LONGEST: usize = 1 << 20;

/// The locks of a store.
pub(crate) struct Locks {
    dir: PathBuf,
    until: Mutex<HashMap<CartridgeId, u64>>,
}

fn encode(cartridge: CartridgeId, until_ms: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(LENGTH);
    out.put(MAGIC);
    out.put_u32(VERSION);
    out.put_u32(0);
    out.put(&cartridge.to_bytes());
    out.put_u64(until_ms);
    out.resize(LENGTH - 4, 0);
    seal_with_crc(0, &mut out);
    out
}

fn decode(cartridge: CartridgeId, bytes: &[u8]) -> Option<u64> {
    let mut fields = Fields(open_with_crc(0, bytes.get(..LENGTH)?)?);
    let (magic, version) = (fields.array::<8>()?, fields.u32()?);
    fields.take(4)?;
    let id = CartridgeId::from_slice(fields.take(16)?)?;
    let until = fields.u64()?;
    (magic == *MAGIC && version == VERSION && id == cartridge).then_some(until)
}

impl Locks {
    /// Reads the locks of the store in `dir`. One that can not be read holds for ever: somebody
    /// wanted it, and nobody knows for how long.
    pub(crate) fn open(vfs: &dyn Vfs, dir: &Path, damage: &mut Vec<Damage>) -> Result<Self> {
        let dir = dir.join(LOCKS);
        vfs.create_dir_all(&dir)?;
        let mut until = HashMap::new();
        for name in vfs.list(&dir)? {
            let path = dir.join(&name);
            let Some(id) = name.strip_suffix(".lock").and_then(|id| id.parse().ok()) else {
                // What an unfinished write left says nothing.
                if !name.ends_with(".tmp") {
                    damage.push(Damage::Stranger { path });
                }
                continue;
            };
            let found = decode(id, &read_all(vfs, &path, LONGEST)?);
            if found.is_none() {
                damage.push(Damage::Lock { path });
            }
            until.insert(id, found.unwrap_or(u64::MAX));
        }
        Ok(Self { dir, until: Mutex::new(until) })
    }

    fn until(&self) -> MutexGuard<'_, HashMap<CartridgeId, u64>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error while the cartridge is locked.
    pub(crate) fn check(&self, cartridge: CartridgeId) -> Result<()> {
        let until_ms = self.until().get(&cartridge).copied();
        match until_ms.filter(|until| *until > now_ms()) {
            Some(until_ms) => Err(StoreError::Retained { cartridge, until_ms }),
            None => Ok(()),
        }
    }
}

fn now_ms() -> u64 {
    // A clock before 1970 is set back, and lets nothing go.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Store {
    /// Keeps everything that is sealed of a cartridge until `until_ms`, milliseconds since 1970:
    /// durably, and whatever is asked. The cartridge may still be written; what was there before
    /// stays as older generations.
    ///
    /// # Errors
    /// [`StoreError::Retained`] if it is locked for longer already: a lock is never shortened.
    pub fn lock_cartridge(&self, cartridge: CartridgeId, until_ms: u64) -> Result<()> {
        let locks = &self.0.locks;
        let mut until = locks.until();
        match until.get(&cartridge).copied() {
            Some(longer) if longer > until_ms => {
                return Err(StoreError::Retained { cartridge, until_ms: longer });
            }
            Some(same) if same == until_ms => return Ok(()),
            _ => {}
        }
        let path = locks.dir.join(format!("{cartridge}.lock"));
        write_atomic(self.0.vfs.as_ref(), &path, &encode(cartridge, until_ms))?;
        until.insert(cartridge, until_ms);
        Ok(())
    }

    /// Until when a cartridge is locked, in milliseconds since 1970, past or not; `None` if it
    /// never was.
    pub fn locked_until(&self, cartridge: CartridgeId) -> Option<u64> {
        self.0.locks.until().get(&cartridge).copied()
    }

    /// Whether a cartridge is locked now.
    pub fn is_locked(&self, cartridge: CartridgeId) -> bool {
        self.0.locks.check(cartridge).is_err()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::Ulid;
    use vfs::CrashVfs;

    use super::*;
    use crate::Options;

    const YEAR: u64 = 365 * 24 * 3_600_000;

    fn open(vfs: &Arc<dyn Vfs>) -> (Store, crate::OpenReport) {
        Store::open(vfs.clone(), Path::new("/s"), &Options::default()).unwrap()
    }

    fn write(store: &Store, cartridge: CartridgeId) -> model::GenerationId {
        let mut image = store.image(cartridge).unwrap();
        image.write(b"a record").unwrap();
        image.seal().unwrap().unwrap()
    }

    fn retained<T>(result: Result<T>) -> bool {
        matches!(result, Err(StoreError::Retained { .. }))
    }

    #[test]
    fn what_is_locked_can_not_be_deleted_and_a_lock_only_grows() {
        let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
        let (store, _) = open(&vfs);
        let [locked, free] = [1, 2].map(|n| CartridgeId(Ulid(n << 80)));
        let (old, new, other) = (write(&store, locked), write(&store, locked), write(&store, free));
        let until = now_ms() + YEAR;
        store.lock_cartridge(locked, until).unwrap();
        assert!(retained(store.delete_generation(old)) && retained(store.delete_generation(new)));
        store.delete_generation(other).unwrap();
        assert!(retained(store.lock_cartridge(locked, until - 1)));
        store.lock_cartridge(locked, until).unwrap();
        store.lock_cartridge(locked, until + 1).unwrap();
        // Writing goes on, also what is given up before it was sealed.
        let newest = write(&store, locked);
        assert!(retained(store.delete_generation(newest)));
        drop(store);
        let (store, report) = open(&vfs);
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        assert_eq!(store.locked_until(locked), Some(until + 1));
        assert!(retained(store.delete_generation(old)));
        assert!(!store.is_locked(free));
    }

    #[test]
    fn a_lock_that_is_over_lets_go() {
        let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
        let (store, _) = open(&vfs);
        let cartridge = CartridgeId(Ulid(1 << 80));
        let id = write(&store, cartridge);
        store.lock_cartridge(cartridge, now_ms() - 1).unwrap();
        assert!(!store.is_locked(cartridge));
        store.delete_generation(id).unwrap();
    }

    #[test]
    fn a_damaged_lock_holds() {
        let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
        let (store, _) = open(&vfs);
        let cartridge = CartridgeId(Ulid(1 << 80));
        let id = write(&store, cartridge);
        store.lock_cartridge(cartridge, now_ms() + YEAR).unwrap();
        drop(store);
        let path = Path::new("/s").join(LOCKS).join(format!("{cartridge}.lock"));
        let good = read_all(vfs.as_ref(), &path, LENGTH).unwrap();
        for at in 0..LENGTH {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            write_atomic(vfs.as_ref(), &path, &bad).unwrap();
            let (store, report) = open(&vfs);
            assert!(matches!(report.damage[..], [Damage::Lock { .. }]), "byte {at}");
            assert!(retained(store.delete_generation(id)), "byte {at}");
        }
        // More than there should be: the store opens all the same.
        write_atomic(vfs.as_ref(), &path, &[&good[..], &[0; 4096]].concat()).unwrap();
        assert!(open(&vfs).0.is_locked(cartridge));
        write_atomic(vfs.as_ref(), &path, &good[..20]).unwrap();
        assert!(open(&vfs).0.is_locked(cartridge));
    }
}
