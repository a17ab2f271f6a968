//! The basic header segments of RFC 7143 11, field by field.

/// Bytes of a basic header segment.
pub const BHS: usize = 48;

/// A task tag that names no task (RFC 7143 11.2.1.8).
pub const NO_TAG: u32 = 0xffff_ffff;

type Bytes = [u8; BHS];

/// Where a field is: its first byte, and in it the lowest bit and the width of a smaller one.
#[derive(Clone, Copy)]
struct Place {
    byte: usize,
    bit: u8,
    width: u8,
}

const fn at(byte: usize) -> Place {
    Place { byte, bit: 0, width: 8 }
}

const fn bits(byte: usize, bit: u8, width: u8) -> Place {
    Place { byte, bit, width }
}

trait Field: Sized {
    fn put(&self, place: Place, bytes: &mut Bytes);
    fn get(place: Place, bytes: &Bytes) -> Self;
}

impl Field for u8 {
    fn put(&self, Place { byte, bit, width }: Place, bytes: &mut Bytes) {
        bytes[byte] |= (self & (0xff >> (8 - width))) << bit;
    }

    fn get(Place { byte, bit, width }: Place, bytes: &Bytes) -> Self {
        (bytes[byte] >> bit) & (0xff >> (8 - width))
    }
}

impl Field for bool {
    fn put(&self, place: Place, bytes: &mut Bytes) {
        u8::from(*self).put(place, bytes);
    }

    fn get(place: Place, bytes: &Bytes) -> Self {
        u8::get(place, bytes) != 0
    }
}

impl<const N: usize> Field for [u8; N] {
    fn put(&self, place: Place, bytes: &mut Bytes) {
        bytes[place.byte..place.byte + N].copy_from_slice(self);
    }

    fn get(place: Place, bytes: &Bytes) -> Self {
        let mut value = [0; N];
        value.copy_from_slice(&bytes[place.byte..place.byte + N]);
        value
    }
}

macro_rules! number {
    ($($kind:ty)*) => {$(
        impl Field for $kind {
            fn put(&self, place: Place, bytes: &mut Bytes) {
                self.to_be_bytes().put(place, bytes);
            }

            fn get(place: Place, bytes: &Bytes) -> Self {
                Self::from_be_bytes(Field::get(place, bytes))
            }
        }
    )*};
}

number! { u16 u32 u64 }

