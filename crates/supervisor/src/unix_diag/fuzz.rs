//! What the kernel tells of sockets, and what it would tell if it lied: a name is a part of what was told.

use netshunt_fuzz::{Input, fuzz};

use super::*;

fn told(input: &mut Input<'_>) {
    let kind = *input.pick(&[libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET]);
    let cookie = input.long();
    let mut bytes = vec![libc::AF_UNIX as u8, kind as u8, *input.pick(&[10, ESTABLISHED, 7]), 0, 7, 7, 0, 0];
    bytes.extend(cookie.to_le_bytes());
    let mut name = input.bytes(108);
    let file = File { inode: input.word(), device: input.word() };
    let mut attribute = |kind: u16, value: &[u8]| {
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    };
    attribute(UNIX_DIAG_NAME, &name);
    attribute(UNIX_DIAG_VFS, &[file.inode.to_ne_bytes(), file.device.to_ne_bytes()].concat());
    let true_to_kernel = bytes.clone();
    input.spoil(&mut bytes);
    let found = bound(&bytes);
    input.reached((found.as_ref().map(Option::is_some).map_err(io::Error::kind), bytes == true_to_kernel));
    let accepted = bytes.get(2) == Some(&ESTABLISHED) && kind != libc::SOCK_DGRAM;
    if bytes == true_to_kernel {
        // A path's last zero byte is not a part of it; an abstract name has as many as it has.
        if name.first() != Some(&0) && name.last() == Some(&0) {
            name.pop();
        }
        let expected = Bound { kind, cookie, name: name.clone(), file: Some(file) };
        let expected = (!accepted && !name.is_empty()).then_some(expected);
        return assert_eq!(found.unwrap(), expected);
    }
    if let Ok(Some(found)) = found {
        assert!(!found.name.is_empty());
        assert!(bytes.windows(found.name.len()).any(|part| part == found.name));
    }
}

#[test]
fn sockets_told() {
    fuzz("sockets_told", told);
}
