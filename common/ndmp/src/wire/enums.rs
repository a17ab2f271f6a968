//! The protocol's enumerations, with the standard's own names for logs.

use std::fmt;

/// Declares an enumeration as it travels: a number on the wire, a name in logs, and a place for
/// values that the standard does not know, so that the session can answer them with
/// `NDMP_ILLEGAL_ARGS_ERR` rather than drop the message.
macro_rules! wire_enum {
    (
        $(#[$doc:meta])* $name:ident, $what:literal {
            $($(#[$item_doc:meta])* $item:ident = $value:literal => $text:literal,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$item_doc])* $item,)+
            /// A value that the standard does not know.
            Unknown(u32),
        }

        impl $name {
            /// Every value that the standard names.
            pub const ALL: &'static [Self] = &[$(Self::$item),+];

            /// From the number on the wire.
            pub fn from_wire(value: u32) -> Self {
                match value {
                    $($value => Self::$item,)+
                    other => Self::Unknown(other),
                }
            }

            /// The number on the wire.
            pub fn to_wire(self) -> u32 {
                match self {
                    $(Self::$item => $value,)+
                    Self::Unknown(other) => other,
                }
            }

            /// Whether the standard names this value.
            pub fn is_known(self) -> bool {
                !matches!(self, Self::Unknown(_))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$item => f.write_str($text),)+
                    Self::Unknown(other) => write!(f, concat!("unknown ", $what, " {}"), other),
                }
            }
        }
    };
}

pub(crate) use wire_enum;

/// The protocol versions served, oldest first so that they compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// NDMP version 2.
    V2,
    /// NDMP version 3.
    V3,
    /// NDMP version 4.
    V4,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 3] = [Self::V2, Self::V3, Self::V4];

    /// From the `protocol_version` of a message, `None` for one that is not spoken here.
    pub fn from_wire(value: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.to_wire() == value)
    }

    /// The `protocol_version` of a message.
    pub fn to_wire(self) -> u32 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NDMPv{}", self.to_wire())
    }
}

wire_enum! {
    /// `ndmp_error`: how a request was answered, in the header or first in the body.
    ErrorCode, "error" {
        /// Done.
        NoErr = 0 => "NDMP_NO_ERR",
        /// The server does not do this.
        NotSupported = 1 => "NDMP_NOT_SUPPORTED_ERR",
        /// Somebody else has the device.
        DeviceBusy = 2 => "NDMP_DEVICE_BUSY_ERR",
        /// This connection has a device open already.
        DeviceOpened = 3 => "NDMP_DEVICE_OPENED_ERR",
        /// Not authenticated.
        NotAuthorized = 4 => "NDMP_NOT_AUTHORIZED_ERR",
        /// The device was not opened for this.
        Permission = 5 => "NDMP_PERMISSION_ERR",
        /// No device is open.
        DevNotOpen = 6 => "NDMP_DEV_NOT_OPEN_ERR",
        /// The device failed.
        Io = 7 => "NDMP_IO_ERR",
        /// The device did not answer in time.
        Timeout = 8 => "NDMP_TIMEOUT_ERR",
        /// A value in the request is not allowed.
        IllegalArgs = 9 => "NDMP_ILLEGAL_ARGS_ERR",
        /// The drive is empty.
        NoTapeLoaded = 10 => "NDMP_NO_TAPE_LOADED_ERR",
        /// The medium is write protected.
        WriteProtect = 11 => "NDMP_WRITE_PROTECT_ERR",
        /// A filemark was met.
        Eof = 12 => "NDMP_EOF_ERR",
        /// The end of the medium, or of its data, was met.
        Eom = 13 => "NDMP_EOM_ERR",
        /// A file is not in the backup.
        FileNotFound = 14 => "NDMP_FILE_NOT_FOUND_ERR",
        /// The file descriptor is not valid.
        BadFile = 15 => "NDMP_BAD_FILE_ERR",
        /// There is no such device.
        NoDevice = 16 => "NDMP_NO_DEVICE_ERR",
        /// There is no such controller.
        NoBus = 17 => "NDMP_NO_BUS_ERR",
        /// The request could not be decoded.
        XdrDecode = 18 => "NDMP_XDR_DECODE_ERR",
        /// Not in this state.
        IllegalState = 19 => "NDMP_ILLEGAL_STATE_ERR",
        /// Something else.
        Undefined = 20 => "NDMP_UNDEFINED_ERR",
        /// The reply could not be encoded.
        XdrEncode = 21 => "NDMP_XDR_ENCODE_ERR",
        /// Out of memory.
        NoMem = 22 => "NDMP_NO_MEM_ERR",
        /// The data connection could not be made (version 3 on).
        Connect = 23 => "NDMP_CONNECT_ERR",
        /// A sequence number is out of order (version 4).
        SequenceNum = 24 => "NDMP_SEQUENCE_NUM_ERR",
        /// A mover read is under way already (version 4).
        ReadInProgress = 25 => "NDMP_READ_IN_PROGRESS_ERR",
        /// Something has to be done before this (version 4).
        Precondition = 26 => "NDMP_PRECONDITION_ERR",
        /// An extension class is not known (version 4).
        ClassNotSupported = 27 => "NDMP_CLASS_NOT_SUPPORTED_ERR",
        /// An extension's version is not known (version 4).
        VersionNotSupported = 28 => "NDMP_VERSION_NOT_SUPPORTED_ERR",
        /// An extension was chosen twice (version 4).
        ExtDuplClasses = 29 => "NDMP_EXT_DUPL_CLASSES_ERR",
        /// An extension can not be chosen now (version 4).
        ExtDnIllegal = 30 => "NDMP_EXT_DN_ILLEGAL_ERR",
    }
}

