//! The second link of an entry: where it points, which entries carry one, and which entries prove a place in a log.
//!
//! With h(k) = (3^k − 1)/2 = 1, 4, 13, 40 … the link of n goes back by 3^(k−1) if n = h(k), else by h(g(n)),
//! where g(n) strips the largest h(k) below n until an h(k) is left (`docs/spec.md`, Encoding).

use crate::id::SeqNum;

/// The sequence number that the lipmaa link of `seq` points at.
///
/// Defined on all of u64; 0 and 1 link nowhere and give 0. A few dozen steps at most, no overflow.
///
/// ```
/// use madake_log::lipmaa;
/// assert_eq!([2, 4, 8, 13, 40].map(lipmaa), [1, 1, 4, 4, 13]);
/// assert_eq!(lipmaa(18236498188585393201), 6078832729528464400);
/// ```
pub const fn lipmaa(seq: u64) -> u64 {
    narrow(seq)
}

/// Whether the entry at `seq` carries a lipmaa link of its own: not at 1, and not where it would equal the backlink.
pub const fn has_lipmaa_link(seq: u64) -> bool {
    seq > 1 && lipmaa(seq) != seq - 1
}

/// The certificate pool of `x`, ascending: the shortest path from `x` to 1, and from the least h(k) ≥ `x` to `x`.
///
/// Any two pools of one log share a path, so two partial copies can always be compared (`docs/spec.md`, Encoding).
/// It holds about 2·log₃(x) numbers per path. Numbers past 2^64 − 1, which no entry can have, are left out.
///
/// ```
/// use madake_log::{SeqNum, certificate_pool};
/// let pool: Vec<u64> = certificate_pool(SeqNum::new(23).unwrap()).into_iter().map(SeqNum::get).collect();
/// assert_eq!(pool, [1, 4, 13, 17, 21, 22, 23, 24, 25, 26, 39, 40]);
/// ```
pub fn certificate_pool(x: SeqNum) -> Vec<SeqNum> {
    let x = u128::from(x.get());
    let mut k = 1;
    while H[k] < x {
        k += 1;
    }
    let mut pool: Vec<SeqNum> = path(H[k], x)
        .chain(path(x, 1).skip(1))
        .filter_map(|n| u64::try_from(n).ok().and_then(SeqNum::new))
        .collect();
    pool.reverse();
    pool
}

/// The shortest path of links from `x` to entry 1, both included, descending.
///
/// Links do not cross, so whatever an entry above `x` links to at or below `x` is on this path.
pub(crate) fn path_to_first(x: SeqNum) -> impl Iterator<Item = SeqNum> {
    path(u128::from(x.get()), 1).filter_map(|n| u64::try_from(n).ok().and_then(SeqNum::new))
}

/// The shortest path of links from `from` down to `to`, both included. Taking the longest link that does not
/// pass the goal is shortest.
fn path(from: u128, to: u128) -> impl Iterator<Item = u128> {
    std::iter::successors(Some(from), move |&n| {
        let far = lipmaa_wide(n);
        if n == to {
            None
        } else if far >= to {
            Some(far)
        } else {
            Some(n - 1)
        }
    })
}

