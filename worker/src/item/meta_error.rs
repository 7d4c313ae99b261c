//! Meta's error codes, and what can be done about each. The code decides: Meta answers throttling with
//! HTTP 400, and some permanent errors with 500.

use schemars::JsonSchema;
use serde::Serialize;

/// What can be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErrorClass {
    /// Another try later may succeed.
    Transient,
    /// The token or its permissions don't suffice. Only a new token helps.
    Auth,
    /// The account, its number or its registration doesn't allow it. The operator of the account has to act.
    Account,
    /// This message or request will never succeed.
    Final,
    /// The code isn't known here.
    Unknown,
}

/// The class of an error code.
pub fn class(code: i64) -> ErrorClass {
    match code {
        1 | 2 | 4 | 80007 | 130429 | 131000 | 131016 | 131056 | 131057 | 133004 | 133015
        | 134101 | 2494100 => ErrorClass::Transient,
        0 | 3 | 10 | 102 | 190 | 200..=299 | 131005 => ErrorClass::Auth,
        33
        | 368
        | 130497
        | 131031
        | 131037
        | 131042
        | 131045
        | 131048
        | 131064
        | 133000
        | 133005
        | 133006
        | 133008..=133010
        | 133016 => ErrorClass::Account,
        // Coexistence: history shared or not, numbers joining and leaving.
        2593079 | 2593085 | 2593107..=2593109 => ErrorClass::Account,
        // 400: inbound media that Meta itself could not fetch.
        100 | 400 => ErrorClass::Final,
        130472
        | 130501
        | 131008
        | 131009
        | 131021
        | 131026
        | 131030
        | 131035
        | 131036
        | 131047
        | 131049..=131053
        | 131055
        | 131059
        | 131060
        | 131062
        | 131063 => ErrorClass::Final,
        132000 | 132001 | 132005 | 132007 | 132008 | 132012 | 132015 | 132016 | 132018 | 132068
        | 132069 | 134011 | 134100 | 134102 | 135000 | 136024 | 137000 => ErrorClass::Final,
        // Calls; flows; blocking of users.
        138000..=138018 | 139000..=139004 | 139100..=139103 => ErrorClass::Final,
        _ => ErrorClass::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_decides() {
        assert_eq!(class(130429), ErrorClass::Transient);
        assert_eq!(class(190), ErrorClass::Auth);
        assert_eq!(class(299), ErrorClass::Auth);
        assert_eq!(class(131042), ErrorClass::Account);
        assert_eq!(class(131026), ErrorClass::Final);
        assert_eq!(class(7), ErrorClass::Unknown);
    }
}
