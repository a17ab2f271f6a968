//! The table of commands: operation code, length, which bits a CDB may set, and how long it may
//! take. The parser refuses by it and REPORT SUPPORTED OPERATION CODES answers from it, so that
//! the two can not disagree.

use super::DeviceType;

/// One supported command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// CDB usage data (SPC-5 6.35.3): the operation code, then a one for each bit that is looked
    /// at; with a service action byte 1 holds it in its low five bits. Its length is the CDB's.
    pub usage: &'static [u8],
    /// Whether there is a service action in byte 1.
    pub has_action: bool,
    /// Nominal command timeout in seconds.
    pub nominal: u32,
    /// Recommended command timeout in seconds.
    pub recommended: u32,
}

const fn plain(usage: &'static [u8], recommended: u32) -> Command {
    Command { usage, has_action: false, nominal: 1, recommended }
}

const fn action(usage: &'static [u8], recommended: u32) -> Command {
    Command { usage, has_action: true, nominal: 1, recommended }
}

const OTHER: u32 = 150;

static COMMON: &[Command] = &[
    plain(&[0x00, 0, 0, 0, 0, 0], OTHER),
    plain(&[0x03, 0x01, 0, 0, 0xff, 0], OTHER),
    plain(&[0x12, 0x01, 0xff, 0xff, 0xff, 0], OTHER),
    plain(&[0x15, 0x10, 0, 0, 0xff, 0], OTHER),
    plain(&[0x1a, 0x08, 0xff, 0xff, 0xff, 0], OTHER),
    plain(&[0x1e, 0, 0, 0, 0x01, 0], OTHER),
    plain(&[0x4c, 0x02, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0], OTHER),
    plain(&[0x4d, 0x00, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0], OTHER),
    plain(&[0x55, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff, 0], OTHER),
    plain(&[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0], OTHER),
    plain(&[0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0], OTHER),
    plain(&[0x5a, 0x08, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0], OTHER),
    action(&[0x5e, 0x00, 0, 0, 0, 0, 0, 0xff, 0xff, 0], OTHER),
    action(&[0x5e, 0x01, 0, 0, 0, 0, 0, 0xff, 0xff, 0], OTHER),
    action(&[0x5e, 0x02, 0, 0, 0, 0, 0, 0xff, 0xff, 0], OTHER),
    action(&[0x5e, 0x03, 0, 0, 0, 0, 0, 0xff, 0xff, 0], OTHER),
    action(&[0x5f, 0x00, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], OTHER),
    action(&[0x5f, 0x01, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], OTHER),
    action(&[0x5f, 0x02, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], OTHER),
    action(&[0x5f, 0x03, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], OTHER),
    action(&[0x5f, 0x04, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], OTHER),
    action(&[0x5f, 0x05, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], OTHER),
    action(&[0x5f, 0x06, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], OTHER),
    plain(&[0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], OTHER),
    action(&[0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], OTHER),
];