impl ErrorCode {
    /// The same error in the words of `version`: the later codes do not exist in the earlier
    /// versions, whose clients would not decode them.
    pub fn in_version(self, version: Version) -> Self {
        let (last, wire) = match version {
            Version::V2 => (22, self.to_wire()),
            Version::V3 => (23, self.to_wire()),
            Version::V4 => return self,
        };
        match self {
            _ if wire <= last => self,
            Self::Connect => Self::Io,
            Self::ReadInProgress | Self::Precondition => Self::IllegalState,
            _ => Self::Undefined,
        }
    }
}

wire_enum! {
    /// `ndmp_auth_type`.
    AuthType, "authentication type" {
        /// No password.
        None = 0 => "NDMP_AUTH_NONE",
        /// The password in clear.
        Text = 1 => "NDMP_AUTH_TEXT",
        /// A digest of the password and a challenge.
        Md5 = 2 => "NDMP_AUTH_MD5",
    }
}

wire_enum! {
    /// `ndmp_addr_type`: the kinds of data connection.
    AddrType, "address type" {
        /// Both ends in one server.
        Local = 0 => "NDMP_ADDR_LOCAL",
        /// TCP over IPv4.
        Tcp = 1 => "NDMP_ADDR_TCP",
        /// Fibre Channel (version 3 only).
        Fc = 2 => "NDMP_ADDR_FC",
        /// Interprocess (versions 3 and 4).
        Ipc = 3 => "NDMP_ADDR_IPC",
    }
}

wire_enum! {
    /// `ndmp_tape_open_mode`.
    TapeOpenMode, "tape open mode" {
        /// Reading only.
        Read = 0 => "NDMP_TAPE_READ_MODE",
        /// Reading and writing.
        ReadWrite = 1 => "NDMP_TAPE_RDWR_MODE",
        /// Reading and writing, whatever is or is not loaded (version 4).
        Raw = 2 => "NDMP_TAPE_RAW_MODE",
    }
}

wire_enum! {
    /// `ndmp_tape_mtio_op`.
    MtioOp, "tape operation" {
        /// Forward over filemarks.
        Fsf = 0 => "NDMP_MTIO_FSF",
        /// Back over filemarks.
        Bsf = 1 => "NDMP_MTIO_BSF",
        /// Forward over records.
        Fsr = 2 => "NDMP_MTIO_FSR",
        /// Back over records.
        Bsr = 3 => "NDMP_MTIO_BSR",
        /// Rewind.
        Rew = 4 => "NDMP_MTIO_REW",
        /// Write filemarks.
        Eof = 5 => "NDMP_MTIO_EOF",
        /// Unload.
        Off = 6 => "NDMP_MTIO_OFF",
        /// Test unit ready (version 4).
        Tur = 7 => "NDMP_MTIO_TUR",
    }
}

