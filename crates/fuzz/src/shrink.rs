//! Makes a case smaller that has some property.

/// The smallest that was found in so many tries: by taking bytes away, and by making them zero.
pub(crate) fn shrink(mut case: Vec<u8>, most: usize, has: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut tries = 0;
    let mut size = case.len();
    while size > 0 {
        let mut at = 0;
        while at < case.len() {
            let end = case.len().min(at + size);
            let without = [&case[..at], &case[end..]].concat();
            let mut zeroed = case.clone();
            zeroed[at..end].fill(0);
            let smaller = [without, zeroed].into_iter().find(|smaller| {
                tries += 1;
                tries <= most && *smaller != case && has(smaller)
            });
            match smaller {
                Some(smaller) if smaller.len() < case.len() => case = smaller,
                Some(smaller) => (case, at) = (smaller, end),
                None => at = end,
            }
        }
        size /= 2;
    }
    case
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_goes() {
        let case: Vec<u8> = (1..=200).collect();
        let has = |case: &[u8]| case.contains(&77) && case.iter().position(|byte| *byte == 77) >= Some(3);
        assert_eq!(shrink(case, 2000, has), [0, 0, 0, 77]);
        assert_eq!(shrink(vec![5; 9], 9, |_| true), []);
        assert_eq!(shrink(vec![5; 9], 0, |_| true), [5; 9]);
    }
}
