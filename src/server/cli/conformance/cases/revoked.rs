//! Tokens that are right in everything and have been stopped: who follows the feed refuses them.

use serde_json::json;

use super::super::forge::{Subject, with};
use super::super::serve::{CUT_OFF_CLIENT, REVOKED_GRANT};
use super::{Case, Sheet};

/// Nothing, unless the service was said to follow the feed: a route that refuses impersonators would refuse these anyway.
pub(super) fn cases(subject: &Subject) -> Vec<Case> {
    let mut sheet = Sheet::new("revoked");
    if subject.serves_feed && subject.admits_impersonation {
        for (id, why, name, value) in [
            ("grant", "its grant (`sid`) stands in the feed", "sid", REVOKED_GRANT),
            ("client", "issued before the cut-off of its client", "client_id", CUT_OFF_CLIENT),
        ] {
            let claims = with(subject.actor_claims(), name, json!(value));
            sheet.must(id, why, subject.sign(&subject.header(), &claims));
        }
    }
    sheet.done()
}
