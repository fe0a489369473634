//! Socket addresses in the kernel's layout (`struct sockaddr_in`, `struct sockaddr_in6`).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for every address (`struct sockaddr_storage`).
pub(crate) const ROOM: usize = 128;

/// An encoded address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoded {
    bytes: [u8; 28],
    length: usize,
}

impl Encoded {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl From<SocketAddr> for Encoded {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = [0; 28];
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

/// Reads an address that the kernel wrote.
///
/// # Errors
/// EAFNOSUPPORT for anything but a whole internet address.
pub(crate) fn decode(bytes: &[u8]) -> io::Result<SocketAddr> {
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
            assert_eq!(decode(Encoded::from(address).bytes()).unwrap(), address);
        }
    }

    #[test]
    fn the_layout_is_the_kernels() {
        let encoded = Encoded::from("1.2.3.4:258".parse::<SocketAddr>().unwrap());
        assert_eq!(encoded.bytes(), [2, 0, 1, 2, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn anything_else_is_an_error() {
        for bytes in [&[][..], &[1, 0, 0, 0], &[2, 0, 0, 80, 1, 2, 3], &[10, 0, 0, 80, 0, 0, 0, 0]] {
            assert_eq!(decode(bytes).unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
        }
    }
}
