//! Messages of one word, with which a session that stays open goes on.

/// What one side of a session that stays open says to the other; each is a message of its own kind, without
/// fields.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Word {
    /// Kind 30: more has happened than I could push. Tell me your clock again.
    Again = 30,
    /// Kind 31: all the entries that you offered are here. Push what is new from now on.
    Ready = 31,
    /// Kind 32: something that I lacked when you asked for it has come. Ask again for what you miss.
    Look = 32,
}

impl Word {
    /// The word with this number.
    pub(crate) fn of_kind(kind: u8) -> Option<Self> {
        [Self::Again, Self::Ready, Self::Look].into_iter().find(|word| *word as u8 == kind)
    }
}
