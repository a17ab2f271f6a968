//! A stream to tape and back, through the mover, with a label before it and its length behind it.
//!
//! ```text
//! label  filemark  data ... (the last record padded)  filemark  end  filemark
//! ```
//!
//! A stream that needs several tapes has a label on each. Label and end are records of 512 bytes
//! of text. A tape without them is restored as well: its first file, pads included.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use bytes::Bytes;
use dma::data::ChangeTape;
use dma::{BLOCK_MAX, Client, DmaError, TapeObject, TapeOpenMode, Wrote};
use model::Barcode;
use ndmp::wire::MtioOp;

use super::console::{Console, Seat};
use super::place::Place;

/// Bytes of a label and of an end.
const TEXT: usize = 512;
const LABEL: &str = "TWINREEL DMA LABEL 1";
const END: &str = "TWINREEL DMA END 1";

fn text_record(text: &str) -> Bytes {
    let mut record = vec![b' '; TEXT];
    let length = text.len().min(TEXT);
    record[..length].copy_from_slice(&text.as_bytes()[..length]);
    record.into()
}

fn label(medium: &str, part: u32) -> Bytes {
    text_record(&format!("{LABEL}\nmedium {medium}\npart {part}\n"))
}

fn end(bytes: u64) -> Bytes {
    text_record(&format!("{END}\nbytes {bytes}\n"))
}

/// The length of the stream, if this is an end.
fn parse_end(record: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(record).ok()?.strip_prefix(END)?;
    text.lines().find_map(|line| line.strip_prefix("bytes "))?.trim().parse().ok()
}

fn is_label(record: &[u8]) -> bool {
    record.len() == TEXT && record.starts_with(LABEL.as_bytes())
}

/// Writes a record; a tape that warns of its end takes it when told so twice.
fn write(client: &mut Client, record: &Bytes) -> Result<(), DmaError> {
    for _ in 0..2 {
        if client.write_block(record.clone())? == Wrote::Done {
            return Ok(());
        }
    }
    Err(DmaError::Invalid("the tape has no room for a label".to_owned()))
}

/// The tapes of a stream, one after another.
struct Tapes<'a> {
    console: &'a Console,
    seat: Seat,
    media: Vec<String>,
    next: VecDeque<&'a Barcode>,
    /// Tapes used, the one in the drive among them.
    part: u32,
}

impl<'a> Tapes<'a> {
    fn take(
        console: &'a Console,
        place: &'a Place,
        mode: TapeOpenMode,
    ) -> Result<(Self, Client), DmaError> {
        let (seat, client) = console.take(place, mode)?;
        let next = match place {
            Place::Drive(_) => VecDeque::new(),
            Place::Cartridges(_, barcodes) => barcodes.iter().skip(1).collect(),
        };
        Ok((Self { console, seat, media: place.media(), next, part: 1 }, client))
    }

    fn medium(&self) -> &str {
        self.media.get(self.part as usize - 1).map_or("", String::as_str)
    }

    /// The next tape, at its beginning; `false` if there is none.
    fn change(&mut self, client: &mut Client) -> Result<bool, DmaError> {
        let Some(next) = self.next.pop_front() else { return Ok(false) };
        self.console.change(&mut self.seat, client, next)?;
        self.part += 1;
        Ok(true)
    }

    fn write_label(&self, client: &mut Client) -> Result<(), DmaError> {
        write(client, &label(self.medium(), self.part))?;
        client.write_filemarks(1)
    }

    fn release<T>(self, client: Client, outcome: Result<T, DmaError>) -> Result<T, DmaError> {
        let released = self.console.release(self.seat, client);
        let value = outcome?;
        released?;
        Ok(value)
    }
}

/// Writes a stream from the beginning of the tapes on, which it overwrites. Bytes of the stream.
pub(crate) fn backup(
    console: &Console,
    place: &Place,
    record_size: u32,
    reader: &mut (dyn Read + Send),
) -> Result<u64, DmaError> {
    let (mut tapes, mut client) = Tapes::take(console, place, TapeOpenMode::Raw)?;
    let outcome = (|| {
        tapes.write_label(&mut client)?;
        let bytes = dma::data::backup(&mut client, record_size, reader, &mut Writing(&mut tapes))?;
        client.write_filemarks(1)?;
        write(&mut client, &end(bytes))?;
        client.write_filemarks(1)?;
        Ok(bytes)
    })();
    tapes.release(client, outcome)
}

struct Writing<'a, 'b>(&'a mut Tapes<'b>);

impl ChangeTape for Writing<'_, '_> {
    fn change(&mut self, client: &mut Client, _: u64) -> Result<bool, DmaError> {
        if !self.0.change(client)? {
            return Ok(false);
        }
        self.0.write_label(client)?;
        Ok(true)
    }
}

/// Reads the stream on these tapes. Bytes written.
pub(crate) fn restore(
    console: &Console,
    place: &Place,
    writer: &mut (dyn Write + Send),
) -> Result<u64, DmaError> {
    let (mut tapes, mut client) = Tapes::take(console, place, TapeOpenMode::Read)?;
    let outcome = read_stream(&mut tapes, &mut client, writer);
    tapes.release(client, outcome)
}

fn read_stream(
    tapes: &mut Tapes<'_>,
    client: &mut Client,
    writer: &mut (dyn Write + Send),
) -> Result<u64, DmaError> {
    let Some(record) = to_data(client)? else {
        return Err(DmaError::Invalid(format!("{} has no data", tapes.medium())));
    };
    let mut held = Held { writer, last: Vec::new(), keep: record as usize, passed: 0 };
    let mut reading = Reading { tapes, record, length: None };
    dma::data::restore(client, record, None, &mut held, &mut reading)?;
    let length = reading.length;
    Ok(held.finish(length)?)
}

