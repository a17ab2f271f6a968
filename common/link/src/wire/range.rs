//! Copy and read ranges and their results.

use model::{GenerationId, JobId};

use super::tape::{RECORD_MAX, read_sense, sense};
use super::{DecodeError, id_bytes, ulid, within};
use crate::proto::{self, copy_range, range_result::End, read_result::End as ReadStop};
use crate::range::{
    CopyRange, EXTENTS_MAX, Extent, RangeEnd, RangeResult, RangeSource, ReadEndReason, ReadRange,
    ReadResult, Verify,
};
use crate::stream::StreamId;

const EMPTY: proto::Empty = proto::Empty {};

fn record_size(size: u32) -> Result<u32, DecodeError> {
    match (1..=RECORD_MAX).contains(&size) {
        true => Ok(size),
        false => Err(DecodeError::Invalid("record size")),
    }
}

fn job_id(bytes: &[u8]) -> Result<JobId, DecodeError> {
    JobId::from_slice(bytes).ok_or(DecodeError::Invalid("job"))
}

pub(super) fn copy(copy: &CopyRange) -> proto::CopyRange {
    let extent = |extent: &Extent| proto::Extent {
        generation: id_bytes(extent.generation.to_bytes()),
        first_object: extent.first_object,
        offset_in_object: extent.offset_in_object,
        length: extent.length,
    };
    let source = match &copy.source {
        RangeSource::Extents(list) => copy_range::Source::Extents(copy_range::Extents {
            list: list.iter().map(extent).collect(),
        }),
        RangeSource::Stream { stream, from, length } => {
            copy_range::Source::Stream(copy_range::StreamPart {
                stream: id_bytes(stream.0.0.to_be_bytes()),
                from: *from,
                length: *length,
            })
        }
    };
    proto::CopyRange {
        job: id_bytes(copy.job.to_bytes()),
        source: Some(source),
        record_size: copy.record_size,
        pad_last: copy.pad_last,
        flush: copy.flush,
        ignore_early_warning: copy.ignore_early_warning,
        expected_object: copy.expected_object,
        verify: copy.verify.map_or(proto::Verify::Unspecified, verify).into(),
    }
}

pub(super) fn read_copy(copy: proto::CopyRange) -> Result<CopyRange, DecodeError> {
    let source = match copy.source.clone().ok_or(DecodeError::Missing("a range's source"))? {
        copy_range::Source::Extents(extents) => {
            within("extents", extents.list.len(), EXTENTS_MAX)?;
            let list: Vec<_> = extents.list.iter().map(read_extent).collect::<Result<_, _>>()?;
            let total = list.iter().try_fold(0u64, |sum, extent| sum.checked_add(extent.length));
            total.ok_or(DecodeError::Invalid("range length"))?;
            RangeSource::Extents(list)
        }
        copy_range::Source::Stream(part) => RangeSource::Stream {
            stream: StreamId(ulid(&part.stream, "stream")?),
            from: part.from,
            length: part.length,
        },
    };
    let how = copy.verify();
    Ok(CopyRange {
        job: job_id(&copy.job)?,
        source,
        record_size: record_size(copy.record_size)?,
        pad_last: copy.pad_last,
        flush: copy.flush,
        ignore_early_warning: copy.ignore_early_warning,
        expected_object: copy.expected_object,
        verify: read_verify(how),
    })
}

pub(super) fn verify(verify: Verify) -> proto::Verify {
    match verify {
        Verify::None => proto::Verify::None,
        Verify::Position => proto::Verify::Position,
        Verify::Readback => proto::Verify::Readback,
    }
}

pub(super) fn read_verify(verify: proto::Verify) -> Option<Verify> {
    match verify {
        proto::Verify::Unspecified => None,
        proto::Verify::None => Some(Verify::None),
        proto::Verify::Position => Some(Verify::Position),
        proto::Verify::Readback => Some(Verify::Readback),
    }
}

