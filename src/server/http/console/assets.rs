//! Files of the pages, and the banner that products load: built in, cached, the banner also under its hash.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Path;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::page::Trouble;
use crate::server::console::view::support::ICON;
use crate::server::http::problem::Problem;
use crate::token::signer::sha256;

/// The banner's text.
pub const BANNER: &str = include_str!("../../web/banner.js");
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The banner's name under its hash: the first half of its SHA-256.
static BANNER_NAME: LazyLock<String> = LazyLock::new(|| {
    let hex: String = sha256(BANNER.as_bytes()).iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("{hex}.js")
});

/// What a page writes into `integrity` (SRI).
static BANNER_INTEGRITY: LazyLock<String> =
    LazyLock::new(|| format!("sha256-{}", STANDARD.encode(sha256(BANNER.as_bytes()))));

/// GET `/banner.js`. The answer names the address and the hash that a page pins.
pub async fn banner() -> HttpResponse {
    banner_answer("max-age=300")
}

/// GET `/banner/{name}`: the same under its hash, for pages that pin it.
pub async fn banner_by_hash(name: Path<String>) -> Result<HttpResponse, Problem> {
    if *name == *BANNER_NAME {
        Ok(banner_answer("public, max-age=31536000, immutable"))
    } else {
        Err(Problem::not_found("This server has another version of the banner; /banner.js names it."))
    }
}

fn banner_answer(cached: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(JAVASCRIPT)
        .insert_header((header::CACHE_CONTROL, cached))
        .insert_header(("x-integrity", BANNER_INTEGRITY.as_str()))
        .insert_header((header::CONTENT_LOCATION, format!("/banner/{}", *BANNER_NAME)))
        .insert_header(("cross-origin-resource-policy", "cross-origin"))
        .body(BANNER)
}

/// GET `/console/assets/{name}`.
pub async fn asset(name: Path<String>) -> Result<HttpResponse, Trouble> {
    let (kind, text) = match name.as_str() {
        "console.css" => ("text/css; charset=utf-8", include_str!("../../web/console.css")),
        "console.js" => (JAVASCRIPT, include_str!("../../web/console.js")),
        "prove.js" => (JAVASCRIPT, include_str!("../../web/prove.js")),
        "icon.svg" => ("image/svg+xml", ICON.0),
        _ => return Err(Trouble::NotThere("There is no such file.")),
    };
    Ok(HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CACHE_CONTROL, "max-age=60"))
        .insert_header(("cross-origin-resource-policy", "same-origin"))
        .body(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn the_banner_is_under_6_kilobytes_on_the_wire() {
        let Ok(mut gzip) =
            Command::new("gzip").args(["-9", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        else {
            eprintln!("SKIP: gzip is not installed");
            return;
        };
        gzip.stdin.take().unwrap().write_all(BANNER.as_bytes()).unwrap();
        let bytes = gzip.wait_with_output().unwrap().stdout.len();
        assert!((1..6 * 1024).contains(&bytes), "{bytes} bytes gzipped");
    }

    #[test]
    fn the_banner_needs_no_inline_style_and_no_evaluation() {
        for word in
            ["eval(", "new Function", "innerHTML", "insertAdjacentHTML", ".style.", "setAttribute(\"style\""]
        {
            assert!(!BANNER.contains(word), "{word} would need a weaker Content-Security-Policy");
        }
        for host in ["http://", "https://"] {
            assert!(!BANNER.contains(host), "no third party");
        }
    }
}
