//! Cutting a byte stream into chunks ahead of naming them, on a thread of its own.

use std::collections::VecDeque;

use bytes::Bytes;
use cut::Cutter;

use crate::ChunkParams;
use crate::crew::Crew;

/// Slabs that wait for the thread that cuts, and blocks for each that names: it takes a while to
/// wake a thread, and a slab is cut in less than a millisecond.
pub(super) const AHEAD: usize = 4;

/// Neighbouring chunks.
pub(super) type Block = Vec<Bytes>;

/// Cuts a stream that comes in slabs. A chunk that lies in one of them is a part of it; one that
/// spans two is copied.
struct Scissors {
    cutter: Cutter,
    /// Behind the last cut: bytes whose cut is not certain.
    rest: Vec<u8>,
}

impl Scissors {
    fn new(params: &ChunkParams) -> Self {
        Self { cutter: params.cutter(), rest: Vec::new() }
    }

    /// The chunks whose ends are certain with this slab: no byte to come can move a cut.
    fn cut(&mut self, slab: &Bytes) -> Block {
        let (certain, kept) = (self.cutter.certain(), self.rest.len());
        let mut chunks = Vec::new();
        let mut at = 0;
        if kept > 0 {
            // As much as those need that begin before the slab.
            let lent = certain.min(slab.len());
            self.rest.extend_from_slice(&slab[..lent]);
            let mut from = 0;
            while from < kept && self.rest.len() - from >= certain {
                let len = self.cutter.next(&self.rest[from..]);
                chunks.push(Bytes::copy_from_slice(&self.rest[from..from + len]));
                from += len;
            }
            if from < kept {
                self.rest.drain(..from);
                self.rest.extend_from_slice(&slab[lent..]);
                return chunks;
            }
            self.rest.clear();
            at = from - kept;
        }
        while slab.len() - at >= certain {
            let len = self.cutter.next(&slab[at..]);
            chunks.push(slab.slice(at..at + len));
            at += len;
        }
        self.rest.extend_from_slice(&slab[at..]);
        chunks
    }
}

/// A part of the stream.
struct Slab {
    bytes: Bytes,
    /// The stream begins anew with it, at a cut.
    anew: bool,
}

/// Slabs under way, oldest first, and the thread that cuts them.
pub(super) struct Cutting {
    params: ChunkParams,
    crew: Option<Crew<Slab, Block>>,
    /// Where there is no thread.
    own: Option<Scissors>,
    /// Bytes that were given and are in no block.
    uncut: VecDeque<Bytes>,
    anew: bool,
}

impl Cutting {
    pub(super) fn new(params: ChunkParams) -> Self {
        Self { params, crew: None, own: None, uncut: VecDeque::new(), anew: true }
    }

    /// Whether a block has to be taken before another slab is given.
    pub(super) fn is_full(&self) -> bool {
        self.crew.as_ref().is_some_and(Crew::is_full)
    }

    /// Whether a block is still to be taken.
    pub(super) fn is_under_way(&self) -> bool {
        self.crew.as_ref().is_some_and(|crew| crew.under_way() > 0)
    }

    /// Has a slab cut; back comes its block where nobody else does it.
    pub(super) fn give(&mut self, bytes: Bytes) -> Option<Block> {
        self.uncut.push_back(bytes.clone());
        let anew = std::mem::take(&mut self.anew);
        let given = self.own.is_none() && self.crew().give(Slab { bytes, anew }).is_ok();
        if given { None } else { Some(self.cut_here()) }
    }

    fn crew(&mut self) -> &mut Crew<Slab, Block> {
        let params = self.params;
        self.crew.get_or_insert_with(|| {
            Crew::start("cutting", (1, AHEAD), move || {
                let mut scissors = Scissors::new(&params);
                move |Slab { bytes, anew }| {
                    if anew {
                        scissors.rest.clear();
                    }
                    scissors.cut(&bytes)
                }
            })
        })
    }

    /// The block of the oldest slab, waited for if `wait`. `None`: there is none (yet).
    pub(super) fn take(&mut self, wait: bool) -> Option<Block> {
        match self.crew.as_mut()?.take(wait)? {
            Some(block) => {
                self.pass(&block);
                Some(block)
            }
            // The thread died of it.
            None => Some(self.cut_here()),
        }
    }

