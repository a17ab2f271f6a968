//! Two movers spliced together, against a simple model of tapes: whatever windows, record sizes,
//! full tapes and kinds of drives there are, no byte is lost, doubled or out of place.

use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use copy::Holder;
use model::{Barcode, CartridgeId, GenerationId, SiteName, Ulid};
use proptest::prelude::*;
use tape::{
    CancelToken, CdbRequest, Completion, Control, DeviceIdentity, DriveState, Position, ReadEnd,
    SpaceKind, SpaceStop, Spaced, TapeDrive, TapeError, WriteEnd,
};

use super::connection::Received;
use super::*;

/// Records (`Some`) and filemarks of one tape.
type Tape = Arc<Mutex<Vec<Option<Vec<u8>>>>>;

/// A drive over a vector; as a ghost it takes ranges by reference to `stream`.
struct ModelDrive {
    tape: Tape,
    at: usize,
    early_warning: usize,
    capacity: usize,
    ghost: bool,
    stream: Arc<Vec<u8>>,
}

impl ModelDrive {
    fn written(&self) -> usize {
        self.tape.lock().unwrap().iter().flatten().map(Vec::len).sum()
    }

    fn offset_of(&self, object: usize) -> u64 {
        self.tape.lock().unwrap()[..object].iter().flatten().map(|r| r.len() as u64).sum()
    }
}

impl TapeDrive for ModelDrive {
    fn identity(&self) -> DeviceIdentity {
        DeviceIdentity::default()
    }

    fn state(&mut self, _: &Control) -> Result<DriveState, TapeError> {
        Ok(DriveState { medium: None, block_length: 0 })
    }

    fn position(&mut self, _: &Control) -> Result<Position, TapeError> {
        Ok(Position { object: self.at as u64, ..Position::default() })
    }

    fn rewind(&mut self, _: &Control) -> Result<(), TapeError> {
        self.at = 0;
        Ok(())
    }

    fn locate(&mut self, object: u64, _: &Control) -> Result<(), TapeError> {
        self.at = object as usize;
        Ok(())
    }

    fn space(&mut self, kind: SpaceKind, count: i64, _: &Control) -> Result<Spaced, TapeError> {
        assert_eq!((kind, count), (SpaceKind::Filemarks, -1));
        self.at -= 1;
        assert!(self.tape.lock().unwrap()[self.at].is_none());
        Ok(Spaced { residual: 0, stop: SpaceStop::Done })
    }

    fn read(&mut self, buffer: &mut [u8], _: &Control) -> Result<ReadEnd, TapeError> {
        let tape = self.tape.lock().unwrap();
        let Some(object) = tape.get(self.at) else { return Ok(ReadEnd::EndOfData) };
        self.at += 1;
        Ok(match object {
            None => ReadEnd::Filemark,
            Some(record) => {
                buffer[..record.len()].copy_from_slice(record);
                ReadEnd::Record { length: record.len() }
            }
        })
    }

    fn write(&mut self, record: &[u8], _: &Control) -> Result<WriteEnd, TapeError> {
        let used = self.written() + record.len();
        if used > self.capacity {
            return Ok(WriteEnd::Overflow);
        }
        self.tape.lock().unwrap().push(Some(record.to_vec()));
        self.at += 1;
        Ok(if used > self.early_warning { WriteEnd::EarlyWarning } else { WriteEnd::Written })
    }

    fn write_filemarks(&mut self, count: u32, _: &Control) -> Result<WriteEnd, TapeError> {
        assert_eq!(count, 0);
        Ok(WriteEnd::Written)
    }

    fn load(&mut self, _: &Control) -> Result<(), TapeError> {
        Ok(())
    }

    fn unload(&mut self, _: &Control) -> Result<(), TapeError> {
        Ok(())
    }

    fn execute(&mut self, _: &CdbRequest, _: &Control) -> Result<Completion, TapeError> {
        Ok(Completion::default())
    }
}

impl EngineDrive for ModelDrive {
    fn holder(&self) -> Holder {
        match self.ghost {
            true => Holder::RemoteDrive { site: SiteName::new("dr").unwrap(), reachable: true },
            false => Holder::Store,
        }
    }

