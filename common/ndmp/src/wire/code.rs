//! Message codes and which version knows which.

use super::enums::{Version, wire_enum};

wire_enum! {
    /// `ndmp_message`: what a message is about. The names are those of version 4 where the
    /// versions differ.
    MessageCode, "message" {
        /// CONFIG: the host (v2: and its authentication types).
        ConfigGetHostInfo = 0x100 => "NDMP_CONFIG_GET_HOST_INFO",
        /// CONFIG: attributes of a backup type (v2).
        ConfigGetButypeAttr = 0x101 => "NDMP_CONFIG_GET_BUTYPE_ATTR",
        /// CONFIG: kinds of data connection (v2: `GET_MOVER_TYPE`).
        ConfigGetConnectionType = 0x102 => "NDMP_CONFIG_GET_CONNECTION_TYPE",
        /// CONFIG: what an authentication type needs.
        ConfigGetAuthAttr = 0x103 => "NDMP_CONFIG_GET_AUTH_ATTR",
        /// CONFIG: backup types (v3 on).
        ConfigGetButypeInfo = 0x104 => "NDMP_CONFIG_GET_BUTYPE_INFO",
        /// CONFIG: file systems (v3 on).
        ConfigGetFsInfo = 0x105 => "NDMP_CONFIG_GET_FS_INFO",
        /// CONFIG: tape drives (v3 on).
        ConfigGetTapeInfo = 0x106 => "NDMP_CONFIG_GET_TAPE_INFO",
        /// CONFIG: changers (v3 on).
        ConfigGetScsiInfo = 0x107 => "NDMP_CONFIG_GET_SCSI_INFO",
        /// CONFIG: the server (v3 on).
        ConfigGetServerInfo = 0x108 => "NDMP_CONFIG_GET_SERVER_INFO",
        /// CONFIG: choose extensions (v4).
        ConfigSetExtList = 0x109 => "NDMP_CONFIG_SET_EXT_LIST",
        /// CONFIG: extensions (v4).
        ConfigGetExtList = 0x10a => "NDMP_CONFIG_GET_EXT_LIST",
        /// SCSI: open.
        ScsiOpen = 0x200 => "NDMP_SCSI_OPEN",
        /// SCSI: close.
        ScsiClose = 0x201 => "NDMP_SCSI_CLOSE",
        /// SCSI: which target.
        ScsiGetState = 0x202 => "NDMP_SCSI_GET_STATE",
        /// SCSI: choose a target (v2, v3).
        ScsiSetTarget = 0x203 => "NDMP_SCSI_SET_TARGET",
        /// SCSI: reset the device.
        ScsiResetDevice = 0x204 => "NDMP_SCSI_RESET_DEVICE",
        /// SCSI: reset the bus (v2, v3).
        ScsiResetBus = 0x205 => "NDMP_SCSI_RESET_BUS",
        /// SCSI: pass a CDB.
        ScsiExecuteCdb = 0x206 => "NDMP_SCSI_EXECUTE_CDB",
        /// TAPE: open.
        TapeOpen = 0x300 => "NDMP_TAPE_OPEN",
        /// TAPE: close.
        TapeClose = 0x301 => "NDMP_TAPE_CLOSE",
        /// TAPE: position and medium.
        TapeGetState = 0x302 => "NDMP_TAPE_GET_STATE",
        /// TAPE: move, or write filemarks.
        TapeMtio = 0x303 => "NDMP_TAPE_MTIO",
        /// TAPE: write a record.
        TapeWrite = 0x304 => "NDMP_TAPE_WRITE",
        /// TAPE: read a record.
        TapeRead = 0x305 => "NDMP_TAPE_READ",
        /// TAPE: pass a CDB.
        TapeExecuteCdb = 0x307 => "NDMP_TAPE_EXECUTE_CDB",
        /// DATA: state.
        DataGetState = 0x400 => "NDMP_DATA_GET_STATE",
        /// DATA: start a backup.
        DataStartBackup = 0x401 => "NDMP_DATA_START_BACKUP",
        /// DATA: start a recovery.
        DataStartRecover = 0x402 => "NDMP_DATA_START_RECOVER",
        /// DATA: abort.
        DataAbort = 0x403 => "NDMP_DATA_ABORT",
        /// DATA: environment of the backup.
        DataGetEnv = 0x404 => "NDMP_DATA_GET_ENV",
        /// DATA: stop.
        DataStop = 0x407 => "NDMP_DATA_STOP",
        /// DATA: listen (v3 on).
        DataListen = 0x409 => "NDMP_DATA_LISTEN",
        /// DATA: connect (v3 on).
        DataConnect = 0x40a => "NDMP_DATA_CONNECT",
        /// DATA: recover file history.
        DataStartRecoverFilehist = 0x40b => "NDMP_DATA_START_RECOVER_FILEHIST",
        /// NOTIFY: the data server has halted.
        NotifyDataHalted = 0x501 => "NDMP_NOTIFY_DATA_HALTED",
        /// NOTIFY: connected, refused, or going down.
        NotifyConnectionStatus = 0x502 => "NDMP_NOTIFY_CONNECTION_STATUS",
        /// NOTIFY: the mover has halted.
        NotifyMoverHalted = 0x503 => "NDMP_NOTIFY_MOVER_HALTED",
        /// NOTIFY: the mover has paused.
        NotifyMoverPaused = 0x504 => "NDMP_NOTIFY_MOVER_PAUSED",
        /// NOTIFY: the data server wants data.
        NotifyDataRead = 0x505 => "NDMP_NOTIFY_DATA_READ",
        /// LOG: a line (v2).
        LogLog = 0x600 => "NDMP_LOG_LOG",
        /// LOG: a line for the developer (v2).
        LogDebug = 0x601 => "NDMP_LOG_DEBUG",
        /// LOG: a file was recovered, or not.
        LogFile = 0x602 => "NDMP_LOG_FILE",
        /// LOG: a line (v3 on).
        LogMessage = 0x603 => "NDMP_LOG_MESSAGE",
        /// File history: paths (v2).
        FhAddUnixPath = 0x700 => "NDMP_FH_ADD_UNIX_PATH",
        /// File history: directories (v2).
        FhAddUnixDir = 0x701 => "NDMP_FH_ADD_UNIX_DIR",
        /// File history: nodes (v2).
        FhAddUnixNode = 0x702 => "NDMP_FH_ADD_UNIX_NODE",
        /// File history: files (v3 on).
        FhAddFile = 0x703 => "NDMP_FH_ADD_FILE",
        /// File history: directories (v3 on).
        FhAddDir = 0x704 => "NDMP_FH_ADD_DIR",
        /// File history: nodes (v3 on).
        FhAddNode = 0x705 => "NDMP_FH_ADD_NODE",
        /// CONNECT: choose the version.
        ConnectOpen = 0x900 => "NDMP_CONNECT_OPEN",
        /// CONNECT: log in.
        ConnectClientAuth = 0x901 => "NDMP_CONNECT_CLIENT_AUTH",
        /// CONNECT: good bye; has no reply.
        ConnectClose = 0x902 => "NDMP_CONNECT_CLOSE",
        /// CONNECT: the client asks the server to prove itself.
        ConnectServerAuth = 0x903 => "NDMP_CONNECT_SERVER_AUTH",
        /// MOVER: state and counters.
        MoverGetState = 0xa00 => "NDMP_MOVER_GET_STATE",
        /// MOVER: wait for a data connection.
        MoverListen = 0xa01 => "NDMP_MOVER_LISTEN",
        /// MOVER: go on after a pause.
        MoverContinue = 0xa02 => "NDMP_MOVER_CONTINUE",
        /// MOVER: abort.
        MoverAbort = 0xa03 => "NDMP_MOVER_ABORT",
        /// MOVER: back to idle.
        MoverStop = 0xa04 => "NDMP_MOVER_STOP",
        /// MOVER: the part of the stream that this tape holds.
        MoverSetWindow = 0xa05 => "NDMP_MOVER_SET_WINDOW",
        /// MOVER: send part of the stream.
        MoverRead = 0xa06 => "NDMP_MOVER_READ",
        /// MOVER: close the data connection.
        MoverClose = 0xa07 => "NDMP_MOVER_CLOSE",
        /// MOVER: bytes of a record.
        MoverSetRecordSize = 0xa08 => "NDMP_MOVER_SET_RECORD_SIZE",
        /// MOVER: dial a data connection (v3 on).
        MoverConnect = 0xa09 => "NDMP_MOVER_CONNECT",
    }
}