/// Goes to the first record of the data, behind a label if there is one: its length in bytes.
/// `None` if there is no data.
fn to_data(client: &mut Client) -> Result<Option<u32>, DmaError> {
    let mut object = client.read_object(BLOCK_MAX)?;
    if matches!(&object, TapeObject::Block(block) if is_label(block)) {
        client.skip_filemarks(1)?;
        object = client.read_object(BLOCK_MAX)?;
    }
    let TapeObject::Block(block) = object else { return Ok(None) };
    step_back(client)?;
    Ok(u32::try_from(block.len()).ok())
}

/// Before the record that was just read.
fn step_back(client: &mut Client) -> Result<(), DmaError> {
    match client.mtio(MtioOp::Bsr, 1)? {
        0 => Ok(()),
        _ => Err(DmaError::Protocol("a block that can not be passed".to_owned())),
    }
}

struct Reading<'a, 'b> {
    tapes: &'a mut Tapes<'b>,
    /// Bytes of a record, which the mover was told.
    record: u32,
    /// Bytes of the stream, once its end was read.
    length: Option<u64>,
}

impl ChangeTape for Reading<'_, '_> {
    /// The stream ends with a filemark and something behind it, its length as a rule. With nothing
    /// behind it goes on with the next tape, after the label, if there is one.
    fn change(&mut self, client: &mut Client, _: u64) -> Result<bool, DmaError> {
        let mut object = client.read_object(BLOCK_MAX)?;
        // Versions before 4 have passed the filemark already.
        if let TapeObject::Block(block) = &object {
            self.length = parse_end(block);
            return Ok(false);
        }
        loop {
            match object {
                TapeObject::Filemark => match client.read_object(BLOCK_MAX)? {
                    TapeObject::Block(block) => {
                        self.length = parse_end(&block);
                        return Ok(false);
                    }
                    TapeObject::Filemark => return Ok(false),
                    // A full tape that was taken away: its mark came with the unloading.
                    TapeObject::EndOfData if !self.tapes.change(client)? => return Ok(false),
                    TapeObject::EndOfData => {}
                },
                TapeObject::EndOfData if !self.tapes.change(client)? => return Ok(false),
                TapeObject::EndOfData => {}
                TapeObject::Block(block) if is_label(&block) => client.skip_filemarks(1)?,
                TapeObject::Block(block) if block.len() <= self.record as usize => {
                    step_back(client)?;
                    return Ok(true);
                }
                TapeObject::Block(_) => {
                    let text = format!("{} has longer records", self.tapes.medium());
                    return Err(DmaError::Invalid(text));
                }
            }
            object = client.read_object(BLOCK_MAX)?;
        }
    }
}

/// Holds the last record back until it is known how much of it is a pad.
struct Held<'a> {
    writer: &'a mut (dyn Write + Send),
    last: Vec<u8>,
    keep: usize,
    passed: u64,
}

impl Write for Held<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.last.extend_from_slice(data);
        let ready = self.last.len().saturating_sub(self.keep);
        self.writer.write_all(&self.last[..ready])?;
        self.last.drain(..ready);
        self.passed += ready as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Held<'_> {
    /// Lets go what belongs to a stream of `length` bytes, everything if that is not known.
    fn finish(self, length: Option<u64>) -> io::Result<u64> {
        let all = self.passed + self.last.len() as u64;
        let length = length.unwrap_or(all);
        let rest = length.checked_sub(self.passed).and_then(|rest| usize::try_from(rest).ok());
        let Some(rest) = rest.and_then(|rest| self.last.get(..rest)) else {
            return Err(io::Error::other(format!("{all} bytes on tape, {length} were written")));
        };
        self.writer.write_all(rest)?;
        self.writer.flush()?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_ends_are_known_again() {
        assert!(is_label(&label("vtl0:VTA001L8", 2)));
        assert_eq!(parse_end(&end(12_345)), Some(12_345));
        assert_eq!(parse_end(&label("vtl0:VTA001L8", 2)), None);
        assert!(!is_label(&end(1)) && !is_label(b"TWINREEL DMA LABEL 1"));
        assert_eq!(parse_end(&[0xff; 512]), None);
    }

    fn held(pieces: &[&[u8]], length: Option<u64>) -> (io::Result<u64>, Vec<u8>) {
        let mut out = Vec::new();
        let mut held = Held { writer: &mut out, last: Vec::new(), keep: 4, passed: 0 };
        for piece in pieces {
            held.write_all(piece).unwrap();
        }
        (held.finish(length), out)
    }

    #[test]
    fn pads_are_left_out_and_nothing_else() {
        let (count, out) = held(&[b"abcd", b"ef", b"g\0"], Some(7));
        assert_eq!((count.unwrap(), out.as_slice()), (7, &b"abcdefg"[..]));
        let (count, out) = held(&[b"abcd", b"efg\0"], None);
        assert_eq!((count.unwrap(), out.as_slice()), (8, &b"abcdefg\0"[..]));
        let (count, out) = held(&[], None);
        assert_eq!((count.unwrap(), out.len()), (0, 0));
        for wrong in [3, 9] {
            assert!(held(&[b"abcd", b"efgh"], Some(wrong)).0.is_err(), "{wrong}");
        }
    }
}
