//! From a tape to a data connection (mover mode WRITE).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ndmp::tape::{Failure, FailureKind};
use tape::{Control, ReadEnd, SpaceKind, SpaceStop};

use super::connection::{Connection, Offer, SourceEnd, Splice};
use super::reference::EngineDrive;
use super::{Counters, RECORD_MAX, Run, Stop};

/// How long taking back what was read ahead may take.
const SETTLE: Duration = Duration::from_secs(3600);

/// The source end of a data connection: the connection and what was read from the tape but not
/// yet asked for (a MOVER_READ may end inside a record).
pub struct Outbound {
    connection: Connection,
    rest: Bytes,
    /// Bytes at the beginning of `rest` that count as sent: the destination took a part of what
    /// was handed to it, and progress is rounded up.
    counted: u64,
    /// The record that `rest` belongs to counts as sent.
    record_counted: bool,
    buffer: Vec<u8>,
}

impl Outbound {
    /// The source end of `connection`.
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            rest: Bytes::new(),
            counted: 0,
            record_counted: false,
            buffer: Vec::new(),
        }
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends records of `drive` until something stops it.
    ///
    /// A splice's destination has taken everything counted here into its window, rounded up to a
    /// record: a DMA never sees the source ahead of the destination.
    pub fn run(&mut self, drive: &mut dyn EngineDrive, run: &Run, counters: &Counters) -> Stop {
        let splice = self.connection.splice().cloned();
        if let Some(splice) = &splice {
            let end = SourceEnd { holder: drive.holder(), medium: drive.medium_name() };
            splice.source_runs(Some(end));
        }
        let stop = match self.reposition(drive, run) {
            Ok(()) => {
                drive.begin_reading(self.record_max(run) as u32);
                let stop = self.send_records(drive, run, counters, splice.as_ref());
                // Even when the run was cancelled the tape must stand where it is thought to,
                // unless that can not be told now.
                let given_up = run.control.cancel.is_cancelled() && !drive.is_reachable();
                let control = Control::within(SETTLE);
                if given_up {
                    control.cancel.cancel();
                }
                match drive.end_reading(&control) {
                    Ok(()) => stop,
                    Err(error) => Stop::from_tape(&error),
                }
            }
            Err(stop) => stop,
        };
        let stop = match stop {
            Stop::Filemark if run.back_over_filemark => back_over_filemark(drive, run),
            other => other,
        };
        if let Some(splice) = &splice {
            splice.source_runs(None);
        }
        if run.control.cancel.is_cancelled() { Stop::Cancelled } else { stop }
    }

    /// Room for the longest record that is expected.
    fn record_max(&self, run: &Run) -> usize {
        RECORD_MAX.min((run.record_size * 2).max(1 << 20))
    }

    fn keep(&mut self, rest: Bytes, counted: u64, record_counted: bool) {
        self.rest = rest;
        self.counted = counted;
        self.record_counted = record_counted;
    }

    /// Goes where the DMA wants to read, if that is not where the last run ended.
    fn reposition(&mut self, drive: &mut dyn EngineDrive, run: &Run) -> Result<(), Stop> {
        let Some((records, skip)) = run.reposition else { return Ok(()) };
        self.keep(Bytes::new(), 0, false);
        if records != 0 {
            let spaced = drive
                .space(SpaceKind::Records, records, &run.control)
                .map_err(|error| Stop::from_tape(&error))?;
            match spaced.stop {
                SpaceStop::Done => {}
                SpaceStop::Filemark if records > 0 => return Err(Stop::Filemark),
                SpaceStop::Filemark => return Err(before_the_file(drive, run)),
                SpaceStop::BeginningOfTape | SpaceStop::EndOfData => return Err(Stop::EndOfData),
            }
        }
        if skip > 0 {
            self.read(drive, run)?;
            let rest = self.rest.split_off((skip as usize).min(self.rest.len()));
            self.keep(rest, 0, false);
        }
        Ok(())
    }

    fn send_records(
        &mut self,
        drive: &mut dyn EngineDrive,
        run: &Run,
        counters: &Counters,
        splice: Option<&Arc<Splice>>,
    ) -> Stop {
        let mut left = run.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let step = match self.wants_reference(drive, splice) {
                Err(stop) => Err(stop),
                Ok(Some(splice)) => self.offer(drive, splice, left, counters),
                Ok(None) => Ok(0),
            };
            match step {
                Ok(0) => {}
                Ok(consumed) => {
                    left -= consumed;
                    continue;
                }
                Err(stop) => return stop,
            }
            match self.send_record(drive, run, left, counters) {
                Ok(sent) => left -= sent,
                Err(stop) => return stop,
            }
        }
        Stop::Limit
    }

    fn wants_reference<'a>(
        &self,
        drive: &mut dyn EngineDrive,
        splice: Option<&'a Arc<Splice>>,
    ) -> Result<Option<&'a Arc<Splice>>, Stop> {
        match splice {
            Some(splice) if drive.reference_source().is_some() => {
                Ok(splice.wants_reference()?.then_some(splice))
            }
            _ => Ok(None),
        }
    }

    /// Sends (the rest of) one record, or meets what is not a record.
    fn send_record(
        &mut self,
        drive: &mut dyn EngineDrive,
        run: &Run,
        left: u64,
        counters: &Counters,
    ) -> Result<u64, Stop> {
        if self.rest.is_empty() {
            self.read(drive, run)?;
        }
        let now = self.rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = self.rest.split_to(now);
        let before = self.counted.min(now as u64);
        // The tape has passed the record, also where a read ends inside it.
        let record = u64::from(!self.record_counted);
        let mut told = false;
        let not_taken = self.connection.send(piece, &mut || {
            counters.add(now as u64 - before, record);
            told = true;
        })?;
        let sent = now - not_taken.len();
        let ahead = match told {
            true => (now as u64).max(self.counted) - sent as u64,
            false => self.counted,
        };
        let record_counted = self.record_counted || told;
        // What was not taken is wanted by reference, with what remains of this record.
        let mut rest = not_taken;
        if !rest.is_empty() && !self.rest.is_empty() {
            rest = [&rest[..], &self.rest[..]].concat().into();
        } else if rest.is_empty() {
            rest = std::mem::take(&mut self.rest);
        }
        self.keep(rest, ahead, record_counted);
        Ok(sent as u64)
    }

    fn read(&mut self, drive: &mut dyn EngineDrive, run: &Run) -> Result<(), Stop> {
        self.buffer.resize(self.record_max(run), 0);
        let end = run.control.check().and_then(|()| drive.read(&mut self.buffer, &run.control));
        match end {
            Ok(ReadEnd::Record { length }) if length > self.buffer.len() => {
                Err(too_long(drive, run, length))
            }
            Ok(ReadEnd::Record { length }) => {
                self.keep(Bytes::copy_from_slice(&self.buffer[..length]), 0, false);
                Ok(())
            }
            Ok(ReadEnd::Filemark) => Err(Stop::Filemark),
            Ok(ReadEnd::EndOfData) => Err(Stop::EndOfData),
            Err(error) => Err(Stop::from_tape(&error)),
        }
    }

    /// Offers what lies before the next filemark by name; the bytes that were consumed, 0 when a
    /// filemark or the end of data comes first.
    fn offer(
        &mut self,
        drive: &mut dyn EngineDrive,
        splice: &Splice,
        left: u64,
        counters: &Counters,
    ) -> Result<u64, Stop> {
        let Some(source) = drive.reference_source() else { return Ok(0) };
        let in_hand = self.rest.len() as u64;
        let segment = source.segment(in_hand).map_err(|error| Stop::from_tape(&error))?;
        let extent = segment.extent.first(left);
        if extent.length == 0 {
            return Ok(0);
        }
        let (cartridge, barcode) = (segment.cartridge, segment.barcode.clone());
        let offer = Offer { cartridge, barcode, extent };
        let (mut seen, mut stands) = (0, true);
        let record_in_hand = u64::from(in_hand > 0 && self.record_counted);
        let mut shown = (self.counted.min(extent.length), record_in_hand);
        while stands {
            (seen, stands) = splice.offer(&offer, seen)?;
            let (bytes, records) =
                source.visible(&segment, seen).map_err(|error| Stop::from_tape(&error))?;
            let (bytes, records) = (bytes.min(extent.length).max(shown.0), records.max(shown.1));
            counters.add(bytes - shown.0, records - shown.1);
            shown = (bytes, records);
        }
        if seen > 0 {
            let rest = source.advance(&segment, seen).map_err(|error| Stop::from_tape(&error))?;
            let midway = !rest.is_empty();
            self.keep(rest.into(), shown.0.saturating_sub(seen), midway);
        }
        Ok(seen)
    }
}

