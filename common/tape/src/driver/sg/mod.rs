//! The way to a device through a node of the Linux SCSI generic driver, `/dev/sgN`.
//!
//! All users of a node on this host are one initiator to the device: a unit attention that one of
//! them takes no other sees, and a reservation binds none of them.

mod ioctl;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::ioctl::{Memory, Outcome};
use super::transport::{Data, ScsiCompletion, ScsiTransport, TransportError};

/// Memory that goes to a host adapter begins at a page.
const PAGE: usize = 4096;
/// The longest transfer where the kernel does not tell: 128 pages.
const TRANSFER_DEFAULT: usize = 128 * PAGE;
/// The longest buffer that is kept for the next command.
const KEPT: usize = 1 << 20;

/// A [`ScsiTransport`] to `/dev/sgN`.
#[derive(Debug)]
pub struct SgTransport {
    path: PathBuf,
    node: File,
    longest: usize,
    buffer: Vec<u8>,
}

impl SgTransport {
    /// Opens a node.
    ///
    /// # Errors
    /// It is not there, or it is not ours to open.
    pub fn open(path: &Path) -> Result<Self, TransportError> {
        // Without O_NONBLOCK another host's exclusive open would block this one for ever.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let node = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let shown = path.display();
        let node = node.map_err(|error| TransportError::NotSent(format!("{shown}: {error}")))?;
        let longest = longest(ioctl::limits(&node));
        Ok(Self { path: path.to_owned(), node, longest, buffer: Vec::new() })
    }

    /// A page-aligned piece of the buffer.
    fn aligned(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
        if buffer.len() < length + PAGE {
            buffer.resize(length + PAGE, 0);
        }
        let start = buffer.as_ptr().align_offset(PAGE).min(PAGE);
        &mut buffer[start..start + length]
    }
}

impl ScsiTransport for SgTransport {
    fn execute(
        &mut self,
        cdb: &[u8],
        mut data: Data<'_>,
        timeout: Duration,
    ) -> Result<ScsiCompletion, TransportError> {
        let length = match &data {
            Data::None => 0,
            Data::In(buffer) => buffer.len(),
            Data::Out(bytes) => bytes.len(),
        };
        if length > self.longest {
            return Err(TransportError::NotSent(format!(
                "{}: {length} bytes in one transfer; the host adapter takes {}",
                self.path.display(),
                self.longest
            )));
        }
        let mut padded = [0; 16];
        let cdb = &cdb[..cdb.len().min(16)];
        padded[..cdb.len()].copy_from_slice(cdb);
        let mut sense = [0; 252];
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let room = Self::aligned(&mut self.buffer, length);
        let memory = match &data {
            Data::None => Memory::None,
            Data::In(_) => Memory::In(&mut *room),
            Data::Out(bytes) => {
                room.copy_from_slice(bytes);
                Memory::Out(&*room)
            }
        };
        let ended =
            ioctl::execute(&self.node, &padded, cdb.len() as u8, memory, &mut sense, milliseconds);
        let ended = ended.map_err(|error| failed(&self.path, &error));
        let completion = ended.and_then(|outcome| decode(&outcome, &sense));
        if let (Data::In(buffer), Ok(_)) = (&mut data, &completion) {
            buffer.copy_from_slice(room);
        }
        if self.buffer.len() > KEPT + PAGE {
            self.buffer = Vec::new();
        }
        completion
    }

    fn longest(&self) -> usize {
        self.longest
    }
}

/// By the pieces that the host adapter takes: pages, in the worst case.
fn longest((pieces, bytes): (Option<i32>, Option<i32>)) -> usize {
    let positive = |value: Option<i32>| {
        value.and_then(|value| usize::try_from(value).ok()).filter(|value| *value > 0)
    };
    let by_pieces = positive(pieces).map_or(TRANSFER_DEFAULT, |pieces| pieces * PAGE);
    positive(bytes).map_or(by_pieces, |bytes| bytes.min(by_pieces))
}

