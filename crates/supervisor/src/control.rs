//! Control messages as they lie in memory (cmsg(3)).

/// `struct cmsghdr`, and what it is aligned to.
const HEADER: usize = 16;
const ALIGN: usize = 8;
const _: () = assert!(size_of::<libc::cmsghdr>() == HEADER, "bits/socket.h");

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControlMessage<'a> {
    pub(crate) level: i32,
    pub(crate) kind: i32,
    pub(crate) value: &'a [u8],
}

/// Reads them one after the other; `EINVAL` for one that does not fit (`CMSG_OK` of include/linux/socket.h).
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<ControlMessage<'_>, i32>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.len() < HEADER {
            return None;
        }
        let len = usize::try_from(u64::from_ne_bytes(array(rest, 0))).unwrap_or(usize::MAX);
        let (level, kind) = (i32::from_ne_bytes(array(rest, 8)), i32::from_ne_bytes(array(rest, 12)));
        let Some(value) = rest.get(HEADER..len) else {
            rest = &[];
            return Some(Err(libc::EINVAL));
        };
        rest = rest.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(Ok(ControlMessage { level, kind, value }))
    })
}

/// Appends one.
pub(crate) fn push(bytes: &mut Vec<u8>, level: i32, kind: i32, value: &[u8]) {
    bytes.extend(((HEADER + value.len()) as u64).to_ne_bytes());
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
}

/// Where the value of the message begins that is appended next.
pub(crate) fn next_value(bytes: &[u8]) -> usize {
    bytes.len() + HEADER
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|n| bytes[at + n])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_read_back() {
        let mut bytes = Vec::new();
        push(&mut bytes, 1, 2, b"abc");
        assert_eq!(next_value(&bytes), bytes.len() + 16);
        push(&mut bytes, 3, 4, b"");
        let read: Result<Vec<_>, i32> = messages(&bytes).collect();
        let message = |level, kind, value| ControlMessage { level, kind, value };
        assert_eq!(read, Ok(vec![message(1, 2, &b"abc"[..]), message(3, 4, b"")]));
    }

    #[test]
    fn what_does_not_fit_is_invalid_and_a_rest_is_passed_over() {
        let read = |bytes: &[u8]| messages(bytes).collect::<Result<Vec<_>, i32>>().map(|all| all.len());
        assert_eq!(read(&[0; 15]), Ok(0));
        assert_eq!(read(&[0; 16]), Err(libc::EINVAL), "a length below the header's");
        assert_eq!(read(&[0xff; 32]), Err(libc::EINVAL));
        let mut bytes = Vec::new();
        push(&mut bytes, 1, 2, b"abc");
        bytes.extend([0; 9]);
        assert_eq!(read(&bytes), Ok(1));
        bytes[0] = 34;
        assert_eq!(read(&bytes), Err(libc::EINVAL));
    }
}