    /// The next slab begins the stream anew, behind the last block. All blocks were taken.
    pub(super) fn restart(&mut self) {
        self.uncut.clear();
        self.anew = true;
        if let Some(own) = &mut self.own {
            own.rest.clear();
        }
    }

    /// Cuts without the thread, which has its end.
    fn cut_here(&mut self) -> Block {
        self.crew = None;
        let slabs: Vec<Bytes> = match self.own {
            // It has what is before the last slab.
            Some(_) => self.uncut.back().cloned().into_iter().collect(),
            None => self.uncut.iter().cloned().collect(),
        };
        let own = self.own.get_or_insert_with(|| Scissors::new(&self.params));
        let block: Block = slabs.iter().flat_map(|slab| own.cut(slab)).collect();
        self.pass(&block);
        block
    }

    /// These are cut.
    fn pass(&mut self, block: &Block) {
        let mut len = block.iter().map(Bytes::len).sum::<usize>();
        while let Some(first) = self.uncut.front_mut().filter(|_| len > 0) {
            let part = len.min(first.len());
            let _ = first.split_to(part);
            len -= part;
            if first.is_empty() {
                self.uncut.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn expected(params: &ChunkParams, mut bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let (cutter, mut chunks) = (params.cutter(), Vec::new());
        while bytes.len() >= cutter.certain() {
            let (chunk, rest) = bytes.split_at(cutter.next(bytes));
            chunks.push(chunk.to_vec());
            bytes = rest;
        }
        (chunks, bytes.len())
    }

    fn slabs(random: &mut Random, mut bytes: &[u8], most: u64) -> Vec<Bytes> {
        let mut slabs = Vec::new();
        while !bytes.is_empty() {
            let len = (random.below(most) as usize + 1).min(bytes.len());
            let (slab, rest) = bytes.split_at(len);
            slabs.push(Bytes::copy_from_slice(slab));
            bytes = rest;
        }
        slabs
    }

    /// All that comes of these, with what is left uncut.
    fn cut_all(cutting: &mut Cutting, slabs: Vec<Bytes>) -> (Vec<Vec<u8>>, usize) {
        let mut chunks = Block::new();
        for slab in slabs {
            while cutting.is_full() && cutting.is_under_way() {
                chunks.extend(cutting.take(true).unwrap());
            }
            chunks.extend(cutting.give(slab).unwrap_or_default());
            chunks.extend(cutting.take(false).unwrap_or_default());
        }
        while let Some(block) = cutting.take(true) {
            chunks.extend(block);
        }
        let left = cutting.uncut.iter().map(Bytes::len).sum();
        (chunks.iter().map(|chunk| chunk.to_vec()).collect(), left)
    }

    #[test]
    fn slabs_of_any_size_are_cut_as_the_whole_is() {
        let params = ChunkParams::default();
        let mut random = Random::new(7);
        let mut cutting = Cutting::new(params);
        // Slabs that are shorter than what makes a cut certain, about as long, and longer.
        for most in [1 << 10, 20 << 10, 70 << 10, 200 << 10, 2 << 20] {
            let length = random.below(2 << 20) as usize + (1 << 20);
            let bytes = random.bytes(length);
            let slabs = slabs(&mut random, &bytes, most);
            let found = cut_all(&mut cutting, slabs);
            assert!(found == expected(&params, &bytes), "seed 7, slabs up to {most}");
            cutting.restart();
        }
    }

    #[test]
    fn a_thread_that_is_not_there_or_died_is_done_without() {
        let params = ChunkParams::default();
        let mut random = Random::new(8);
        let bytes = random.bytes(3 << 20);
        let slabs = slabs(&mut random, &bytes, 300 << 10);
        let expected = expected(&params, &bytes);

        let mut none = Cutting::new(params);
        none.crew = Some(Crew::start("cutting", (0, 2), || |_: Slab| Block::new()));
        assert!(cut_all(&mut none, slabs.clone()) == expected);

        for last in 0..4 {
            let mut dies = Cutting::new(params);
            dies.crew = Some(Crew::start("cutting", (1, 2), move || {
                let (mut scissors, mut left) = (Scissors::new(&params), last);
                move |slab: Slab| {
                    assert!(left > 0, "the test lets it die");
                    left -= 1;
                    scissors.cut(&slab.bytes)
                }
            }));
            assert!(cut_all(&mut dies, slabs.clone()) == expected, "after {last}");
            dies.restart();
            assert!(cut_all(&mut dies, slabs.clone()) == expected, "after {last}, again");
        }
    }
}
