//! A small iSCSI target over a library in memory, that makes trouble where it is told.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use iscsi::{
    Command, DataIn, DataOut, Decoder, Digests, LoginRequest, LoginResponse, LogoutResponse,
    NO_TAG, NopIn, Pairs, Pdu, ReadyToTransfer, Reject, Response, TaskResponse, TextResponse, Url,
    chap_response, encode,
};
use model::{Barcode, ElementMap};
use tape::target::{
    Answer, DriveSpec, LibrarySpec, Medium, MemoryInventory, MemoryMedium, MemoryShelf, TapeObject,
    TargetLibrary, Transfer,
};
use tape::{Control, DeviceIdentity};

pub(crate) const NAME: &str = "iqn.2026-01.test:library";
/// Logical unit of the changer; the drives follow.
pub(crate) const CHANGER: u16 = 1;
pub(crate) const DRIVE: u16 = 2;

/// What happens instead of the next PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection ends.
    Drop,
    /// A byte changes on the way.
    Corrupt,
    /// The connection ends, and what was in the drives is at its beginning again.
    Restart,
}

/// How the target negotiates.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    pub(crate) digests: bool,
    pub(crate) initial_r2t: bool,
    pub(crate) immediate: bool,
    pub(crate) segment: usize,
    pub(crate) first_burst: usize,
    pub(crate) burst: usize,
    /// User and secret of the initiator, user and secret of the target.
    pub(crate) chap: Option<[&'static str; 4]>,
    /// Bytes of each cartridge.
    pub(crate) capacity: u64,
    /// Bytes of the early warning zone.
    pub(crate) early_warning: Option<u64>,
    /// So many writes are answered GOOD before one tells of early warning, as by a drive that
    /// learns of it when its buffer runs out. A filemark always tells.
    pub(crate) late_warning: usize,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            digests: true,
            initial_r2t: false,
            immediate: true,
            segment: 1000,
            first_burst: 2500,
            burst: 2000,
            chap: None,
            capacity: 1 << 20,
            early_warning: None,
            late_warning: 0,
        }
    }
}

/// What is counted and what is planned.
#[derive(Debug, Default)]
struct Plan {
    /// PDUs of the full feature phase, in both directions.
    pdus: usize,
    trouble: Option<(usize, Trouble)>,
    /// Commands of this operation code get no answer.
    silent: Option<u8>,
    logins: usize,
    commands: BTreeMap<u8, usize>,
    aborted: usize,
    logouts: usize,
    /// Warnings that were kept back.
    held_back: usize,
}

/// What the connections share.
pub(crate) struct Shared<M: Medium> {
    manners: Manners,
    library: Arc<Mutex<TargetLibrary<M>>>,
    plan: Mutex<Plan>,
    nexus: AtomicU64,
}

pub(crate) struct Target {
    address: SocketAddr,
    shared: Arc<Shared<MemoryMedium>>,
    shelf: MemoryShelf,
}

pub(crate) fn barcode(number: usize) -> Barcode {
    Barcode::new(&format!("PTA{number:03}L8")).unwrap()
}

fn identity(product: &str, serial: &str) -> DeviceIdentity {
    DeviceIdentity {
        vendor: "TWINREEL".into(),
        product: product.into(),
        revision: "1".into(),
        serial: serial.into(),
    }
}

/// Puts a library behind a port of its own.
pub(crate) fn listen<M: Medium + 'static>(
    manners: Manners,
    library: Arc<Mutex<TargetLibrary<M>>>,
) -> (SocketAddr, Arc<Shared<M>>) {
    let (plan, nexus) = (Mutex::default(), AtomicU64::new(1));
    let shared = Arc::new(Shared { manners, library, plan, nexus });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Arc::clone(&shared);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = Arc::clone(&serving);
            std::thread::spawn(move || serve(&shared, stream));
        }
    });
    (address, shared)
}