wire_enum! {
    /// `ndmp_mover_mode`, seen from the data connection.
    MoverMode, "mover mode" {
        /// From the data connection to the tape.
        Read = 0 => "NDMP_MOVER_MODE_READ",
        /// From the tape to the data connection.
        Write = 1 => "NDMP_MOVER_MODE_WRITE",
        /// None yet (state replies of version 4); `DATA` in version 2, never used.
        NoAction = 2 => "NDMP_MOVER_MODE_NOACTION",
    }
}

wire_enum! {
    /// `ndmp_mover_state`.
    MoverState, "mover state" {
        /// Nothing is going on.
        Idle = 0 => "NDMP_MOVER_STATE_IDLE",
        /// Waiting for the other end of the data connection.
        Listen = 1 => "NDMP_MOVER_STATE_LISTEN",
        /// Connected; data may move.
        Active = 2 => "NDMP_MOVER_STATE_ACTIVE",
        /// Connected; the client has to act.
        Paused = 3 => "NDMP_MOVER_STATE_PAUSED",
        /// Over.
        Halted = 4 => "NDMP_MOVER_STATE_HALTED",
    }
}

wire_enum! {
    /// `ndmp_mover_pause_reason`.
    PauseReason, "pause reason" {
        /// Not paused.
        NotApplicable = 0 => "NDMP_MOVER_PAUSE_NA",
        /// The end of the medium; in version 2 also that of the window.
        Eom = 1 => "NDMP_MOVER_PAUSE_EOM",
        /// A filemark.
        Eof = 2 => "NDMP_MOVER_PAUSE_EOF",
        /// A read outside of the window.
        Seek = 3 => "NDMP_MOVER_PAUSE_SEEK",
        /// The medium failed (versions 2 and 3).
        MediaError = 4 => "NDMP_MOVER_PAUSE_MEDIA_ERROR",
        /// The end of the window (version 3 on).
        Eow = 5 => "NDMP_MOVER_PAUSE_EOW",
    }
}

wire_enum! {
    /// `ndmp_mover_halt_reason`.
    HaltReason, "halt reason" {
        /// Not halted.
        NotApplicable = 0 => "NDMP_MOVER_HALT_NA",
        /// The data connection was closed.
        ConnectClosed = 1 => "NDMP_MOVER_HALT_CONNECT_CLOSED",
        /// The client aborted it.
        Aborted = 2 => "NDMP_MOVER_HALT_ABORTED",
        /// The server failed.
        InternalError = 3 => "NDMP_MOVER_HALT_INTERNAL_ERROR",
        /// The data connection broke.
        ConnectError = 4 => "NDMP_MOVER_HALT_CONNECT_ERROR",
        /// The medium failed (version 4).
        MediaError = 5 => "NDMP_MOVER_HALT_MEDIA_ERROR",
    }
}

wire_enum! {
    /// `ndmp_connection_status_reason`.
    ConnectionReason, "connection status" {
        /// Welcome.
        Connected = 0 => "NDMP_CONNECTED",
        /// The server ends the connection.
        Shutdown = 1 => "NDMP_SHUTDOWN",
        /// The server takes no more connections.
        Refused = 2 => "NDMP_REFUSED",
    }
}

wire_enum! {
    /// `ndmp_log_type` (version 3 on).
    LogType, "log type" {
        /// For the operator.
        Normal = 0 => "NDMP_LOG_NORMAL",
        /// For the developer.
        Debug = 1 => "NDMP_LOG_DEBUG",
        /// Something failed.
        Error = 2 => "NDMP_LOG_ERROR",
        /// Something may fail.
        Warning = 3 => "NDMP_LOG_WARNING",
    }
}

wire_enum! {
    /// `ndmp_data_halt_reason`, as a data server posts it.
    DataHaltReason, "data halt reason" {
        /// Not halted.
        NotApplicable = 0 => "NDMP_DATA_HALT_NA",
        /// Done.
        Successful = 1 => "NDMP_DATA_HALT_SUCCESSFUL",
        /// Aborted.
        Aborted = 2 => "NDMP_DATA_HALT_ABORTED",
        /// The server failed.
        InternalError = 3 => "NDMP_DATA_HALT_INTERNAL_ERROR",
        /// The data connection broke.
        ConnectError = 4 => "NDMP_DATA_HALT_CONNECT_ERROR",
    }
}