    fn tape(&mut self) -> &mut dyn TapeDrive {
        self
    }

    fn medium_name(&mut self) -> String {
        "model".into()
    }

    fn reset(&mut self, _: &Control) -> Result<(), TapeError> {
        Ok(())
    }

    fn reference_source(&mut self) -> Option<&mut dyn ReferenceSource> {
        (!self.ghost).then_some(self)
    }

    fn range_target(&mut self) -> Option<&mut dyn RangeTarget> {
        self.ghost.then_some(self)
    }
}

fn generation() -> GenerationId {
    GenerationId(Ulid(7))
}

impl ReferenceSource for ModelDrive {
    fn segment(&mut self, rest: u64) -> Result<Segment, TapeError> {
        let offset = self.offset_of(self.at) - rest;
        let tape = self.tape.lock().unwrap();
        let ahead = tape[self.at..].iter().map_while(|o| o.as_ref()).map(|r| r.len() as u64);
        let extent = Extent { generation: generation(), offset, length: rest + ahead.sum::<u64>() };
        let cartridge = CartridgeId(Ulid(1));
        Ok(Segment { cartridge, barcode: Barcode::new("VTA001L8").unwrap(), extent })
    }

    fn visible(&mut self, segment: &Segment, consumed: u64) -> Result<(u64, u64), TapeError> {
        let (mut bytes, mut records) = (0, 0);
        let objects = self.tape.lock().unwrap().len();
        for object in 0..=objects {
            bytes = self.offset_of(object).saturating_sub(segment.extent.offset);
            if bytes >= consumed {
                break;
            }
            records += u64::from(bytes > 0 || object > 0);
        }
        Ok((bytes, records))
    }

    fn advance(&mut self, segment: &Segment, consumed: u64) -> Result<Vec<u8>, TapeError> {
        let end = segment.extent.offset + consumed;
        let objects = self.tape.lock().unwrap().len();
        // The first object that ends at or behind the place, but a filemark there is not passed.
        let at = (self.at.min(objects)..=objects)
            .chain(0..objects)
            .find(|object| self.offset_of(*object) >= end && *object + 1 >= self.at)
            .unwrap();
        self.at = at;
        let over = (self.offset_of(at) - end) as usize;
        let tape = self.tape.lock().unwrap();
        let record = at.checked_sub(1).and_then(|before| tape[before].clone()).unwrap_or_default();
        Ok(record[record.len() - over..].to_vec())
    }
}

impl RangeTarget for ModelDrive {
    fn write_range(
        &mut self,
        request: &RangeRequest,
        control: &Control,
        progress: &mut dyn FnMut(u64),
    ) -> RangeWritten {
        let mut bytes = Vec::new();
        for extent in &request.extents {
            let from = extent.offset as usize;
            bytes.extend_from_slice(&self.stream[from..from + extent.length as usize]);
        }
        let size = request.record_size as usize;
        let mut result = RangeWritten { end: RangeEnd::Done, bytes: 0, early_warning: false };
        for chunk in bytes.chunks(size) {
            assert!(chunk.len() == size || request.pad_last);
            let mut record = chunk.to_vec();
            record.resize(size, 0);
            match self.write(&record, control).unwrap() {
                WriteEnd::Overflow => {
                    result.end = RangeEnd::Overflow;
                    return result;
                }
                end => result.early_warning = end == WriteEnd::EarlyWarning,
            }
            result.bytes += chunk.len() as u64;
            progress(result.bytes);
            // The remote engine tells of it with the last record as well.
            if result.early_warning && !request.ignore_early_warning {
                result.end = RangeEnd::EarlyWarning;
                return result;
            }
        }
        result
    }
}

/// Lets the other side go when this one panics.
struct CloseOnPanic(Arc<Splice>);

impl Drop for CloseOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

struct Stream(Arc<Vec<u8>>);

impl Resolve for Stream {
    fn read(&self, extent: Extent) -> Result<Vec<u8>, String> {
        let from = extent.offset as usize;
        Ok(self.0[from..from + extent.length as usize].to_vec())
    }
}

