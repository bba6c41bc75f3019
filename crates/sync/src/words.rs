//! Messages of one word, with which a session that stays open goes on.

/// What one side of a session that stays open says to the other; each is a message of its own kind, without
/// fields.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Word {
    /// Kind 30: more has happened than I could push. Compare with me again.
    Again = 30,
    /// Kind 31: all the entries that you offered are here. Push what is new from now on.
    Ready = 31,
}

impl Word {
    /// The word with this number.
    pub(crate) fn of_kind(kind: u8) -> Option<Self> {
        [Self::Again, Self::Ready].into_iter().find(|word| *word as u8 == kind)
    }
}