fn read_extent(extent: &proto::Extent) -> Result<Extent, DecodeError> {
    let generation = GenerationId::from_slice(&extent.generation);
    if extent.length == 0 {
        return Err(DecodeError::Invalid("extent length"));
    }
    Ok(Extent {
        generation: generation.ok_or(DecodeError::Invalid("generation"))?,
        first_object: extent.first_object,
        offset_in_object: extent.offset_in_object,
        length: extent.length,
    })
}

pub(super) fn result(result: &RangeResult) -> proto::RangeResult {
    let end = match &result.end {
        RangeEnd::Done => End::Done(EMPTY),
        RangeEnd::EarlyWarning => End::EarlyWarning(EMPTY),
        RangeEnd::Overflow => End::Overflow(EMPTY),
        RangeEnd::MediaError(it) => End::MediaError(sense(it)),
        RangeEnd::Cancelled => End::Cancelled(EMPTY),
        RangeEnd::NotReplicated => End::NotReplicated(EMPTY),
        RangeEnd::NotMine => End::NotMine(EMPTY),
    };
    proto::RangeResult {
        bytes: result.bytes,
        records: result.records,
        object: result.object,
        flushed: result.flushed,
        end: Some(end),
    }
}

pub(super) fn read_result_of_copy(result: proto::RangeResult) -> Result<RangeResult, DecodeError> {
    let end = match result.end.ok_or(DecodeError::Missing("the end of a range"))? {
        End::Done(_) => RangeEnd::Done,
        End::EarlyWarning(_) => RangeEnd::EarlyWarning,
        End::Overflow(_) => RangeEnd::Overflow,
        End::MediaError(it) => RangeEnd::MediaError(read_sense(it)?),
        End::Cancelled(_) => RangeEnd::Cancelled,
        End::NotReplicated(_) => RangeEnd::NotReplicated,
        End::NotMine(_) => RangeEnd::NotMine,
    };
    let (bytes, records, object) = (result.bytes, result.records, result.object);
    Ok(RangeResult { end, bytes, records, object, flushed: result.flushed })
}

pub(super) fn read(read: &ReadRange) -> proto::ReadRange {
    proto::ReadRange {
        job: id_bytes(read.job.to_bytes()),
        stream: id_bytes(read.stream.0.0.to_be_bytes()),
        expected_object: read.expected_object,
        objects_max: read.objects_max,
        record_max: read.record_max,
        before_filemark: read.before_filemark,
    }
}

pub(super) fn read_read(read: proto::ReadRange) -> Result<ReadRange, DecodeError> {
    Ok(ReadRange {
        job: job_id(&read.job)?,
        stream: StreamId(ulid(&read.stream, "stream")?),
        expected_object: read.expected_object,
        objects_max: read.objects_max,
        record_max: record_size(read.record_max)?,
        before_filemark: read.before_filemark,
    })
}

pub(super) fn read_result(result: &ReadResult) -> proto::ReadResult {
    let end = match &result.end {
        ReadEndReason::Filemark => ReadStop::Filemark(EMPTY),
        ReadEndReason::EndOfData => ReadStop::EndOfData(EMPTY),
        ReadEndReason::Limit => ReadStop::Limit(EMPTY),
        ReadEndReason::MediaError(it) => ReadStop::MediaError(sense(it)),
        ReadEndReason::Cancelled => ReadStop::Cancelled(EMPTY),
    };
    let (records, bytes, object) = (result.records, result.bytes, result.object);
    proto::ReadResult { records, bytes, object, end: Some(end) }
}

pub(super) fn read_result_of_read(result: proto::ReadResult) -> Result<ReadResult, DecodeError> {
    let end = match result.end.ok_or(DecodeError::Missing("the end of a range"))? {
        ReadStop::Filemark(_) => ReadEndReason::Filemark,
        ReadStop::EndOfData(_) => ReadEndReason::EndOfData,
        ReadStop::Limit(_) => ReadEndReason::Limit,
        ReadStop::MediaError(it) => ReadEndReason::MediaError(read_sense(it)?),
        ReadStop::Cancelled(_) => ReadEndReason::Cancelled,
    };
    let (records, bytes, object) = (result.records, result.bytes, result.object);
    Ok(ReadResult { end, records, bytes, object })
}
