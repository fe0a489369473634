//! Fragments in any order, lost, twice, too long, or lying about what they are.

use etherparse::{Ipv4HeaderSlice, PacketBuilder};
use netshunt_fuzz::{Input, fuzz};

use super::*;

/// One datagram of several that come at once, cut.
struct Datagram {
    pieces: Vec<Vec<u8>>,
}

fn datagram(input: &mut Input<'_>, id: u8) -> Datagram {
    let length = if input.one_in(24) { 60_000 + input.up_to(5507) } else { 50 + input.up_to(800) };
    let size = 8 * (1 + input.up_to(60)).max(length / 24 / 8);
    let mut whole = Vec::new();
    let mut data = vec![id; length];
    data.iter_mut().step_by(50).enumerate().for_each(|(n, byte)| *byte ^= n as u8);
    let ip = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([10, 0, 2, 15], [10, 0, 2, 2], 64);
    ip.write(&mut whole, etherparse::IpNumber::UDP, &data).unwrap();
    let (header, data) = whole.split_at(34);
    let count = data.len().div_ceil(size);
    let pieces = data.chunks(size).enumerate().map(|(n, piece)| {
        let mut frame = [header, piece].concat();
        frame[16..18].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&[0, id]);
        let more = if n + 1 < count { 0x2000 } else { 0 };
        frame[20..22].copy_from_slice(&(more | (n * size / 8) as u16).to_be_bytes());
        frame
    });
    Datagram { pieces: pieces.collect() }
}

/// What was offered since the last first fragment of that key, in order, if there is no gap in it.
fn plainly(offered: &[Vec<u8>], key: Key) -> Option<Vec<u8>> {
    let mut data: Option<Vec<u8>> = None;
    for fragment in offered
        .iter()
        .filter(|frame| is_fragment(frame))
        .filter_map(|frame| parse(frame))
        .filter(|fragment| fragment.key == key)
    {
        if fragment.offset == 0 {
            data = Some(fragment.data.to_vec());
        } else {
            data =
                data.filter(|data| data.len() == fragment.offset).map(|data| [&data, fragment.data].concat());
        }
    }
    data
}

fn joined(input: &mut Input<'_>) {
    let count = if input.one_in(8) { 20 } else { 1 + input.up_to(2) };
    let mut coming: Vec<Datagram> = (0..count).map(|id| datagram(input, id as u8)).collect();
    coming.iter_mut().for_each(|datagram| datagram.pieces.reverse());
    let total: usize = coming.iter().map(|datagram| datagram.pieces.len()).sum();
    let (mut fragments, mut offered, mut complete) = (Fragments::default(), Vec::new(), 0);
    // More at a time than are kept are lost, too.
    let mut honest = coming.len() <= PARTIAL;
    let whole = coming.iter().filter(|datagram| datagram.pieces.len() > 1).count();
    for turn in 0..total + 4 {
        // What is left when the case says nothing more comes in turns.
        let which = if input.is_empty() { turn % coming.len() } else { input.up_to(coming.len() - 1) };
        let at =
            (which..which + coming.len()).map(|n| n % coming.len()).find(|n| !coming[*n].pieces.is_empty());
        let Some(at) = at else { break };
        let pieces = &mut coming[at].pieces;
        let mut piece = pieces.pop().expect("it is not empty");
        match input.one_in(12) {
            true if input.one_in(2) => (honest, piece) = (false, pieces.pop().unwrap_or(piece)),
            true if input.one_in(2) => {
                honest = false;
                pieces.push(piece.clone());
            }
            true => {
                honest = false;
                let field = *input.pick(&[14, 16, 17, 18, 19, 20, 21, 23]);
                piece[field] = input.byte();
                if input.one_in(2) {
                    input.spoil(&mut piece);
                }
            }
            false => {}
        }
        let result = fragments.offer(&piece);
        offered.push(piece.clone());
        assert!(fragments.partial.len() <= PARTIAL);
        input.reached((std::mem::discriminant(&result), fragments.partial.len(), honest));
        match result {
            Joined::Whole => assert!(!is_fragment(&piece)),
            Joined::Held => {}
            Joined::Complete(frame) => {
                complete += 1;
                assert!(!is_fragment(&frame) && frame.len() <= ETHERNET + LARGEST);
                let fragment = parse(&piece).expect("it was joined");
                let headers =
                    frame.len() - plainly(&offered, fragment.key).map_or(usize::MAX, |data| data.len());
                assert_eq!(Some(&frame[headers..]), plainly(&offered, fragment.key).as_deref());
                assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - ETHERNET);
                // Of a version that is none libslirp says so.
                if let Ok(header) = Ipv4HeaderSlice::from_slice(&frame[ETHERNET..]) {
                    assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum());
                }
            }
        }
    }
    if honest {
        assert_eq!((complete, fragments.partial.len()), (whole, 0));
    }
}

#[test]
fn fragments_joined() {
    fuzz("fragments_joined", joined);
}
