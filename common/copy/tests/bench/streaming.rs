//! Whether a drive ever waits for the store: a drive that takes 400 MB/s (LTO-9), and one that
//! takes all there is.
//!
//! ```text
//! cargo bench -p copy --bench streaming [-- --quick] [-- --dir PATH] [-- --rate MB]
//! ```
//!
//! What is written is not kept. The drive has a buffer as real ones do, and takes from it at its
//! rate; an underrun is a moment at which that buffer is empty though there is more to come.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use copy::run::{RangeOrder, RangeSource, SourceError, write_range};
use model::{CartridgeId, GenerationId};
use store::{GenerationReader, Options, Store};
use tape::{
    CdbRequest, Completion, Control, DeviceIdentity, DriveState, Position, ReadEnd, SpaceKind,
    Spaced, TapeDrive, TapeError, WriteEnd,
};

const RECORD: usize = 256 << 10;
/// The buffer of the drive.
const BUFFER: f64 = (256 << 20) as f64;

/// A drive that takes so many bytes in a second, once its buffer is full.
struct Paced {
    rate: Option<f64>,
    /// Bytes in its buffer at that moment.
    level: f64,
    at: Instant,
    streaming: bool,
    underruns: u64,
    object: u64,
}

impl Paced {
    fn new(rate: Option<f64>) -> Self {
        Self { rate, level: 0.0, at: Instant::now(), streaming: false, underruns: 0, object: 0 }
    }

    fn take(&mut self, bytes: f64) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        if self.streaming {
            self.level -= rate * (now - self.at).as_secs_f64();
            if self.level < 0.0 {
                self.underruns += 1;
                (self.level, self.streaming) = (0.0, false);
            }
        }
        self.at = now;
        self.level += bytes;
        if self.level > BUFFER {
            std::thread::park_timeout(Duration::from_secs_f64((self.level - BUFFER) / rate));
        }
        // It starts its tape when half of the buffer is full.
        self.streaming |= self.level > BUFFER / 2.0;
    }
}

fn no<T>() -> Result<T, TapeError> {
    Err(TapeError::Busy)
}

impl TapeDrive for Paced {
    fn identity(&self) -> DeviceIdentity {
        DeviceIdentity::default()
    }
    fn state(&mut self, _: &Control) -> Result<DriveState, TapeError> {
        no()
    }
    fn position(&mut self, _: &Control) -> Result<Position, TapeError> {
        Ok(Position { object: self.object, ..Position::default() })
    }
    fn rewind(&mut self, _: &Control) -> Result<(), TapeError> {
        no()
    }
    fn locate(&mut self, _: u64, _: &Control) -> Result<(), TapeError> {
        no()
    }
    fn space(&mut self, _: SpaceKind, _: i64, _: &Control) -> Result<Spaced, TapeError> {
        no()
    }
    fn read(&mut self, _: &mut [u8], _: &Control) -> Result<ReadEnd, TapeError> {
        no()
    }
    fn write(&mut self, record: &[u8], _: &Control) -> Result<WriteEnd, TapeError> {
        self.take(record.len() as f64);
        self.object += 1;
        Ok(WriteEnd::Written)
    }
    fn write_filemarks(&mut self, _: u32, _: &Control) -> Result<WriteEnd, TapeError> {
        Ok(WriteEnd::Written)
    }
    fn load(&mut self, _: &Control) -> Result<(), TapeError> {
        no()
    }
    fn unload(&mut self, _: &Control) -> Result<(), TapeError> {
        no()
    }
    fn execute(&mut self, _: &CdbRequest, _: &Control) -> Result<Completion, TapeError> {
        no()
    }
}

struct Stored(GenerationReader, u64);

impl RangeSource for Stored {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let read = self.0.read_stream(self.1, buffer);
        let read = read.map_err(|error| SourceError(error.to_string()))?;
        self.1 += read as u64;
        Ok(read)
    }
}

/// A cartridge of so many bytes, half of them such that they compress.
fn cartridge(store: &Store, length: u64) -> GenerationId {
    let mut image = store.image(CartridgeId::generate(1)).unwrap();
    let (mut state, mut record) = (0x9e37_79b9_7f4a_7c15_u64, vec![0; RECORD]);
    for _ in 0..length / RECORD as u64 {
        for word in record.chunks_exact_mut(16) {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word[..8].copy_from_slice(&state.to_le_bytes());
        }
        image.write(&record).unwrap();
    }
    image.seal().unwrap().unwrap()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_quick = !words.iter().any(|word| word == "--bench") || words.contains(&"--quick".into());
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).cloned()
    };
    let length: u64 = if is_quick { 64 << 20 } else { 4 << 30 };
    let rate: f64 = value("--rate").map_or(400.0, |rate| rate.parse().unwrap());
    let kept = value("--dir").map(PathBuf::from);
    let made = tempfile::tempdir().unwrap();
    let dir = kept.as_deref().unwrap_or(made.path()).join("store");
    let (store, _) = Store::open(Arc::new(vfs::RealVfs), &dir, &Options::default()).unwrap();
    let generation = cartridge(&store, length);
    let order = RangeOrder {
        record_size: RECORD,
        length,
        pad_last: false,
        flush: true,
        ignore_early_warning: false,
    };
    println!(
        "{} MB in records of {} KiB; the store is read as it is cached",
        length / 1_000_000,
        256
    );
    println!("{:<22} {:>9} {:>7} {:>9} {:>10}", "drive", "MB/s", "waits", "ms", "underruns");
    for (name, rate) in [("as fast as it can", None), ("paced", Some(rate * 1e6))] {
        let mut drive = Paced::new(rate);
        let mut source = Stored(store.reader(generation).unwrap(), 0);
        let control = Control::within(Duration::from_secs(3600));
        let began = Instant::now();
        let result = write_range(&mut drive, &mut source, order, &control, &mut |_, _| {});
        assert_eq!(result.bytes, length, "{:?}", result.end);
        let speed = length as f64 / 1e6 / began.elapsed().as_secs_f64();
        let waits = result.waits;
        let name = rate.map_or(name.to_owned(), |rate| format!("{name}, {} MB/s", rate / 1e6));
        let time = waits.time.as_millis();
        println!("{name:<22} {speed:>9.0} {:>7} {time:>9} {:>10}", waits.count, drive.underruns);
    }
}
