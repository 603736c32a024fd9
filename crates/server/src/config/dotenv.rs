//! Reads `.env` files: `NAME=value`, quotes, comments. Nothing in a value is replaced, so a password may hold a `$`.

/// What a `.env` file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dotenv {
    /// Names and values in order.
    pub(super) values: Vec<(String, String)>,
    /// Numbers of the lines that are none, and what is wrong with them.
    pub(super) faults: Vec<(usize, String)>,
}

/// Reads the text of a file.
pub(super) fn parse(text: &str) -> Dotenv {
    let mut dotenv = Dotenv::default();
    for (i, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match assignment(line) {
            Ok(pair) => dotenv.values.push(pair),
            Err(message) => dotenv.faults.push((i + 1, message)),
        }
    }
    dotenv
}

fn assignment(line: &str) -> Result<(String, String), String> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or_else(|| format!("must be NAME=value, got {line:?}"))?;
    let name = name.trim();
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_name {
        return Err(format!("must be NAME=value, got the name {name:?}"));
    }
    Ok((name.to_owned(), unquote(value.trim())?))
}

/// A value without its quotes and the comment behind it. In single quotes all stands for itself, in double quotes `\n`,
/// `\t`, `\"` and `\\` are read; without quotes a comment begins with a `#` after white space.
fn unquote(value: &str) -> Result<String, String> {
    let Some(quote) = value.chars().next().filter(|c| ['"', '\''].contains(c)) else {
        let comment = value.match_indices('#').map(|(at, _)| at).find(|&at| at == 0 || value[..at].ends_with([' ', '\t']));
        return Ok(value[..comment.unwrap_or(value.len())].trim_end().to_owned());
    };
    let mut text = String::new();
    let mut chars = value[1..].chars();
    loop {
        match chars.next() {
            None => return Err(format!("a quote is not closed: {value}")),
            Some(c) if c == quote => break,
            Some('\\') if quote == '"' => match chars.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(c @ ('"' | '\\' | '$')) => text.push(c),
                other => {
                    text.push('\\');
                    text.extend(other);
                }
            },
            Some(c) => text.push(c),
        }
    }
    let rest = chars.as_str().trim_start();
    if rest.is_empty() || rest.starts_with('#') { Ok(text) } else { Err(format!("text behind the closing quote: {value}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_quotes_and_comments() {
        for (line, value) in [
            ("A=300", "300"),
            ("A=300.0   # five minutes", "300.0"),
            ("  export A = b c\t# comment", "b c"),
            ("A=https://x/#top", "https://x/#top"),
            ("A=# nothing", ""),
            ("A=", ""),
            ("A='a # \"b\" $HOME \\n'  # why", "a # \"b\" $HOME \\n"),
            ("A=\"a\\n\\\"b\\\" # c\\\\\"", "a\n\"b\" # c\\"),
            ("A=pa$$word", "pa$$word"),
            ("A=a=b", "a=b"),
        ] {
            assert_eq!(parse(line), Dotenv { values: vec![("A".into(), value.into())], faults: vec![] }, "{line}");
        }
    }

    #[test]
    fn blank_lines_comments_and_carriage_returns_do_not_matter() {
        let Dotenv { values, faults } = parse("\u{feff}# settings\r\n\r\nA=1\r\n   # more\r\nB=2\r\n");
        assert_eq!((values.len(), values[0].1.as_str(), values[1].1.as_str(), faults.len()), (2, "1", "2", 0));
    }

    #[test]
    fn a_line_that_is_none_is_told_with_its_number_and_the_others_are_read() {
        let Dotenv { values, faults } = parse("A=1\nwhat is this\nB='x\nC=2\nD D=3\nE=\"a\" b");
        assert_eq!(values.len(), 2);
        assert_eq!(faults.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 5, 6]);
    }
}
