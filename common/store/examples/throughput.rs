//! How fast one image is written, rewritten and read: `cargo run --release -p store --example
//! throughput -- DIR [MIB [encrypted]]`.
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use model::{CartridgeId, Ulid};
use store::{Image, Key, Object, Options, Store};
use vfs::RealVfs;

const RECORD: usize = 64 << 10;

/// Incompressible bytes, or a mixture that compresses about three to one.
fn fill(buffer: &mut [u8], state: &mut u64, compressible: bool) {
    for (i, word) in buffer.chunks_mut(8).enumerate() {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = if compressible && i % 3 > 0 {
            (*state >> 60).wrapping_mul(0x2020_2020)
        } else {
            *state ^ (*state >> 29)
        };
        word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
    }
}

fn timed(what: &str, bytes: u64, work: impl FnOnce() -> store::Result<()>) -> store::Result<()> {
    let start = Instant::now();
    work()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:40} {:8.0} MB/s", bytes as f64 / 1e6 / seconds);
    Ok(())
}

fn write(image: &mut Image, bytes: u64, compressible: bool) -> store::Result<()> {
    let (mut record, mut state) = (vec![0; RECORD], 1);
    for _ in 0..bytes / RECORD as u64 {
        fill(&mut record, &mut state, compressible);
        image.write(&record)?;
    }
    image.write_filemarks(1)?;
    image.flush()
}

fn read(image: &mut Image) -> store::Result<()> {
    let mut buffer = vec![0; RECORD];
    image.locate(0)?;
    while image.read(&mut buffer)? != Object::EndOfData {}
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: throughput DIR [MIB]")?);
    let mib: u64 = arguments.next().map_or(Ok(512), |text| text.parse())?;
    let key = arguments.next().map(|_| Key::new([1; 32]));
    let bytes = mib << 20;
    let (mut buffer, mut state) = (vec![0; RECORD], 1);
    timed("(generating)", bytes, || {
        (0..bytes / RECORD as u64).for_each(|_| fill(&mut buffer, &mut state, true));
        Ok(())
    })?;
    for (n, compressible) in [(0, false), (1, true)] {
        let (dir, options) = (dir.join(n.to_string()), Options::default());
        let (store, _) = Store::open_with_key(Arc::new(RealVfs), &dir, &options, key.as_ref())?;
        let kind = if compressible { "compressible" } else { "incompressible" };
        for (copy, what) in [(1, "new"), (2, "known")] {
            let mut image = store.image(CartridgeId(Ulid::from_parts(copy, 0)))?;
            timed(&format!("write {kind} {what}"), bytes, || {
                write(&mut image, bytes, compressible)
            })?;
            timed(&format!("read {kind}"), bytes, || read(&mut image))?;
            image.seal()?;
        }
        println!("{:?}", store.statistics());
    }
    Ok(())
}
