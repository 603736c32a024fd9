//! Writing JSON text: strings and numbers.

/// Appends `text` as a JSON string.
pub fn push_str(out: &mut String, text: &str) {
    out.push('"');
    let mut from = 0;
    for (i, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[from..i]);
        from = i + 1;
        if escape.is_empty() {
            use std::fmt::Write as _;
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[from..]);
    out.push('"');
}

/// Appends a finite number in the fewest digits that read back to the same bits.
pub fn push_f64(out: &mut String, number: f64) {
    out.push_str(ryu::Buffer::new().format_finite(number));
}

/// Appends a number, or `null`.
pub fn push_optional_f64(out: &mut String, number: Option<f64>) {
    match number {
        Some(number) => push_f64(out, number),
        None => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_and_number_read_back() {
        for text in ["", "plain", "q\"u\\o\n\r\t\u{1}\u{7f}é😀</script>"] {
            let mut out = String::new();
            push_str(&mut out, text);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
        for number in [0.0, -0.0, 95.0, 1e300, 5e-324, 0.1, -1.7976931348623157e308] {
            let mut out = String::new();
            push_f64(&mut out, number);
            assert_eq!(out.parse::<f64>().unwrap().to_bits(), f64::to_bits(number), "{out}");
        }
    }
}
