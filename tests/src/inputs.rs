//! Backup streams and how they change from night to night: seeded ones, and real source trees.

use std::fmt;
use std::str::FromStr;

use crate::Rng;
use crate::sources::Sources;

/// A kind of backup stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// Successive releases of real source trees in a tar; files that did not change keep their
    /// times. They are as large as they are, and there are six.
    Sources,
    /// The same with every time changed, as of new checkouts.
    Checkouts,
    /// Made files of text in a tar; those that did not change keep their times.
    Tree,
    /// The same with every time changed.
    Touched,
    /// Rows of a table, some updated, some new.
    Table,
    /// A disk image of 4 KiB blocks, some written anew.
    Image,
    /// Random data, some of it replaced.
    Media,
    /// All of them in one tar.
    Mix,
    /// That with a header of 24 bytes before every 64488 bytes, as Bacula and Bareos write.
    Framed,
}

impl Input {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Sources,
        Self::Checkouts,
        Self::Tree,
        Self::Touched,
        Self::Table,
        Self::Image,
        Self::Media,
        Self::Mix,
        Self::Framed,
    ];

    /// The streams of successive nights of about this size. There is no end of those that are
    /// made.
    ///
    /// # Errors
    /// Real sources may be out of reach: why.
    pub fn generations(
        self,
        size: u64,
        seed: u64,
    ) -> Result<Box<dyn Iterator<Item = Vec<u8>>>, String> {
        // Whole records, as a mover pads them.
        let padded = |mut stream: Vec<u8>| {
            stream.resize(stream.len().next_multiple_of(65_536), 0);
            stream
        };
        if matches!(self, Self::Sources | Self::Checkouts) {
            return Ok(Box::new(Sources::fetch(self == Self::Checkouts)?.map(padded)));
        }
        let mut site = Site::new(self, size as usize, Rng::new(seed).fork("wan"));
        Ok(Box::new((0..).map(move |night| {
            if night > 0 {
                site.day();
            }
            padded(site.stream(night))
        })))
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

impl FromStr for Input {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|input| input.to_string() == name);
        found.ok_or_else(|| format!("no input {name}"))
    }
}

/// What is backed up.
struct Site {
    input: Input,
    rng: Rng,
    words: Vec<String>,
    now: u64,
    files: Vec<File>,
    rows: Vec<String>,
    image: Vec<u8>,
    media: Vec<Vec<u8>>,
}

struct File {
    name: String,
    modified: u64,
    lines: Vec<String>,
}

const BLOCK: usize = 4096;
const MEDIUM: usize = 1 << 20;

impl Site {
    fn new(input: Input, size: usize, mut rng: Rng) -> Self {
        // Few words are used often, as in any text.
        let letters = b"etaoinshrdlucmfwypvbgk_etaoins";
        let word = |rng: &mut Rng| -> String {
            let length = rng.between(2, 10);
            (0..length).map(|_| char::from(*rng.pick(letters))).collect()
        };
        let words = (0..4000).map(|_| word(&mut rng)).collect();
        let (files, rows) = (Vec::new(), Vec::new());
        let (image, media, now) = (Vec::new(), Vec::new(), 1_700_000_000);
        let mut site = Self { input, rng, words, now, files, rows, image, media };
        let share = if site.is_mixed() { size / 4 } else { size };
        match input {
            // Not made here.
            Input::Sources | Input::Checkouts => {}
            Input::Tree | Input::Touched => site.make_tree(share),
            Input::Table => site.make_table(share),
            Input::Image => site.make_image(share),
            Input::Media => site.make_media(share),
            Input::Mix | Input::Framed => {
                site.make_tree(share);
                site.make_table(share);
                site.make_image(share);
                site.make_media(share);
            }
        }
        site
    }

    fn is_mixed(&self) -> bool {
        matches!(self.input, Input::Mix | Input::Framed)
    }

