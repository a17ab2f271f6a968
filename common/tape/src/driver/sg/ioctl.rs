//! The ioctls of the SCSI generic driver: the one place of the house where Rust can not prove what
//! the kernel does with memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use rustix::ioctl::{Getter, Updater, ioctl};

/// `SG_IO`: executes a command and waits for its end.
const SG_IO: rustix::ioctl::Opcode = 0x2285;
/// `SG_GET_SG_TABLESIZE`: pieces of memory that the host adapter takes in one transfer.
const SG_GET_SG_TABLESIZE: rustix::ioctl::Opcode = 0x227f;
/// `BLKSECTGET`: for sg, bytes of the longest transfer.
const BLKSECTGET: rustix::ioctl::Opcode = 0x1267;

const NONE: i32 = -1;
const TO_DEVICE: i32 = -2;
const FROM_DEVICE: i32 = -3;

/// `struct sg_io_hdr` of `<scsi/sg.h>`.
#[repr(C)]
struct Header {
    interface_id: i32,
    direction: i32,
    cdb_length: u8,
    sense_room: u8,
    iovec_count: u16,
    data_length: u32,
    data: *mut u8,
    cdb: *const u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    pack_id: i32,
    user: *mut u8,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_length: u8,
    host_status: u16,
    driver_status: u16,
    residual: i32,
    duration_ms: u32,
    info: u32,
}

/// The memory of a command, which it borrows until it has ended.
pub(super) enum Memory<'a> {
    None,
    In(&'a mut [u8]),
    Out(&'a [u8]),
}

/// What the kernel says about a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) status: u8,
    pub(super) sense_length: u8,
    pub(super) host_status: u16,
    pub(super) driver_status: u16,
    pub(super) residual: i32,
}

/// Executes a command. Blocks until it has ended or the kernel has aborted it.
pub(super) fn execute(
    node: &File,
    cdb: &[u8; 16],
    cdb_length: u8,
    memory: Memory<'_>,
    sense: &mut [u8; 252],
    timeout_ms: u32,
) -> io::Result<Outcome> {
    let (direction, data, length) = match memory {
        Memory::None => (NONE, std::ptr::null_mut(), 0),
        Memory::In(buffer) => (FROM_DEVICE, buffer.as_mut_ptr(), buffer.len()),
        Memory::Out(bytes) => (TO_DEVICE, bytes.as_ptr().cast_mut(), bytes.len()),
    };
    let data_length = u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut header = Header {
        interface_id: i32::from(b'S'),
        direction,
        cdb_length: cdb_length.min(16),
        sense_room: 252,
        iovec_count: 0,
        data_length,
        data,
        cdb: cdb.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms,
        flags: 0,
        pack_id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_length: 0,
        host_status: 0,
        driver_status: 0,
        residual: 0,
        duration_ms: 0,
        info: 0,
    };
    // SAFETY: the header has the layout of the kernel's; its three pointers are to memory of the
    // lengths beside them, borrowed for longer than the call, which returns after the kernel's last
    // access (without SG_FLAG_MMAP_IO or SG_FLAG_DIRECT_IO it copies). The kernel only reads from
    // memory that goes to the device.
    unsafe { ioctl(node, Updater::<SG_IO, Header>::new(&mut header)) }?;
    Ok(Outcome {
        status: header.status,
        sense_length: header.sense_length,
        host_status: header.host_status,
        driver_status: header.driver_status,
        residual: header.residual,
    })
}

/// Pieces of memory in one transfer, and bytes of the longest one, each if the kernel tells.
pub(super) fn limits(node: &File) -> (Option<i32>, Option<i32>) {
    // SAFETY: both ioctls write one C int.
    let pieces = unsafe { ioctl(node, Getter::<SG_GET_SG_TABLESIZE, i32>::new()) };
    // SAFETY: as above.
    let bytes = unsafe { ioctl(node, Getter::<BLKSECTGET, i32>::new()) };
    (pieces.ok(), bytes.ok())
}