macro_rules! pdus {
    ($($(#[$doc:meta])* $name:ident = $opcode:literal {
        $($(#[$field_doc:meta])* $field:ident: $kind:ty = $place:expr;)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Default, PartialEq, Eq)]
            pub struct $name {$(
                $(#[$field_doc])*
                pub $field: $kind,
            )*}

            impl From<$name> for Pdu {
                fn from(pdu: $name) -> Self {
                    Self::$name(pdu)
                }
            }
        )*

        /// A PDU without its data segment.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant is the structure of its name")]
        pub enum Pdu {
            $($name($name),)*
        }

        impl Pdu {
            /// The basic header segment; the lengths in it (bytes 4 to 7) stay zero.
            pub fn to_header(&self) -> [u8; BHS] {
                let mut bytes = [0; BHS];
                match self {$(
                    Self::$name(pdu) => {
                        bytes[0] = $opcode;
                        $(pdu.$field.put($place, &mut bytes);)*
                    }
                )*}
                bytes
            }

            /// Reads a basic header segment; `None` for an operation code that RFC 7143 does not
            /// have, or that error recovery level 0 does not (SNACK).
            pub fn from_header(bytes: &[u8; BHS]) -> Option<Self> {
                Some(match bytes[0] & 0x3f {
                    $($opcode => Self::$name($name {
                        $($field: <$kind>::get($place, bytes),)*
                    }),)*
                    _ => return None,
                })
            }
        }
    };
}

pdus! {
    /// NOP-Out (11.18): a ping of the initiator, or its answer to one of the target.
    NopOut = 0x00 {
        /// Not counted in the command window.
        immediate: bool = bits(0, 6, 1);
        /// F, always set.
        last: bool = bits(1, 7, 1);
        /// The LUN of the ping that is answered.
        lun: u64 = at(8);
        /// Tag of a ping, [`NO_TAG`] for one that wants no answer.
        task: u32 = at(16);
        /// Tag of the target's ping that is answered, else [`NO_TAG`].
        transfer: u32 = at(20);
        /// CmdSN.
        cmd_sn: u32 = at(24);
        /// ExpStatSN.
        exp_stat_sn: u32 = at(28);
    }

    /// SCSI Command (11.3).
    Command = 0x01 {
        /// Not counted in the command window.
        immediate: bool = bits(0, 6, 1);
        /// F: no unsolicited Data-Out follows.
        last: bool = bits(1, 7, 1);
        /// R: data come from the target.
        read: bool = bits(1, 6, 1);
        /// W: data go to the target.
        write: bool = bits(1, 5, 1);
        /// Task attribute: 1 is SIMPLE.
        attribute: u8 = bits(1, 0, 3);
        /// Logical unit.
        lun: u64 = at(8);
        /// Initiator task tag.
        task: u32 = at(16);
        /// Expected data transfer length in bytes.
        expected: u32 = at(20);
        /// CmdSN.
        cmd_sn: u32 = at(24);
        /// ExpStatSN.
        exp_stat_sn: u32 = at(28);
        /// CDB, padded with zeros.
        cdb: [u8; 16] = at(32);
    }

    /// Task Management Function Request (11.5).
    TaskRequest = 0x02 {
        /// Not counted in the command window.
        immediate: bool = bits(0, 6, 1);
        /// F, always set.
        last: bool = bits(1, 7, 1);
        /// 1 ABORT TASK, 5 LOGICAL UNIT RESET.
        function: u8 = bits(1, 0, 7);
        /// Logical unit.
        lun: u64 = at(8);
        /// Initiator task tag of this request.
        task: u32 = at(16);
        /// The task that it is about, or [`NO_TAG`].
        referenced: u32 = at(20);
        /// CmdSN.
        cmd_sn: u32 = at(24);
        /// ExpStatSN.
        exp_stat_sn: u32 = at(28);
        /// CmdSN of the task that it is about.
        ref_cmd_sn: u32 = at(32);
    }

    /// Login Request (11.12).
    LoginRequest = 0x03 {
        /// Always set.
        immediate: bool = bits(0, 6, 1);
        /// T: ready to go on to the next stage.
        transit: bool = bits(1, 7, 1);
        /// C: more text follows.
        more: bool = bits(1, 6, 1);
        /// Current stage: 0 security, 1 operational.
        stage: u8 = bits(1, 2, 2);
        /// Next stage: 1 operational, 3 full feature.
        next: u8 = bits(1, 0, 2);
        /// Highest version; 0.
        version_max: u8 = at(2);
        /// Lowest version; 0.
        version_min: u8 = at(3);
        /// Initiator session identifier.
        isid: [u8; 6] = at(8);
        /// Target session identifier, 0 for a new session.
        tsih: u16 = at(14);
        /// Initiator task tag, the same in the whole login.
        task: u32 = at(16);
        /// Connection identifier.
        connection: u16 = at(20);
        /// CmdSN.
        cmd_sn: u32 = at(24);
        /// ExpStatSN.
        exp_stat_sn: u32 = at(28);
    }

    /// Text Request (11.10).
    TextRequest = 0x04 {
        /// Not counted in the command window.
        immediate: bool = bits(0, 6, 1);
        /// F.
        last: bool = bits(1, 7, 1);
        /// C: more text follows.
        more: bool = bits(1, 6, 1);
        /// Logical unit; 0.
        lun: u64 = at(8);
        /// Initiator task tag.
        task: u32 = at(16);
        /// Target transfer tag of the answer that this goes on with.
        transfer: u32 = at(20);
        /// CmdSN.
        cmd_sn: u32 = at(24);
        /// ExpStatSN.
        exp_stat_sn: u32 = at(28);
    }

    /// SCSI Data-Out (11.7).
    DataOut = 0x05 {
        /// F: the last of its sequence.
        last: bool = bits(1, 7, 1);
        /// Logical unit.
        lun: u64 = at(8);
        /// Initiator task tag of the command.
        task: u32 = at(16);
        /// Target transfer tag of the R2T, [`NO_TAG`] if unsolicited.
        transfer: u32 = at(20);
        /// ExpStatSN.
        exp_stat_sn: u32 = at(28);
        /// DataSN.
        data_sn: u32 = at(36);
        /// Where in the data of the command it belongs.
        offset: u32 = at(40);
    }

    /// Logout Request (11.14).
    LogoutRequest = 0x06 {
        /// Not counted in the command window.
        immediate: bool = bits(0, 6, 1);
        /// F, always set.
        last: bool = bits(1, 7, 1);
        /// 0: the session is closed.
        reason: u8 = bits(1, 0, 7);
        /// Initiator task tag.
        task: u32 = at(16);
        /// Connection identifier.
        connection: u16 = at(20);
        /// CmdSN.
        cmd_sn: u32 = at(24);
        /// ExpStatSN.
        exp_stat_sn: u32 = at(28);
    }

    /// NOP-In (11.19): an answer to a ping, or a ping of the target.
    NopIn = 0x20 {
        /// F, always set.
        last: bool = bits(1, 7, 1);
        /// Logical unit, in a ping of the target.
        lun: u64 = at(8);
        /// Tag of the ping that is answered, else [`NO_TAG`].
        task: u32 = at(16);
        /// Tag of the target's ping, [`NO_TAG`] if it wants no answer.
        transfer: u32 = at(20);
        /// StatSN.
        stat_sn: u32 = at(24);
        /// ExpCmdSN.
        exp_cmd_sn: u32 = at(28);
        /// MaxCmdSN.
        max_cmd_sn: u32 = at(32);
    }

    /// SCSI Response (11.4); sense data are in the data segment behind their length (16 bits).
    Response = 0x21 {
        /// F, always set.
        last: bool = bits(1, 7, 1);
        /// O: the device had more.
        overflow: bool = bits(1, 2, 1);
        /// U: the device had or took less.
        underflow: bool = bits(1, 1, 1);
        /// 0: the command ended at the target and `status` counts.
        response: u8 = at(2);
        /// SAM status.
        status: u8 = at(3);
        /// Initiator task tag.
        task: u32 = at(16);
        /// StatSN.
        stat_sn: u32 = at(24);
        /// ExpCmdSN.
        exp_cmd_sn: u32 = at(28);
        /// MaxCmdSN.
        max_cmd_sn: u32 = at(32);
        /// Data-In and R2T PDUs that were sent for the command.
        exp_data_sn: u32 = at(36);
        /// Residual count.
        residual: u32 = at(44);
    }

    /// Task Management Function Response (11.6).
    TaskResponse = 0x22 {
        /// F, always set.
        last: bool = bits(1, 7, 1);
        /// 0 done, 1 there is no such task, 5 not supported, 255 rejected.
        response: u8 = at(2);
        /// Initiator task tag of the request.
        task: u32 = at(16);
        /// StatSN.
        stat_sn: u32 = at(24);
        /// ExpCmdSN.
        exp_cmd_sn: u32 = at(28);
        /// MaxCmdSN.
        max_cmd_sn: u32 = at(32);
    }

    /// Login Response (11.13).
    LoginResponse = 0x23 {
        /// T: the next stage begins.
        transit: bool = bits(1, 7, 1);
        /// C: more text follows.
        more: bool = bits(1, 6, 1);
        /// Current stage.
        stage: u8 = bits(1, 2, 2);
        /// Next stage.
        next: u8 = bits(1, 0, 2);
        /// Highest version.
        version_max: u8 = at(2);
        /// Version in use.
        version: u8 = at(3);
        /// Initiator session identifier.
        isid: [u8; 6] = at(8);
        /// Target session identifier.
        tsih: u16 = at(14);
        /// Initiator task tag.
        task: u32 = at(16);
        /// StatSN.
        stat_sn: u32 = at(24);
        /// ExpCmdSN.
        exp_cmd_sn: u32 = at(28);
        /// MaxCmdSN.
        max_cmd_sn: u32 = at(32);
        /// 0 well, 1 moved, 2 the initiator's fault, 3 the target's.
        class: u8 = at(36);
        /// More about it.
        detail: u8 = at(37);
    }

    /// Text Response (11.11).
    TextResponse = 0x24 {
        /// F: the negotiation is over.
        last: bool = bits(1, 7, 1);
        /// C: more text follows.
        more: bool = bits(1, 6, 1);
        /// Logical unit.
        lun: u64 = at(8);
        /// Initiator task tag.
        task: u32 = at(16);
        /// Tag to go on with, [`NO_TAG`] at the end.
        transfer: u32 = at(20);
        /// StatSN.
        stat_sn: u32 = at(24);
        /// ExpCmdSN.
        exp_cmd_sn: u32 = at(28);
        /// MaxCmdSN.
        max_cmd_sn: u32 = at(32);
    }

    /// SCSI Data-In (11.7).
    DataIn = 0x25 {
        /// F: the last of its sequence.
        last: bool = bits(1, 7, 1);
        /// A: wants a SNACK, at higher levels of error recovery.
        acknowledge: bool = bits(1, 6, 1);
        /// O, with `has_status`.
        overflow: bool = bits(1, 2, 1);
        /// U, with `has_status`.
        underflow: bool = bits(1, 1, 1);
        /// S: this also ends the command.
        has_status: bool = bits(1, 0, 1);
        /// SAM status, with `has_status`.
        status: u8 = at(3);
        /// Logical unit.
        lun: u64 = at(8);
        /// Initiator task tag of the command.
        task: u32 = at(16);
        /// Target transfer tag.
        transfer: u32 = at(20);
        /// StatSN, with `has_status`.
        stat_sn: u32 = at(24);
        /// ExpCmdSN.
        exp_cmd_sn: u32 = at(28);
        /// MaxCmdSN.
        max_cmd_sn: u32 = at(32);
        /// DataSN.
        data_sn: u32 = at(36);
        /// Where in the data of the command it belongs.
        offset: u32 = at(40);
        /// Residual count, with `has_status`.
        residual: u32 = at(44);
    }

    /// Logout Response (11.15).
    LogoutResponse = 0x26 {
        /// F, always set.
        last: bool = bits(1, 7, 1);
        /// 0: closed.
        response: u8 = at(2);
        /// Initiator task tag.
        task: u32 = at(16);
        /// StatSN.
        stat_sn: u32 = at(24);
        /// ExpCmdSN.
        exp_cmd_sn: u32 = at(28);
        /// MaxCmdSN.
        max_cmd_sn: u32 = at(32);
    }

    /// Ready To Transfer (11.8).
    ReadyToTransfer = 0x31 {
        /// F, always set.
        last: bool = bits(1, 7, 1);
        /// Logical unit.
        lun: u64 = at(8);
        /// Initiator task tag of the command.
        task: u32 = at(16);
        /// Target transfer tag that the data carry.
        transfer: u32 = at(20);
        /// StatSN, the next one.
        stat_sn: u32 = at(24);
        /// ExpCmdSN.
        exp_cmd_sn: u32 = at(28);
        /// MaxCmdSN.
        max_cmd_sn: u32 = at(32);
        /// R2TSN.
        r2t_sn: u32 = at(36);
        /// First byte wanted.
        offset: u32 = at(40);
        /// How many.
        length: u32 = at(44);
    }

    /// Asynchronous Message (11.9).
    AsyncMessage = 0x32 {
        /// F, always set.
        last: bool = bits(1, 7, 1);
        /// Logical unit.
        lun: u64 = at(8);
        /// StatSN.
        stat_sn: u32 = at(24);
        /// ExpCmdSN.
        exp_cmd_sn: u32 = at(28);
        /// MaxCmdSN.
        max_cmd_sn: u32 = at(32);
        /// 0 SCSI event, 1 log out, 2 this connection ends, 3 all end, 4 negotiate anew.
        event: u8 = at(36);
    }

    /// Reject (11.17); the header that was refused is in the data segment.
    Reject = 0x3f {
        /// F, always set.
        last: bool = bits(1, 7, 1);
        /// 2 data digest error, 4 protocol error, ...
        reason: u8 = at(2);
        /// StatSN.
        stat_sn: u32 = at(24);
        /// ExpCmdSN.
        exp_cmd_sn: u32 = at(28);
        /// MaxCmdSN.
        max_cmd_sn: u32 = at(32);
        /// DataSN or R2TSN.
        data_sn: u32 = at(36);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What a header says survives being written again.
        #[test]
        fn headers_lead_back(mut bytes in prop::collection::vec(any::<u8>(), BHS), opcode: u8) {
            bytes[0] = opcode;
            let bytes: [u8; BHS] = bytes.try_into().unwrap();
            if let Some(pdu) = Pdu::from_header(&bytes) {
                let again = pdu.to_header();
                prop_assert_eq!(again[0] & 0x3f, opcode & 0x3f);
                prop_assert_eq!(Pdu::from_header(&again), Some(pdu));
            }
        }
    }

    /// Bytes by the figures of the RFC, so that both directions can not be wrong together.
    #[test]
    fn fields_are_where_the_figures_say() {
        let command = Command {
            last: true,
            write: true,
            attribute: 1,
            lun: 1 << 48,
            task: 0x1122_3344,
            expected: 512,
            cmd_sn: 7,
            exp_stat_sn: 9,
            cdb: [0x0a, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ..Command::default()
        };
        let mut expected = [0; BHS];
        expected[0] = 0x01;
        expected[1] = 0xa1;
        expected[9] = 1;
        expected[16..20].copy_from_slice(&[0x11, 0x22, 0x33, 0x44]);
        expected[22] = 2;
        expected[27] = 7;
        expected[31] = 9;
        expected[32..36].copy_from_slice(&[0x0a, 0, 0, 2]);
        assert_eq!(Pdu::from(command).to_header(), expected);
        let login = LoginRequest {
            immediate: true,
            transit: true,
            stage: 1,
            next: 3,
            isid: [0x80, 1, 2, 3, 4, 5],
            ..LoginRequest::default()
        };
        let bytes = Pdu::from(login).to_header();
        assert_eq!((bytes[0], bytes[1], &bytes[8..14]), (0x43, 0x87, &[0x80, 1, 2, 3, 4, 5][..]));
        let mut bytes = [0; BHS];
        (bytes[0], bytes[1], bytes[3], bytes[39], bytes[47]) = (0x25, 0x83, 0x02, 4, 6);
        let Some(Pdu::DataIn(data)) = Pdu::from_header(&bytes) else { panic!("no Data-In") };
        assert!(data.last && data.has_status && data.underflow && !data.overflow);
        assert_eq!((data.status, data.data_sn, data.residual), (2, 4, 6));
        assert_eq!(Pdu::from_header(&[0x10; BHS]), None);
    }
}