impl Target {
    /// A library of two drives and four cartridges behind a port of its own.
    pub(crate) fn start(manners: Manners) -> Self {
        let shelf = MemoryShelf::new();
        let cartridges: Vec<_> = (1..=4).map(barcode).collect();
        cartridges.iter().for_each(|barcode| shelf.add(barcode, manners.capacity));
        let drive = |index: u16| DriveSpec {
            index,
            identity: identity("DRIVE", &format!("TEST-DRIVE-{index}")),
            early_warning: manners.early_warning,
            power_on_attention: true,
        };
        let spec = LibrarySpec {
            identity: identity("LIBRARY", "TEST-LIBRARY"),
            map: ElementMap::with_counts(2, 6, 1),
            drives: vec![drive(0), drive(1)],
            cartridges,
            power_on_attention: true,
        };
        let store = Box::new(MemoryInventory::default());
        let library = TargetLibrary::open(spec, Arc::new(shelf.clone()), store).unwrap();
        let (address, shared) = listen(manners, Arc::new(Mutex::new(library)));
        Self { address, shared, shelf }
    }

    pub(crate) fn url(&self, lun: u16) -> Url {
        let host = self.address.ip().to_string();
        Url { host, port: self.address.port(), target: NAME.into(), lun }
    }

    /// Puts a cartridge into the first drive, behind everybody's back.
    pub(crate) fn insert(&self, number: usize) {
        let library = self.shared.library.lock().unwrap();
        let drive = Arc::clone(library.drives().next().unwrap());
        drop(library);
        drive.lock().unwrap().insert(&barcode(number)).unwrap();
    }

    /// LOGICAL UNIT RESET of the first drive, by another.
    pub(crate) fn reset_drive(&self) {
        let library = self.shared.library.lock().unwrap();
        library.drives().next().unwrap().lock().unwrap().reset();
    }

    /// What is on a cartridge: the bytes of records, `None` for filemarks.
    pub(crate) fn tape(&self, number: usize) -> Vec<Option<Vec<u8>>> {
        let objects = self.shelf.tape(&barcode(number)).unwrap().objects.into_iter();
        let object = |object| match object {
            TapeObject::Record(bytes) => Some(bytes),
            TapeObject::Filemark => None,
        };
        objects.map(object).collect()
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.shared.plan.lock().unwrap()
    }

    /// Trouble at the PDU of this number from now on.
    pub(crate) fn plan_trouble(&self, at: usize, trouble: Trouble) {
        let mut plan = self.plan();
        plan.pdus = 0;
        plan.trouble = Some((at, trouble));
    }

    /// Whether the planned trouble is still to come.
    pub(crate) fn is_spared(&self) -> bool {
        self.plan().trouble.is_some()
    }

    pub(crate) fn be_silent(&self, opcode: Option<u8>) {
        self.plan().silent = opcode;
    }

    pub(crate) fn logins(&self) -> usize {
        self.plan().logins
    }

    pub(crate) fn logouts(&self) -> usize {
        self.plan().logouts
    }

    pub(crate) fn aborted(&self) -> usize {
        self.plan().aborted
    }

    pub(crate) fn commands(&self, opcode: u8) -> usize {
        self.plan().commands.get(&opcode).copied().unwrap_or(0)
    }
}

impl<M: Medium> Shared<M> {
    fn trouble(&self) -> Option<Trouble> {
        let mut plan = self.plan.lock().unwrap();
        plan.pdus += 1;
        let (at, trouble) = plan.trouble?;
        if plan.pdus <= at {
            return None;
        }
        plan.trouble = None;
        drop(plan);
        if trouble == Trouble::Restart {
            let library = self.library.lock().unwrap();
            for drive in library.drives() {
                let mut drive = drive.lock().unwrap();
                let rewind = [1, 0, 0, 0, 0, 0];
                let control = Control::within(Duration::from_secs(5));
                // Its unit attention first, then the command.
                for _ in 0..3 {
                    let _ = drive.execute_cdb(u64::MAX, &rewind, Transfer::None, &control);
                }
                drive.reset();
            }
        }
        Some(trouble)
    }
}

