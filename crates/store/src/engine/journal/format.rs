//! The bytes of segments: headers and the frames of records. The tables are drawn in the parent module.

use std::collections::BTreeMap;

/// What a segment begins with.
const MAGIC: [u8; 8] = *b"madakeJ1";
/// The version of the format. Later versions keep the segment header's 76 bytes as they are.
const VERSION: u32 = 1;
/// Batches as they came, without holes; the only kind of segment so far.
const KIND_LIVE: u32 = 0;

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER: u64 = 76;
/// Bytes of a record's header.
pub(super) const RECORD_HEADER: usize = 29;
/// Bytes of a record's checksum.
pub(super) const CHECKSUM: usize = 16;
/// Bytes of a record besides its body.
pub(super) const OVERHEAD: usize = RECORD_HEADER + CHECKSUM;

/// A batch.
pub(super) const BATCH: u8 = 1;
/// The end of the journal at a clean stop; the next record is written over it.
pub(super) const MARK: u8 = 2;
/// The first record of a segment: which segments the journal has before it.
pub(super) const CHECKPOINT: u8 = 3;
/// Rows that were moved here from a segment that is to go.
pub(super) const MOVED: u8 = 5;

/// What a checkpoint says of a segment that is ended.
#[derive(Clone, Copy, Eq, PartialEq, Debug)]
pub(super) struct Sealed {
    /// Bytes of its file.
    pub(super) len: u64,
    /// As its header says.
    pub(super) first_generation: u64,
}

/// The body of a checkpoint.
pub(super) fn encode_checkpoint(sealed: &BTreeMap<u32, Sealed>) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + sealed.len() * 20);
    out.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
    for (number, Sealed { len, first_generation }) in sealed {
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&first_generation.to_le_bytes());
    }
    out
}

/// Reads a checkpoint's body; `None` if it is none.
pub(super) fn decode_checkpoint(body: &[u8]) -> Option<BTreeMap<u32, Sealed>> {
    let mut rest = Fields(body);
    let count = u32::from_le_bytes(rest.take()?);
    let mut sealed: BTreeMap<u32, Sealed> = BTreeMap::new();
    for _ in 0..count {
        let number = u32::from_le_bytes(rest.take()?);
        let len = u64::from_le_bytes(rest.take()?);
        let first_generation = u64::from_le_bytes(rest.take()?);
        if sealed.last_key_value().is_some_and(|(last, _)| *last >= number) {
            return None;
        }
        sealed.insert(number, Sealed { len, first_generation });
    }
    rest.0.is_empty().then_some(sealed)
}

/// What a segment's header says.
#[derive(Clone, Copy, Eq, PartialEq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) number: u32,
    pub(super) first_generation: u64,
    pub(super) epoch: [u8; 16],
    pub(super) salt: [u8; 16],
}

/// Why a segment's header cannot be taken.
#[derive(Clone, Copy, Eq, PartialEq, Debug)]
pub(super) enum HeaderFault {
    Damaged,
    Newer { what: &'static str, number: u32 },
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.first_generation.to_le_bytes());
        out.extend_from_slice(&self.epoch);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&KIND_LIVE.to_le_bytes());
        let checksum = header_checksum(&out);
        out.extend_from_slice(&checksum);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let mut rest = Fields(bytes);
        let fields = (|| {
            let magic: [u8; 8] = rest.take()?;
            let version = u32::from_le_bytes(rest.take()?);
            let number = u32::from_le_bytes(rest.take()?);
            let first_generation = u64::from_le_bytes(rest.take()?);
            let header = Self { number, first_generation, epoch: rest.take()?, salt: rest.take()? };
            let kind = u32::from_le_bytes(rest.take()?);
            let checksum: [u8; 16] = rest.take()?;
            let covered = bytes.get(..SEGMENT_HEADER as usize - 16)?;
            (magic == MAGIC && checksum == header_checksum(covered)).then_some((version, kind, header))
        })();
        match fields {
            None => Err(HeaderFault::Damaged),
            Some((version, _, _)) if version != VERSION => {
                Err(HeaderFault::Newer { what: "format version", number: version })
            }
            Some((_, kind, _)) if kind != KIND_LIVE => {
                Err(HeaderFault::Newer { what: "segment kind", number: kind })
            }
            Some((_, _, header)) => Ok(header),
        }
    }
}

fn header_checksum(covered: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("madake journal segment header 1");
    hasher.update(covered);
    first(hasher.finalize().as_bytes())
}

/// The key of a segment's checksums. The salt in it is known to nobody else, so that no peer can send bytes
/// which, stored in a body, look like a record.
#[derive(Clone, Copy)]
pub(super) struct RecordKey([u8; 32]);

impl RecordKey {
    pub(super) fn new(header: &SegmentHeader) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("madake journal record key 1");
        hasher.update(&header.epoch);
        hasher.update(&header.salt);
        hasher.update(&header.number.to_le_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// Over the place of a record and the parts of it that `parts` gives.
    fn sum<const N: usize>(&self, offset: u64, parts: [&[u8]; 2]) -> [u8; N] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&offset.to_le_bytes());
        for part in parts {
            hasher.update(part);
        }
        first(hasher.finalize().as_bytes())
    }

    /// The checksum at the end of a record.
    pub(super) fn checksum(&self, offset: u64, header: &[u8], body: &[u8]) -> [u8; CHECKSUM] {
        self.sum(offset, [header, body])
    }
}