/// Where the lipmaa link of a number points, for numbers below the h(k) that would follow the table's last.
macro_rules! lipmaa_in {
    ($(#[$doc:meta])* $name:ident, $number:ty, $h:ident) => {
        $(#[$doc])*
        const fn $name(n: $number) -> $number {
            if n < 2 {
                return 0;
            }
            let mut k = 1;
            while k + 1 < $h.len() && $h[k + 1] <= n {
                k += 1;
            }
            if $h[k] == n {
                return $h[k - 1]; // n − 3^(k−1), for h(k) = 3^(k−1) + h(k−1)
            }
            let mut rest = n;
            loop {
                while $h[k] > rest {
                    k -= 1;
                }
                if $h[k] == rest {
                    return n - $h[k];
                }
                rest -= $h[k];
            }
        }
    };
}

lipmaa_in!(
    /// Of all of u64, whose numbers are half the work of the wide ones.
    narrow, u64, NARROW
);
lipmaa_in!(
    /// Up to h(42), which certificate pools near 2^64 start from.
    lipmaa_wide, u128, H
);

/// The last k in the wide table; h(41) is the greatest one below 2^64.
const LAST: usize = 42;

/// h(0) = 0, h(1) = 1, h(2) = 4 …
const H: [u128; LAST + 1] = {
    let mut table = [0; LAST + 1];
    let mut k = 1;
    while k <= LAST {
        table[k] = 3 * table[k - 1] + 1;
        k += 1;
    }
    table
};

/// Those of [`H`] that are below 2^64.
const NARROW: [u64; LAST] = {
    let mut table = [0; LAST];
    let mut k = 0;
    while k < LAST {
        table[k] = H[k] as u64;
        k += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition of `docs/spec.md`, word for word.
    fn by_definition(n: u128) -> u128 {
        fn g(n: u128) -> usize {
            match H.iter().position(|&h| h >= n) {
                Some(k) if H[k] == n => k,
                Some(k) => g(n - H[k - 1]),
                None => unreachable!(),
            }
        }
        match H.iter().position(|&h| h == n) {
            Some(k) => n - 3u128.pow(k as u32 - 1),
            None => n - H[g(n)],
        }
    }

    #[test]
    fn by_the_definition() {
        for n in (1..5_000).chain(u128::from(u64::MAX) - 500..=u128::from(u64::MAX)) {
            assert_eq!(lipmaa_wide(n), by_definition(n), "{n}");
        }
        for h in H.map(|h| u64::try_from(h).unwrap_or(u64::MAX)) {
            for n in h.saturating_sub(50)..=h.saturating_add(50) {
                assert_eq!(u128::from(lipmaa(n)), lipmaa_wide(u128::from(n)), "{n}");
            }
        }
        assert_eq!(lipmaa(0), 0);
        assert_eq!(lipmaa(1), 0);
    }

    #[test]
    fn a_third_of_the_entries_carries_a_link() {
        let linked = (1..=40_000).filter(|&n| has_lipmaa_link(n)).count();
        assert!((13_000..14_000).contains(&linked), "{linked}");
        assert!(!has_lipmaa_link(0) && !has_lipmaa_link(1) && !has_lipmaa_link(2) && has_lipmaa_link(4));
    }

    #[test]
    fn any_two_pools_share_a_path() {
        let pools: Vec<Vec<SeqNum>> = (1..=150).map(|x| certificate_pool(SeqNum::new(x).unwrap())).collect();
        for (x, low) in pools.iter().enumerate() {
            for (y, high) in pools.iter().enumerate().skip(x) {
                let mut both: Vec<u64> = low.iter().chain(high).map(|n| n.get()).collect();
                both.sort_unstable();
                let mut reached = vec![y as u64 + 1];
                while let Some(n) = reached.pop().filter(|&n| n > x as u64 + 1) {
                    // Greedy within what both hold: the longer link first.
                    let step = [lipmaa(n), n - 1]
                        .into_iter()
                        .find(|t| *t > x as u64 && both.binary_search(t).is_ok());
                    reached.push(step.unwrap_or_else(|| panic!("no way from {} to {} at {n}", y + 1, x + 1)));
                }
            }
        }
    }

    #[test]
    fn pools_at_the_far_end() {
        for x in [18236498188585393201, 18236498188585393202, u64::MAX - 1, u64::MAX] {
            let pool = certificate_pool(SeqNum::new(x).unwrap());
            assert!(pool.is_sorted() && pool.len() < 200, "{}", pool.len());
            assert_eq!(pool.first(), Some(&SeqNum::FIRST));
            assert!(pool.contains(&SeqNum::new(x).unwrap()));
        }
    }

    #[test]
    fn later_links_end_on_the_path() {
        for n in 1..2_000 {
            let path: Vec<u64> = path_to_first(SeqNum::new(n).unwrap()).map(SeqNum::get).collect();
            for later in n + 1..=9_841 {
                let target = lipmaa(later);
                assert!(target > n || path.contains(&target), "{later} to {target}, over {n}");
            }
        }
        assert!(path_to_first(SeqNum::MAX).count() < 120);
    }

    proptest! {
        #[test]
        fn links_go_back_and_do_not_cross(n in 2u64.., shift in 0u32..62) {
            let n = (n >> shift).max(2);
            let far = lipmaa(n);
            prop_assert!(far >= 1 && far < n);
            prop_assert_eq!(u128::from(far), by_definition(u128::from(n)));
            // Anti-monotone: a later link never starts before an earlier one's target and ends inside it.
            if let Some(next) = n.checked_add(1) {
                let other = lipmaa(next);
                prop_assert!(other <= far || other == n, "{} {}", far, other);
            }
        }

        #[test]
        fn paths_are_short(x in 1u64.., shift in 0u32..63) {
            let x = SeqNum::new((x >> shift).max(1)).unwrap();
            let pool = certificate_pool(x);
            prop_assert!(pool.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(pool.len() <= 4 * (1 + x.get().ilog(3) as usize) + 8, "{}", pool.len());
        }
    }
}
