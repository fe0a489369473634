//! What passt of 2023 says wrongly, put right.

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;

/// Into the header of a TCP segment, in bytes.
const ACKNOWLEDGED: usize = 8;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;

/// passt of 2023 answers a refused connection with a reset that acknowledges the guest's SYN by its
/// number, but not by its flag. Whoever has sent a SYN ignores such a reset (RFC 9293, 3.10.7.3), and
/// would wait two minutes for an answer: here it gets the flag.
pub(crate) fn reset(frame: &mut [u8]) {
    let Some(segment) = segment(frame) else { return };
    let flags = segment[FLAGS];
    let number = &segment[ACKNOWLEDGED..ACKNOWLEDGED + 4];
    if flags & (RST | ACK) != RST || number == [0; 4] {
        return;
    }
    segment[FLAGS] |= ACK;
    // RFC 1624: the sum's complement changes by the difference; the flags are the low byte of their word.
    let sum = u16::from_be_bytes([segment[CHECKSUM], segment[CHECKSUM + 1]]);
    let (changed, borrow) = sum.overflowing_sub(u16::from(ACK));
    let mended = changed.wrapping_sub(u16::from(borrow));
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&mended.to_be_bytes());
}

/// The TCP segment in a frame, with its whole header.
fn segment(frame: &mut [u8]) -> Option<&mut [u8]> {
    let (ethernet, packet) = frame.split_at_mut_checked(ETHERNET)?;
    let start = match [ethernet[12], ethernet[13]] {
        IPV4 if *packet.get(9)? == TCP => usize::from(packet[0] & 0x0f) * 4,
        IPV6 if *packet.get(6)? == TCP => 40,
        _ => return None,
    };
    packet.get_mut(start..).filter(|segment| segment.len() > CHECKSUM + 1)
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, PacketBuilderStep, SlicedPacket, TcpHeader, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    type Step = PacketBuilderStep<etherparse::IpHeaders>;

    fn packets() -> [Step; 2] {
        let ethernet = || PacketBuilder::ethernet2([2; 6], [4; 6]);
        [ethernet().ipv4([192, 0, 2, 10], [10, 0, 2, 15], 255), ethernet().ipv6([0x20; 16], [0xfd; 16], 255)]
    }

    fn frame(packet: Step, number: u32, acknowledged: u32, flags: u8) -> Vec<u8> {
        let mut header = TcpHeader::new(99, 40_000, number, 65_535);
        header.acknowledgment_number = acknowledged;
        (header.rst, header.ack, header.syn) = (flags & RST != 0, flags & ACK != 0, flags & 2 != 0);
        let mut frame = Vec::new();
        packet.tcp_header(header).write(&mut frame, &[]).unwrap();
        frame
    }

    /// The header, once its checksum is right.
    fn tcp(frame: &[u8]) -> TcpHeader {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("not TCP") };
        let header = tcp.to_header();
        let sum = match packet.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), &[]),
            etherparse::NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), &[]),
            _ => panic!("not IP"),
        };
        assert_eq!(header.checksum, sum.unwrap());
        header
    }

    proptest! {
        #[test]
        fn a_reset_that_acknowledges_a_syn_says_so(number: u32, acknowledged in 1_u32..) {
            for packet in packets() {
                let mut frame = frame(packet, number, acknowledged, RST);
                reset(&mut frame);
                let header = tcp(&frame);
                prop_assert!(header.rst && header.ack);
                prop_assert_eq!(header.acknowledgment_number, acknowledged);
            }
        }

        #[test]
        fn any_bytes_are_taken(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), kind in 0..3) {
            if bytes.len() > 14 && kind > 0 {
                bytes[12..14].copy_from_slice(if kind == 1 { &IPV4 } else { &IPV6 });
            }
            reset(&mut bytes);
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for (acknowledged, flags) in [(0, RST), (7, RST | ACK), (7, ACK), (7, 2), (7, 2 | ACK)] {
            for packet in packets() {
                let before = frame(packet, 5, acknowledged, flags);
                let mut after = before.clone();
                reset(&mut after);
                assert_eq!(before, after);
            }
        }
    }
}
