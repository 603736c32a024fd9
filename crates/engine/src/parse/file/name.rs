//! The name of a series that has none but its file's.

use crate::event::MAX_NAME_BYTES;

/// The longest ending that is taken for one: `parquet`, `ndjson`.
const MAX_ENDING: usize = 8;

/// The metric for a file's only series: its name without directories, `.gz` or `.zst`, and ending.
///
/// Always a valid metric: control characters are left out, long names are cut, and what is empty then is `file`.
pub fn series_name(file: &str) -> String {
    let name: String = file.rsplit(['/', '\\']).next().unwrap_or(file).chars().filter(|c| !c.is_control()).collect();
    let mut stem = name.trim();
    for packed in [".gz", ".zst", ".zstd"] {
        if let Some(start) = stem.len().checked_sub(packed.len())
            && stem.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(packed))
        {
            stem = &stem[..start];
            break;
        }
    }
    if let Some((before, ending)) = stem.rsplit_once('.')
        && ending.len() <= MAX_ENDING
        && ending.bytes().all(|b| b.is_ascii_alphanumeric())
        && !ending.bytes().all(|b| b.is_ascii_digit())
    {
        stem = before;
    }
    let mut end = stem.len().min(MAX_NAME_BYTES);
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    match stem[..end].trim() {
        "" => "file".into(),
        stem => stem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::is_metric;

    #[test]
    fn a_series_is_named_after_its_file() {
        for (file, name) in [
            ("a.csv", "a"),
            ("a.csv.gz", "a"),
            ("A.CSV.GZ", "A"),
            ("a.zst", "a"),
            ("dir/sub\\a b.txt", "a b"),
            ("/tmp/cpu.usage.csv", "cpu.usage"),
            ("node-1.25", "node-1.25"),
            ("no_ending", "no_ending"),
            (".csv", "file"),
            (".gz", "file"),
            ("", "file"),
            ("dir/", "file"),
            ("a\n\0b.csv", "ab"),
            ("é.csv", "é"),
        ] {
            assert_eq!(series_name(file), name, "{file:?}");
        }
        let long = series_name(&"é".repeat(200));
        assert!(is_metric(&long) && long.len() == 254, "{}", long.len());
    }
}