/// The tape stands before a record that is longer than anybody expected: none of it is lost.
fn too_long(drive: &mut dyn EngineDrive, run: &Run, length: usize) -> Stop {
    let text = format!("a record of {length} bytes; set a larger record size to read this tape");
    match drive.space(SpaceKind::Records, -1, &run.control) {
        Ok(_) => Stop::Media(Failure::new(FailureKind::Medium, text)),
        Err(error) => Stop::from_tape(&error),
    }
}

/// The read wants what lies before the file that the window began in: the tape stands at the
/// beginning of that file.
fn before_the_file(drive: &mut dyn EngineDrive, run: &Run) -> Stop {
    match drive.space(SpaceKind::Filemarks, 1, &run.control) {
        Ok(_) => {
            let text = "the read begins before the file that the window was set in";
            Stop::Media(Failure::new(FailureKind::Medium, text))
        }
        Err(error) => Stop::from_tape(&error),
    }
}

/// Leaves the tape on the side of the filemark that NDMP version 4 wants.
fn back_over_filemark(drive: &mut dyn EngineDrive, run: &Run) -> Stop {
    match drive.space(SpaceKind::Filemarks, -1, &run.control) {
        Ok(_) => Stop::Filemark,
        Err(error) => Stop::from_tape(&error),
    }
}
