//! PDUs on the wire: header, additional headers, data, padding and digests (RFC 7143 11.2).

use crate::{BHS, Pdu};

/// Most bytes of additional header segments: their length field counts words in one byte.
const AHS_MAX: usize = 255 * 4;
const DIGEST: usize = 4;

/// Which CRC32C digests go along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Behind every header.
    pub header: bool,
    /// Behind every data segment that is not empty.
    pub data: bool,
}

/// Bytes that are no PDU as both sides agreed on; the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A header that is not what was sent.
    #[error("the digest of a header is wrong")]
    HeaderDigest,
    /// Data that are not what was sent.
    #[error("the digest of data is wrong")]
    DataDigest,
    /// Longer than was agreed.
    #[error("a data segment of {found} bytes where {most} were agreed")]
    TooLong {
        /// Its length.
        found: usize,
        /// MaxRecvDataSegmentLength.
        most: usize,
    },
    /// No PDU has this operation code.
    #[error("there is no PDU with the operation code {0:02x}h")]
    Opcode(u8),
}

/// The bytes before and behind the data segment of a PDU with `data`.
pub fn encode(pdu: &Pdu, data: &[u8], digests: Digests) -> (Vec<u8>, Vec<u8>) {
    let mut head = pdu.to_header().to_vec();
    head[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
    if digests.header {
        head.extend(crc32c::crc32c(&head).to_le_bytes());
    }
    let mut tail = vec![0; padding(data.len())];
    if digests.data && !data.is_empty() {
        let sum = crc32c::crc32c_append(crc32c::crc32c(data), &tail);
        tail.extend(sum.to_le_bytes());
    }
    (head, tail)
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

fn sum_of(bytes: &[u8]) -> [u8; DIGEST] {
    crc32c::crc32c(bytes).to_le_bytes()
}

/// What the buffer of a [`Decoder`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The basic header segment.
    Basic,
    /// It, the additional ones, and their digest.
    Header,
    /// The PDU.
    Whole,
}

/// Takes PDUs out of a stream of bytes. It asks for the bytes of one part after the other, so that
/// it holds one PDU at a time and never a byte of the next.
#[derive(Debug)]
pub struct Decoder {
    digests: Digests,
    /// The longest data segment.
    most: usize,
    buffer: Vec<u8>,
    filled: usize,
    part: Part,
}

impl Decoder {
    /// A decoder for PDUs with data segments of at most `most` bytes.
    pub fn new(digests: Digests, most: usize) -> Self {
        Self { digests, most, buffer: vec![0; BHS], filled: 0, part: Part::Basic }
    }

    /// From the next PDU on these digests go along, and data segments have at most so many bytes.
    pub fn agree(&mut self, digests: Digests, most: usize) {
        self.digests = digests;
        self.most = most;
    }

    /// Where the next bytes go; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.part == Part::Whole && self.filled == self.buffer.len() {
            self.buffer.resize(BHS, 0);
            self.filled = 0;
            self.part = Part::Basic;
        }
        &mut self.buffer[self.filled..]
    }

    /// Whether the bytes so far end between two PDUs.
    pub fn is_between(&self) -> bool {
        self.filled == 0 || (self.part == Part::Whole && self.filled == self.buffer.len())
    }

    /// `count` bytes of the space were filled. Once a PDU is whole it comes out with its data.
    ///
    /// # Errors
    /// It is no PDU. Do not go on with the connection.
    pub fn filled(&mut self, count: usize) -> Result<Option<(Pdu, &[u8])>, FrameError> {
        self.filled = (self.filled + count).min(self.buffer.len());
        while self.filled == self.buffer.len() && self.part != Part::Whole {
            let length = match self.part {
                Part::Basic => {
                    self.part = Part::Header;
                    self.header_length()
                }
                Part::Header | Part::Whole => {
                    self.check_header()?;
                    self.part = Part::Whole;
                    let data = self.data_length();
                    let digest = if self.digests.data && data > 0 { DIGEST } else { 0 };
                    self.header_length() + data + padding(data) + digest
                }
            };
            self.buffer.resize(length, 0);
        }
        if self.filled < self.buffer.len() {
            return Ok(None);
        }
        self.whole().map(Some)
    }

    fn header_length(&self) -> usize {
        let digest = if self.digests.header { DIGEST } else { 0 };
        BHS + (usize::from(self.buffer[4]) * 4).min(AHS_MAX) + digest
    }

    fn data_length(&self) -> usize {
        u32::from_be_bytes([0, self.buffer[5], self.buffer[6], self.buffer[7]]) as usize
    }

    /// Before a length in a header is believed.
    fn check_header(&self) -> Result<(), FrameError> {
        if self.digests.header {
            let (bytes, sum) = self.buffer.split_at(self.buffer.len() - DIGEST);
            if sum_of(bytes) != *sum {
                return Err(FrameError::HeaderDigest);
            }
        }
        match self.data_length() {
            found if found > self.most => Err(FrameError::TooLong { found, most: self.most }),
            _ => Ok(()),
        }
    }

    fn whole(&self) -> Result<(Pdu, &[u8]), FrameError> {
        let (data, rest) = (self.data_length(), &self.buffer[self.header_length()..]);
        if self.digests.data && data > 0 {
            let (bytes, sum) = rest.split_at(rest.len() - DIGEST);
            if sum_of(bytes) != *sum {
                return Err(FrameError::DataDigest);
            }
        }
        let mut bytes = [0; BHS];
        bytes.copy_from_slice(&self.buffer[..BHS]);
        let pdu = Pdu::from_header(&bytes).ok_or(FrameError::Opcode(bytes[0] & 0x3f))?;
        Ok((pdu, &rest[..data]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{DataIn, NopIn};

    type Frames = Vec<(Pdu, Vec<u8>)>;

    /// Feeds bytes in pieces; what comes out, and how it ended.
    fn decode(
        bytes: &[u8],
        digests: Digests,
        most: usize,
        piece: usize,
    ) -> (Frames, Option<FrameError>, bool) {
        let mut decoder = Decoder::new(digests, most);
        let (mut rest, mut out) = (bytes, Vec::new());
        while !rest.is_empty() {
            let space = decoder.space();
            let n = space.len().min(rest.len()).min(piece);
            space[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            match decoder.filled(n) {
                Ok(None) => {}
                Ok(Some((pdu, data))) => out.push((pdu, data.to_vec())),
                Err(error) => return (out, Some(error), false),
            }
        }
        (out, None, decoder.is_between())
    }

    fn wire(frames: &[(Pdu, Vec<u8>)], digests: Digests) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (pdu, data) in frames {
            let (head, tail) = encode(pdu, data, digests);
            bytes.extend(head);
            bytes.extend(data);
            bytes.extend(tail);
        }
        bytes
    }

    fn frames(data: Vec<Vec<u8>>) -> Frames {
        let pdu = |i: usize| Pdu::from(DataIn { data_sn: i as u32, ..DataIn::default() });
        data.into_iter().enumerate().map(|(i, data)| (pdu(i), data)).collect()
    }

    proptest! {
        #[test]
        fn frames_lead_back(
            data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5),
            header: bool,
            of_data: bool,
            piece in 1usize..100,
        ) {
            let (frames, digests) = (frames(data), Digests { header, data: of_data });
            let (out, error, between) = decode(&wire(&frames, digests), digests, 40, piece);
            prop_assert_eq!(out, frames);
            prop_assert_eq!(error, None);
            prop_assert!(between);
        }

        /// With both digests no single changed byte passes.
        #[test]
        fn no_changed_byte_passes(
            data in prop::collection::vec(any::<u8>(), 1..40),
            place: prop::sample::Index,
            change in 1u8..,
        ) {
            let digests = Digests { header: true, data: true };
            let mut bytes = wire(&frames(vec![data]), digests);
            let place = place.index(bytes.len());
            bytes[place] ^= change;
            let (out, error, between) = decode(&bytes, digests, 40, 100);
            prop_assert!(out.is_empty());
            // A changed length makes the end wait for more, which is as good as an error.
            prop_assert!(error.is_some() || !between);
        }

        #[test]
        fn rubbish_never_panics(bytes: Vec<u8>, header: bool, data: bool, piece in 1usize..100) {
            let (out, ..) = decode(&bytes, Digests { header, data }, 64, piece);
            prop_assert!(out.iter().all(|(_, data)| data.len() <= 64));
        }
    }

    #[test]
    fn additional_headers_are_passed_over() {
        let (mut head, _) = encode(&NopIn::default().into(), b"", Digests::default());
        (head[4], head[7]) = (2, 3);
        head.extend([9; 8]);
        head.extend(*b"abc\0");
        let (out, error, between) = decode(&head, Digests::default(), 8, 100);
        assert_eq!(out, [(NopIn::default().into(), b"abc".to_vec())]);
        assert!(error.is_none() && between);
    }

    #[test]
    fn the_digest_is_that_of_the_rfc() {
        // RFC 7143 Appendix A.4: 32 bytes of zero have the CRC aa 36 91 8a.
        assert_eq!(sum_of(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(sum_of(&[0xff; 32]), [0x43, 0xab, 0xa8, 0x62]);
    }

    #[test]
    fn too_much_is_refused_by_the_header() {
        let (head, _) = encode(&NopIn::default().into(), &[0; 100], Digests::default());
        let (_, error, _) = decode(&head, Digests::default(), 99, 100);
        assert_eq!(error, Some(FrameError::TooLong { found: 100, most: 99 }));
        let digests = Digests { header: true, data: false };
        let (head, _) = encode(&NopIn::default().into(), &[0; 100], digests);
        let (_, error, _) = decode(&head, digests, 99, 100);
        assert_eq!(error, Some(FrameError::TooLong { found: 100, most: 99 }));
    }
}
