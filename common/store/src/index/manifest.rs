//! What the index on disk consists of: its runs, and the containers that they cover.

use std::path::Path;

use vfs::{Vfs, read_all, write_atomic};

use super::contents::Listed;
use crate::Result;
use crate::bytesio::{Fields, Put, open_with_crc, seal_with_crc};

pub(super) const NAME: &str = "manifest";
const MAGIC: &[u8; 8] = b"TRREELI1";
const VERSION: u32 = 1;
/// No manifest is longer: containers enough for 500 TB, and what is not counted of them.
const LONGEST: usize = 256 << 20;

/// A container that the runs cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Covered {
    pub(super) id: u32,
    /// It was damaged when it was looked at.
    pub(super) flawed: bool,
    pub(super) listed: Listed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Containers with this and higher ids are not covered; no id below is given again.
    pub(super) through: u32,
    /// The id of the next run.
    pub(super) next_run: u64,
    /// Oldest first.
    pub(super) runs: Vec<u64>,
    pub(super) containers: Vec<Covered>,
}

impl Manifest {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put(MAGIC);
        out.put_u32(VERSION);
        out.put_u32(self.through);
        out.put_u64(self.next_run);
        out.put_u32(self.runs.len() as u32);
        out.put_u32(self.containers.len() as u32);
        self.runs.iter().for_each(|run| out.put_u64(*run));
        for Covered { id, flawed, listed } in &self.containers {
            let gone = listed.gone.len() as u32;
            for value in [*id, u32::from(*flawed), listed.count, gone] {
                out.put_u32(value);
            }
            out.put_u64(listed.raw);
            out.put_u64(listed.stored);
            listed.gone.iter().for_each(|number| out.put_u32(*number));
        }
        seal_with_crc(0, &mut out);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(open_with_crc(0, bytes)?);
        if fields.array::<8>()? != *MAGIC || fields.u32()? != VERSION {
            return None;
        }
        let (through, next_run) = (fields.u32()?, fields.u64()?);
        let (runs, containers) = (fields.u32()?, fields.u32()?);
        let runs = (0..runs).map(|_| fields.u64()).collect::<Option<_>>()?;
        let mut covered = || {
            let (id, flawed) = (fields.u32()?, fields.u32()? != 0);
            let (count, gone) = (fields.u32()?, fields.u32()?);
            let (raw, stored) = (fields.u64()?, fields.u64()?);
            let gone = (0..gone).map(|_| fields.u32()).collect::<Option<_>>()?;
            Some(Covered { id, flawed, listed: Listed { count, gone, raw, stored } })
        };
        let containers = (0..containers).map(|_| covered()).collect::<Option<_>>()?;
        fields.is_empty().then_some(Self { through, next_run, runs, containers })
    }

    /// Reads the manifest in `dir`: `None` if there is none, an inner `None` if it is damaged.
    pub(super) fn read(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Option<Self>>> {
        let path = dir.join(NAME);
        if !vfs.exists(&path)? {
            return Ok(None);
        }
        Ok(Some(Self::decode(&read_all(vfs, &path, LONGEST)?)))
    }

    /// Writes it durably, in place of the one that is there.
    pub(super) fn write(&self, vfs: &dyn Vfs, dir: &Path) -> Result<()> {
        Ok(write_atomic(vfs, &dir.join(NAME), &self.encode())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_or_not_at_all() {
        let listed = |count, gone| Listed { count, gone, raw: 1 << 40, stored: 77 };
        let containers = vec![
            Covered { id: 3, flawed: false, listed: listed(9, vec![0, 8]) },
            Covered { id: 7, flawed: true, listed: listed(1, vec![]) },
        ];
        let manifest = Manifest { through: 8, next_run: 5, runs: vec![1, 4], containers };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes), Some(manifest));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert_eq!(Manifest::decode(&bad), None, "byte {at}");
            assert_eq!(Manifest::decode(&bytes[..at]), None, "{at} bytes");
        }
    }
}
