//! Conditions as libseccomp can take them: one masked comparison for each argument.
//!
//! "Allow unless" cannot be said to a filter whose default is to notify, nor can "or". Both become
//! several rules: "differs from a set of values" is the disjoint blocks around them.

use super::When;

/// `argument & mask == value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Masked {
    pub(super) arg: u8,
    pub(super) mask: u64,
    pub(super) value: u64,
}

impl Masked {
    /// On the low word.
    fn low(arg: u8, mask: u32, value: u32) -> Self {
        Masked { arg, mask: mask.into(), value: value.into() }
    }
}

/// The alternatives that together mean "all of `when` hold". Each names an argument once at most.
pub(super) fn alternatives(when: &[When]) -> Vec<Vec<Masked>> {
    let mut rules = vec![Vec::new()];
    for condition in when {
        let choices = choices(condition);
        rules = rules
            .iter()
            .flat_map(|rule| choices.iter().map(move |&choice| [rule.as_slice(), &[choice]].concat()))
            .collect();
    }
    rules
}

fn choices(when: &When) -> Vec<Masked> {
    match *when {
        When::NoneOf { arg, mask, values } => {
            let mut blocks = Vec::new();
            around(values, mask, 0, 0, &mut |mask, value| blocks.push(Masked::low(arg, mask, value)));
            blocks
        }
        When::NoneOfGroup { arg, mask, group, values } => {
            let mut blocks = Vec::new();
            around(values, !mask, mask, group, &mut |mask, value| blocks.push(Masked::low(arg, mask, value)));
            blocks
        }
        When::NotNull { arg } => {
            (0..u64::BITS).map(|bit| Masked { arg, mask: 1 << bit, value: 1 << bit }).collect()
        }
        When::Null { arg } => vec![Masked { arg, mask: u64::MAX, value: 0 }],
        When::OneOf { arg, mask, values } => {
            values.iter().map(|&value| Masked::low(arg, mask, value)).collect()
        }
        When::SomeBit { arg, bits, without } => {
            let each = (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| bits & bit != 0);
            each.map(|bit| Masked::low(arg, bit | without, bit)).collect()
        }
    }
}

/// Emits blocks that hold every value but `values`. `fixed` are the bits decided so far, from the top,
/// and `prefix` what they are; `open` are those to be decided.
fn around(values: &[u32], open: u32, fixed: u32, prefix: u32, emit: &mut dyn FnMut(u32, u32)) {
    if !values.iter().any(|value| value & fixed == prefix) {
        return emit(fixed, prefix);
    }
    let Some(top) = open.checked_ilog2().map(|bit| 1 << bit) else { return };
    around(values, open & !top, fixed | top, prefix, emit);
    around(values, open & !top, fixed | top, prefix | top, emit);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meets(rule: &[Masked], args: &[u64; 6]) -> bool {
        rule.iter().all(|test| args[usize::from(test.arg)] & test.mask == test.value)
    }

    #[test]
    fn alternatives_mean_the_same_and_do_not_overlap() {
        let whens: [&[When]; 5] = [
            &[],
            &[When::NoneOf { arg: 0, mask: u32::MAX, values: &[0, 1, 6, 41] }],
            &[When::NoneOf { arg: 0, mask: 0xff00, values: &[0x8900] }],
            &[
                When::OneOf { arg: 0, mask: u32::MAX, values: &[2, 10] },
                When::NoneOf { arg: 1, mask: u32::MAX, values: &[4] },
            ],
            &[When::NoneOf { arg: 0, mask: u32::MAX, values: &[u32::MAX, 0] }],
        ];
        let mut values: Vec<u64> = (0..300).chain(0x8800..0x8b00).collect();
        values.extend((0..64).flat_map(|bit| [1 << bit, (1 << bit) + 1, !(1 << bit)]));
        for when in whens {
            let rules = alternatives(when);
            for &first in &values {
                for second in [0, 4, 5, 0x1_0000_0004] {
                    let args = [first, second, 0, 0, 0, 0];
                    let met = rules.iter().filter(|rule| meets(rule, &args)).count();
                    let holds = when.iter().all(|when| when.holds(&args));
                    assert_eq!(met, usize::from(holds), "{when:?} {args:x?}");
                }
            }
        }
    }

    #[test]
    fn some_bit_means_the_same() {
        let when = When::SomeBit { arg: 0, bits: 0b1101, without: 0b10 };
        let rules = alternatives(&[when]);
        for value in 0..32 {
            let args = [value, 0, 0, 0, 0, 0];
            assert_eq!(rules.iter().any(|rule| meets(rule, &args)), when.holds(&args), "{value:b}");
        }
    }

    #[test]
    fn pointers_are_null_only_if_all_their_bits_are() {
        let (null, set) = (When::Null { arg: 4 }, When::NotNull { arg: 4 });
        for value in (0..64).map(|bit| 1 << bit).chain([0, u64::MAX]) {
            let args = [7, 7, 7, 7, value, 7];
            for (when, holds) in [(null, value == 0), (set, value != 0)] {
                let rules = alternatives(&[when]);
                assert_eq!(rules.iter().any(|rule| meets(rule, &args)), holds, "{when:?} {value:x}");
                assert_eq!(when.holds(&args), holds, "{when:?} {value:x}");
            }
        }
    }
}
