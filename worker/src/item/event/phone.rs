//! Phone numbers: from WhatsApp's ids to numbers that can be dialled. An id is no phone number: some
//! countries' ids differ from what is dialled, and no number is refused for being unknown here.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use phonenumber::country;
use phonenumber::metadata::DATABASE;

/// Results that are kept, since parsing takes 3 to 12 µs and numbers repeat: the business's own in every item.
const MOST_KEPT: usize = 8_192;

/// A number that can be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Phone {
    /// `+` and digits.
    pub e164: String,
    /// ISO 3166, where the number tells.
    pub country: Option<String>,
}

static KEPT: LazyLock<Mutex<HashMap<String, Option<Phone>>>> = LazyLock::new(Mutex::default);

/// Loads the numbering plans (50 ms), so that no item has to wait for it.
pub fn load() {
    LazyLock::force(&KEPT);
    let _phone = parse("15550783881");
}

/// Reads a number that Meta writes with or without `+`, spaces and dashes; `None` for what has other
/// characters, or not as many digits as a phone number.
pub fn parse(number: &str) -> Option<Phone> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(phone) = kept.get(number) {
        return phone.clone();
    }
    drop(kept);
    let phone = read(number);
    kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= MOST_KEPT {
        kept.clear();
    }
    kept.insert(number.to_owned(), phone.clone());
    phone
}

fn read(number: &str) -> Option<Phone> {
    let foreign = |c: char| !(c.is_ascii_digit() || matches!(c, '+' | ' ' | '-' | '(' | ')'));
    if number.contains(foreign) {
        return None;
    }
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    if !(7..=15).contains(&digits.len()) {
        return None;
    }
    let e164 = format!("+{}", dialled(digits));
    let country = phonenumber::parse(None, &e164)
        .ok()
        .and_then(|phone| country_of(&phone));
    Some(Phone { e164, country })
}

/// The digits to dial. Meta's ids drop or keep digits of older numbering plans:
/// Brazil's mobiles lost a 9 (`55 DDD XXXXXXXX` for `55 DDD 9 XXXXXXXX`; landlines begin with 2 to
/// 5), Mexico's have a 1 that is dialled no more (`521` for `52`). Argentina's `549` is what is
/// dialled from abroad, and stays.
fn dialled(digits: String) -> String {
    let bytes = digits.as_bytes();
    match (bytes, bytes.len()) {
        ([b'5', b'5', _, _, b'6'..=b'9', ..], 12) => {
            let (area, subscriber) = digits.split_at_checked(4).unwrap_or((&digits, ""));
            format!("{area}9{subscriber}")
        }
        ([b'5', b'2', b'1', ..], 13) => {
            let (_, national) = digits.split_at_checked(3).unwrap_or(("", &digits));
            format!("52{national}")
        }
        _ => digits,
    }
}

fn country_of(phone: &phonenumber::PhoneNumber) -> Option<String> {
    let only = || match DATABASE.region(&phone.code().value())?.as_slice() {
        [only] if *only != "001" => Some((*only).to_owned()),
        _ => None,
    };
    let id = phone
        .country()
        .id()
        .map(|id: country::Id| id.as_ref().to_owned());
    id.or_else(only)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(number: &str) -> Option<(String, String)> {
        let phone = parse(number)?;
        Some((phone.e164, phone.country.unwrap_or_default()))
    }

    #[test]
    fn ids_become_numbers_that_can_be_dialled() {
        for (id, e164, country) in [
            ("16505551234", "+16505551234", "US"),
            ("+1 (650) 555-1234", "+16505551234", "US"),
            ("972987654321", "+972987654321", "IL"),
            // The ninth digit of mobiles, not of landlines, and only where it is missing.
            ("551187654321", "+5511987654321", "BR"),
            ("5511987654321", "+5511987654321", "BR"),
            ("551133334444", "+551133334444", "BR"),
            ("5215512345678", "+525512345678", "MX"),
            ("525512345678", "+525512345678", "MX"),
            ("5491123456789", "+5491123456789", "AR"),
            ("541123456789", "+541123456789", "AR"),
            ("393401234567", "+393401234567", "IT"),
        ] {
            assert_eq!(
                both(id),
                Some((e164.to_owned(), country.to_owned())),
                "{id}"
            );
        }
    }

    #[test]
    fn no_number_is_refused_for_being_unknown() {
        assert_eq!(
            both("9991234567"),
            Some(("+9991234567".to_owned(), String::new()))
        );
        // The plans have two countries for it, and the library does not tell which.
        let rome = Some(("+390612345678".to_owned(), String::new()));
        assert_eq!(both("390612345678"), rome);
        assert_eq!(both("US.1349"), None);
        assert_eq!(both("US.13491208655"), None);
        assert_eq!(both("123"), None);
        assert_eq!(both(""), None);
    }
}