    fn line(&mut self) -> String {
        let mut line = "    ".repeat(self.rng.below(4) as usize);
        for _ in 0..self.rng.between(2, 9) {
            // The product of two draws favours the first words.
            let draw = self.rng.below(self.words.len() as u64);
            let index = self.rng.below(draw + 1) as usize;
            line.push_str(&self.words[index]);
            let joint: &&str = self.rng.pick(&[" ", " ", "(", ") ", " = ", ", ", "->", ";"]);
            line.push_str(joint);
        }
        line
    }

    fn make_tree(&mut self, size: usize) {
        let mut made = 0;
        while made < size {
            let lines = 20 + self.rng.below(40) * self.rng.below(40) / 2;
            let lines: Vec<_> = (0..lines).map(|_| self.line()).collect();
            made += lines.iter().map(|line| line.len() + 1).sum::<usize>() + 1024;
            let name = format!("src/{:03}/{:06}.c", self.files.len() / 50, self.files.len());
            self.files.push(File { name, modified: self.now, lines });
        }
    }

    fn row(&mut self, id: usize) -> String {
        let (money, text) = (self.rng.below(10_000_000), self.line());
        let time = self.now + self.rng.below(86_400);
        format!("{id}\t{:016x}\t{money}\t{time}\t{text}", self.rng.next_u64())
    }

    fn make_table(&mut self, size: usize) {
        let mut made = 0;
        while made < size {
            let row = self.row(self.rows.len());
            made += row.len() + 1;
            self.rows.push(row);
        }
    }

    fn block(&mut self) -> Vec<u8> {
        match self.rng.below(4) {
            0 => vec![0; BLOCK],
            1 => self.rng.bytes(BLOCK),
            _ => {
                let mut text = String::new();
                while text.len() < BLOCK {
                    text.push_str(&self.line());
                }
                text.truncate(BLOCK);
                text.into_bytes()
            }
        }
    }

    fn make_image(&mut self, size: usize) {
        while self.image.len() < size {
            let block = self.block();
            self.image.extend(block);
        }
    }

    fn make_media(&mut self, size: usize) {
        self.media = (0..size.div_ceil(MEDIUM)).map(|_| self.rng.bytes(MEDIUM)).collect();
    }

    /// About two in a hundred of everything change.
    fn day(&mut self) {
        self.now += 86_400;
        for index in 0..self.files.len() {
            if self.rng.chance(2, 100) {
                self.edit(index);
            }
        }
        if !self.files.is_empty() {
            let at = self.rng.below(self.files.len() as u64) as usize;
            let lines = (0..200).map(|_| self.line()).collect();
            let name = format!("src/new/{}.c", self.now);
            self.files.insert(at, File { name, modified: self.now, lines });
            let gone = self.rng.below(self.files.len() as u64) as usize;
            self.files.remove(gone);
        }
        for id in 0..self.rows.len() {
            if self.rng.chance(2, 1000) {
                self.rows[id] = self.row(id);
            }
        }
        for _ in 0..self.rows.len() / 500 {
            let row = self.row(self.rows.len());
            self.rows.push(row);
        }
        let blocks = self.image.len() / BLOCK;
        for _ in 0..blocks / 1000 {
            let first = self.rng.below(blocks as u64) as usize;
            for at in first..(first + self.rng.between(1, 20) as usize).min(blocks) {
                let block = self.block();
                self.image[at * BLOCK..(at + 1) * BLOCK].copy_from_slice(&block);
            }
        }
        for index in 0..self.media.len() {
            if self.rng.chance(1, 100) {
                self.media[index] = self.rng.bytes(MEDIUM);
            }
        }
    }

    /// Some lines of a file are changed, taken away or new.
    fn edit(&mut self, index: usize) {
        for _ in 0..self.rng.between(1, 8) {
            let at = self.rng.below(self.files[index].lines.len() as u64) as usize;
            let line = self.line();
            let lines = &mut self.files[index].lines;
            match self.rng.below(3) {
                0 => lines[at] = line,
                1 => lines.insert(at, line),
                _ if lines.len() > 1 => drop(lines.remove(at)),
                _ => {}
            }
        }
        self.files[index].modified = self.now;
    }