/// An ioctl that did not execute the command, or of which that is not known.
fn failed(path: &Path, error: &io::Error) -> TransportError {
    use rustix::io::Errno;
    const NOT_SENT: [Errno; 9] = [
        Errno::INVAL,
        Errno::NOMEM,
        Errno::NODEV,
        Errno::NXIO,
        Errno::ACCESS,
        Errno::PERM,
        Errno::NOTTY,
        Errno::BADF,
        Errno::BUSY,
    ];
    let text = format!("{}: {error}", path.display());
    match Errno::from_io_error(error).is_some_and(|errno| NOT_SENT.contains(&errno)) {
        true => TransportError::NotSent(text),
        false => TransportError::Broken(text),
    }
}

/// Host status of the kernel (`scsi_status.h`): where the command never left.
const NO_CONNECT: u16 = 0x01;
const TIME_OUT: u16 = 0x03;
const BAD_TARGET: u16 = 0x04;
/// Driver status: sense data are there, which is no fault.
const DRIVER_SENSE: u16 = 0x08;
const DRIVER_TIMEOUT: u16 = 0x06;

/// What the kernel says, in words of SAM.
fn decode(outcome: &Outcome, sense: &[u8]) -> Result<ScsiCompletion, TransportError> {
    let Outcome { status, sense_length, host_status, driver_status, residual } = *outcome;
    let said = || format!("host status {host_status:02x}h, driver status {driver_status:02x}h");
    match (host_status, driver_status & 0x0f) {
        (0, 0 | DRIVER_SENSE) => {}
        (NO_CONNECT | BAD_TARGET, _) => {
            return Err(TransportError::NotSent(format!("the device is gone ({})", said())));
        }
        (TIME_OUT, _) | (_, DRIVER_TIMEOUT) => return Err(TransportError::TimedOut),
        _ => return Err(TransportError::Broken(said())),
    }
    let sense = sense[..usize::from(sense_length).min(sense.len())].to_vec();
    // Some adapters give sense data and forget the status.
    let status = if status == 0 && !sense.is_empty() { 0x02 } else { status };
    Ok(ScsiCompletion { status, sense, residual: residual.into() })
}

/// A node of this host that is a tape drive or a medium changer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SgNode {
    /// `/dev/sgN`.
    pub path: PathBuf,
    /// A changer, not a drive.
    pub is_changer: bool,
}

/// The tape drives and medium changers of this host, by what the kernel found.
pub fn sg_nodes() -> Vec<SgNode> {
    nodes_in(Path::new("/sys/class/scsi_generic"))
}

