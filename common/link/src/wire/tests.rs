//! Everything leads back; nothing malformed gets in or grows.

use std::time::Duration;

use ::tape::{
    CdbRequest, Completion, DeviceIdentity, DriveState, ElementStatus, Inventory, KeyError,
    MediumState, Operation, Outcome, Position, ReadEnd, SpaceKind, SpaceStop, Spaced, TapeError,
    WriteEnd,
};
use bytes::Bytes;
use model::{
    Barcode, CartridgeId, Digest, ElementMap, ElementType, EngineId, GenerationId, JobId, LeaseId,
    LibraryName, SiteName, Ulid,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use scsi::{FieldPointer, Sense};

use super::*;
use crate::compare::*;
use crate::connect::{Capabilities, GoodbyeReason, Token};
use crate::heal::HEAL_MAX;
use crate::lease::*;
use crate::range::*;
use crate::replicate::*;
use crate::report::*;
use crate::stream::{Stream, StreamBody, StreamId};

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn id() -> impl Strategy<Value = Ulid> {
    any::<u128>().prop_map(Ulid)
}

fn words() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 äöü]{0,40}"
}

prop_compose! {
    fn sense()(
        (key, asc, ascq) in any::<(u8, u8, u8)>(),
        (filemark, eom, ili, deferred) in any::<(bool, bool, bool, bool)>(),
        information in any::<Option<i64>>(),
        (field, progress) in any::<(Option<(bool, u16, Option<u8>)>, Option<u16>)>(),
    ) -> Sense {
        let field = field.map(|(in_cdb, byte, bit)| FieldPointer { in_cdb, byte, bit });
        Sense { key, asc, ascq, filemark, eom, ili, information, deferred, field, progress }
    }
}

prop_compose! {
    fn identity()(
        vendor in "[A-Z]{0,8}", product in "[A-Z0-9]{0,16}",
        revision in "[0-9]{0,4}", serial in "[A-Z0-9]{0,12}",
    ) -> DeviceIdentity {
        DeviceIdentity { vendor, product, revision, serial }
    }
}

fn barcode() -> impl Strategy<Value = Option<Barcode>> {
    of("[A-Z]{1,6}L8".prop_map(|text| Barcode::new(&text).unwrap()))
}

prop_compose! {
    fn drive_state()(
        medium in of((barcode(), any::<bool>(), any::<Option<u64>>(), any::<Option<u64>>())),
        block_length in any::<u32>(),
    ) -> DriveState {
        let medium = medium.map(|(barcode, write_protected, capacity, remaining)| MediumState {
            barcode, write_protected, capacity, remaining,
        });
        DriveState { medium, block_length }
    }
}

prop_compose! {
    fn element()(
        address in any::<u16>(),
        kind in prop::sample::select(&ElementType::ALL[..]),
        (full, accessible, imported) in any::<(bool, bool, bool)>(),
        barcode in barcode(),
        source in any::<Option<u16>>(),
        exception in any::<Option<(u8, u8)>>(),
        drive in of(identity()),
    ) -> ElementStatus {
        ElementStatus {
            address, kind, full, barcode, accessible, imported, source, exception, drive,
        }
    }
}

prop_compose! {
    fn inventory()(
        ranges in any::<[(u16, u16); 4]>(),
        elements in vec(element(), 0..5),
    ) -> Inventory {
        Inventory { map: ElementMap::from_ranges(ranges), elements }
    }
}