    fn stream(&mut self, night: u64) -> Vec<u8> {
        let table = || (self.rows.join("\n") + "\n").into_bytes();
        match self.input {
            Input::Table => table(),
            Input::Image => self.image.clone(),
            Input::Media => self.media.concat(),
            _ => {
                let mut tar = Vec::new();
                let touched = (self.input == Input::Touched).then_some(self.now);
                for file in &self.files {
                    let body = (file.lines.join("\n") + "\n").into_bytes();
                    member(&mut tar, &file.name, touched.unwrap_or(file.modified), &body);
                }
                if self.is_mixed() {
                    member(&mut tar, "db/table.dump", self.now, &table());
                    member(&mut tar, "vm/disk.img", self.now, &self.image);
                    for (index, medium) in self.media.iter().enumerate() {
                        member(&mut tar, &format!("media/{index}.bin"), self.now, medium);
                    }
                }
                tar.resize(tar.len() + 1024, 0);
                match self.input {
                    Input::Framed => framed(&tar, night),
                    _ => tar,
                }
            }
        }
    }
}

/// A ustar member. A long name is split at a slash into prefix and name, as ustar wants it.
pub(crate) fn member(tar: &mut Vec<u8>, name: &str, modified: u64, body: &[u8]) {
    let (prefix, name) = match name.len() {
        0..=100 => ("", name),
        length => {
            let slash = name.bytes().skip(length - 101).position(|byte| byte == b'/');
            let slash = slash.map(|at| length - 101 + at);
            let slash = slash.filter(|at| *at <= 155).expect("a name that fits ustar");
            (&name[..slash], &name[slash + 1..])
        }
    };
    let mut header = [0u8; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0001750\0");
    put(116, "0001750\0");
    put(124, &format!("{:011o}\0", body.len()));
    put(136, &format!("{modified:011o}\0"));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    put(265, "backup");
    put(345, prefix);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&header);
    tar.extend_from_slice(body);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// Blocks of 64512 bytes as Bacula and Bareos write them: checksum, length, number, `BB02`, session
/// and its time, all big-endian, then the data.
fn framed(stream: &[u8], night: u64) -> Vec<u8> {
    const LENGTH: usize = 64_512;
    let mut out = Vec::new();
    for (number, data) in stream.chunks(LENGTH - 24).enumerate() {
        let mut block = Vec::with_capacity(LENGTH);
        block.extend((data.len() as u32 + 24).to_be_bytes());
        block.extend((number as u32).to_be_bytes());
        block.extend(b"BB02");
        block.extend((night as u32 + 1).to_be_bytes());
        block.extend((1_700_000_000 + 86_400 * night as u32).to_be_bytes());
        block.extend(data);
        out.extend(crc32c::crc32c(&block).to_be_bytes());
        out.extend(block);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_split_at_the_first_slash_that_leaves_a_hundred() {
        let name = format!("{}/{}/{}", "a".repeat(60), "b".repeat(60), "c".repeat(39));
        let mut tar = Vec::new();
        member(&mut tar, &name, 7, b"body");
        assert_eq!(tar.len(), 1024);
        let field = |at: usize, length: usize| {
            let text = String::from_utf8(tar[at..at + length].to_vec()).unwrap();
            text.trim_end_matches('\0').to_owned()
        };
        assert_eq!(format!("{}/{}", field(345, 155), field(0, 100)), name);
        assert_eq!(field(0, 100).len(), 100);
    }

    #[test]
    fn made_inputs_have_a_name_and_the_same_bytes_each_time() {
        for input in Input::ALL.into_iter().filter(|input| *input >= Input::Tree) {
            assert_eq!(input.to_string().parse(), Ok(input));
            let streams = || input.generations(200_000, 3).unwrap().take(2).collect::<Vec<_>>();
            assert!(streams() == streams(), "{input}");
        }
    }
}
