//! What the players play: each script is one session, or two, from login to whatever end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dma::copy::{CopyPlan, Unattended, What, copy};
use dma::data::{self, OneTape};
use dma::{MoverNews, TO_THE_END, TapeOpenMode};
use model::ElementType;
use ndmp::wire::{
    Addr, AddrType, AuthData, AuthType, ErrorCode, ExecuteCdb, Header, MessageCode, MoverMode,
    MtioOp, Request, Version,
};
use scsi::{DeviceType, ElementDescriptor};
use tests::wait::PATIENCE;
use tests::{Operator, Rng};

use crate::line::Line;
use crate::traffic::Traffic;
use crate::{DRIVES, LIBRARIES};

/// Lengths of records of streams, usual and odd.
const RECORDS: [u32; 6] = [4096, 10_240, 32_768, 65_536, 65_537, 262_144];
/// How long a player waits for news of a mover before it does something else.
const NEWS: Duration = Duration::from_millis(50);

/// All data is cut out of this, so that stores stay small.
fn pool() -> &'static Bytes {
    static POOL: OnceLock<Bytes> = OnceLock::new();
    POOL.get_or_init(|| Rng::new(64).bytes(4 << 20).into())
}

/// Somebody who plays.
pub(crate) struct Player {
    operator: Operator,
    traffic: Arc<Traffic>,
    rng: Rng,
}

type Script = fn(&mut Player);

/// Scripts and how often each is played.
const SCRIPTS: [(Script, u64); 8] = [
    (Player::questions, 2),
    (Player::anything, 4),
    (Player::robot, 3),
    (Player::blocks, 4),
    (Player::stream, 4),
    (Player::whole_copy, 2),
    (Player::broken_copy, 4),
    (Player::halves, 4),
];

impl Player {
    /// One of many.
    pub(crate) fn new(operator: Operator, traffic: Arc<Traffic>, rng: Rng) -> Self {
        Self { operator, traffic, rng }
    }

    /// Where it counts.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Plays one script.
    pub(crate) fn play(&mut self) {
        let mut ticket = self.rng.below(SCRIPTS.iter().map(|(_, weight)| weight).sum());
        for (script, weight) in SCRIPTS {
            match ticket.checked_sub(weight) {
                None => return script(self),
                Some(left) => ticket = left,
            }
        }
    }

    fn line(&mut self, versions: &[Version]) -> Line {
        let operator = self.operator.clone().speaking(*self.rng.pick(versions));
        Line::dial(&operator, &self.traffic)
    }

