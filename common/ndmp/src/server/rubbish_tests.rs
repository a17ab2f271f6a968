//! Ten thousand malformed messages: the protocol's own error or a clean close each time.

use super::rig::{DRIVE, Rig, Seen};
use crate::mover::MoverEvent;
use crate::wire::*;

/// xorshift64*: the seed is printed when a test fails.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

fn request(random: &mut Random) -> Request {
    let small = random.below(6) as u32;
    let number = if random.chance(4) { random.next() } else { random.below(64) };
    let mode = MoverMode::from_wire(small);
    match random.below(16) {
        0 => Request::ConnectOpen(small),
        1 => Request::TapeOpen { device: DRIVE.into(), mode: TapeOpenMode::from_wire(small) },
        2 => Request::TapeMtio { op: MtioOp::from_wire(random.below(9) as u32), count: small },
        3 => Request::TapeWrite(vec![0; small as usize * 10].into()),
        4 => Request::TapeRead(number as u32),
        5 => Request::MoverListen { mode, addr_type: AddrType::from_wire(small) },
        6 => Request::MoverConnect { mode, addr: Addr::Local },
        7 => Request::MoverSetWindow { offset: number, length: random.next() },
        8 => Request::MoverRead { offset: number, length: number },
        9 => Request::MoverSetRecordSize(number as u32),
        10 => Request::ScsiOpen("vl/changer".into()),
        11 => Request::ConfigGetAuthAttr(AuthType::from_wire(small)),
        12 => Request::Data { code: MessageCode::DataAbort, body: Default::default() },
        _ => {
            let codes = MessageCode::ALL;
            Request::Bare(codes[random.below(codes.len() as u64) as usize])
        }
    }
}

/// A message, most often broken.
fn message(random: &mut Random, version: Version) -> Vec<u8> {
    let request = request(random);
    let header = Header {
        sequence: random.next() as u32,
        time_stamp: 0,
        is_reply: random.chance(20),
        code: match random.chance(10) {
            true => MessageCode::from_wire(random.below(0xb00) as u32),
            false => request.code(),
        },
        reply_sequence: 0,
        error: ErrorCode::NoErr,
    };
    let version = if random.chance(5) { Version::V2 } else { version };
    let framed = header.encode(|writer| request.encode(version, writer)).unwrap();
    let mut record = framed[4..].to_vec();
    match random.below(6) {
        0 => record.truncate(random.below(record.len() as u64 + 1) as usize),
        1 => record.extend(vec![0xab; random.below(40) as usize]),
        2 => {
            let at = random.below(record.len() as u64) as usize;
            record[at] ^= 1 << random.below(8);
        }
        3 if record.len() > 24 => {
            let at = 24 + random.below(record.len() as u64 - 24) as usize;
            record[at..].fill(0xff);
        }
        _ => {}
    }
    record
}

#[test]
fn ten_thousand_malformed_messages() {
    let seed = 0x7477_696e_7265_656c;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let mut sessions = 0;
    let mut rig: Option<Rig> = None;
    for turn in 0..10_000 {
        let session = rig.get_or_insert_with(|| {
            sessions += 1;
            match random.below(4) {
                0 => Rig::raw(),
                at => Rig::new(Version::ALL[at as usize - 1]),
            }
        });
        session.plane.pipe.get_or_insert_default();
        session.seen.clear();
        let version = session.session.version();
        let record = message(&mut random, version);
        session.deliver(&record.into());
        let replies = session.seen.iter().filter(|seen| matches!(seen, Seen::Reply(..))).count();
        assert!(replies <= 1, "turn {turn}: {:?}", session.seen);
        assert!(!session.session.is_busy(), "turn {turn}");
        if random.chance(8) {
            session.event(MoverEvent::Connected);
        }
        session.pump();
        if session.seen.contains(&Seen::Closed) {
            assert!(session.finished, "turn {turn}: everything is given back");
            rig = None;
        }
    }
    assert!(sessions > 50, "{sessions}");
}
