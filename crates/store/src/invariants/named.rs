//! That what is here has a name.

use std::collections::BTreeSet;

use madake_object::ObjectId;

use super::{Broken, Invariant};
use crate::prefix::has_prefix;
use crate::read::{NamedBy, Read as _};
use crate::store::{Store, StoreError};
use crate::tables;

/// An object that is here has a reason to be, and the store says the right one when a peer asks.
pub(super) fn named(
    store: &Store,
    (payloads, beside): (&BTreeSet<ObjectId>, &BTreeSet<ObjectId>),
    key: &[u8],
    broken: &mut dyn FnMut(Broken),
) -> Result<(), StoreError> {
    let engine = store.engine();
    let id = ObjectId::new(key.try_into().map_err(|_| StoreError::broken("an object id"))?);
    let pinned = engine.contains(tables::PINNED, key)?;
    let named = if has_prefix(engine, tables::LINKED, key)? {
        Some(NamedBy::Commit)
    } else {
        payloads.contains(&id).then_some(NamedBy::Entry)
    };
    if named.is_none() && beside.contains(&id) {
        return Ok(());
    }
    if named.is_none() && !pinned {
        broken(Broken { rule: Invariant::Named, what: format!("nothing names {id}") });
    } else if store.named_by(id)? != named {
        let what = format!("{id} is named by {named:?}, and the store says {:?}", store.named_by(id)?);
        broken(Broken { rule: Invariant::Named, what });
    }
    Ok(())
}
