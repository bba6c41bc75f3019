#![allow(clippy::unwrap_used)] // a panic is how a test reports

use super::*;
use crate::told::Fared;

#[test]
fn how_a_session_went_is_read_in_both_versions() {
    let mut last = LastSession {
        ended: -5,
        rtt: 300,
        failure: Some("the connection was lost".into()),
        missing: 2,
        clock_difference: None,
        told: Told::default(),
    };
    let first = (last.ended, last.rtt, &last.failure, last.missing, last.clock_difference);
    let first = encode_versioned(&first).unwrap();
    assert_eq!(first[0], 1);
    assert_eq!(LastSession::decode(&first).unwrap(), last);
    last.told.add(Fared::Missing, "object", "ab", "not-there: the peer does not have it");
    let now = last.encode().unwrap();
    assert_eq!((now[0], LastSession::decode(&now).unwrap()), (2, last));
    assert!(LastSession::decode(&[3, 0]).is_err());
    assert!(LastSession::decode(&[]).is_err());
}
