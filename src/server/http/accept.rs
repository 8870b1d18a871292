//! Which media type a caller takes in place of JSON, which everybody takes (RFC 9110 §12.5.1).

use actix_web::http::header::HeaderValue;

/// Whether `accept` names `media` with no less weight than JSON; where it names both alike, `on_a_tie`.
pub fn prefers(accept: Option<&HeaderValue>, media: &str, on_a_tie: bool) -> bool {
    let Some(text) = accept.and_then(|accept| accept.to_str().ok()) else { return false };
    let Some(wanted) = weight(text, &[media]).filter(|wanted| *wanted > 0.0) else { return false };
    match weight(text, &["application/json"]) {
        Some(json) if on_a_tie => wanted >= json,
        Some(json) => wanted > json,
        // who takes anything, and this by name, takes this
        None => wanted >= weight(text, &["*/*", "application/*"]).unwrap_or(0.0),
    }
}

/// The greatest weight that one of these ranges is named with. One that cannot be read counts as none.
fn weight(accept: &str, ranges: &[&str]) -> Option<f32> {
    let named = accept.split(',').filter_map(|one| {
        let mut parts = one.split(';').map(str::trim);
        let range = parts.next()?;
        ranges.iter().any(|known| known.eq_ignore_ascii_case(range)).then(|| {
            let q = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            q.map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0))
        })
    });
    named.max_by(f32::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greater_weight_wins_and_none_is_none() {
        let asked = |accept: &'static str, on_a_tie| {
            prefers(Some(&HeaderValue::from_static(accept)), "application/x-ndjson", on_a_tie)
        };
        for (accept, on_a_tie, otherwise) in [
            ("application/x-ndjson", true, true),
            ("Application/X-NDJSON; charset=utf-8", true, true),
            ("application/x-ndjson;q=0", false, false),
            ("application/x-ndjson ; q=0.000, */*", false, false),
            ("application/x-ndjson;q=much", false, false),
            ("application/x-ndjson;q=0.5, application/json", false, false),
            ("application/json;q=0.5, application/x-ndjson", true, true),
            ("application/json, application/x-ndjson", true, false),
            ("application/x-ndjson, */*", true, true),
            ("application/x-ndjson;q=0.5, */*", false, false),
            ("application/x-ndjsonp", false, false),
            ("*/*", false, false),
            ("", false, false),
        ] {
            assert_eq!((asked(accept, true), asked(accept, false)), (on_a_tie, otherwise), "{accept}");
        }
        assert!(!prefers(None, "application/x-ndjson", true));
    }
}
