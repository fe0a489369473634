//! Messages of netlink whose lengths lie: what is read is what a reader as simple as can be finds, and nothing twice.

use netshunt_fuzz::{Input, fuzz};

use super::*;

/// Messages or attributes, with some lengths that are wrong.
fn written(input: &mut Input<'_>, head: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..input.up_to(4) {
        let body = input.bytes(40);
        let length = head + body.len();
        let lied = if input.one_in(6) { input.length(&[length as u64, head as u64]) } else { length as u64 };
        let kind = *input.pick(&[99_u16, libc::NLMSG_DONE as u16, libc::NLMSG_ERROR as u16, 0]);
        let mut one = match head {
            HEADER => [&(lied as u32).to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat(),
            _ => [(lied as u16).to_ne_bytes(), kind.to_ne_bytes()].concat(),
        };
        one.extend(&body);
        one.resize(one.len().next_multiple_of(4), 0);
        bytes.extend(one);
    }
    if input.one_in(4) {
        input.spoil(&mut bytes);
    }
    bytes
}

/// As NLMSG_OK() and NLMSG_NEXT() of linux/netlink.h read them; whether nothing is left over.
fn plainly(bytes: &[u8], head: usize) -> (Vec<(u16, Vec<u8>)>, bool) {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let left = bytes.len() - at;
        if left < head {
            return (found, false);
        }
        let (length, kind) = match head {
            HEADER => (u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize, at + 4),
            _ => (u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap()).into(), at + 2),
        };
        if length < head || length > left {
            return (found, false);
        }
        found.push((
            u16::from_ne_bytes([bytes[kind], bytes[kind + 1]]),
            bytes[at + head..at + length].to_vec(),
        ));
        at += length.next_multiple_of(4);
    }
    (found, true)
}

fn read(input: &mut Input<'_>) {
    let head = *input.pick(&[HEADER, ATTRIBUTE]);
    let bytes = written(input, head);
    let all: Vec<_> = if head == HEADER { messages(&bytes).collect() } else { attributes(&bytes).collect() };
    let good: Vec<_> = all.iter().flatten().map(|(kind, body)| (*kind, body.to_vec())).collect();
    let whole = all.iter().all(Result::is_ok);
    input.reached((head, good.len(), whole));
    assert_eq!((good, whole), plainly(&bytes, head));
    assert!(all.len() <= bytes.len() / head + 1);
}

/// A dump of parts: each message once, up to the end, and an end in any case.
fn dumped(input: &mut Input<'_>) {
    let parts: Vec<_> = (0..input.up_to(4)).map(|_| written(input, HEADER)).collect();
    let beyond = input.one_in(8);
    let (mut next, mut count) = (parts.iter(), 0);
    let receive = |into: &mut [u8]| match next.next() {
        Some(part) => {
            into[..part.len()].copy_from_slice(part);
            // Of what does not fit the kernel tells the whole length.
            Ok(if beyond { READ + 1 } else { part.len() })
        }
        None => Err(io::ErrorKind::WouldBlock.into()),
    };
    let result = dump(receive, |kind, _| {
        assert!(![libc::NLMSG_DONE, libc::NLMSG_ERROR].contains(&kind.into()));
        count += 1;
        Ok(())
    });
    let all: Vec<_> = parts.iter().map(|part| plainly(part, HEADER)).collect();
    let before = all
        .iter()
        .flat_map(|(found, _)| found)
        .take_while(|(kind, _)| ![libc::NLMSG_DONE, libc::NLMSG_ERROR].contains(&i32::from(*kind)))
        .count();
    input.reached((result.as_ref().map_err(io::Error::kind).err(), count.min(5)));
    assert!(count <= before, "{count} of {before}");
    if let Ok(()) = result {
        assert_eq!(count, before);
    }
}

#[test]
fn netlink_messages() {
    fuzz("netlink_messages", read);
}

#[test]
fn netlink_dumps() {
    fuzz("netlink_dumps", dumped);
}