fn nodes_in(class: &Path) -> Vec<SgNode> {
    let Ok(entries) = std::fs::read_dir(class) else { return Vec::new() };
    let node = |entry: std::fs::DirEntry| {
        let kind = std::fs::read_to_string(entry.path().join("device/type")).ok()?;
        let is_changer = match kind.trim() {
            "1" => false,
            "8" => true,
            _ => return None,
        };
        Some(SgNode { path: Path::new("/dev").join(entry.file_name()), is_changer })
    };
    let mut nodes: Vec<_> = entries.flatten().filter_map(node).collect();
    nodes.sort_by_key(|node| (node.path.as_os_str().len(), node.path.clone()));
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood() {
        let sense = [0x70, 0, 0x20, 0, 0, 0, 5];
        let ok = Outcome { residual: 7, ..Outcome::default() };
        let done = |status, sense: &[u8], residual| {
            Ok(ScsiCompletion { status, sense: sense.to_vec(), residual })
        };
        assert_eq!(decode(&ok, &sense), done(0, &[], 7));
        let check = Outcome { status: 2, sense_length: 3, driver_status: 8, ..ok };
        assert_eq!(decode(&check, &sense), done(2, &sense[..3], 7));
        let forgotten = Outcome { status: 0, ..check };
        assert_eq!(decode(&forgotten, &sense), done(2, &sense[..3], 7));
        let boastful = Outcome { sense_length: 250, ..check };
        assert_eq!(decode(&boastful, &sense), done(2, &sense, 7));
        assert_eq!(decode(&Outcome { status: 0x18, ..ok }, &sense), done(0x18, &[], 7));
        for (host_status, driver_status, kind) in [
            (0x01, 0, "no"),
            (0x04, 0, "no"),
            (0x03, 0, "time"),
            (0x00, 0x06, "time"),
            (0x02, 0, "broken"),
            (0x05, 0, "broken"),
            (0x07, 0x08, "broken"),
            (0x08, 0, "broken"),
            (0x00, 0x05, "broken"),
        ] {
            let error = decode(&Outcome { host_status, driver_status, ..ok }, &sense);
            let found = match error {
                Err(TransportError::NotSent(_)) => "no",
                Err(TransportError::TimedOut) => "time",
                Err(TransportError::Broken(_)) => "broken",
                Ok(_) => "done",
            };
            assert_eq!(found, kind, "{host_status:02x} {driver_status:02x}");
        }
    }

    #[test]
    fn only_what_surely_was_not_sent_is_called_so() {
        let error = |code| failed(Path::new("/dev/sg0"), &io::Error::from_raw_os_error(code));
        for code in [22, 12, 19, 6, 13, 16] {
            assert!(matches!(error(code), TransportError::NotSent(_)), "{code}");
        }
        // EINTR, EIO: the command may have run.
        for code in [4, 5] {
            assert!(matches!(error(code), TransportError::Broken(_)), "{code}");
        }
    }

    #[test]
    fn the_kernel_limits_a_transfer() {
        assert_eq!(longest((None, None)), 512 << 10);
        assert_eq!(longest((Some(128), Some(1_310_720))), 512 << 10);
        assert_eq!(longest((Some(2048), Some(4 << 20))), 4 << 20);
        assert_eq!(longest((Some(0), Some(-1))), 512 << 10);
    }

    #[test]
    fn memory_begins_at_a_page() {
        let mut buffer = Vec::new();
        for length in [0, 1, 4096, 300_000, 17] {
            let room = SgTransport::aligned(&mut buffer, length);
            assert_eq!((room.len(), room.as_ptr() as usize % PAGE), (length, 0));
        }
    }

    #[test]
    fn nodes_are_found_by_what_the_kernel_knows() {
        let dir = tempfile::tempdir().unwrap();
        for (name, kind) in [("sg10", "1\n"), ("sg2", "8\n"), ("sg0", "0\n"), ("sg1", "1\n")] {
            let device = dir.path().join(name).join("device");
            std::fs::create_dir_all(&device).unwrap();
            std::fs::write(device.join("type"), kind).unwrap();
        }
        std::fs::create_dir(dir.path().join("sg3")).unwrap();
        let found = nodes_in(dir.path());
        let found: Vec<_> =
            found.iter().map(|n| (n.path.to_str().unwrap(), n.is_changer)).collect();
        assert_eq!(found, [("/dev/sg1", false), ("/dev/sg2", true), ("/dev/sg10", false)]);
        assert!(nodes_in(&dir.path().join("none")).is_empty());
    }

    #[test]
    fn what_is_no_node_is_not_driven() {
        let error = SgTransport::open(Path::new("/dev/sg-none")).unwrap_err();
        assert!(matches!(error, TransportError::NotSent(_)), "{error}");
        // A file takes no SG_IO, and says so before anything is sent.
        let mut transport = SgTransport::open(Path::new("/dev/null")).unwrap();
        let error = transport.execute(&[0; 6], Data::None, Duration::from_secs(1)).unwrap_err();
        assert!(matches!(error, TransportError::NotSent(_)), "{error}");
    }
}