// Timeouts of LTO-9 drives, the slowest there are.
static TAPE: &[Command] = &[
    plain(&[0x01, 0x01, 0, 0, 0, 0], 600),
    plain(&[0x04, 0x03, 0x0f, 0xff, 0xff, 0], 3000),
    plain(&[0x05, 0x01, 0, 0, 0, 0], OTHER),
    plain(&[0x08, 0x03, 0xff, 0xff, 0xff, 0], 2340),
    plain(&[0x0a, 0x01, 0xff, 0xff, 0xff, 0], 1500),
    plain(&[0x0b, 0x01, 0, 0xff, 0xff, 0], 780),
    plain(&[0x10, 0x01, 0xff, 0xff, 0xff, 0], 1620),
    plain(&[0x11, 0x0f, 0xff, 0xff, 0xff, 0], 2940),
    plain(&[0x13, 0x05, 0xff, 0xff, 0xff, 0], 2340),
    plain(&[0x16, 0, 0, 0, 0, 0], OTHER),
    plain(&[0x17, 0, 0, 0, 0, 0], OTHER),
    plain(&[0x19, 0x03, 0, 0, 0, 0], 74_341),
    plain(&[0x1b, 0x01, 0, 0, 0x0f, 0], 7920),
    plain(&[0x2b, 0x03, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0], 2940),
    action(&[0x34, 0x00, 0, 0, 0, 0, 0, 0xff, 0xff, 0], OTHER),
    action(&[0x34, 0x06, 0, 0, 0, 0, 0, 0xff, 0xff, 0], OTHER),
    action(&[0x34, 0x08, 0, 0, 0, 0, 0, 0xff, 0xff, 0], OTHER),
    plain(&[0x44, 0x03, 0, 0, 0, 0, 0, 0xff, 0xff, 0], OTHER),
    plain(&[0x80, 0x01, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0], 1620),
    action(&[0x8c, 0x00, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], OTHER),
    action(&[0x8c, 0x01, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], OTHER),
    action(&[0x8c, 0x02, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], OTHER),
    action(&[0x8c, 0x03, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], OTHER),
    action(&[0x8c, 0x05, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], OTHER),
    plain(&[0x8d, 0x01, 0, 0, 0, 0, 0, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], OTHER),
    plain(&[0x91, 0x0f, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], 2940),
    plain(&[0x92, 0x1b, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], 2940),
    plain(
        &[0x82, 0, 0x0f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        OTHER,
    ),
    plain(&[0xa2, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], OTHER),
    plain(&[0xb5, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], OTHER),
];

static CHANGER: &[Command] = &[
    plain(&[0x07, 0, 0, 0, 0, 0], 2100),
    plain(&[0x16, 0x01, 0xff, 0xff, 0xff, 0], OTHER),
    plain(&[0x17, 0x01, 0xff, 0, 0, 0], OTHER),
    plain(&[0x1b, 0, 0xff, 0xff, 0x1f, 0], OTHER),
    plain(&[0x2b, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01, 0], 300),
    plain(&[0x37, 0x03, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0], 2100),
    plain(&[0xa5, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01, 0], 1200),
    plain(&[0xa6, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03, 0], 2400),
    plain(&[0xb5, 0x1f, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0, 0], 300),
    plain(&[0xb6, 0x0f, 0xff, 0xff, 0, 0x1f, 0, 0, 0xff, 0xff, 0, 0], 300),
    plain(&[0xb8, 0x1f, 0xff, 0xff, 0xff, 0xff, 0x03, 0xff, 0xff, 0xff, 0, 0], 300),
    plain(&[0xe7, 0x03, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0], 2100),
];

impl Command {
    /// The operation code.
    pub fn opcode(&self) -> u8 {
        self.usage[0]
    }

    /// The service action, where there is one.
    pub fn service_action(&self) -> Option<u8> {
        self.has_action.then(|| self.usage[1] & 0x1f)
    }

    /// The command of a CDB, `None` if the operation code or its service action is not known.
    pub fn find(kind: DeviceType, cdb: &[u8]) -> Option<&'static Self> {
        let [opcode, rest @ ..] = cdb else { return None };
        let action = rest.first().map(|byte| byte & 0x1f);
        commands(kind).find(|command| {
            command.opcode() == *opcode
                && (!command.has_action || command.service_action() == action)
        })
    }

    /// Bits of byte 1 in which the unit was told up to SCSI-2 (7.2.2), by commands of 6, 10 and 12
    /// bytes. Hosts still do so (mtx), and libraries pass over them.
    pub(super) fn unit_bits(&self) -> u8 {
        if self.usage.len() <= 12 { 0xe0 } else { 0 }
    }

    /// The first bit that is set and may not be: its byte and bit.
    pub(super) fn stray_bit(&self, cdb: &[u8]) -> Option<(u16, u8)> {
        let action_bits = if self.has_action { 0x1f } else { 0 };
        let passed = action_bits | self.unit_bits();
        self.usage.iter().zip(cdb).enumerate().skip(1).find_map(|(at, (usage, byte))| {
            let allowed = usage | if at == 1 { passed } else { 0 };
            let stray = byte & !allowed;
            (stray != 0).then(|| (at as u16, 7 - stray.leading_zeros() as u8))
        })
    }
}

/// Every command of a device type, common ones first.
pub fn commands(kind: DeviceType) -> impl Iterator<Item = &'static Command> {
    let own = match kind {
        DeviceType::Tape => TAPE,
        DeviceType::Changer => CHANGER,
    };
    COMMON.iter().chain(own)
}