/// What a record's header says.
#[derive(Clone, Copy, Eq, PartialEq, Debug)]
pub(super) struct RecordHeader {
    /// Bytes of the body.
    pub(super) length: u32,
    pub(super) kind: u8,
    /// Of a batch its own; of a mark that of the last batch.
    pub(super) generation: u64,
    /// Up to here the segment was durable when this was written; of a checkpoint 0.
    pub(super) stable: u64,
}

impl RecordHeader {
    /// Reads the header at `offset`; `None` if no header was ever written there.
    pub(super) fn decode(bytes: &[u8], offset: u64, key: &RecordKey) -> Option<Self> {
        let header = Self::fields(bytes)?;
        let check = bytes.get(RECORD_HEADER - 8..RECORD_HEADER)?;
        let expected: [u8; 8] = key.sum(offset, [bytes.get(..RECORD_HEADER - 8)?, &[]]);
        (check == expected).then_some(header)
    }

    /// Reads the header's fields, unchecked.
    pub(super) fn fields(bytes: &[u8]) -> Option<Self> {
        let mut rest = Fields(bytes);
        Some(Self {
            length: u32::from_le_bytes(rest.take()?),
            kind: u8::from_le_bytes(rest.take()?),
            generation: u64::from_le_bytes(rest.take()?),
            stable: u64::from_le_bytes(rest.take()?),
        })
    }

    /// Bytes of the whole record.
    pub(super) fn record_len(&self) -> u64 {
        u64::from(self.length) + OVERHEAD as u64
    }
}

/// Writes a whole record that will stand at `offset`.
pub(super) fn frame(out: &mut Vec<u8>, offset: u64, header: RecordHeader, body: &[u8], key: &RecordKey) {
    let mut bytes = Vec::with_capacity(RECORD_HEADER);
    bytes.extend_from_slice(&header.length.to_le_bytes());
    bytes.push(header.kind);
    bytes.extend_from_slice(&header.generation.to_le_bytes());
    bytes.extend_from_slice(&header.stable.to_le_bytes());
    let check: [u8; 8] = key.sum(offset, [&bytes, &[]]);
    bytes.extend_from_slice(&check);
    let checksum = key.checksum(offset, &bytes, body);
    out.extend_from_slice(&bytes);
    out.extend_from_slice(body);
    out.extend_from_slice(&checksum);
}

/// Takes fields of fixed size off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}

fn first<const N: usize>(hash: &[u8; 32]) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut().zip(hash).for_each(|(out, byte)| *out = *byte);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader =
        SegmentHeader { number: 3, first_generation: 7, epoch: [1; 16], salt: [2; 16] };

    #[test]
    fn a_segment_header_comes_back_and_newer_ones_are_named() {
        let bytes = HEADER.encode();
        assert_eq!(bytes.len() as u64, SEGMENT_HEADER);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(HEADER));
        assert_eq!(SegmentHeader::decode(&bytes[..75]), Err(HeaderFault::Damaged));
        for (at, what) in [(8, "format version"), (56, "segment kind")] {
            let mut newer = bytes[..60].to_vec();
            newer[at] = 9;
            assert_eq!(
                SegmentHeader::decode(&[newer.as_slice(), &[0; 16]].concat()),
                Err(HeaderFault::Damaged)
            );
            let checksum = header_checksum(&newer);
            newer.extend_from_slice(&checksum);
            assert_eq!(SegmentHeader::decode(&newer), Err(HeaderFault::Newer { what, number: 9 }));
        }
    }

    #[test]
    fn a_record_is_good_in_its_place_only() {
        let key = RecordKey::new(&HEADER);
        let header = RecordHeader { length: 4, kind: BATCH, generation: 7, stable: 76 };
        let mut record = Vec::new();
        frame(&mut record, 76, header, b"body", &key);
        assert_eq!(record.len() as u64, header.record_len());
        assert_eq!(RecordHeader::decode(&record, 76, &key), Some(header));
        let (head, body) = (&record[..RECORD_HEADER], &record[RECORD_HEADER..RECORD_HEADER + 4]);
        assert_eq!(key.checksum(76, head, body), record[RECORD_HEADER + 4..]);
        // Not elsewhere, not in another segment, not in another store.
        assert_eq!(RecordHeader::decode(&record, 77, &key), None);
        assert_ne!(key.checksum(77, head, body), record[RECORD_HEADER + 4..]);
        let others = [
            SegmentHeader { number: 4, ..HEADER },
            SegmentHeader { epoch: [3; 16], ..HEADER },
            SegmentHeader { salt: [3; 16], ..HEADER },
        ];
        for other in others {
            assert_eq!(RecordHeader::decode(&record, 76, &RecordKey::new(&other)), None);
        }
    }
}