struct Connection<'a, M: Medium> {
    shared: &'a Shared<M>,
    stream: TcpStream,
    decoder: Decoder,
    digests: Digests,
    stat_sn: u32,
    exp_cmd_sn: u32,
    nexus: u64,
    in_full: bool,
    /// A command that gets no answer until it is aborted.
    unanswered: Option<u32>,
}

/// The connection is over.
struct Over;

fn serve<M: Medium>(shared: &Shared<M>, stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let nexus = shared.nexus.fetch_add(1, Ordering::Relaxed);
    let mut connection = Connection {
        shared,
        stream,
        decoder: Decoder::new(Digests::default(), 1 << 20),
        digests: Digests::default(),
        stat_sn: 1000,
        exp_cmd_sn: 0,
        nexus,
        in_full: false,
        unanswered: None,
    };
    if connection.login().is_ok() {
        shared.plan.lock().unwrap().logins += 1;
        connection.in_full = true;
        while connection.turn().is_ok() {}
    }
    shared.library.lock().unwrap().forget_nexus(nexus);
}

impl<M: Medium> Connection<'_, M> {
    fn receive(&mut self) -> Result<(Pdu, Vec<u8>), Over> {
        loop {
            let count = self.stream.read(self.decoder.space()).map_err(|_| Over)?;
            if count == 0 {
                return Err(Over);
            }
            let Some((pdu, data)) = self.decoder.filled(count).map_err(|_| Over)? else { continue };
            let frame = (pdu, data.to_vec());
            if !self.in_full {
                return Ok(frame);
            }
            match self.shared.trouble() {
                None => return Ok(frame),
                Some(Trouble::Corrupt) => {
                    // As if a digest of the initiator's data were wrong.
                    let stat_sn = self.status();
                    let reject = Reject { last: true, reason: 2, stat_sn, ..Reject::default() };
                    let (head, tail) = encode(&reject.into(), &[], self.digests);
                    let _ = self.stream.write_all(&[head, tail].concat());
                    return Err(Over);
                }
                Some(_) => return Err(Over),
            }
        }
    }

    fn send(&mut self, pdu: impl Into<Pdu>, data: &[u8]) -> Result<(), Over> {
        let trouble = if self.in_full { self.shared.trouble() } else { None };
        let (head, tail) = encode(&pdu.into(), data, self.digests);
        let mut bytes = [&head, data, &tail].concat();
        match trouble {
            Some(Trouble::Corrupt) => {
                let at = bytes.len() - 5;
                bytes[at] ^= 0x40;
            }
            Some(_) => return Err(Over),
            None => {}
        }
        self.stream.write_all(&bytes).map_err(|_| Over)
    }

    fn status(&mut self) -> u32 {
        self.stat_sn += 1;
        self.stat_sn - 1
    }

    fn max_cmd_sn(&self) -> u32 {
        self.exp_cmd_sn.wrapping_add(3)
    }

    fn login(&mut self) -> Result<(), Over> {
        let mut challenge = Vec::new();
        loop {
            let (Pdu::LoginRequest(request), data) = self.receive()? else { return Err(Over) };
            let pairs = Pairs::parse(&data).map_err(|_| Over)?;
            self.exp_cmd_sn = request.cmd_sn;
            let answer = match request.stage {
                0 => self.security(&pairs, &mut challenge),
                _ => Some((self.operational(&pairs), true)),
            };
            let stat_sn = self.status();
            let LoginRequest { stage, next, isid, task, .. } = request;
            let mut response = LoginResponse {
                stage,
                isid,
                task,
                stat_sn,
                tsih: 1,
                exp_cmd_sn: self.exp_cmd_sn,
                max_cmd_sn: self.max_cmd_sn(),
                ..LoginResponse::default()
            };
            let Some((answer, transit)) = answer else {
                (response.class, response.detail) = (2, 1);
                self.send(response, &[])?;
                return Err(Over);
            };
            response.transit = transit && request.transit;
            response.next = if response.transit { next } else { 0 };
            let done = response.transit && next == 3;
            self.send(response, &answer.encode())?;
            if done {
                self.digests = Digests {
                    header: self.shared.manners.digests,
                    data: self.shared.manners.digests,
                };
                self.decoder.agree(self.digests, 1 << 20);
                return Ok(());
            }
        }
    }

    /// The answer, and whether the stage may end; `None` for a refusal.
    fn security(&self, pairs: &Pairs, challenge: &mut Vec<u8>) -> Option<(Pairs, bool)> {
        let mut answer = Pairs::default();
        let Some([user, secret, target, target_secret]) = self.shared.manners.chap else {
            answer.add("AuthMethod", "None");
            return Some((answer, true));
        };
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        if pairs.get("CHAP_A").is_some() {
            *challenge = vec![7, 7, 7, 7, 7];
            answer.add("CHAP_A", "5").add("CHAP_I", "42");
            answer.add("CHAP_C", format!("0x{}", hex(challenge)));
            return Some((answer, false));
        }
        if let Some(proof) = pairs.get("CHAP_R") {
            let secret = iscsi::Secret::new(secret.as_bytes().to_vec());
            let expected = format!("0x{}", hex(&chap_response(42, &secret, challenge)));
            if proof != expected || pairs.get("CHAP_N") != Some(user) {
                return None;
            }
            if let (Some(number), Some(theirs)) = (pairs.get("CHAP_I"), pairs.get("CHAP_C")) {
                let theirs: Vec<u8> = (2..theirs.len())
                    .step_by(2)
                    .map(|i| u8::from_str_radix(&theirs[i..i + 2], 16).unwrap())
                    .collect();
                let secret = iscsi::Secret::new(target_secret.as_bytes().to_vec());
                let proof = chap_response(number.parse().unwrap(), &secret, &theirs);
                answer.add("CHAP_N", target).add("CHAP_R", format!("0x{}", hex(&proof)));
            }
            return Some((answer, true));
        }
        match pairs.get("AuthMethod") {
            Some("CHAP") => {
                answer.add("AuthMethod", "CHAP");
                Some((answer, false))
            }
            _ => None,
        }
    }

    fn operational(&self, pairs: &Pairs) -> Pairs {
        let manners = &self.shared.manners;
        let mut answer = Pairs::default();
        let yes = |on| if on { "Yes" } else { "No" };
        for (key, _) in pairs.iter() {
            let value = match key {
                "HeaderDigest" | "DataDigest" if manners.digests => "CRC32C".to_owned(),
                "HeaderDigest" | "DataDigest" => "None".to_owned(),
                "MaxRecvDataSegmentLength" => manners.segment.to_string(),
                "MaxBurstLength" => manners.burst.to_string(),
                "FirstBurstLength" => manners.first_burst.to_string(),
                "InitialR2T" => yes(manners.initial_r2t).to_owned(),
                "ImmediateData" => yes(manners.immediate).to_owned(),
                "DefaultTime2Wait" => "2".to_owned(),
                "ErrorRecoveryLevel" | "DefaultTime2Retain" => "0".to_owned(),
                "MaxOutstandingR2T" | "MaxConnections" => "1".to_owned(),
                "DataPDUInOrder" | "DataSequenceInOrder" => "Yes".to_owned(),
                _ => continue,
            };
            answer.add(key, value);
        }
        answer
    }

    /// One PDU of the initiator.
    fn turn(&mut self) -> Result<(), Over> {
        let (pdu, data) = self.receive()?;
        match pdu {
            Pdu::Command(command) => self.command(&command, data),
            Pdu::NopOut(ping) if ping.task != NO_TAG => {
                let stat_sn = self.status();
                let pong = NopIn {
                    last: true,
                    task: ping.task,
                    transfer: NO_TAG,
                    stat_sn,
                    exp_cmd_sn: self.exp_cmd_sn,
                    max_cmd_sn: self.max_cmd_sn(),
                    ..NopIn::default()
                };
                self.send(pong, &data)
            }
            Pdu::TaskRequest(request) => {
                self.shared.plan.lock().unwrap().aborted += 1;
                self.unanswered = None;
                let (stat_sn, max_cmd_sn) = (self.status(), self.max_cmd_sn());
                let exp_cmd_sn = self.exp_cmd_sn;
                let task = request.task;
                self.send(
                    TaskResponse { last: true, task, stat_sn, exp_cmd_sn, max_cmd_sn, response: 0 },
                    &[],
                )
            }
            Pdu::TextRequest(request) => {
                self.exp_cmd_sn += 1;
                let mut answer = Pairs::default();
                answer.add("TargetName", NAME).add("TargetAddress", "192.0.2.1:3260,1");
                let (stat_sn, max_cmd_sn) = (self.status(), self.max_cmd_sn());
                let response = TextResponse {
                    last: true,
                    task: request.task,
                    transfer: NO_TAG,
                    stat_sn,
                    exp_cmd_sn: self.exp_cmd_sn,
                    max_cmd_sn,
                    ..TextResponse::default()
                };
                self.send(response, &answer.encode())
            }
            Pdu::LogoutRequest(request) => {
                self.shared.plan.lock().unwrap().logouts += 1;
                let stat_sn = self.status();
                let task = request.task;
                self.send(LogoutResponse { last: true, task, stat_sn, ..Default::default() }, &[])?;
                Err(Over)
            }
            _ => Ok(()),
        }
    }

    fn command(&mut self, command: &Command, immediate: Vec<u8>) -> Result<(), Over> {
        self.exp_cmd_sn += 1;
        let opcode = command.cdb[0];
        let is_silent = {
            let mut plan = self.shared.plan.lock().unwrap();
            *plan.commands.entry(opcode).or_default() += 1;
            plan.silent == Some(opcode)
        };
        let expected = command.expected as usize;
        let mut out = immediate;
        if command.write {
            self.collect(command, &mut out, expected)?;
        }
        if is_silent {
            self.unanswered = Some(command.task);
            return Ok(());
        }
        let mut buffer = vec![0; if command.read { expected } else { 0 }];
        let answer = self.execute(command, &out, &mut buffer);
        let moved = if command.read { answer.moved } else { 0 };
        let mut data_sn = 0;
        for (i, chunk) in buffer[..moved].chunks(700).enumerate() {
            let pdu = DataIn {
                last: (i + 1) * 700 >= moved,
                task: command.task,
                transfer: NO_TAG,
                exp_cmd_sn: self.exp_cmd_sn,
                max_cmd_sn: self.max_cmd_sn(),
                data_sn,
                offset: (i * 700) as u32,
                ..DataIn::default()
            };
            self.send(pdu, chunk)?;
            data_sn += 1;
        }
        let sense = answer.sense.map(|sense| sense.to_fixed()).unwrap_or_default();
        let sense = match answer.status {
            2 => [&(sense.len() as u16).to_be_bytes()[..], &sense].concat(),
            _ => Vec::new(),
        };
        let response = Response {
            last: true,
            overflow: answer.residual < 0,
            underflow: answer.residual > 0,
            status: answer.status,
            task: command.task,
            stat_sn: self.status(),
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.max_cmd_sn(),
            exp_data_sn: data_sn,
            residual: answer.residual.unsigned_abs() as u32,
            ..Response::default()
        };
        self.send(response, &sense)
    }

    /// The data of a write: what comes unasked, then what is asked for.
    fn collect(
        &mut self,
        command: &Command,
        out: &mut Vec<u8>,
        expected: usize,
    ) -> Result<(), Over> {
        let mut more = !command.last;
        while more {
            more = !self.data(out, NO_TAG)?.last;
        }
        let mut r2t_sn = 0;
        while out.len() < expected {
            let length = (expected - out.len()).min(self.shared.manners.burst);
            let request = ReadyToTransfer {
                last: true,
                task: command.task,
                transfer: 9000 + r2t_sn,
                stat_sn: self.stat_sn,
                exp_cmd_sn: self.exp_cmd_sn,
                max_cmd_sn: self.max_cmd_sn(),
                r2t_sn,
                offset: out.len() as u32,
                length: length as u32,
                ..ReadyToTransfer::default()
            };
            self.send(request, &[])?;
            let end = out.len() + length;
            while out.len() < end {
                self.data(out, 9000 + r2t_sn)?;
            }
            assert_eq!(out.len(), end, "more came than was asked for");
            r2t_sn += 1;
        }
        Ok(())
    }

    fn data(&mut self, out: &mut Vec<u8>, transfer: u32) -> Result<DataOut, Over> {
        let (Pdu::DataOut(pdu), data) = self.receive()? else { return Err(Over) };
        assert_eq!((pdu.transfer, pdu.offset as usize), (transfer, out.len()));
        assert!(data.len() <= self.shared.manners.segment);
        out.extend(data);
        Ok(pdu)
    }

    fn execute(&self, command: &Command, out: &[u8], buffer: &mut [u8]) -> Answer {
        let transfer = match (command.read, command.write) {
            (true, _) => Transfer::In(buffer),
            (_, true) => Transfer::Out(out),
            _ => Transfer::None,
        };
        let length = match command.cdb[0] >> 5 {
            0 => 6,
            1 | 2 => 10,
            4 => 16,
            _ => 12,
        };
        let cdb = &command.cdb[..length];
        let control = Control::within(Duration::from_secs(5));
        let lun = (command.lun >> 48) as u16;
        let mut library = self.shared.library.lock().unwrap();
        let drive = library.drives().nth(usize::from(lun.saturating_sub(DRIVE))).cloned();
        match lun {
            CHANGER => library.execute_cdb(self.nexus, cdb, transfer, &control).unwrap(),
            0 => {
                let moved = unit_zero(cdb[0], buffer_of(transfer));
                let residual = command.expected as i64 - moved as i64;
                Answer { status: 0, sense: None, moved, residual }
            }
            _ => {
                drop(library);
                let drive = drive.unwrap();
                let mut drive = drive.lock().unwrap();
                let answer = drive.execute_cdb(self.nexus, cdb, transfer, &control).unwrap();
                self.warn_late(cdb[0], answer)
            }
        }
    }

    fn warn_late(&self, opcode: u8, answer: Answer) -> Answer {
        const WRITE: u8 = 0x0a;
        let warned = answer.sense.is_some_and(|sense| sense.key == 0 && sense.eom);
        let mut plan = self.shared.plan.lock().unwrap();
        if opcode != WRITE || !warned || plan.held_back >= self.shared.manners.late_warning {
            plan.held_back = if warned { usize::MAX } else { 0 };
            return answer;
        }
        plan.held_back += 1;
        Answer { status: 0, sense: None, ..answer }
    }
}

fn buffer_of(transfer: Transfer<'_>) -> &mut [u8] {
    match transfer {
        Transfer::In(buffer) => buffer,
        _ => &mut [],
    }
}

/// Unit 0, which is no device: INQUIRY says so, all else is answered with REPORT LUNS.
fn unit_zero(opcode: u8, buffer: &mut [u8]) -> usize {
    // Nothing can be there (SPC-4 6.6.2: qualifier 3, type 1Fh); SPC-4, 36 bytes.
    let nothing = [&[0x7f, 0, 6, 2, 31][..], &[0; 31]].concat();
    let answer = if opcode == 0x12 { nothing } else { scsi::luns(&[0, 1, 2, 3]) };
    let n = answer.len().min(buffer.len());
    buffer[..n].copy_from_slice(&answer[..n]);
    n
}