    fn library(&mut self) -> &'static str {
        self.rng.pick::<&str>(&LIBRARIES)
    }

    fn drive(&mut self) -> String {
        format!("{}/drive{}", self.library(), self.rng.below(DRIVES.into()))
    }

    fn record(&mut self) -> u32 {
        *self.rng.pick(&RECORDS)
    }

    /// So many bytes from anywhere in the pool.
    fn data(&mut self, length: u64) -> Bytes {
        let length = length.min(1 << 20);
        let at = self.rng.below(pool().len() as u64 - length + 1) & !0xffff;
        pool().slice(at as usize..(at + length) as usize)
    }

    /// One who logs out, or who is just gone, with all that he had open.
    fn leave(&mut self, mut line: Line) {
        if self.rng.chance(1, 2) {
            line.on("close", dma::Client::close_tape);
        }
        line.leave(self.rng.chance(1, 2));
    }

    /// Opens a drive, with a tape in it if one can be had; another one if somebody has it.
    fn open(&mut self, line: &mut Line, mode: TapeOpenMode) -> bool {
        for _ in 0..8 {
            let drive = self.drive();
            match line.open_tape(&drive, mode) {
                Err(error) if error.code() == Some(ErrorCode::NoTapeLoaded) => self.load(&drive),
                Err(error) if error.code() == Some(ErrorCode::DeviceBusy) => continue,
                opened => return line.settle("open a drive", opened).is_some(),
            }
            if line.on("open a loaded drive", |it| it.open_tape(&drive, mode)).is_some() {
                return true;
            }
        }
        false
    }

    /// Puts any tape into a drive, if the robot is free.
    fn load(&mut self, drive: &str) {
        let (library, index) = drive.split_once("/drive").expect("a drive's name");
        let mut line = self.line(&Version::ALL);
        let robot = format!("{library}/changer");
        if line.on("open a changer", |it| it.open_scsi(&robot)).is_none() {
            return;
        }
        let elements = line.on("an inventory", dma::Client::inventory).unwrap_or_default();
        let to = 128 + index.parse::<u16>().expect("a drive's number");
        // A tape that was unloaded still lies in the drive.
        let unloaded = elements.iter().any(|e| e.address == to && e.full);
        let stored =
            |e: &&ElementDescriptor, full| e.kind == ElementType::Storage && e.full == full;
        let (full, free): (Vec<_>, Vec<_>) = (
            elements.iter().filter(|e| stored(e, true)).collect(),
            elements.iter().filter(|e| stored(e, false)).collect(),
        );
        let mut steps = Vec::new();
        if unloaded && !free.is_empty() {
            steps.push((to, self.rng.pick(&free).address));
        }
        if !full.is_empty() {
            steps.push((self.rng.pick(&full).address, to));
        }
        for (from, to) in steps {
            if line.on("load", |it| it.move_medium(from, to)).is_some() {
                self.traffic.moves.up();
            }
        }
        line.leave(self.rng.chance(1, 2));
    }

    /// Who are you, what have you got.
    fn questions(&mut self) {
        let mut line = self.line(&Version::ALL);
        for _ in 0..self.rng.between(1, 20) {
            let code = *self.rng.pick(&[
                MessageCode::ConfigGetHostInfo,
                MessageCode::ConfigGetConnectionType,
                MessageCode::ConfigGetServerInfo,
                MessageCode::ConfigGetTapeInfo,
                MessageCode::ConfigGetScsiInfo,
                MessageCode::ConfigGetButypeInfo,
                MessageCode::ConfigGetFsInfo,
                MessageCode::MoverGetState,
                MessageCode::TapeGetState,
                MessageCode::ScsiGetState,
            ]);
            line.on("a question", |it| it.ask_bare(code));
        }
        line.leave(self.rng.chance(1, 2));
    }

    /// Any request at any time.
    fn anything(&mut self) {
        let mut line = self.line(&Version::ALL);
        if self.rng.chance(2, 3) {
            let mode = *self.rng.pick(&[TapeOpenMode::Read, TapeOpenMode::Raw]);
            let drive = self.drive();
            match self.rng.chance(1, 3) {
                true => drop(line.on("open for CDBs", |it| it.open_scsi(&drive))),
                false => drop(self.open(&mut line, mode)),
            }
        }
        for _ in 0..self.rng.between(1, 60) {
            let request = self.request();
            let last = matches!(request, Request::Bare(MessageCode::ConnectClose));
            if last || matches!(request, Request::ConnectClientAuth(_)) {
                line.may_end();
            }
            let what = format!("{:?}", request.code());
            let answer = line.call(&request);
            if line.settle(&what, answer).is_none() && last {
                return;
            }
        }
        self.leave(line);
    }

    /// A well-formed request, legal or not.
    fn request(&mut self) -> Request {
        let number = match self.rng.below(4) {
            0 => self.rng.next_u64(),
            1 => TO_THE_END,
            _ => self.rng.below(64) * 512,
        };
        let small = self.rng.below(6) as u32;
        let mode = MoverMode::from_wire(small);
        match self.rng.below(20) {
            0 => Request::ConnectOpen(small),
            1 => Request::TapeOpen { device: self.drive(), mode: TapeOpenMode::from_wire(small) },
            2 | 3 => Request::TapeMtio { op: self.motion(), count: self.rng.below(8) as u32 },
            4 | 5 => {
                let length = self.record();
                Request::TapeWrite(self.data(length.into()))
            }
            6 => Request::TapeRead(self.record()),
            7 => Request::MoverListen { mode, addr_type: AddrType::from_wire(small / 2) },
            8 => {
                // Nobody, and one who does not speak this language.
                let port = *self.rng.pick(&[1, self.operator.address().port()]);
                let tcp = Addr::tcp(std::net::SocketAddrV4::new([127, 0, 0, 1].into(), port));
                let addr = if self.rng.chance(1, 2) { Addr::Local } else { tcp };
                Request::MoverConnect { mode, addr }
            }
            9 => Request::MoverSetWindow { offset: number, length: self.rng.below(64) * 512 },
            10 => Request::MoverRead { offset: number, length: number },
            11 => Request::MoverSetRecordSize(self.record()),
            12 => Request::ScsiOpen(format!("{}/changer", self.library())),
            13..=15 => Request::ScsiExecuteCdb(self.cdb()),
            16 if self.rng.chance(1, 8) => Request::ConnectClientAuth(AuthData::Text {
                id: "ndmp".into(),
                password: b"guess".to_vec().into(),
            }),
            16 => Request::ConfigGetAuthAttr(AuthType::from_wire(small)),
            17 => Request::Data { code: MessageCode::DataAbort, body: Bytes::new() },
            _ => Request::Bare(*self.rng.pick(MessageCode::ALL)),
        }
    }

    /// Any motion, but a tape that is unloaded is of no use to anybody until a robot comes.
    fn motion(&mut self) -> MtioOp {
        match MtioOp::from_wire(self.rng.below(9) as u32) {
            MtioOp::Off if self.rng.chance(7, 8) => MtioOp::Rew,
            op => op,
        }
    }

    /// A command that exists, its parameters by chance.
    fn cdb(&mut self) -> ExecuteCdb {
        let kind = *self.rng.pick(&[DeviceType::Tape, DeviceType::Changer]);
        let commands: Vec<_> = scsi::commands(kind).collect();
        let command = *self.rng.pick(&commands);
        let mut cdb = command.usage.to_vec();
        for byte in cdb.iter_mut().skip(1) {
            *byte &= if self.rng.chance(1, 3) { self.rng.next_u64() as u8 } else { 0 };
        }
        if let Some(action) = command.service_action() {
            cdb[1] = action;
        }
        let length = self.rng.below(2) * self.rng.below(2000);
        ExecuteCdb {
            flags: 0,
            timeout_ms: 60_000,
            data_in_len: self.rng.below(70_000) as u32,
            cdb: cdb.into(),
            data_out: self.rng.bytes(length as usize).into(),
        }
    }

    /// Moves cartridges about, to right places and to wrong ones.
    fn robot(&mut self) {
        let mut line = self.line(&Version::ALL);
        let name = format!("{}/changer", self.library());
        if line.on("open a changer", |it| it.open_scsi(&name)).is_none() {
            return line.leave(true);
        }
        for _ in 0..self.rng.between(1, 6) {
            let Some(elements) = line.on("an inventory", dma::Client::inventory) else { break };
            let careful = self.rng.chance(4, 5);
            let from: Vec<_> = elements.iter().filter(|e| e.full || !careful).collect();
            let to: Vec<_> = elements.iter().filter(|e| !e.full || !careful).collect();
            if from.is_empty() || to.is_empty() {
                break;
            }
            let (from, to) = (self.rng.pick(&from).address, self.rng.pick(&to).address);
            if line.on("a move", |it| it.move_medium(from, to)).is_some() {
                self.traffic.moves.up();
            }
        }
        if self.rng.chance(1, 2) {
            line.on("close the changer", dma::Client::close_scsi);
        }
        line.leave(self.rng.chance(1, 2));
    }

    /// Records and filemarks, one by one, here and there on a tape.
    fn blocks(&mut self) {
        let mut line = self.line(&Version::ALL);
        if !self.open(&mut line, TapeOpenMode::Raw) {
            return line.leave(false);
        }
        for _ in 0..self.rng.between(1, 40) {
            let count = self.rng.below(5) as u32;
            let record = if self.rng.chance(1, 4) { self.rng.below(3000) } else { 32_768 };
            let data = self.data(record);
            match self.rng.below(10) {
                0 => drop(line.on("rewind", dma::Client::rewind)),
                1 => drop(line.on("a state", dma::Client::tape_state)),
                2 => drop(line.on("filemarks", |it| it.write_filemarks(count))),
                3 | 4 => drop(line.on("read", |it| it.read_object(1 << 20))),
                5 => {
                    let ops = [MtioOp::Fsf, MtioOp::Bsf, MtioOp::Fsr, MtioOp::Bsr, MtioOp::Tur];
                    let op = *self.rng.pick(&ops);
                    line.on("space", |it| it.mtio(op, count));
                }
                _ => drop(line.on("write", |it| it.write_block(data))),
            }
        }
        if self.rng.chance(1, 8) {
            line.on("unload", |it| it.mtio(MtioOp::Off, 1));
        }
        self.leave(line);
    }

    /// A stream into a mover or out of one, to its end or not.
    fn stream(&mut self) {
        let mut line = self.line(&Version::ALL);
        if !self.open(&mut line, TapeOpenMode::Raw) {
            return line.leave(false);
        }
        if self.rng.chance(1, 2) {
            line.on("rewind", dma::Client::rewind);
        }
        let record = self.record();
        let length = self.rng.below(2 << 20);
        let data = self.data(length);
        let moved = match self.rng.below(3) {
            0 => {
                line.on("a backup", |it| data::backup(it, record, &mut data.as_ref(), &mut OneTape))
            }
            1 => line.on("a restore", |it| {
                data::restore(it, record, None, &mut std::io::sink(), &mut OneTape)
            }),
            _ => return self.broken_stream(line, record, &data),
        };
        if let Some(moved) = moved {
            self.traffic.streams.up();
            self.traffic.bytes.add(moved);
        }
        self.leave(line);
    }

    /// A stream whose ends do not agree on when it is over.
    fn broken_stream(&mut self, mut line: Line, record: u32, data: &Bytes) {
        let mode = *self.rng.pick(&[MoverMode::Read, MoverMode::Write]);
        let window = if self.rng.chance(1, 2) { TO_THE_END } else { u64::from(record) * 5 };
        let listening = line.on("begin a stream", |it| {
            it.mover_set_record_size(record)?;
            it.mover_set_window(0, window)?;
            it.mover_listen(mode, AddrType::Tcp)
        });
        let stream = listening.and_then(|addr| data::connect(&addr).ok());
        if let Some(mut stream) = stream {
            let _ = stream.set_read_timeout(Some(NEWS));
            let _ = stream.set_write_timeout(Some(NEWS));
            match mode {
                MoverMode::Read => drop(stream.write_all(data)),
                _ => {
                    line.on("read on", |it| it.mover_read(0, TO_THE_END));
                    let _ = stream.read(&mut [0; 5000]);
                }
            }
            match self.rng.below(3) {
                0 => drop(stream),
                1 => {
                    self.mover_whims(&mut line, 4);
                    let _ = stream.shutdown(Shutdown::Both);
                }
                _ => self.mover_whims(&mut line, 8),
            }
        }
        self.traffic.broken.up();
        self.leave(line);
    }

    /// Does this and that with a mover that works or has stopped.
    fn mover_whims(&mut self, line: &mut Line, most: u64) {
        for _ in 0..self.rng.below(most) {
            let news = line.on("news", |it| it.wait_mover(NEWS)).flatten();
            let offset = match news {
                Some(MoverNews::Paused { position, .. }) => position,
                _ => self.rng.below(10) * 512,
            };
            let length = if self.rng.chance(1, 2) { TO_THE_END } else { offset };
            match self.rng.below(10) {
                0 => drop(line.on("abort", dma::Client::mover_abort)),
                1 => drop(line.on("close", dma::Client::mover_close)),
                2 => drop(line.on("stop", dma::Client::mover_stop)),
                3 => drop(line.on("rewind", dma::Client::rewind)),
                4 => drop(line.on("read", |it| it.mover_read(offset, length))),
                5 => drop(line.on("a state", dma::Client::mover_state)),
                _ => {
                    line.on("a window", |it| it.mover_set_window(offset, length));
                    line.on("continue", dma::Client::mover_continue);
                }
            }
        }
    }

    /// Two sessions with a drive each, the first for reading.
    fn two_drives(&mut self) -> Option<(Line, Line)> {
        let versions = [Version::V3, Version::V4];
        let mut source = self.line(&versions);
        if !self.open(&mut source, TapeOpenMode::Read) {
            return None;
        }
        let mut target = self.line(&versions);
        if !self.open(&mut target, TapeOpenMode::Raw) {
            return None;
        }
        source.on("rewind", dma::Client::rewind);
        if self.rng.chance(2, 3) {
            target.on("rewind", dma::Client::rewind);
        }
        Some((source, target))
    }

    /// A copy as a backup application does it, to the end of the data or of the tape.
    fn whole_copy(&mut self) {
        let Some((mut source, mut target)) = self.two_drives() else { return };
        let plan = CopyPlan {
            what: What::Everything { headers: self.rng.below(3) as u32 },
            record_size: Some(self.record()),
            addr_type: *self.rng.pick(&[AddrType::Tcp, AddrType::Local]),
            patience: PATIENCE * 3,
            ..CopyPlan::default()
        };
        let copied = copy(&mut source, &mut target, &plan, &mut Unattended);
        if let Some(report) = target.settle("a copy", copied) {
            self.traffic.copies.up();
            self.traffic.bytes.add(report.bytes());
        }
        self.leave(target);
        self.leave(source);
    }

    /// A copy in which anything may happen.
    fn broken_copy(&mut self) {
        let Some((mut source, mut target)) = self.two_drives() else { return };
        let record = self.record();
        let other = if self.rng.chance(1, 2) { record } else { self.record() };
        let window = *self.rng.pick(&[0, u64::from(record) * 8, TO_THE_END]);
        let kind = *self.rng.pick(&[AddrType::Tcp, AddrType::Local]);
        let listening = target.on("listen", |it| {
            it.mover_set_record_size(record)?;
            it.mover_set_window(0, window)?;
            it.mover_listen(MoverMode::Read, kind)
        });
        if let Some(addr) = listening {
            source.on("connect", |it| {
                it.mover_set_record_size(other)?;
                it.mover_set_window(0, TO_THE_END)?;
                it.mover_connect(MoverMode::Write, addr)?;
                it.mover_read(0, TO_THE_END)
            });
            self.mover_whims(&mut target, 10);
            self.mover_whims(&mut source, 5);
        }
        self.traffic.broken.up();
        match self.rng.chance(1, 2) {
            true => {
                self.leave(source);
                self.mover_whims(&mut target, 3);
                self.leave(target);
            }
            false => {
                self.leave(target);
                self.mover_whims(&mut source, 3);
                self.leave(source);
            }
        }
    }

    /// Requests that nobody waits for, the last of them cut off.
    fn halves(&mut self) {
        let address = self.operator.address();
        let mut stream = match TcpStream::connect(address) {
            Ok(stream) => stream,
            Err(error) => return self.traffic.wrong(format!("connect to {address}: {error}")),
        };
        self.traffic.sessions.up();
        let version = *self.rng.pick(&Version::ALL);
        let login = AuthData::Text {
            id: "ndmp".into(),
            password: self.operator.password().as_bytes().to_vec().into(),
        };
        let drive = self.drive();
        let mut requests = vec![
            Request::ConnectOpen(version.to_wire()),
            Request::ConnectClientAuth(login),
            Request::TapeOpen { device: drive, mode: TapeOpenMode::ReadWrite },
            Request::MoverSetRecordSize(self.record()),
        ];
        requests.truncate(self.rng.between(0, 4) as usize);
        let more = self.rng.below(30);
        requests.extend((0..more).map(|_| self.request()));
        let bytes: Vec<u8> = requests
            .iter()
            .enumerate()
            .flat_map(|(at, it)| encoded(at as u32, it, version))
            .collect();
        let kept = match self.rng.chance(3, 4) {
            true => bytes.len().saturating_sub(self.rng.below(40) as usize),
            false => self.rng.below(bytes.len() as u64 + 1) as usize,
        };
        let _ = stream.set_write_timeout(Some(PATIENCE));
        // The server may close whenever it likes.
        let _ = stream.write_all(&bytes[..kept]);
        self.traffic.halves.up();
        if self.rng.chance(1, 2) {
            return;
        }
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.set_read_timeout(Some(PATIENCE * 3));
        let mut answers = [0; 65_536];
        loop {
            match stream.read(&mut answers) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(error) => return self.traffic.wrong(format!("a half message: {error}")),
            }
        }
    }
}

/// A request as it travels.
fn encoded(sequence: u32, request: &Request, version: Version) -> Bytes {
    let header = Header {
        sequence,
        time_stamp: 0,
        is_reply: false,
        code: request.code(),
        reply_sequence: 0,
        error: ErrorCode::NoErr,
    };
    header.encode(|writer| request.encode(version, writer)).expect("it is within its bounds")
}
