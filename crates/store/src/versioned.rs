//! Values of tables: a version byte, then postcard.

use serde::{Deserialize, Serialize};

use crate::store::StoreError;

/// The version byte in front of the postcard of table values.
const VALUE_VERSION: u8 = 1;

pub(crate) fn encode_versioned<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_extend(value, vec![VALUE_VERSION])
        .map_err(|_| StoreError::broken("a value that has no bytes"))
}

pub(crate) fn decode_versioned<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    what: &'static str,
) -> Result<T, StoreError> {
    let fields = bytes.strip_prefix(&[VALUE_VERSION]).ok_or(StoreError::broken(what))?;
    postcard::from_bytes(fields).map_err(|_| StoreError::broken(what))
}