/// What a test is about.
#[derive(Clone, Debug)]
struct Case {
    /// Lengths of the source's records; 0 is a filemark.
    source: Vec<u16>,
    record_size: usize,
    /// Windows of the destination in records, repeated; empty for no windows.
    windows: Vec<u64>,
    /// For each destination tape, repeated: capacity in records and whether it is a ghost.
    tapes: Vec<(usize, bool)>,
    /// Limits of the source's reads, repeated; empty for none.
    reads: Vec<u64>,
}

fn case() -> impl Strategy<Value = Case> {
    let record = prop_oneof![1 => Just(0u16), 4 => 1u16..3000, 3 => Just(1024u16)];
    (
        prop::collection::vec(record, 0..40),
        prop_oneof![Just(512usize), Just(1024), 1usize..5000],
        prop::collection::vec(1u64..20, 0..3),
        prop::collection::vec((1usize..12, any::<bool>()), 1..4),
        prop::collection::vec(1u64..6000, 0..3),
    )
        .prop_map(|(source, record_size, windows, tapes, reads)| Case {
            source,
            record_size,
            windows,
            tapes,
            reads,
        })
}

fn run(record_size: usize, limit: Option<u64>) -> Run {
    Run {
        record_size,
        limit,
        ignore_early_warning: false,
        reposition: None,
        back_over_filemark: false,
        job: None,
        control: Control::new(Duration::from_secs(60), CancelToken::new()),
    }
}

fn pick<T: Copy>(from: &[T], index: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[index % from.len()])
}

fn play_source(case: &Case, stream: &Arc<Vec<u8>>, splice: &Arc<Splice>) -> u64 {
    let _guard = CloseOnPanic(Arc::clone(splice));
    let mut filled = 0;
    let objects = case.source.iter().map(|length| {
        let from = filled;
        filled += usize::from(*length);
        (*length > 0).then(|| stream[from..filled].to_vec())
    });
    let tape = Arc::new(Mutex::new(objects.collect()));
    let (early_warning, capacity, ghost) = (usize::MAX, usize::MAX, false);
    let stream = Arc::clone(stream);
    let mut drive = ModelDrive { tape, at: 0, early_warning, capacity, ghost, stream };
    let mut outbound = Outbound::new(Connection::Splice(Arc::clone(splice)));
    let counters = Counters::default();
    for index in 0.. {
        let limit = pick(&case.reads, index);
        match outbound.run(&mut drive, &run(65536, limit), &counters) {
            Stop::Limit | Stop::Filemark => {}
            Stop::EndOfData => break,
            other => panic!("the source stopped by {other:?}"),
        }
    }
    splice.close();
    counters.get().0
}

fn play_destination(case: &Case, stream: &Arc<Vec<u8>>, splice: &Arc<Splice>) -> (Vec<u8>, u64) {
    let _guard = CloseOnPanic(Arc::clone(splice));
    let surroundings = Surroundings {
        replicates_to: Arc::new(|_| true),
        resolve: Arc::new(Stream(Arc::clone(stream))),
    };
    let mut inbound = Inbound::new(Connection::Splice(Arc::clone(splice)), surroundings);
    let counters = Counters::default();
    let mut all = Vec::new();
    let mut windows = 0;
    for index in 0.. {
        let (records, ghost) = case.tapes[index % case.tapes.len()];
        let tape: Tape = Arc::default();
        let capacity = (records + 1) * case.record_size;
        let early_warning = records * case.record_size - 1;
        let mut drive = ModelDrive {
            tape: Arc::clone(&tape),
            at: 0,
            early_warning,
            capacity,
            ghost,
            stream: Arc::clone(stream),
        };
        let ended = loop {
            let limit = pick(&case.windows, windows).map(|w| w * case.record_size as u64);
            windows += 1;
            match inbound.run(&mut drive, &run(case.record_size, limit), &counters) {
                Stop::Limit => {}
                Stop::EndOfMedium => break false,
                Stop::PeerClosed => break true,
                other => panic!("the destination stopped by {other:?}"),
            }
        };
        for record in tape.lock().unwrap().iter() {
            let record = record.as_ref().unwrap();
            assert_eq!(record.len(), case.record_size);
            all.extend_from_slice(record);
        }
        if ended {
            break;
        }
    }
    assert_eq!(inbound.unwritten(), 0);
    (all, counters.get().0)
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn no_byte_is_lost_or_doubled_between_two_movers(case in case()) {
        let total: usize = case.source.iter().map(|length| usize::from(*length)).sum();
        let stream: Arc<Vec<u8>> = Arc::new((0..total).map(|i| (i * 7 + i / 251) as u8).collect());
        let splice = Splice::new();
        let (sent, (written, moved)) = std::thread::scope(|scope| {
            let source = scope.spawn(|| play_source(&case, &stream, &splice));
            let destination = scope.spawn(|| play_destination(&case, &stream, &splice));
            (source.join().unwrap(), destination.join().unwrap())
        });
        prop_assert_eq!(sent, total as u64, "the source counts every byte");
        prop_assert_eq!(moved, total as u64, "the destination counts no padding");
        prop_assert_eq!(&written[..total], &stream[..]);
        prop_assert!(written[total..].iter().all(|byte| *byte == 0));
        prop_assert_eq!(written.len(), total.div_ceil(case.record_size) * case.record_size);
    }
}

