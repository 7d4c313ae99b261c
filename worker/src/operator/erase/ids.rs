//! Ids of customers as people write them.

/// What is accepted.
pub(in crate::operator) const ACCEPTED: &str = "a customer is a phone number with its country code (+49 151 23456789, \
     0049151…, 49151…) or a user id as Meta writes it (BSUID: DE.13491208655302741918)";
/// E.164 allows 15 digits; the shortest numbers have four behind their country code.
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;
/// What Meta says of user ids, and `ENT.` before it.
const LONGEST_USER_ID: usize = 132;

/// A phone number as its digits, or a user id as it is; `None`: neither.
pub(in crate::operator) fn read(typed: &str) -> Option<String> {
    let typed = typed.trim_matches(is_between_digits);
    if is_user_id(typed) {
        return Some(typed.to_owned());
    }
    phone(typed).filter(|digits| DIGITS.contains(&digits.len()) && !digits.starts_with('0'))
}

/// An id of a payload in the form of [`read`], whatever it is.
pub(super) fn reduced(id: &str) -> String {
    let plain = || id.trim().trim_start_matches('+').to_owned();
    read(id).unwrap_or_else(plain)
}

/// `CC.<letters and digits>`, or `CC.ENT.<…>`.
fn is_user_id(text: &str) -> bool {
    let Some((country, id)) = text.split_once('.') else {
        return false;
    };
    let is_country = country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase());
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
    is_country && id.len() <= LONGEST_USER_ID && id.split('.').all(is_word)
}

fn phone(typed: &str) -> Option<String> {
    let compact: String = typed
        .chars()
        .filter(|c| matches!(c, '(' | ')') || !is_between_digits(*c))
        .collect();
    let international = compact
        .strip_prefix('+')
        .or_else(|| compact.strip_prefix("00"));
    let compact = match international {
        // The zero that is dialled within the country only.
        Some(number) => number.replacen("(0)", "", 1),
        None => compact,
    };
    let digits = compact.replace(['(', ')'], "");
    digits.bytes().all(|b| b.is_ascii_digit()).then_some(digits)
}

/// Spaces, dashes, brackets, dots, and the invisible marks that come along when a number is copied.
fn is_between_digits(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '-' | '(' | ')' | '[' | ']' | '.' | '/')
        || matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_write_them_are_one_number() {
        for typed in [
            "4915123456789",
            "+4915123456789",
            " +49 151 2345-6789 ",
            "0049 (151) 2345.6789",
            "+49 (0) 151 23456789",
            "0049(0)151/23456789",
            "\u{202a}+49\u{a0}151\u{2011}23456789\u{202c}",
            "[49] 15123456789",
            "(+49) 151 23456789",
        ] {
            assert_eq!(read(typed).as_deref(), Some("4915123456789"), "{typed}");
        }
    }

    #[test]
    fn user_ids_are_taken_as_they_are() {
        for id in ["DE.7712345", "US.13491208655302741918", "US.ENT.118157Ab"] {
            assert_eq!(read(&format!(" {id}\n")).as_deref(), Some(id));
            assert_eq!(reduced(id), id);
        }
    }

    #[test]
    fn what_is_neither_is_nobody() {
        for typed in [
            "",
            "+",
            "00",
            "12",
            "0151 23456789",
            "1234567890123456",
            "ada",
            "de.77",
            "DE.",
            "DE..7",
            "DE.7/7",
            "wamid.HBgL",
            "49151x2345678",
            "+49+15123456789",
            "tenant-1",
        ] {
            assert_eq!(read(typed), None, "{typed}");
        }
    }
}
