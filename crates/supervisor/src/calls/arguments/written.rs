//! For tests: messages as guests write them, and as liars do, into an [`Arena`](crate::sys::arena::Arena).

use netshunt_fuzz::Input;

use crate::sys::arena;

/// Where what is in the arena: headers, lists of buffers, names, control messages, the length of a name, and data.
const LISTS: u64 = 512;
pub(crate) const NAMES: u64 = 1024;
const CONTROL: u64 = 1344;
pub(crate) const LENGTHS: u64 = 1792;
pub(crate) const DATA: u64 = 2048;
/// Bytes of one list.
const LIST: u64 = 128;
pub(crate) const MESSAGES: usize = 4;

/// A pointer into that part of the arena, or nowhere.
pub(crate) fn pointer(input: &mut Input<'_>, base: u64, part: u64) -> u64 {
    let nowhere = [
        0,
        16,
        base + arena::SIZE as u64,
        base + arena::SIZE as u64 - 16,
        1 << 47,
        0xffff_8000_0000_0000,
        u64::MAX - 7,
    ];
    if input.one_in(12) { *input.pick(&nowhere) } else { base + part + 8 * input.up_to(15) as u64 }
}

/// A length that is right, or not: none that could be taken for an address of this process.
pub(crate) fn length(input: &mut Input<'_>, most: usize, limits: &[u64]) -> u64 {
    if !input.one_in(12) {
        return input.up_to(most) as u64;
    }
    let length = input.length(limits);
    if (1 << 32..1 << 47).contains(&length) { length % (1 << 32) } else { length }
}

fn put(memory: &mut [u8], at: u64, words: &[u64]) {
    for (place, word) in memory[at as usize..].chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
}

/// Memory with messages, each of `size` bytes; in them no control messages and no name that anybody has.
pub(crate) fn messages(input: &mut Input<'_>, base: u64, size: u64) -> Vec<u8> {
    let mut memory = vec![0; arena::SIZE];
    let data: Vec<u64> = (1..=(arena::SIZE as u64 - DATA) / 8).collect();
    put(&mut memory, DATA, &data);
    for n in 0..MESSAGES as u64 {
        let list = LISTS + n * LIST;
        let count = length(input, 4, &[1024, 1 << 61]);
        // Not beyond what is there: of a list that ends in the middle the kernel reads the first lengths.
        let count = if (9..=1024).contains(&count) { count % 9 } else { count };
        for m in 0..count.min(8) {
            let buffer =
                [pointer(input, base, DATA), length(input, 300, &[208 << 10, 1 << 63, 0x7fff_f000, 8192])];
            put(&mut memory, list + m * 16, &buffer);
        }
        let name = if input.one_in(8) { pointer(input, base, NAMES) } else { 0 };
        let name_length = if input.one_in(8) { length(input, 140, &[128, 1 << 31]) & 0xffff_ffff } else { 0 };
        let list = if input.one_in(16) { pointer(input, base, LISTS) } else { base + list };
        let control = if input.one_in(8) { pointer(input, base, CONTROL) } else { 0 };
        let control_length =
            if input.one_in(8) { length(input, 64, &[1 << 31, 1 << 17, 1 << 16]) } else { 0 };
        put(&mut memory, n * size, &[name, name_length, list, count, control, control_length, 0]);
    }
    memory
}

/// What was written, for a message of a failure.
pub(crate) fn words(memory: &[u8]) -> String {
    let words = memory[..DATA as usize].chunks_exact(8).enumerate();
    let words = words.map(|(n, word)| (8 * n, u64::from_ne_bytes(std::array::from_fn(|i| word[i]))));
    words.filter(|(_, word)| *word != 0).map(|(at, word)| format!("{at}:{word:x} ")).collect()
}

/// Whether there is an address that is no process's. The kernel refuses buffers there also when it has nothing to write
/// into them (access_ok() in import_iovec()); here they are what any unmapped ones are.
pub(crate) fn leads_beyond(memory: &[u8], args: &[u64; 6]) -> bool {
    let words = memory.chunks_exact(8).map(|word| u64::from_ne_bytes(std::array::from_fn(|i| word[i])));
    words.chain(args.iter().copied()).any(|word| word >= (1 << 47) - 4096)
}
