//! Does what the list says, and compares.

use std::time::Duration;

use model::{ElementAddress, ElementType};
use scsi::Sense;
use tape::driver::ScsiTransport;
use tape::driver::{ScsiChanger, ScsiDrive};
use tape::{CdbRequest, Completion, Control, MediumChanger, TapeDrive, TapeError};

use super::list::{Act, Ask, Case, List, Peer, pattern};

/// A device to be compared, with a cartridge in its drive.
pub(crate) struct Device {
    /// The drive.
    pub(crate) drive: ScsiDrive<Box<dyn ScsiTransport>>,
    /// The changer, where there is one.
    pub(crate) changer: Option<ScsiChanger<Box<dyn ScsiTransport>>>,
    /// What it is.
    pub(crate) peer: Peer,
}

/// The bytes of a record.
pub(crate) fn record(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| ((i * 7) as u8).wrapping_add(seed.wrapping_mul(31))).collect()
}

fn control() -> Control {
    Control::within(Duration::from_secs(60))
}

fn hex(bytes: &[u8]) -> Vec<String> {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether bytes are what the words of an answer say: two digits, `..` for any byte, `...` for all
/// that follow.
fn fits(words: &[&str], bytes: &[String]) -> bool {
    match (words, bytes) {
        ([], []) | (["..."], _) => true,
        ([word, words @ ..], [byte, bytes @ ..]) => {
            (*word == ".." || word == byte) && fits(words, bytes)
        }
        _ => false,
    }
}

fn is_hex(part: &str) -> bool {
    let is_byte = |word: &str| word.len() == 2 && word.chars().all(|c| c.is_ascii_hexdigit());
    part.split(' ').all(|word| word == ".." || word == "..." || is_byte(word))
}

fn status(completion: &Completion) -> String {
    if completion.status != 0x02 {
        return match completion.status {
            0x00 => "good".to_owned(),
            0x08 => "busy".to_owned(),
            0x18 => "conflict".to_owned(),
            other => format!("status {other:02x}"),
        };
    }
    let Some(sense) = Sense::parse(&completion.sense) else { return "check".to_owned() };
    let mut text = format!("check {:x}/{:02x}/{:02x}", sense.key, sense.asc, sense.ascq);
    for (is_set, word) in [(sense.filemark, " fm"), (sense.eom, " eom"), (sense.ili, " ili")] {
        text.push_str(if is_set { word } else { "" });
    }
    // A residue of nothing is no news, and not every device tells it.
    if let Some(information) = sense.information.filter(|information| *information != 0) {
        text.push_str(&format!(" info {information}"));
    }
    text
}

impl Device {
    /// Runs every case, and gives what differs: one text for each.
    pub(crate) fn run(&mut self, list: &List) -> Vec<String> {
        let mut failed = Vec::new();
        for case in &list.cases {
            if let Err(error) = self.case(case, &mut failed) {
                failed.push(error);
            }
        }
        failed
    }

    /// An answer that differs is noted and the case goes on; what has to be good ends it.
    fn case(&mut self, case: &Case, failed: &mut Vec<String>) -> Result<(), String> {
        let needs_changer =
            |(_, act): &(usize, Act)| matches!(act, Act::Ask(ask) if ask.is_changer);
        if case.acts.iter().any(needs_changer) && self.changer.is_none() {
            return Ok(());
        }
        let told = |line: &usize, what: String| format!("{}, line {line}: {what}", case.name);
        self.begin().map_err(|error| told(&0, error))?;
        let mut written: Vec<(usize, u8)> = Vec::new();
        for (line, act) in &case.acts {
            match act {
                Act::Write(length, seed) => {
                    written.push((*length, *seed));
                    let cdb = [&[0x0a, 0], &(*length as u32).to_be_bytes()[1..], &[0]].concat();
                    let done = self.tell(&cdb, record(*length, *seed));
                    done.map_err(|error| told(line, error))?;
                }
                Act::Marks(count) => {
                    let cdb = [&[0x10, 0], &count.to_be_bytes()[1..], &[0]].concat();
                    self.tell(&cdb, Vec::new()).map_err(|error| told(line, error))?;
                }
                Act::Rewind => {
                    let done = self.tell(&[1, 0, 0, 0, 0, 0], Vec::new());
                    done.map_err(|error| told(line, error))?;
                }
                Act::Ask(ask) => {
                    if let Some((length, seed)) = ask.data_out.as_deref().and_then(pattern) {
                        written.push((length, seed));
                    }
                    failed.extend(self.ask(ask, &written).err().map(|error| told(line, error)));
                }
            }
        }
        Ok(())
    }

    /// At the beginning of a tape, blocks of variable length, nothing to be told.
    fn begin(&mut self) -> Result<(), String> {
        for _ in 0..10 {
            let completion = self.send(false, vec![0; 6], Vec::new(), 0)?;
            match Sense::parse(&completion.sense) {
                Some(sense) if sense.is_unit_attention() => {}
                Some(sense) if sense.key == 2 => self.load()?,
                _ => break,
            }
        }
        // MODE SELECT(6) with a block descriptor, buffered.
        let select = [0, 0, 0x10, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        self.send(false, vec![0x15, 0x10, 0, 0, 12, 0], select.to_vec(), 0)?;
        self.tell(&[1, 0, 0, 0, 0, 0], Vec::new())
    }

    fn load(&mut self) -> Result<(), String> {
        // Not every drive that answers GOOD has something to load.
        self.send(false, vec![0x1b, 0, 0, 0, 1, 0], Vec::new(), 0)?;
        let ready = self.send(false, vec![0; 6], Vec::new(), 0)?;
        if Sense::parse(&ready.sense).is_none_or(|sense| sense.asc != 0x3a) {
            return Ok(());
        }
        let (slot, bay) = (self.element("S0")?, self.element("D0")?);
        let changer = self.changer.as_mut().ok_or("no cartridge and no changer")?;
        changer.move_medium(slot, bay, &control()).map_err(|error| error.to_string())
    }

    /// A command that has to be good.
    fn tell(&mut self, cdb: &[u8], data: Vec<u8>) -> Result<(), String> {
        let completion = self.send(false, cdb.to_vec(), data, 0)?;
        match status(&completion).as_str() {
            "good" => Ok(()),
            other => Err(format!("{cdb:02x?} gave {other}")),
        }
    }

    fn send(
        &mut self,
        is_changer: bool,
        cdb: Vec<u8>,
        data_out: Vec<u8>,
        data_in_max: u32,
    ) -> Result<Completion, String> {
        let timeout = Duration::from_secs(60);
        let request = CdbRequest { cdb, data_out: data_out.into(), data_in_max, timeout };
        let done = match (is_changer, self.changer.as_mut()) {
            (true, Some(changer)) => changer.execute(&request, &control()),
            (true, None) => return Err("there is no changer".to_owned()),
            (false, _) => self.drive.execute(&request, &control()),
        };
        done.map_err(|error: TapeError| error.to_string())
    }

    /// The address of the element that `S0` and the like mean.
    fn element(&mut self, word: &str) -> Result<ElementAddress, String> {
        let (kind, number) = word.split_at(1);
        let kind = match kind {
            "A" => ElementType::Transport,
            "S" => ElementType::Storage,
            "I" => ElementType::ImportExport,
            "D" => ElementType::DataTransfer,
            _ => return Err(format!("{word} is no element")),
        };
        let number: u16 = number.parse().map_err(|_| format!("{word} is no element"))?;
        let changer = self.changer.as_mut().ok_or("there is no changer")?;
        let inventory = changer.inventory(&control()).map_err(|error| error.to_string())?;
        Ok(inventory.map.range(kind).0 + number)
    }

    fn bytes(&mut self, words: &[String]) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for word in words {
            match u8::from_str_radix(word, 16) {
                Ok(byte) if word.len() == 2 && !word.starts_with(['A', 'D']) => bytes.push(byte),
                _ => bytes.extend(self.element(word)?.to_be_bytes()),
            }
        }
        Ok(bytes)
    }

    fn ask(&mut self, ask: &Ask, written: &[(usize, u8)]) -> Result<(), String> {
        let cdb = self.bytes(&ask.cdb)?;
        let out = match ask.data_out.as_deref() {
            None => Vec::new(),
            Some(text) => match pattern(text) {
                Some((length, seed)) => record(length, seed),
                None => self.bytes(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())?,
            },
        };
        let completion = self.send(ask.is_changer, cdb, out, ask.data_in)?;
        let other = ask.others.iter().find(|(peer, ..)| *peer == self.peer.name);
        let expected = other.map_or(&ask.expected, |(_, answer, _)| answer);
        let parts =
            expected.split(", ").filter(|part| !(self.peer.no_position && part.starts_with("at ")));
        let parts: Vec<_> = parts.map(str::to_owned).collect();
        let actual = self.answer(&completion, &parts, written)?;
        match actual == parts {
            true => Ok(()),
            false => Err(format!("{}: {}, not {}", ask.cdb.join(" "), actual.join(", "), expected)),
        }
    }

    /// The answer in the words of the list; hexadecimal where that was expected.
    fn answer(
        &mut self,
        completion: &Completion,
        expected: &[String],
        written: &[(usize, u8)],
    ) -> Result<Vec<String>, String> {
        let mut parts = vec![status(completion)];
        // Where a device refuses a command, what is in the buffer came from nowhere.
        let sense = Sense::parse(&completion.sense);
        let refused = sense.is_some_and(|sense| {
            let ended = sense.filemark || matches!(sense.key, 3 | 8);
            sense.key == 5 || (self.peer.stale && ended)
        });
        let data: &[u8] = if refused { &[] } else { &completion.data_in };
        let wanted = expected.get(1).filter(|part| !part.starts_with("at "));
        match wanted {
            Some(wanted) if is_hex(wanted) && !refused => {
                let words: Vec<_> = wanted.split(' ').collect();
                let found = hex(data);
                parts.push(if fits(&words, &found) { wanted.clone() } else { found.join(" ") });
            }
            _ if data.is_empty() => {}
            _ => parts.push(self.named(data, written)),
        }
        if expected.last().is_some_and(|part| part.starts_with("at ")) {
            let position = self.drive.position(&control());
            parts.push(match position {
                Ok(position) => format!("at {}", position.object),
                Err(error) => format!("at no place: {error}"),
            });
        }
        Ok(parts)
    }

    /// A record that was written in this case, by its length and seed, else how many bytes came.
    fn named(&self, data: &[u8], written: &[(usize, u8)]) -> String {
        let looked = self.peer.first.map_or(data.len(), |first| first.min(data.len()));
        let fits = |(length, seed): &&(usize, u8)| {
            data.len() <= *length && record(data.len(), *seed)[..looked] == data[..looked]
        };
        match written.iter().find(fits) {
            Some((_, seed)) => format!("{}@{seed}", data.len()),
            None => format!("{} bytes", data.len()),
        }
    }
}
