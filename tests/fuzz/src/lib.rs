//! What the targets share: the fuzzer's bytes as a list of choices ([`Input`]).
//!
//! Each target is a model around one machine: it does what the machine's owner and its peer may do,
//! and what a peer must not do, and checks after each step what the machine promises. A target
//! keeps its own side of the contract; what it finds is the product's fault. `run` builds and
//! runs them.

use bytes::Bytes;

/// Reads choices off the input. Behind its end every choice is zero, so that each input means
/// something and a longer one means more.
#[derive(Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of an input.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// At most so many bytes as they are.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes behind their length of one byte, or of two with `long`.
    pub fn block(&mut self, long: bool) -> &'a [u8] {
        let length = if long { self.u16().into() } else { self.u8().into() };
        self.take(length)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below `end`, of one byte.
    pub fn below(&mut self, end: u8) -> u8 {
        self.u8() % end.max(1)
    }

    /// One of two.
    pub fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A number as protocols have them: mostly small, sometimes at an end of its range.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            small @ ..200 => (small % 16).into(),
            200..220 => u64::from(self.u16()) * 256,
            220..235 => u64::MAX - u64::from(self.u8()),
            235..245 => (1 << 32) - 8 + u64::from(self.u8() % 16),
            _ => self.u64(),
        }
    }

    /// One of `items`.
    pub fn pick<'b, T>(&mut self, items: &'b [T]) -> &'b T {
        &items[usize::from(self.u16()) % items.len()]
    }

    /// A block on the heap.
    pub fn bytes(&mut self, long: bool) -> Bytes {
        Bytes::copy_from_slice(self.block(long))
    }
}