impl MessageCode {
    /// Whether `version` knows this message.
    pub fn exists_in(self, version: Version) -> bool {
        match self {
            Self::Unknown(_) => false,
            Self::ConfigGetButypeAttr
            | Self::LogLog
            | Self::LogDebug
            | Self::FhAddUnixPath
            | Self::FhAddUnixDir
            | Self::FhAddUnixNode => version == Version::V2,
            Self::ScsiSetTarget | Self::ScsiResetBus => version < Version::V4,
            Self::ConfigGetButypeInfo
            | Self::ConfigGetFsInfo
            | Self::ConfigGetTapeInfo
            | Self::ConfigGetScsiInfo
            | Self::ConfigGetServerInfo
            | Self::DataListen
            | Self::DataConnect
            | Self::LogMessage
            | Self::FhAddFile
            | Self::FhAddDir
            | Self::FhAddNode
            | Self::MoverConnect => version > Version::V2,
            Self::ConfigSetExtList | Self::ConfigGetExtList => version == Version::V4,
            _ => true,
        }
    }

    /// Whether this is sent by a server on its own, without a reply.
    pub fn is_post(self) -> bool {
        matches!(self.to_wire(), 0x500..=0x7ff)
    }

    /// Whether this is of the DATA interface.
    pub fn is_data(self) -> bool {
        matches!(self.to_wire(), 0x400..=0x4ff)
    }
}