prop_compose! {
    fn cdb()(
        cdb in vec(any::<u8>(), 6..=16),
        data_out in bytes(64),
        data_in_max in 0u32..1 << 20,
        millis in any::<u32>(),
    ) -> CdbRequest {
        CdbRequest { cdb, data_out, data_in_max, timeout: Duration::from_millis(millis.into()) }
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    let kinds = [SpaceKind::Records, SpaceKind::Filemarks, SpaceKind::EndOfData];
    prop_oneof![
        Just(Operation::State),
        Just(Operation::Position),
        Just(Operation::Rewind),
        any::<u64>().prop_map(Operation::Locate),
        (prop::sample::select(kinds.to_vec()), any::<i64>())
            .prop_map(|(k, n)| Operation::Space(k, n)),
        (0u32..1 << 24).prop_map(Operation::Read),
        bytes(300).prop_map(Operation::Write),
        any::<u32>().prop_map(Operation::WriteFilemarks),
        Just(Operation::Load),
        Just(Operation::Unload),
        cdb().prop_map(Operation::Cdb),
        Just(Operation::Inventory),
        Just(Operation::Initialize),
        any::<(u16, u16)>().prop_map(|(from, to)| Operation::Move { from, to }),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    use SpaceStop::*;
    let stops = [Done, Filemark, BeginningOfTape, EndOfData];
    let ends = [WriteEnd::Written, WriteEnd::EarlyWarning, WriteEnd::Overflow];
    let position = any::<(u64, u64, bool, bool, u64)>().prop_map(|it| Position {
        object: it.0,
        file: it.1,
        at_bot: it.2,
        past_early_warning: it.3,
        buffered_objects: it.4,
    });
    let read = prop_oneof![
        bytes(300).prop_map(|data| (ReadEnd::Record { length: data.len() + 7 }, data)),
        Just((ReadEnd::Filemark, Bytes::new())),
        Just((ReadEnd::EndOfData, Bytes::new())),
    ];
    let completion = (any::<(u8, i64)>(), vec(any::<u8>(), 0..252), vec(any::<u8>(), 0..99));
    prop_oneof![
        Just(Outcome::Done),
        drive_state().prop_map(Outcome::State),
        position.prop_map(Outcome::Position),
        (any::<u64>(), prop::sample::select(stops.to_vec()))
            .prop_map(|(residual, stop)| Outcome::Spaced(Spaced { residual, stop })),
        read.prop_map(|(end, data)| Outcome::Read(end, data)),
        prop::sample::select(ends.to_vec()).prop_map(Outcome::Written),
        completion.prop_map(|((status, residual), sense, data_in)| {
            Outcome::Completion(Completion { status, sense, residual, data_in })
        }),
        inventory().prop_map(Outcome::Inventory),
    ]
}

fn tape_error() -> impl Strategy<Value = TapeError> {
    prop_oneof![
        sense().prop_map(TapeError::Check),
        Just(TapeError::Busy),
        Just(TapeError::ReservationConflict),
        Just(TapeError::TimedOut),
        Just(TapeError::Cancelled),
        words().prop_map(TapeError::PositionUnknown),
        words().prop_map(TapeError::Unreachable),
        words().prop_map(TapeError::Lost),
        words().prop_map(|it| TapeError::Key(KeyError::Unknown(it))),
        words().prop_map(|it| TapeError::Key(KeyError::Wrong(it))),
        words().prop_map(|it| TapeError::Key(KeyError::Unsupported(it))),
        words().prop_map(|it| TapeError::Key(KeyError::Lost(it))),
    ]
}

fn range_source() -> impl Strategy<Value = RangeSource> {
    let extent = (id(), any::<u64>(), any::<u64>(), 1u64..1 << 40).prop_map(|it| Extent {
        generation: GenerationId(it.0),
        first_object: it.1,
        offset_in_object: it.2,
        length: it.3,
    });
    prop_oneof![
        vec(extent, 0..6).prop_map(RangeSource::Extents),
        (id(), any::<(u64, u64)>()).prop_map(|(stream, (from, length))| RangeSource::Stream {
            stream: StreamId(stream),
            from,
            length,
        }),
    ]
}

fn verify(number: u8) -> Option<Verify> {
    [None, Some(Verify::None), Some(Verify::Position), Some(Verify::Readback)]
        [usize::from(number % 4)]
}

fn work() -> impl Strategy<Value = Work> {
    let copy = (id(), range_source(), 1u32..1 << 24, any::<([bool; 3], u64, u8)>()).prop_map(
        |(job, source, record_size, (flags, expected_object, how))| {
            let [pad_last, flush, ignore_early_warning] = flags;
            Work::Copy(CopyRange {
                job: JobId(job),
                source,
                record_size,
                pad_last,
                flush,
                ignore_early_warning,
                expected_object,
                verify: verify(how),
            })
        },
    );
    let read = (id(), id(), any::<(u64, u64, bool)>(), 1u32..1 << 24).prop_map(
        |(job, stream, (expected_object, objects_max, before_filemark), record_max)| {
            let (job, stream) = (JobId(job), StreamId(stream));
            Work::Read(ReadRange {
                job,
                stream,
                expected_object,
                objects_max,
                record_max,
                before_filemark,
            })
        },
    );
    prop_oneof![operation().prop_map(Work::Operation), copy, read, Just(Work::Close)]
}

fn lease_request() -> impl Strategy<Value = LeaseRequest> {
    let expect = any::<(Option<u64>, Option<u64>, bool)>()
        .prop_map(|(before, after, unflushed)| Expect { before, after, unflushed });
    let perform =
        (1u64.., any::<bool>(), expect, work()).prop_map(|(number, repeated, expect, work)| {
            LeaseBody::Perform(Numbered { number, repeated, expect, work })
        });
    let open = any::<(bool, u16)>().prop_map(|(exclusive, index)| LeaseBody::Open {
        device: format!("ptl0/drive{index}").parse().unwrap(),
        exclusive,
    });
    let body = prop_oneof![
        open,
        Just(LeaseBody::Resume),
        perform,
        Just(LeaseBody::Renew),
        any::<(u64, Option<u64>)>().prop_map(|(number, taken)| LeaseBody::Cancel { number, taken }),
    ];
    (id(), any::<u32>(), body).prop_map(|(lease, epoch, body)| LeaseRequest {
        lease: LeaseId(lease),
        epoch,
        body,
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    let copy_end = prop_oneof![
        Just(RangeEnd::Done),
        Just(RangeEnd::EarlyWarning),
        Just(RangeEnd::Overflow),
        sense().prop_map(RangeEnd::MediaError),
        Just(RangeEnd::Cancelled),
        Just(RangeEnd::NotReplicated),
        Just(RangeEnd::NotMine),
    ];
    let read_end = prop_oneof![
        Just(ReadEndReason::Filemark),
        Just(ReadEndReason::EndOfData),
        Just(ReadEndReason::Limit),
        sense().prop_map(ReadEndReason::MediaError),
        Just(ReadEndReason::Cancelled),
    ];
    let counts = any::<(u64, u64, u64, bool)>();
    prop_oneof![
        outcome().prop_map(Answer::Outcome),
        (copy_end, counts).prop_map(|(end, (bytes, records, object, flushed))| {
            Answer::Copied(RangeResult { end, bytes, records, object, flushed })
        }),
        (read_end, any::<(u64, u64, u64)>()).prop_map(|(end, (records, bytes, object))| {
            Answer::Read(ReadResult { end, records, bytes, object })
        }),
        Just(Answer::Closed),
        tape_error().prop_map(Answer::Failed),
    ]
}

fn lease_reply() -> impl Strategy<Value = LeaseReply> {
    use EndReason::*;
    use RefusalWhy as Why;
    let ends = [Closed, Expired, Revoked, Unknown, PeerRestarted];
    let whys = [Why::Busy, Why::NoSuchDevice, Why::NotAllowed, Why::TooMany, Why::Device];
    let body = prop_oneof![
        any::<u64>().prop_map(|lease_ms| LeaseReplyBody::Opened { lease_ms }),
        (prop::sample::select(whys.to_vec()), words())
            .prop_map(|(why, text)| LeaseReplyBody::Refused(Refusal { why, text })),
        (any::<u64>(), answer())
            .prop_map(|(number, answer)| LeaseReplyBody::Answered { number, answer }),
        any::<(u64, u64, u64)>().prop_map(|(number, bytes, records)| {
            LeaseReplyBody::Progress { number, bytes, records }
        }),
        prop::sample::select(ends.to_vec()).prop_map(LeaseReplyBody::Ended),
    ];
    (id(), any::<u32>(), body).prop_map(|(lease, epoch, body)| LeaseReply {
        lease: LeaseId(lease),
        epoch,
        body,
    })
}

fn chunk() -> impl Strategy<Value = Chunk> {
    (any::<[u8; 32]>(), 1u32..=1 << 20)
        .prop_map(|(digest, length)| Chunk { digest: Digest(digest), length })
}

fn segment() -> impl Strategy<Value = Segment> {
    prop_oneof![
        (0u32..1 << 24, 1u64..).prop_map(|(size, count)| Segment::Records { size, count }),
        (1u64..).prop_map(Segment::Filemarks),
    ]
}

fn chunks() -> impl Strategy<Value = Vec<(u32, ChunkData)>> {
    let data = (any::<u8>(), 0u32..1 << 20, bytes(200))
        .prop_map(|(encoding, raw_length, bytes)| ChunkData { encoding, raw_length, bytes });
    vec((any::<u32>(), data), 0..5)
}

fn replicate() -> impl Strategy<Value = Replicate> {
    let bases = prop_oneof![
        id().prop_map(|id| Bases::Sure(GenerationId(id))),
        vec(id().prop_map(GenerationId), 0..=BASES_MAX).prop_map(Bases::Any),
    ];
    let begin = (id(), id(), of(id()), barcode(), bytes(50), bases).prop_map(|it| Begin {
        generation: GenerationId(it.0),
        cartridge: CartridgeId(it.1),
        parent: it.2.map(GenerationId),
        bases: it.5,
        barcode: it.3,
        attributes: it.4,
    });
    // Often near where the last ended, and at the ends of the range.
    let range = || {
        let first = prop_oneof![any::<u64>(), 0u64..100];
        let count = prop_oneof![any::<u64>(), 1u64..5];
        (first, count).prop_map(|(first, count)| (first, count.clamp(1, (u64::MAX - first).max(1))))
    };
    let possible = |(first, count): &(u64, u64)| first.checked_add(*count).is_some();
    let range = move || range().prop_filter("a range that ends", possible);
    let entry = prop_oneof![
        range().prop_map(|(first, count)| Entry::Run { first, count }),
        range().prop_map(|(first, count)| Entry::Again { first, count }),
        range().prop_map(|(first, count)| Entry::Old { first, count }),
        chunk().prop_map(Entry::Chunk),
        (1u32..=1 << 20).prop_map(Entry::Fresh),
    ];
    let ascending = || prop::collection::btree_set(0u32..4096, 0..9);
    let forms = prop::sample::select(vec![PackForm::Plain, PackForm::Zstd, PackForm::Delta]);
    let pack = (ascending(), ascending(), forms, any::<[u8; 32]>(), bytes(200)).prop_map(
        |(chunks, olds, form, proof, bytes)| Pack {
            chunks: chunks.into_iter().collect(),
            olds: olds.into_iter().collect(),
            form,
            proof: Digest(proof),
            bytes,
        },
    );
    let offer = (vec(segment(), 0..5), vec(entry, 0..9))
        .prop_map(|(segments, entries)| Offer { segments, entries });
    let whys = [
        FailWhy::Store,
        FailWhy::Corrupt,
        FailWhy::Cancelled,
        FailWhy::Refused,
        FailWhy::Gone,
        FailWhy::Base,
    ];
    let body = prop_oneof![
        begin.prop_map(ReplicateBody::Begin),
        (any::<bool>(), of(0u32..u32::MAX))
            .prop_map(|(already, base)| ReplicateBody::Ready { already, base }),
        (any::<u32>(), offer)
            .prop_map(|(sequence, offer)| ReplicateBody::Offer { sequence, offer }),
        (any::<u32>(), vec(any::<bool>(), 0..40))
            .prop_map(|(sequence, wanted)| ReplicateBody::Want { sequence, wanted }),
        (any::<u32>(), pack).prop_map(|(sequence, pack)| ReplicateBody::Pack { sequence, pack }),
        any::<(u64, u32)>().prop_map(|(stored, offers)| ReplicateBody::Credit { stored, offers }),
        any::<[u64; 5]>().prop_map(|[objects, bytes, chunks, unique, stored]| {
            ReplicateBody::Commit(Totals { objects, bytes, chunks, unique, stored })
        }),
        Just(ReplicateBody::Committed),
        (prop::sample::select(whys.to_vec()), words())
            .prop_map(|(why, text)| ReplicateBody::Failed(Failure { why, text })),
    ];
    (id(), body).prop_map(|(transfer, body)| Replicate { transfer: TransferId(transfer), body })
}

fn heal() -> impl Strategy<Value = Heal> {
    let data = (any::<u8>(), 0u32..1 << 20, bytes(200))
        .prop_map(|(encoding, raw_length, bytes)| ChunkData { encoding, raw_length, bytes });
    prop_oneof![
        vec(digest(), 1..=HEAL_MAX).prop_map(Heal::Want),
        (digest(), of(data)).prop_map(|(digest, data)| Heal::Chunk { digest, data }),
    ]
}

fn stream_message() -> impl Strategy<Value = Stream> {
    let offer = (any::<u32>(), any::<u64>(), vec(chunk(), 0..9), vec(segment(), 0..5)).prop_map(
        |(sequence, offset, chunks, marks)| StreamBody::Offer { sequence, offset, chunks, marks },
    );
    let body = prop_oneof![
        any::<(u64, u32)>().prop_map(|(base, opening)| StreamBody::Open { base, opening }),
        any::<(u64, u64, u32)>().prop_map(|(from, limit, opening)| StreamBody::Accept {
            from,
            limit,
            opening
        }),
        offer,
        (any::<u32>(), vec(any::<bool>(), 0..40))
            .prop_map(|(sequence, wanted)| StreamBody::Want { sequence, wanted }),
        (any::<u32>(), chunks())
            .prop_map(|(sequence, chunks)| StreamBody::Data { sequence, chunks }),
        any::<(u64, u64)>().prop_map(|(consumed, limit)| StreamBody::Credit { consumed, limit }),
        any::<u64>().prop_map(StreamBody::Finish),
        words().prop_map(StreamBody::Abort),
    ];
    (id(), body).prop_map(|(stream, body)| Stream { stream: StreamId(stream), body })
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn compare() -> impl Strategy<Value = Compare> {
    let ask = (id(), any::<(u64, bool)>(), 0..=COMPARE_CHUNKS_MAX, 1..=COMPARE_PARTS_MAX);
    let ask = ask.prop_map(|(id, (first, read), count, parts)| {
        let generation = GenerationId(id);
        CompareBody::Ask(CompareAsk { generation, first, count, parts, read })
    });
    let digests = vec(digest(), 0..=COMPARE_PARTS_MAX as usize);
    let told = (any::<u64>(), of(digest()), digests).prop_map(|(chunks, objects, digests)| {
        CompareBody::Told(Some(CompareTold { chunks, objects, digests }))
    });
    let body = prop_oneof![ask, told, Just(CompareBody::Told(None))];
    (any::<u64>(), body).prop_map(|(number, body)| Compare { number, body })
}

fn message() -> impl Strategy<Value = Message> {
    let hello = (any::<(u32, u32, bool, [u8; 16], u64)>(), id()).prop_map(|(it, engine)| Hello {
        version: it.0,
        oldest: it.1,
        site: SiteName::new("hq").unwrap(),
        engine: EngineId(engine),
        channel: if it.2 { Channel::Control } else { Channel::Bulk },
        token: Token(it.3),
        capabilities: Capabilities(it.4),
    });
    let drive = (any::<(u16, bool, Option<u16>)>(), identity(), of(drive_state()), of(words()))
        .prop_map(|((element, in_use, readying), identity, state, down)| DriveReport {
            element,
            identity,
            state,
            in_use,
            down,
            readying,
        });
    let frozen = words().prop_map(|why| (Barcode::new("PTA001L8").unwrap(), why));
    let library = (
        (identity(), inventory(), vec(drive, 0..3), any::<(Option<u64>, bool)>()),
        vec(frozen, 0..3),
    )
        .prop_map(|((identity, inventory, drives, (capacity, online)), frozen)| {
            LibraryReport {
                name: LibraryName::new("ptl0").unwrap(),
                identity,
                inventory,
                drives,
                capacity,
                online,
                frozen,
            }
        });
    let report = (any::<u64>(), vec(library, 0..3)).prop_map(|(sequence, libraries)| SiteReport {
        sequence,
        libraries,
        more: false,
    });
    let job =
        (id(), any::<(bool, u64, Option<u64>)>(), words()).prop_map(|(job, it, text)| JobReport {
            job: JobId(job),
            complete: it.0,
            flushed_bytes: it.1,
            flushed_object: it.2,
            text,
        });
    prop_oneof![
        hello.prop_map(Message::Hello),
        words().prop_map(|text| {
            Message::Goodbye(Goodbye { reason: GoodbyeReason::Replaced, text })
        }),
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        report.prop_map(Message::Report),
        job.prop_map(Message::Job),
        id().prop_map(|id| Message::JobAck(JobId(id))),
        id().prop_map(|id| Message::JobOver(JobId(id))),
        (id(), 1u8..4).prop_map(|(id, how)| {
            Message::JobProof(JobId(id), verify(how).unwrap_or(Verify::None))
        }),
        lease_request().prop_map(Message::Lease),
        lease_reply().prop_map(Message::LeaseReply),
        replicate().prop_map(Message::Replicate),
        stream_message().prop_map(Message::Stream),
        heal().prop_map(Message::Heal),
        compare().prop_map(Message::Compare),
    ]
}

proptest! {
    #[test]
    fn every_message_leads_back(message in message()) {
        let frame = message.encode();
        prop_assert_eq!(Message::decode(frame.clone()).unwrap(), message.clone());
        for channel in [Channel::Control, Channel::Bulk] {
            let fits = message.channel().is_none_or(|own| own == channel);
            prop_assert_eq!(Message::decode_on(frame.clone(), channel).is_ok(), fits);
        }
    }

    #[test]
    fn operations_outcomes_and_errors_lead_back(
        asked in operation(), came in outcome(), error in tape_error(),
    ) {
        let (proto, mut payload) = tape::operation(&asked);
        prop_assert_eq!(tape::read_operation(proto, &mut payload).unwrap(), asked);
        let (proto, mut payload) = tape::outcome(&came);
        prop_assert_eq!(tape::read_outcome(proto, &mut payload).unwrap(), came);
        prop_assert_eq!(tape::read_error(tape::error(&error)).unwrap(), error);
    }

    #[test]
    fn damaged_frames_are_refused_or_are_other_messages(
        message in message(), cut in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(), bits in 1u8..,
    ) {
        let frame = message.encode();
        let cut = cut.index(frame.len());
        let _ = Message::decode(frame.slice(..cut));
        let mut flipped = frame.to_vec();
        let at = at.index(flipped.len());
        flipped[at] ^= bits;
        let _ = Message::decode(flipped.into());
    }

    #[test]
    fn noise_is_no_message(noise in bytes(200)) {
        let _ = Message::decode(noise);
    }
}

#[test]
fn the_hello_is_the_same_for_ever() {
    let hello = |capabilities| {
        Message::Hello(Hello {
            version: 1,
            oldest: 1,
            site: SiteName::new("hq").unwrap(),
            engine: EngineId(Ulid(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)),
            channel: Channel::Bulk,
            token: Token([0xaa; 16]),
            capabilities: Capabilities(capabilities),
        })
    };
    let golden = "0a2e08011001\
                  1a026871\
                  22100102030405060708090a0b0c0d0e0f10\
                  2802\
                  3210aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let hex = |capabilities: u64| -> String {
        hello(capabilities).encode().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert_eq!(hex(0), golden);
    // Those who know nothing of them pass over them.
    assert_eq!(hex(3), format!("0a30{}3803", &golden[4..]));
}

#[test]
fn structure_and_data_have_caps_of_their_own() {
    let frame = |body: usize, payload: usize| {
        let goodbye = proto::Goodbye { reason: 1, text: "x".repeat(body) };
        let body = Some(Body::Goodbye(goodbye));
        Bytes::from(proto::Frame { body, payload: vec![0; payload].into() }.encode_to_vec())
    };
    let decode = |body, payload| Message::decode(frame(body, payload));
    assert!(decode(10, 0).is_ok());
    assert_eq!(decode(10, 1), Err(DecodeError::Invalid("payload")));
    assert!(matches!(decode(2000, 0), Err(DecodeError::TooLong { .. })));
    assert!(matches!(
        decode(BODY_MAX + 1, 0),
        Err(DecodeError::TooLong { what: "body bytes", .. })
    ));
    assert!(matches!(
        decode(10, PAYLOAD_MAX + 1),
        Err(DecodeError::TooLong { what: "payload bytes", .. })
    ));
    let twice = [frame(1, 0), frame(1, 0)].concat();
    assert!(matches!(Message::decode(twice.into()), Err(DecodeError::Malformed(_))));
    assert!(matches!(Message::decode(Bytes::new()), Err(DecodeError::Malformed(_))));
}

#[test]
fn lists_have_limits() {
    let read = |kinds: &[u8], change: fn(&mut proto::Entries)| {
        let mut columns = proto::Entries { kinds: kinds.to_vec().into(), ..Default::default() };
        columns.lengths = kinds.iter().filter(|kind| **kind > 2).map(|_| 5).collect();
        columns.counts = kinds.iter().filter(|kind| **kind < 3).map(|_| 1).collect();
        columns.firsts = kinds.iter().filter(|kind| [0, 2].contains(*kind)).map(|_| 0).collect();
        columns.again_firsts = kinds.iter().filter(|kind| **kind == 1).map(|_| 0).collect();
        change(&mut columns);
        let named = kinds.iter().filter(|kind| **kind == 3).count();
        let bytes = Bytes::from(columns.encode_to_vec());
        let list = proto::Squeezed { bytes, raw_length: 0 };
        entries::read_entries(list, &vec![7; 32 * named])
    };
    assert_eq!(read(&[0, 1, 2, 3, 4], |_| {}).unwrap().len(), 5);
    assert!(read(&[4; OFFER_ENTRIES_MAX], |_| {}).is_ok());
    assert!(read(&[4; OFFER_ENTRIES_MAX + 1], |_| {}).is_err());
    assert!(read(&[5], |_| {}).is_err());
    for change in [
        (|it| it.lengths.push(1)) as fn(&mut proto::Entries),
        |it| it.lengths[0] = 0,
        |it| it.lengths[0] = CHUNK_MAX as u32 + 1,
        |it| it.lengths.clear(),
        |it| it.counts[0] = 0,
        |it| it.counts[0] = u64::MAX,
        |it| it.counts.push(1),
        |it| it.firsts.push(1),
        |it| it.again_firsts.clear(),
        |it| it.kinds = vec![0, 3, 3].into(),
    ] {
        let change = |kinds: &[u8]| read(kinds, change);
        assert!(change(&[0, 1, 2, 3, 4]).is_err());
    }
    let uneven = proto::ChunkList { digests: vec![7; 33].into(), lengths: vec![5] };
    assert!(replicate::read_chunk_list(&uneven, 10).is_err());
    let empty = proto::ChunkList { digests: vec![7; 32].into(), lengths: vec![0] };
    assert!(replicate::read_chunk_list(&empty, 10).is_err());
}

/// A small frame that says it is a large one, and one that is larger than it says.
#[test]
fn a_list_grows_no_further_than_it_says() {
    let read = |plain: &[u8], raw_length: usize| {
        let bytes = zstd::bulk::compress(plain, 3).unwrap().into();
        let list = proto::Squeezed { bytes, raw_length: raw_length as u32 };
        entries::read_entries(list, &[])
    };
    let columns =
        proto::Entries { kinds: vec![4; 9].into(), lengths: vec![5; 9], ..Default::default() };
    let plain = columns.encode_to_vec();
    assert!(read(&plain, plain.len()).is_ok());
    assert!(read(&plain, plain.len() - 1).is_err());
    assert!(read(&plain, plain.len() + 1).is_err());
    assert!(matches!(read(&plain, BODY_MAX + 1), Err(DecodeError::TooLong { .. })));
    assert!(read(&vec![0; 64 << 20], BODY_MAX).is_err());
}

#[test]
fn long_texts_are_cut_when_sent() {
    let text = "ä".repeat(1000);
    let goodbye = Goodbye { reason: GoodbyeReason::Shutdown, text };
    let Message::Goodbye(read) = Message::decode(Message::Goodbye(goodbye).encode()).unwrap()
    else {
        panic!("a goodbye");
    };
    assert_eq!(read.text.len(), TEXT_MAX);
}

#[test]
fn what_is_asked_for_to_heal_is_bounded() {
    let refused = |message: Heal| Message::decode(Message::Heal(message).encode()).is_err();
    assert!(refused(Heal::Want(Vec::new())));
    assert!(refused(Heal::Want(vec![Digest([1; 32]); HEAL_MAX + 1])));
    let chunk = |raw_length, length: usize| Heal::Chunk {
        digest: Digest([1; 32]),
        data: Some(ChunkData { encoding: 0, raw_length, bytes: vec![0; length].into() }),
    };
    assert!(!refused(chunk(CHUNK_MAX as u32, CHUNK_MAX)));
    assert!(refused(chunk(CHUNK_MAX as u32 + 1, 10)));
    assert!(refused(chunk(10, CHUNK_MAX + 1)));
}

#[test]
fn what_is_asked_for_to_compare_is_bounded() {
    let refused = |body: CompareBody| {
        Message::decode(Message::Compare(Compare { number: 1, body }).encode()).is_err()
    };
    let ask = |count, parts| {
        let generation = GenerationId(Ulid(1));
        CompareBody::Ask(CompareAsk { generation, first: u64::MAX, count, parts, read: true })
    };
    let told = |digests: u32| {
        let digests = vec![Digest([1; 32]); digests as usize];
        CompareBody::Told(Some(CompareTold { chunks: 1, objects: None, digests }))
    };
    assert!(!refused(ask(COMPARE_CHUNKS_MAX, COMPARE_PARTS_MAX)));
    assert!(refused(ask(COMPARE_CHUNKS_MAX + 1, 1)));
    assert!(refused(ask(1, COMPARE_PARTS_MAX + 1)));
    assert!(refused(ask(1, 0)));
    assert!(!refused(told(COMPARE_PARTS_MAX)));
    assert!(refused(told(COMPARE_PARTS_MAX + 1)));
}

#[test]
fn an_inventory_of_sixty_thousand_elements_is_an_answer_and_one_without_end_is_not() {
    let slot = |address| ElementStatus {
        address,
        kind: ElementType::Storage,
        full: true,
        barcode: Some(Barcode::new("PTA001L8").unwrap()),
        accessible: true,
        imported: false,
        source: Some(address),
        exception: None,
        drive: None,
    };
    let map = ElementMap::with_counts(1, 60_000, 0);
    let inventory = Inventory { map, elements: (1024..61_024).map(slot).collect() };
    let answer = Answer::Outcome(Outcome::Inventory(inventory));
    let body = LeaseReplyBody::Answered { number: 1, answer };
    let reply = Message::LeaseReply(LeaseReply { lease: LeaseId(Ulid(1)), epoch: 1, body });
    let frame = reply.encode();
    assert!(Message::decode(frame.clone()).unwrap() == reply, "it is not what was sent");
    // Two bytes each, and more of them than a library can have.
    let mut frame = proto::Frame::decode(frame).unwrap();
    frame.payload = [0x12, 0].repeat(65_537).into();
    let decoded = Message::decode(frame.encode_to_vec().into());
    assert!(matches!(decoded, Err(DecodeError::TooLong { what: "elements", .. })), "{decoded:?}");
}
