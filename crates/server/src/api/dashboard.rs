//! `GET /`: the dashboard, embedded in the binary by `build.rs`.
//!
//! The page itself is asked for anew each time, and names its files in a folder whose name changes with any of them. So a
//! browser keeps the files for good, and after an upgrade never mixes old ones with new.

use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// One file of the dashboard.
#[derive(Debug)]
struct File {
    name: &'static str,
    content_type: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

mod files {
    use super::File;

    include!(concat!(env!("OUT_DIR"), "/web.rs"));
}

/// `GET /`. Its security policy is everyone's: `'self'` includes the WebSocket in each browser that knows the page's CSS.
pub(super) async fn page(request: Request) -> Result<Response, Problem> {
    file("index.html", "no-cache", request.headers())
}

/// `GET /assets/{build}/{name}`.
pub(super) async fn asset(Path((build, name)): Path<(String, String)>, request: Request) -> Result<Response, Problem> {
    if build != files::BUILD || name == "index.html" {
        return Err(unknown(&format!("{build}/{name}")));
    }
    file(&name, "public, max-age=31536000, immutable", request.headers())
}

fn file(name: &str, keep: &'static str, asked: &HeaderMap) -> Result<Response, Problem> {
    let file = files::FILES.iter().find(|file| file.name == name).ok_or_else(|| unknown(name))?;
    let gzip = takes_gzip(asked);
    let tag = format!("\"{}{}\"", files::BUILD, if gzip { "-gzip" } else { "" });
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let known =
        known.flat_map(|tags| tags.split(',')).any(|known| matches!(known.trim(), "*") || known.trim().trim_start_matches("W/") == tag);
    let mut response = match (known, gzip) {
        (true, _) => StatusCode::NOT_MODIFIED.into_response(),
        (false, true) => ([(header::CONTENT_ENCODING, "gzip")], file.gzip).into_response(),
        (false, false) => file.plain.into_response(),
    };
    let headers = response.headers_mut();
    if known {
        headers.remove(header::CONTENT_TYPE);
    } else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::ETAG, HeaderValue::from_str(&tag).map_err(Problem::internal)?);
    Ok(response)
}

/// Whether the client unpacks gzip: it is named, and not with the weight 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let listed = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    listed.map(|coding| coding.split_once(';').unwrap_or((coding, ""))).any(|(name, weight)| {
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(format_args!("the dashboard has no file {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_where_it_is_named_and_not_refused() {
        for (accepted, takes) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false), ("", false), ("gzip; q=0.0", false)]
        {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(accepted))]);
            assert_eq!(takes_gzip(&headers), takes, "{accepted:?}");
        }
    }

    /// The budget of the page's design. What alerting adds comes when it is first used: docs/decisions/page-weight.md.
    #[test]
    fn what_loads_at_first_has_at_most_150_kb_and_all_files_175_kb() {
        let later = |name: &str| name.starts_with("incident.");
        let weight =
            |counts: &dyn Fn(&str) -> bool| files::FILES.iter().filter(|file| counts(file.name)).map(|file| file.plain.len()).sum();
        let (first, all): (usize, usize) = (weight(&|name| !later(name)), weight(&|_| true));
        assert!(first <= 150_000, "{first} bytes at first");
        assert!(all <= 175_000, "{all} bytes in all");
        for file in files::FILES.iter().filter(|file| !later(file.name)) {
            let text = String::from_utf8_lossy(file.plain);
            assert!(!text.contains("from \"./incident.") && !text.contains("/incident.css"), "{} loads it at once", file.name);
        }
    }

    /// What the page promises of itself: it loads nothing from elsewhere, and neither script nor style stands in it.
    #[test]
    fn every_file_that_the_page_names_is_embedded_and_nothing_is_inline() {
        let text = |name: &str| {
            let file = files::FILES.iter().find(|file| file.name == name).unwrap_or_else(|| panic!("no {name}"));
            String::from_utf8(file.plain.to_vec()).unwrap()
        };
        let page = text("index.html");
        assert!(!page.contains("BUILD") && !page.contains("style=") && !page.contains("<style") && !page.contains(" onclick"));
        let folder = format!("assets/{}/", files::BUILD);
        let named: Vec<&str> = page.split(&folder).skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(
            named.len() >= 6
                && page.matches("<script").count()
                    == page.matches("<script src=").count() + page.matches("<script type=\"module\" src=").count(),
            "{named:?}"
        );
        for name in named {
            text(name);
        }
        let modules = files::FILES.iter().filter(|file| file.name.ends_with(".js") && !file.name.starts_with("uPlot"));
        for module in modules {
            let source = text(module.name);
            for import in [" from \"./", "import(\"./", "new URL(\"./"].into_iter().flat_map(|before| source.split(before).skip(1)) {
                text(import.split('"').next().unwrap());
            }
        }
    }
}
