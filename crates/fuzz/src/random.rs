//! Random bytes, the same for the same seed.

/// splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    /// A case: of no one before, or one of `pool` that is changed.
    pub(crate) fn case(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        match pool.len() {
            0 => self.fresh(),
            _ if self.below(3) == 0 => self.fresh(),
            count => {
                let mut case = pool[self.below(count)].clone();
                for _ in 0..=self.below(4) {
                    let other = &pool[self.below(count)];
                    self.change(&mut case, other);
                }
                case.truncate(LONGEST);
                case
            }
        }
    }

    /// Short ones are as likely as long ones.
    fn fresh(&mut self) -> Vec<u8> {
        let scale = self.below(LONGEST.ilog2() as usize + 1);
        let length = self.below(1 << scale);
        let noisy = self.below(2) == 0;
        (0..length)
            .map(|_| if noisy || self.below(2) == 0 { self.next() as u8 } else { self.small() })
            .collect()
    }

    /// What counts and lengths often are.
    fn small(&mut self) -> u8 {
        [0, 1, 2, 4, 8, 16, 127, 128, 255][self.below(9)]
    }

    fn change(&mut self, case: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(case.len());
        let end = at + self.below(case.len() - at + 1);
        match self.below(7) {
            0 => {
                case.drain(at..end);
            }
            1 => {
                let bytes: Vec<u8> = (0..=self.below(8)).map(|_| self.next() as u8).collect();
                case.splice(at..at, bytes);
            }
            2 => {
                let piece = case[at..end].to_vec();
                case.splice(at..at, piece);
            }
            3 => {
                let from = self.below(other.len());
                let to = from + self.below(other.len() - from + 1);
                case.splice(at..end, other[from..to].iter().copied());
            }
            way => {
                let Some(byte) = case.get_mut(at) else { return };
                *byte = match way {
                    4 => self.small(),
                    5 => *byte ^ (1 << self.below(8)),
                    _ => self.next() as u8,
                };
            }
        }
    }
}

/// Bytes of a case at most: what a body makes of them may be longer.
const LONGEST: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_cases_and_no_case_is_longer_than_the_longest() {
        let cases = || {
            let mut random = Random(7);
            let mut pool = Vec::new();
            for _ in 0..2000 {
                let case = random.case(&pool);
                assert!(case.len() <= LONGEST);
                pool.push(case);
            }
            pool
        };
        let all = cases();
        assert_eq!(all, cases());
        assert!(all.iter().any(Vec::is_empty) && all.iter().any(|case| case.len() > LONGEST / 2));
    }
}
