//! Socket addresses in the kernel's layout (`struct sockaddr_*`).

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for every address (`struct sockaddr_storage`).
pub(crate) const ROOM: usize = 128;

/// A socket's address as the kernel has it, of any family: a `struct sockaddr_*`.
#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; ROOM],
    length: usize,
}

impl Name {
    /// The bytes, for [`Kernel::bind_name`](crate::Kernel::bind_name) and its like.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// `AF_*`; 0 (`AF_UNSPEC`) when there is no address.
    pub fn family(&self) -> i32 {
        u16::from_ne_bytes([self.bytes[0], self.bytes[1]]).into()
    }

    /// The internet address that this is.
    ///
    /// # Errors
    /// EAFNOSUPPORT for any other family.
    pub fn internet(&self) -> io::Result<SocketAddr> {
        decode(self.bytes())
    }

    /// What `fill` writes, and says the length of.
    pub(crate) fn filled(fill: impl FnOnce(&mut [u8; ROOM]) -> io::Result<usize>) -> io::Result<Self> {
        let mut bytes = [0; ROOM];
        let length = fill(&mut bytes)?.min(ROOM);
        Ok(Self { bytes, length })
    }
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = [0; ROOM];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, length) = match address {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                (libc::AF_INET, 16)
            }
            SocketAddr::V6(v6) => {
                // std keeps the flow label as the C field's number: network order lies in memory.
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (libc::AF_INET6, 28)
            }
        };
        let family = u16::try_from(family).expect("both families are small numbers");
        bytes[0..2].copy_from_slice(&family.to_ne_bytes());
        Self { bytes, length }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.internet() {
            Ok(address) => address.fmt(f),
            Err(_) => write!(f, "{:02x?}", self.bytes()),
        }
    }
}

/// Reads an address that the kernel wrote.
///
/// # Errors
/// EAFNOSUPPORT for anything but a whole internet address.
fn decode(bytes: &[u8]) -> io::Result<SocketAddr> {
    fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
        bytes.get(at..at + N)?.try_into().ok()
    }
    fn read(bytes: &[u8]) -> Option<SocketAddr> {
        let family = i32::from(u16::from_ne_bytes(array(bytes, 0)?));
        let port = u16::from_be_bytes(array(bytes, 2)?);
        match family {
            libc::AF_INET => Some(SocketAddrV4::new(Ipv4Addr::from(array::<4>(bytes, 4)?), port).into()),
            libc::AF_INET6 => {
                let flow = u32::from_ne_bytes(array(bytes, 4)?);
                let ip = Ipv6Addr::from(array::<16>(bytes, 8)?);
                let scope = u32::from_ne_bytes(array(bytes, 24)?);
                Some(SocketAddrV6::new(ip, port, flow, scope).into())
            }
            _ => None,
        }
    }
    read(bytes).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for text in ["127.0.0.1:80", "255.255.255.255:65535", "[::1]:80", "[fe80::1%3]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(decode(Name::from(address).bytes()).unwrap(), address);
        }
    }

    #[test]
    fn the_layout_is_the_kernels() {
        let encoded = Name::from("1.2.3.4:258".parse::<SocketAddr>().unwrap());
        assert_eq!(encoded.bytes(), [2, 0, 1, 2, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn anything_else_is_an_error() {
        for bytes in [&[][..], &[1, 0, 0, 0], &[2, 0, 0, 80, 1, 2, 3], &[10, 0, 0, 80, 0, 0, 0, 0]] {
            assert_eq!(decode(bytes).unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
        }
    }
}