fn source_end(medium: &str) -> SourceEnd {
    SourceEnd { holder: Holder::Store, medium: medium.into() }
}

#[test]
fn a_destination_that_waits_for_a_reference_hears_of_another_source() {
    let splice = Splice::new();
    splice.source_runs(Some(source_end("A")));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| splice.take_reference(&source_end("A")));
        assert!(splice.wants_reference().unwrap());
        // The tape is exchanged in a pause, against one that has nothing to name.
        splice.source_runs(None);
        splice.source_runs(Some(source_end("B")));
        assert_eq!(waiting.join().unwrap(), Taken::OtherSource);
    });
    splice.close();
    assert_eq!(splice.take_reference(&source_end("B")), Taken::Closed);
}

#[test]
fn an_end_is_an_end_and_a_break_is_a_break() {
    let ended = Splice::new();
    ended.close();
    ended.break_off();
    assert!(!ended.is_broken());
    let broken = Splice::new();
    drop(Connection::Splice(Arc::clone(&broken)));
    broken.close();
    assert!(broken.is_broken());
    assert_eq!(broken.source(), Source::Closed);
    assert_eq!(broken.wants_reference(), Err(Stop::PeerClosed));
}

#[test]
fn over_tcp_a_break_is_a_reset_that_wakes_who_waits() {
    for breaks in [false, true] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let (mut near, mut far) = (Connection::Tcp(near), Connection::Tcp(far));
        near.send(Bytes::from_static(b"a part"), &mut || {}).unwrap();
        let mut got = Vec::new();
        far.receive(&mut got, 6).unwrap();
        let closer = near.closer().unwrap();
        // Both ends wait: the near one for its peer, as a mover does that sends.
        let waiting = std::thread::spawn(move || near.receive(&mut Vec::new(), 1));
        if breaks {
            closer.break_off();
        } else {
            closer.close();
        }
        let end = far.receive(&mut got, 7);
        match breaks {
            true => assert!(matches!(end, Err(Stop::Connection(_))), "{end:?}"),
            false => assert_eq!(end, Ok(Received::End)),
        }
        // It returns; as what does not matter to one who has broken off.
        let _ = waiting.join().unwrap();
    }
}

#[test]
fn nothing_is_written_to_a_drive_that_is_left_empty() {
    let splice = Splice::new();
    let surroundings = Surroundings {
        replicates_to: Arc::new(|_| true),
        resolve: Arc::new(Stream(Arc::default())),
    };
    let mut inbound = Inbound::new(Connection::Splice(Arc::clone(&splice)), surroundings);
    splice.close();
    let tape = Tape::default();
    let mut drive = ModelDrive {
        tape: Arc::clone(&tape),
        at: 0,
        early_warning: 1,
        capacity: 1,
        ghost: true,
        stream: Arc::default(),
    };
    let stop = inbound.run(&mut drive, &run(512, None), &Counters::default());
    assert_eq!(stop, Stop::PeerClosed);
    assert!(tape.lock().unwrap().is_empty());
}
