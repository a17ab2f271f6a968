//! Addresses of data connections (`ndmp_addr`; version 2 calls it `mover_addr`).

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use xdr::{Reader, Writer, XdrError};

use super::bounds;
use super::enums::{AddrType, Version};

/// One end of a data connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addr {
    /// In the same server.
    Local,
    /// TCP; versions 2 and 3 carry exactly one address, version 4 a list of equal alternatives.
    Tcp(Vec<SocketAddrV4>),
    /// A kind of address that is not served here. Only its kind is kept.
    Other(AddrType),
}

impl Addr {
    /// One TCP address.
    pub fn tcp(address: SocketAddrV4) -> Self {
        Self::Tcp(vec![address])
    }

    /// The kind of address.
    pub fn kind(&self) -> AddrType {
        match self {
            Self::Local => AddrType::Local,
            Self::Tcp(_) => AddrType::Tcp,
            Self::Other(kind) => *kind,
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, version: Version) -> Result<Self, XdrError> {
        match (AddrType::from_wire(reader.u32()?), version) {
            (AddrType::Local, _) => Ok(Self::Local),
            (AddrType::Tcp, Version::V4) => {
                reader.array(bounds::ADDRESSES, 12, decode_tcp_v4).map(Self::Tcp)
            }
            (AddrType::Tcp, _) => decode_tcp(reader).map(Self::tcp),
            (kind @ AddrType::Fc, Version::V3) => {
                reader.u32()?;
                Ok(Self::Other(kind))
            }
            (kind @ AddrType::Ipc, Version::V3 | Version::V4) => {
                reader.opaque(bounds::NAME)?;
                Ok(Self::Other(kind))
            }
            (kind, _) => Ok(Self::Other(kind)),
        }
    }

    /// Addresses that `version` can not carry are sent as `NDMP_ADDR_LOCAL`, which has no body.
    pub(crate) fn encode(&self, writer: &mut Writer, version: Version) {
        match (self, version) {
            (Self::Tcp(list), Version::V4) => {
                writer.u32(AddrType::Tcp.to_wire());
                writer.array(list, |writer, address| {
                    encode_tcp(writer, *address);
                    writer.count(0);
                });
            }
            (Self::Tcp(list), _) => {
                let unset = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
                writer.u32(AddrType::Tcp.to_wire());
                encode_tcp(writer, list.first().copied().unwrap_or(unset));
            }
            (Self::Local | Self::Other(_), _) => writer.u32(AddrType::Local.to_wire()),
        }
    }
}

fn decode_tcp(reader: &mut Reader<'_>) -> Result<SocketAddrV4, XdrError> {
    let ip = Ipv4Addr::from_bits(reader.u32()?);
    let port = u16::try_from(reader.u32()?).map_err(|_| XdrError::Invalid)?;
    Ok(SocketAddrV4::new(ip, port))
}

fn decode_tcp_v4(reader: &mut Reader<'_>) -> Result<SocketAddrV4, XdrError> {
    let address = decode_tcp(reader)?;
    for _ in 0..reader.count(bounds::ENVIRONMENT, 8)? {
        reader.opaque(bounds::TEXT)?;
        reader.opaque(bounds::TEXT)?;
    }
    Ok(address)
}

fn encode_tcp(writer: &mut Writer, address: SocketAddrV4) {
    writer.u32(address.ip().to_bits());
    writer.u32(u32::from(address.port()));
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Tcp(list) => {
                for (index, address) in list.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{address}")?;
                }
                Ok(())
            }
            Self::Other(kind) => write!(f, "{kind}"),
        }
    }
}
